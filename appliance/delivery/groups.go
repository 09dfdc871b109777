package delivery

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
)

const (
	// maxAssigned is for how many records of a recipe the partition is
	// remembered, so that later passes over the log need neither the query
	// nor a comparison. Those after it go by their keys in every pass.
	maxAssigned = 2 << 20
	// partitionedBytes bounds the source bytes of a partitioned recipe.
	partitionedBytes = 256 << 20
	// maxReads is how often the log may have to be read for a recipe, once for
	// each arena full of its output: records that compress badly have smaller
	// recipes.
	maxReads = 16
	// passBytes is how much of the arena a group is expected to fill.
	passBytes = arenaBytes * 3 / 4
	// unassigned marks records that failed.
	unassigned = 0xffff
	// maxPartitions bounds the objects of one recipe. Above it a partition is
	// one object, whatever its size.
	maxPartitions = 60_000
)

// plan is what the first pass over a partitioned recipe found: which
// partitions there are and how big each is. It holds no data.
type plan struct {
	partitions []*partition      // one for each object
	index      map[string]uint16 // by partition id: the last of its objects
	assigned   assignment        // by ordinal of the item
	items      int               // of the recipe
	most       int               // partitions that may be active
	size       int64             // bytes at which a partition's object is full
	id         []byte
}

func newPlan(c *Config, r *Recipe) *plan {
	return &plan{
		index: map[string]uint16{}, assigned: newAssignment(int(min(r.Records(), maxAssigned))),
		most: c.Partition.MaxActive, size: c.Buffer.SizeBytes,
	}
}

// assignment is the objects that items belong to, by their ordinals. It takes one byte
// for each while there are fewer than 255 objects, and two from then on.
type assignment struct {
	low, high []byte // of the object's number and one; 0: unassigned. high is nil until one is needed
}

// newAssignment has room for n items, and grows beyond.
func newAssignment(n int) assignment { return assignment{low: make([]byte, 0, n)} }

func (a *assignment) len() int { return len(a.low) }

func (a *assignment) add(n uint16) {
	n++ // unassigned is the largest
	if n > 0xff && a.high == nil {
		a.high = make([]byte, len(a.low), cap(a.low))
	}
	a.low = append(a.low, byte(n))
	if a.high != nil {
		a.high = append(a.high, byte(n>>8))
	}
}

func (a *assignment) at(i int) uint16 {
	n := uint16(a.low[i])
	if a.high != nil {
		n |= uint16(a.high[i]) << 8
	}
	return n - 1
}

// partition is one object's worth of the records that share their keys.
type partition struct {
	part    string // identity among the recipe's objects
	values  []string
	serial  int // of the objects with these values, from 0
	records int64
	bytes   int64  // of data
	bad     string // why no object can have its name: its records fail
}

// partitionPart is the name of a partition's object among the parts of its
// recipe.
func partitionPart(id []byte, serial int) string {
	sum := sha256.Sum256(id)
	part := "p:" + hex.EncodeToString(sum[:12])
	if serial > 0 {
		part += ":" + strconv.Itoa(serial)
	}
	return part
}

// take finds the object for the next item of the recipe. A full one is
// followed by another, as long as there is room to remember which records are
// in which. It returns unassigned for an item that failed, and when too many
// partitions are active.
func (p *plan) take(it *item) uint16 {
	n := uint16(unassigned)
	if it.fail == nil {
		n = p.object(it.values)
	}
	if n != unassigned {
		q := p.partitions[n]
		q.records++
		q.bytes += int64(len(it.data))
	}
	if p.items++; p.assigned.len() < maxAssigned {
		p.assigned.add(n)
	}
	return n
}

func (p *plan) object(values []string) uint16 {
	p.id = partitionID(p.id[:0], values)
	n, known := p.index[string(p.id)]
	switch {
	case !known && len(p.index) >= p.most:
		return unassigned
	case !known:
		return p.add(values, 0)
	case p.partitions[n].bytes >= p.size && p.assigned.len() < maxAssigned && len(p.partitions) < maxPartitions:
		return p.add(values, p.partitions[n].serial+1)
	}
	return n
}

// add begins an object for the values of p.id.
func (p *plan) add(values []string, serial int) uint16 {
	n := uint16(len(p.partitions))
	p.index[string(p.id)] = n
	own := make([]string, len(values))
	for i, v := range values {
		own[i] = strings.Clone(v)
	}
	p.partitions = append(p.partitions, &partition{part: partitionPart(p.id, serial), values: own, serial: serial})
	return n
}

// at is the object of the item with an ordinal.
func (p *plan) at(ordinal int, it *item) uint16 {
	if ordinal < p.assigned.len() {
		return p.assigned.at(ordinal)
	}
	if n, known := p.index[string(partitionID(nil, it.values))]; known && it.fail == nil {
		return n
	}
	return unassigned
}

// errNotDeterministic means that two passes over the same records differ.
var errNotDeterministic = &SinkError{
	Code: "Transform.NotDeterministic", Refused: true,
	Err: errors.New("the module gave other results for the same records; partitioned delivery needs a module without clock, randomness or state"),
}

// partitions stores the recipe's partitions: gathered in memory,
// as many as an arena holds compressed for each pass over the log; one that is
// too big for it is made in a pass of its own.
func (j *job) partitions(ctx context.Context, sink ObjectSink) error {
	if j.plan == nil {
		p, err := j.count(ctx)
		if err != nil {
			return err
		}
		j.plan = p
		j.stats.partitions.Store(int64(len(p.index)))
	}
	ratio := leastRatio
	if percent := j.stats.ratio.Load(); percent > 0 {
		ratio = float64(percent) / 100
	}
	for i := 0; i < len(j.plan.partitions); {
		group, needs, next := j.group(i, ratio)
		if len(group) == 0 {
			return nil
		}
		kept := 0
		if len(group) > 1 {
			var err error
			if kept, ratio, err = j.putGroup(ctx, sink, group, needs, ratio); err != nil {
				return err
			}
		}
		if kept == 0 { // it is alone, or too big for the arena
			if err := j.putPartition(ctx, sink, j.plan.partitions[group[0]], j.only(group[0])); err != nil {
				return err
			}
			kept = 1
		}
		if i = next; kept < len(group) {
			i = group[kept]
		}
	}
	return nil
}

// leastRatio is how far records are taken to compress before it is known.
const leastRatio = 3.0

// group chooses partitions to do, from the i-th on, that an arena should hold
// if they compress as expected, and returns what each needs and where the next
// group begins.
func (j *job) group(i int, ratio float64) (group []int, needs []int64, next int) {
	room, stages := int64(ratio*passBytes), int64(0)
	for ; i < len(j.plan.partitions); i++ {
		p := j.plan.partitions[i]
		if j.parts[p.part] {
			continue
		}
		need := p.arenaBytes()
		room -= need
		stages += min(need, leastStage)
		if len(group) > 0 && (room < 0 || stages > arenaBytes/2) {
			break
		}
		group, needs = append(group, i), append(needs, need)
	}
	return group, needs, i
}

// arenaBytes is what the partition takes in the arena: each record with its
// length before it.
func (p *partition) arenaBytes() int64 { return p.bytes + p.records*binary.MaxVarintLen32 }

// count makes the first pass. Partitions beyond the limit of active ones fail,
// in the order in which they appear.
func (j *job) count(ctx context.Context) (*plan, error) {
	p := newPlan(&j.bind.config, j.recipe)
	_, err := j.pipe.run(ctx, j.recipe, stageFunc(func(it *item) error {
		switch n := p.take(it); {
		case it.fail != nil:
			j.kinds[it.fail.kind] = true
		case n == unassigned:
			j.kinds[processingFailed] = true
		}
		return nil
	}))
	if err != nil {
		return nil, err
	}
	return p, nil
}

// pass runs the pipeline once more, without the query where it can, and gives
// each good record with its partition.
func (j *job) pass(ctx context.Context, emit func(partition int, data []byte) error) error {
	again := *j.pipe
	again.known = j.plan.assigned.len()
	if again.known == j.plan.items {
		again.query = nil
	}
	ordinal := 0
	_, err := again.run(ctx, j.recipe, stageFunc(func(it *item) error {
		if ordinal == j.plan.items {
			return errNotDeterministic
		}
		n := j.plan.at(ordinal, it)
		if ordinal++; n == unassigned {
			return nil
		}
		return emit(int(n), it.data)
	}))
	if err == nil && ordinal != j.plan.items {
		err = errNotDeterministic
	}
	return err
}

// only is the source of one big partition.
func (j *job) only(i int) source {
	return func(ctx context.Context, emit func([]byte) error) error {
		return j.pass(ctx, func(n int, data []byte) error {
			if n != i {
				return nil
			}
			return emit(data)
		})
	}
}

// putGroup gathers the group's records in one pass and stores the objects of as
// many of its partitions, from the first on, as the arena could hold. ratio
// becomes what records compressed to.
func (j *job) putGroup(ctx context.Context, sink ObjectSink, group []int, needs []int64, ratio float64) (kept int, measured float64, err error) {
	place := make(map[int]int, len(group))
	for k, i := range group {
		place[i] = k
	}
	a := j.engine.arenas.get()
	defer j.engine.arenas.put(a)
	if err := a.reset(needs); err != nil {
		return 0, ratio, err
	}
	err = j.pass(ctx, func(n int, data []byte) error {
		k, mine := place[n]
		if !mine {
			return nil
		}
		return a.add(k, data)
	})
	if err != nil {
		return 0, ratio, err
	}
	if a.out > chunkBytes {
		ratio = min(max(float64(a.in)/float64(a.out), 1), 20)
		j.stats.ratio.Store(int64(ratio * 100))
	}
	kept = a.kept()
	for k, i := range group[:kept] {
		p := j.plan.partitions[i]
		if a.slots[k].bytes != p.bytes {
			return 0, ratio, errNotDeterministic
		}
		from := func(ctx context.Context, emit func([]byte) error) error {
			return errors.Join(a.each(k, emit), ctx.Err())
		}
		if err := j.putPartition(ctx, sink, p, from); err != nil {
			return 0, ratio, err
		}
	}
	return kept, ratio, nil
}

// putPartition stores a partition as an object. When there can't be one of its name, its
// records have failed.
func (j *job) putPartition(ctx context.Context, sink ObjectSink, p *partition, from source) error {
	keys := map[string]string{}
	for i, name := range j.keyNames() {
		if i < len(p.values) {
			keys[name] = p.values[i]
		}
	}
	o := &objectSpec{
		part: p.part, sink: sink, target: "sink", expression: j.bind.data, keys: keys,
		extension: j.extension(), contentType: j.contentType(), render: j.dataRender(p.part, from),
	}
	err := j.put(ctx, o)
	var s *SinkError
	if !errors.As(err, &s) || !s.BadName {
		return err
	}
	// Whoever puts records chooses the keys: one of them must not be in the way of all others.
	p.bad = err.Error()
	j.parts[p.part], j.kinds[processingFailed] = true, true
	return nil
}

// keyNames are the names of the partition keys in the order of their values:
// those of the module first, then those of the query.
func (j *job) keyNames() []string {
	names := append([]string(nil), j.pipe.modKeys...)
	if j.bind.query != nil {
		names = append(names, j.bind.query.names...)
	}
	return names
}
