package commit

import (
	"sync"

	"github.com/weirhq/weir/storage/record"
)

// Chunk sizes. A shard's records of one group lie in chunks that never move,
// so that writers fill them outside of any lock. The first chunk is as large
// as the shard's last group asks for: a thousand quiet shards must not cost
// 64 KiB each.
var chunkSizes = [...]int{1 << 10, 4 << 10, 16 << 10, 64 << 10}

// maxIdleChunkBytes bounds the chunks kept for later groups.
const maxIdleChunkBytes = 3 << 20

// chunks keeps used chunks, by size.
type chunks struct {
	mu struct {
		sync.Mutex
		idle  [len(chunkSizes)][][]byte
		bytes int
	}
}

// get returns a chunk of at least need bytes, and of at least want when
// that is a size we keep.
func (c *chunks) get(need, want int) []byte {
	class := 0
	for class < len(chunkSizes)-1 && chunkSizes[class] < max(need, want) {
		class++
	}
	size := chunkSizes[class]
	if need > size {
		return make([]byte, 0, need)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if idle := c.mu.idle[class]; len(idle) > 0 {
		b := idle[len(idle)-1]
		c.mu.idle[class] = idle[:len(idle)-1]
		c.mu.bytes -= size
		return b
	}
	return make([]byte, 0, size)
}

func (c *chunks) put(b []byte) {
	for class, size := range chunkSizes {
		if cap(b) != size {
			continue
		}
		c.mu.Lock()
		if c.mu.bytes+size <= maxIdleChunkBytes {
			c.mu.idle[class] = append(c.mu.idle[class], b[:0])
			c.mu.bytes += size
		}
		c.mu.Unlock()
		return
	}
}

// entry is one reserved record: key, hash key if it has one, then data.
type entry struct {
	index    uint64 // set when it is encoded
	atMS     int64  // own arrival, 0 for the group's
	off, n   uint32 // place of the key in its chunk, length of the data
	chunk    uint16
	keyLen   uint16
	explicit bool
	void     bool
}

// pending holds one shard's records of one group. Reservations are made
// under the log's fill lock.
type pending struct {
	log     *Log
	entries []entry
	chunks  [][]byte
	bytes   int
}

var pendingPool = sync.Pool{New: func() any { return new(pending) }}

// reserve makes room for a record and returns where its data goes.
func (p *pending) reserve(c *chunks, key []byte, explicit *record.HashKey, n int) []byte {
	need := len(key) + n
	if explicit != nil {
		need += len(explicit)
	}
	last := len(p.chunks) - 1
	if last < 0 || cap(p.chunks[last])-len(p.chunks[last]) < need {
		want := p.log.fill.last
		if last >= 0 {
			want = 4 * cap(p.chunks[last])
		}
		p.chunks = append(p.chunks, c.get(need, min(want, chunkSizes[len(chunkSizes)-1])))
		last++
	}
	b := p.chunks[last]
	off := len(b)
	b = append(b, key...)
	if explicit != nil {
		b = append(b, explicit[:]...)
	}
	at := len(b)
	b = b[:at+n]
	p.chunks[last] = b
	p.entries = append(p.entries, entry{off: uint32(off), n: uint32(n), chunk: uint16(last), keyLen: uint16(len(key)), explicit: explicit != nil})
	p.bytes += need
	return b[at : at+n : at+n]
}

// parts returns key, explicit hash key and data of an entry.
func (p *pending) parts(e *entry) (key []byte, explicit *record.HashKey, data []byte) {
	b := p.chunks[e.chunk][e.off:]
	key, b = b[:e.keyLen], b[e.keyLen:]
	if e.explicit {
		explicit, b = (*record.HashKey)(b[:16]), b[16:]
	}
	return key, explicit, b[:e.n]
}

// release gives the chunks back.
func (p *pending) release(c *chunks) {
	for i, b := range p.chunks {
		c.put(b)
		p.chunks[i] = nil
	}
	*p = pending{entries: p.entries[:0], chunks: p.chunks[:0]}
	pendingPool.Put(p)
}
