package commit

import (
	"sync"

	"github.com/weirhq/weir/storage/record"
)

// Chunk sizes. A transaction's records lie in chunks that never move: the first is as
// large as the transaction said it would be, further ones four times as large as the
// one before.
var chunkSizes = [...]int{256, 1 << 10, 4 << 10, 16 << 10, 64 << 10}

const (
	// maxIdleChunkBytes bounds the chunks kept for later transactions.
	maxIdleChunkBytes = 3 << 20
	// keptChunkBytes is the largest chunk that a transaction keeps for its next use.
	keptChunkBytes = 4 << 10
)

// chunk is memory for records: keys, hash keys and data, one record after the other.
type chunk struct{ b []byte }

// chunks keeps used chunks, by size.
type chunks struct {
	mu struct {
		sync.Mutex
		idle  [len(chunkSizes)][]*chunk
		bytes int
	}
}

// get returns a chunk of at least need bytes, and of at least want when
// that is a size we keep.
func (c *chunks) get(need, want int) *chunk {
	class := 0
	for class < len(chunkSizes)-1 && chunkSizes[class] < max(need, want) {
		class++
	}
	size := chunkSizes[class]
	if need > size {
		return &chunk{make([]byte, 0, need)}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if idle := c.mu.idle[class]; len(idle) > 0 {
		b := idle[len(idle)-1]
		idle[len(idle)-1] = nil
		c.mu.idle[class] = idle[:len(idle)-1]
		c.mu.bytes -= size
		return b
	}
	return &chunk{make([]byte, 0, size)}
}

func (c *chunks) put(b *chunk) {
	for class, size := range chunkSizes {
		if cap(b.b) != size {
			continue
		}
		b.b = b.b[:0]
		c.mu.Lock()
		if c.mu.bytes+size <= maxIdleChunkBytes {
			c.mu.idle[class] = append(c.mu.idle[class], b)
			c.mu.bytes += size
		}
		c.mu.Unlock()
		return
	}
}

// entry is one reserved record: key, hash key if it has one, then data.
type entry struct {
	log      *Log
	next     *entry // the log's next one in the group: the committer's
	in       *chunk
	at       int64  // its own arrival, milliseconds since 1970, 0 for the group's; when it is encoded, its index
	off, n   uint32 // place of the key in its chunk, length of the data
	keyLen   uint16
	explicit bool
}

// parts returns key, explicit hash key and data of an entry.
func (e *entry) parts() (key []byte, explicit *record.HashKey, data []byte) {
	b := e.in.b[e.off:]
	key, b = b[:e.keyLen], b[e.keyLen:]
	if e.explicit {
		explicit, b = (*record.HashKey)(b[:16]), b[16:]
	}
	return key, explicit, b[:e.n]
}

// reserve makes room for a record and returns where its data goes.
func (t *Txn) reserve(l *Log, key []byte, explicit *record.HashKey, n int) []byte {
	need := len(key) + n
	if explicit != nil {
		need += len(explicit)
	}
	last := len(t.chunks) - 1
	if last < 0 || cap(t.chunks[last].b)-len(t.chunks[last].b) < need {
		t.grow(need)
		last++
	}
	in := t.chunks[last]
	off := len(in.b)
	b := append(in.b, key...)
	if explicit != nil {
		b = append(b, explicit[:]...)
	}
	at := len(b)
	in.b = b[:at+n]
	if len(t.entries) < cap(t.entries) {
		t.entries = t.entries[:len(t.entries)+1]
	} else {
		t.entries = append(t.entries, entry{})
	}
	// In place: an entry that is made elsewhere and copied in wider words waits for all
	// stores before it.
	e := &t.entries[len(t.entries)-1]
	e.log, e.in, e.at = l, in, 0
	e.off, e.n, e.keyLen, e.explicit = uint32(off), uint32(n), uint16(len(key)), explicit != nil
	t.bytes += need
	return in.b[at : at+n : at+n]
}

// grow adds a chunk that has room for a record of need bytes.
func (t *Txn) grow(need int) {
	want := int(t.admitted)
	if last := len(t.chunks) - 1; last >= 0 {
		want = 4 * cap(t.chunks[last].b)
	} else if t.kept != nil && cap(t.kept.b) >= max(need, want) {
		t.chunks = append(t.chunks, t.kept)
		t.kept = nil
		return
	}
	t.chunks = append(t.chunks, t.c.chunks.get(need, min(want, chunkSizes[len(chunkSizes)-1])))
}

// giveBack gives the chunks back when nobody reads the records any more.
func (t *Txn) giveBack() {
	for i, b := range t.chunks {
		t.chunks[i] = nil
		if t.kept == nil && cap(b.b) <= keptChunkBytes {
			b.b = b.b[:0]
			t.kept = b
			continue
		}
		t.c.chunks.put(b)
	}
	t.chunks = t.chunks[:0]
}
