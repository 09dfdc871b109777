package delivery

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const (
	// maxAssigned is for how many records of a recipe the partition is
	// remembered, so that later passes over the log need neither the query
	// nor a comparison. Those after it go by their keys in every pass.
	maxAssigned = 2 << 20
	assignBytes = 2 * maxAssigned
	// partitionedBytes bounds the source bytes of a partitioned recipe,
	// because the log is read about once for each arena of its output.
	partitionedBytes = 256 << 20
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
	assigned   []uint16          // by ordinal of the item; unassigned: failed
	items      int               // of the recipe
	most       int               // partitions that may be active
	size       int64             // bytes at which a partition's object is full
	id         []byte
}

func newPlan(c *Config, r *Recipe) *plan {
	return &plan{
		index: map[string]uint16{}, assigned: make([]uint16, 0, min(r.Records(), maxAssigned)),
		most: c.Partition.MaxActive, size: c.Buffer.SizeBytes,
	}
}

// partition is one object's worth of the records that share their keys.
type partition struct {
	part    string // identity among the recipe's objects
	values  []string
	serial  int // of the objects with these values, from 0
	records int64
	bytes   int64 // of data
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
	if p.items++; len(p.assigned) < maxAssigned {
		p.assigned = append(p.assigned, n)
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
	case p.partitions[n].bytes >= p.size && len(p.assigned) < maxAssigned && len(p.partitions) < maxPartitions:
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
	if ordinal < len(p.assigned) {
		return p.assigned[ordinal]
	}
	if n, known := p.index[string(partitionID(nil, it.values))]; known && it.fail == nil {
		return n
	}
	return unassigned
}

// errNotDeterministic means that two passes over the same records differ.
var errNotDeterministic = errors.New("the module gave other results for the same records; partitioned delivery needs a module without clock, randomness or state")

// partitions stores the recipe's partitions: small ones gathered in memory,
// as many as an arena holds for each pass over the log, big ones each in a
// pass of its own.
func (j *job) partitions(ctx context.Context, sink ObjectSink) error {
	if j.plan == nil {
		p, err := j.count(ctx)
		if err != nil {
			return err
		}
		j.plan = p
		j.engine.observePartitions(j.def.ID, len(p.index))
	}
	var group []int
	size := int64(0)
	for i, p := range j.plan.partitions {
		if j.parts[p.part] {
			continue
		}
		need := p.arenaBytes()
		if need > arenaBytes {
			if err := j.putPartition(ctx, sink, p, j.only(i)); err != nil {
				return err
			}
			continue
		}
		if size+need > arenaBytes {
			if err := j.putGroup(ctx, sink, group); err != nil {
				return err
			}
			group, size = group[:0], 0
		}
		group = append(group, i)
		size += need
	}
	return j.putGroup(ctx, sink, group)
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
	again.known = len(j.plan.assigned)
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

// putGroup gathers the group's records in one pass and stores its objects.
func (j *job) putGroup(ctx context.Context, sink ObjectSink, group []int) error {
	if len(group) == 0 {
		return nil
	}
	place := make(map[int]int, len(group))
	total := int64(0)
	slots := make([][]byte, len(group))
	for k, i := range group {
		place[i] = k
		total += j.plan.partitions[i].arenaBytes()
	}
	arena := j.engine.arenas.get(total)
	defer j.engine.arenas.put(arena)
	rest := arena[:total]
	for k, i := range group {
		n := j.plan.partitions[i].arenaBytes()
		slots[k], rest = rest[:0:n], rest[n:]
	}
	err := j.pass(ctx, func(n int, data []byte) error {
		k, mine := place[n]
		if !mine {
			return nil
		}
		slot := binary.AppendUvarint(slots[k], uint64(len(data)))
		if len(slot)+len(data) > int(j.plan.partitions[n].arenaBytes()) {
			return errNotDeterministic
		}
		slots[k] = append(slot, data...)
		return nil
	})
	if err != nil {
		return err
	}
	for k, i := range group {
		if err := j.putPartition(ctx, sink, j.plan.partitions[i], fromSlot(slots[k])); err != nil {
			return err
		}
	}
	return nil
}

// fromSlot is the source of a partition gathered in the arena.
func fromSlot(slot []byte) source {
	return func(ctx context.Context, emit func([]byte) error) error {
		for rest := slot; len(rest) > 0; {
			size, n := binary.Uvarint(rest)
			if n <= 0 || size > uint64(len(rest)-n) {
				return fmt.Errorf("BUG: arena slot is cut at %d of %d", len(slot)-len(rest), len(slot))
			}
			if err := emit(rest[n : n+int(size)]); err != nil {
				return err
			}
			rest = rest[n+int(size):]
		}
		return ctx.Err()
	}
}

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
	return j.put(ctx, o)
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

// arenas lends the memory that small partitions are gathered in.
type arenas struct{ free chan []byte }

func newArenas() *arenas { return &arenas{free: make(chan []byte, 1)} }

func (a *arenas) get(n int64) []byte {
	select {
	case b := <-a.free:
		if int64(cap(b)) >= n {
			return b[:cap(b)]
		}
	default:
	}
	return make([]byte, max(n, min(arenaBytes, n*2)))
}

func (a *arenas) put(b []byte) {
	select {
	case a.free <- b:
	default:
	}
}
