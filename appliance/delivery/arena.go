package delivery

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/klauspost/compress/s2"
)

const (
	// arenaBytes is the memory in which partitions are gathered in one pass
	// over the log, compressed, so that it holds several times its size. It
	// is of a region.
	arenaBytes = 4 << 20
	// chunkBytes is the unit of it that a partition takes.
	chunkBytes = 1 << 10
	// Each partition of a pass collects so much before it is compressed: as
	// much as a quarter of the arena gives all of them.
	leastStage, mostStage = 512, 64 << 10
)

// arena holds the records of a group of partitions. It is used for one pass at
// a time and can be used again. It has its memory from reset to free only.
type arena struct {
	mem   []byte   // nil but from reset to free
	used  int      // of mem, by stages, from the start
	next  int      // first chunk never taken since reset
	given []uint16 // chunks given back
	slots []slot
	block []byte // compressed, on its way in or out
	raw   []byte // a block's records
	in    int64  // bytes compressed since reset
	out   int64  // what they became
}

// slot is one partition of the group.
type slot struct {
	stage   []byte   // not compressed yet
	chunks  []uint16 // of the blocks, in order
	size    int      // bytes in chunks
	bytes   int64    // of record data taken
	dropped bool     // had to make room
}

var errArenaFull = errors.New("arena is full")

// stageSize is how much each of the partitions, whose sizes are given, may
// collect, so that all together take no more than a quarter of the arena; the
// least when even that is too much.
func stageSize(needs []int64) int {
	for size := mostStage; size > leastStage; size /= 2 {
		total := int64(0)
		for _, n := range needs {
			total += min(n, int64(size))
		}
		if total <= arenaBytes/4 {
			return size
		}
	}
	return leastStage
}

// reset makes room for partitions of the sizes given, their lengths included.
func (a *arena) reset(needs []int64) error {
	if a.mem == nil {
		mem, err := regions.take()
		if err != nil {
			return err
		}
		a.mem = mem[:arenaBytes]
	}
	a.used, a.given, a.in, a.out = 0, a.given[:0], 0, 0
	if cap(a.slots) < len(needs) {
		a.slots = make([]slot, len(needs))
	}
	a.slots = a.slots[:len(needs)]
	size := stageSize(needs)
	for i, n := range needs {
		end := a.used + int(min(n, int64(size)))
		a.slots[i] = slot{stage: a.mem[a.used:a.used:end], chunks: a.slots[i].chunks[:0]}
		a.used = end
	}
	a.next = (a.used + chunkBytes - 1) / chunkBytes
	return nil
}

// free gives the memory back. Nothing that each gave may be in use.
func (a *arena) free() {
	for i := range a.slots {
		a.slots[i].stage = nil
	}
	if a.mem != nil {
		regions.give(a.mem)
		a.mem = nil
	}
}

// add puts a record into a slot. When there is no room left, the last slots
// are dropped, one after the other, until there is.
func (a *arena) add(i int, data []byte) error {
	s := &a.slots[i]
	if s.dropped {
		return nil
	}
	s.bytes += int64(len(data))
	var length [binary.MaxVarintLen32]byte
	head := binary.AppendUvarint(length[:0], uint64(len(data)))
	need := len(head) + len(data)
	if len(s.stage)+need > cap(s.stage) {
		if err := a.pack(i, s.stage); err != nil || s.dropped {
			return err
		}
		s.stage = s.stage[:0]
	}
	if need <= cap(s.stage) {
		s.stage = append(append(s.stage, head...), data...)
		return nil
	}
	a.raw = append(append(a.raw[:0], head...), data...)
	return a.pack(i, a.raw)
}

// pack compresses raw into chunks of the slot.
func (a *arena) pack(i int, raw []byte) error {
	if len(raw) == 0 {
		return nil
	}
	if n := s2.MaxEncodedLen(len(raw)); cap(a.block) < n+binary.MaxVarintLen32 {
		a.block = make([]byte, n+binary.MaxVarintLen32)
	}
	body := s2.Encode(a.block[binary.MaxVarintLen32:cap(a.block)], raw)
	var length [binary.MaxVarintLen32]byte
	head := binary.PutUvarint(length[:], uint64(len(body)))
	block := a.block[binary.MaxVarintLen32-head : binary.MaxVarintLen32+len(body)]
	copy(block, length[:head])
	a.in += int64(len(raw))
	a.out += int64(len(block))
	s := &a.slots[i]
	for len(block) > 0 {
		at := s.size % chunkBytes
		if at == 0 {
			c, err := a.take()
			if err != nil {
				return err
			}
			if s.dropped {
				a.given = append(a.given, c)
				return nil
			}
			s.chunks = append(s.chunks, c)
		}
		chunk := a.chunk(s.chunks[len(s.chunks)-1])
		n := copy(chunk[at:], block)
		s.size += n
		block = block[n:]
	}
	return nil
}

func (a *arena) chunk(c uint16) []byte {
	return a.mem[int(c)*chunkBytes : (int(c)+1)*chunkBytes]
}

// take returns an unused chunk, dropping slots until there is one.
func (a *arena) take() (uint16, error) {
	for last := len(a.slots) - 1; ; last-- {
		if n := len(a.given); n > 0 {
			c := a.given[n-1]
			a.given = a.given[:n-1]
			return c, nil
		}
		if a.next < len(a.mem)/chunkBytes {
			a.next++
			return uint16(a.next - 1), nil
		}
		if last < 0 {
			return 0, errArenaFull
		}
		s := &a.slots[last]
		s.dropped = true
		a.given = append(a.given, s.chunks...)
		s.chunks = s.chunks[:0]
	}
}

// kept is how many of the slots, from the first on, hold all they were given.
func (a *arena) kept() int {
	for i := range a.slots {
		if a.slots[i].dropped {
			return i
		}
	}
	return len(a.slots)
}

// each gives the records of a slot in the order in which they were added.
// What is given is valid until emit returns; nothing may be added meanwhile.
func (a *arena) each(i int, emit func(data []byte) error) error {
	s := &a.slots[i]
	for at := 0; at < s.size; {
		var size uint64
		for shift := 0; ; shift += 7 {
			b := a.chunk(s.chunks[at/chunkBytes])[at%chunkBytes]
			at++
			size |= uint64(b&0x7f) << shift
			if b < 0x80 {
				break
			}
		}
		if size > uint64(s.size-at) {
			return fmt.Errorf("BUG: arena slot is cut at %d of %d", at, s.size)
		}
		a.block = a.block[:0]
		for end := at + int(size); at < end; {
			chunk := a.chunk(s.chunks[at/chunkBytes])[at%chunkBytes:]
			n := min(len(chunk), end-at)
			a.block = append(a.block, chunk[:n]...)
			at += n
		}
		raw, err := s2.Decode(a.raw[:cap(a.raw)], a.block)
		if err != nil {
			return fmt.Errorf("BUG: arena slot: %w", err)
		}
		a.raw = raw
		if err := records(raw, emit); err != nil {
			return err
		}
	}
	return records(s.stage, emit)
}

// records gives each record of raw, which is preceded by its length.
func records(raw []byte, emit func(data []byte) error) error {
	for rest := raw; len(rest) > 0; {
		size, n := binary.Uvarint(rest)
		if n <= 0 || size > uint64(len(rest)-n) {
			return fmt.Errorf("BUG: arena block is cut at %d of %d", len(raw)-len(rest), len(raw))
		}
		if err := emit(rest[n : n+int(size)]); err != nil {
			return err
		}
		rest = rest[n+int(size):]
	}
	return nil
}

// arenas lends what partitions are gathered in.
type arenas struct{ idle chan *arena }

// newArenas keeps two that are not in use, without their memory: as many recipes of
// a stream are under way.
func newArenas() *arenas { return &arenas{idle: make(chan *arena, 2)} }

func (a *arenas) get() *arena {
	select {
	case b := <-a.idle:
		return b
	default:
		return &arena{}
	}
}

func (a *arenas) put(b *arena) {
	b.free()
	select {
	case a.idle <- b:
	default:
	}
}
