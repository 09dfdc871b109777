package delivery

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

const (
	// maxAssigned is how many records a partitioned recipe may have; each
	// one's partition is remembered, so that later passes over the log need
	// neither the query nor a comparison.
	maxAssigned = 2 << 20
	assignBytes = 2 * maxAssigned
	// partitionedBytes bounds the source bytes of a partitioned recipe,
	// because the log is read about once for each arena of its output.
	partitionedBytes = 256 << 20
	// unassigned marks records that failed.
	unassigned = 0xffff
)

// plan is what the first pass over a partitioned recipe found: which
// partitions there are and how big each is. It holds no data.
type plan struct {
	partitions []*partition
	index      map[string]uint16 // by partition id
	assigned   []uint16          // by ordinal of the item; unassigned: failed
}

type partition struct {
	part    string // identity among the recipe's objects
	values  []string
	records int64
	bytes   int64 // of data
}

// partitionPart is the name of a partition among the parts of its recipe.
func partitionPart(id []byte) string {
	sum := sha256.Sum256(id)
	return "p:" + hex.EncodeToString(sum[:12])
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
		j.engine.observePartitions(j.def.ID, len(p.partitions))
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
	p := &plan{index: map[string]uint16{}}
	var id []byte
	_, err := j.pipe.run(ctx, j.recipe, stageFunc(func(it *item) error {
		if it.fail != nil {
			j.kinds[it.fail.kind] = true
			p.assigned = append(p.assigned, unassigned)
			return nil
		}
		id = partitionID(id[:0], it.values)
		n, known := p.index[string(id)]
		if !known {
			if len(p.partitions) >= j.bind.config.Partition.MaxActive {
				j.kinds[processingFailed] = true
				p.assigned = append(p.assigned, unassigned)
				return nil
			}
			n = uint16(len(p.partitions))
			p.index[string(id)] = n
			values := make([]string, len(it.values))
			for i, v := range it.values {
				values[i] = strings.Clone(v)
			}
			p.partitions = append(p.partitions, &partition{part: partitionPart(id), values: values})
		}
		q := p.partitions[n]
		q.records++
		q.bytes += int64(len(it.data))
		p.assigned = append(p.assigned, n)
		return nil
	}))
	if err != nil {
		return nil, err
	}
	return p, nil
}

// pass runs the pipeline once more, without the query, and gives each good
// record with its partition.
func (j *job) pass(ctx context.Context, emit func(partition int, data []byte) error) error {
	again := *j.pipe
	again.query = nil
	ordinal := 0
	_, err := again.run(ctx, j.recipe, stageFunc(func(it *item) error {
		if ordinal >= len(j.plan.assigned) {
			return errNotDeterministic
		}
		n := j.plan.assigned[ordinal]
		ordinal++
		if n == unassigned {
			return nil
		}
		return emit(int(n), it.data)
	}))
	if err == nil && ordinal != len(j.plan.assigned) {
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

func newArenas() *arenas { return &arenas{free: make(chan []byte, 2)} }

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
