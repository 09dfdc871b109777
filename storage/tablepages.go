package storage

import (
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// keptTableBytes is how much of the tables that were written last stays in the kernel's
// page cache: readers and deliveries close behind the tip find it there.
const keptTableBytes = 32 << 20

// tablePages gives the kernel's memory for a table back once enough newer ones were
// written. Few read an older one, and those read it once, in order; kept, it would fill
// the memory of a small box with what nobody asks for and push out what is in use. And
// new tables are written into memory that was just given back, not into some that the
// kernel, or the host of a virtual machine, has to find first: that was a quarter of all
// CPU of an append with S2.
type tablePages struct {
	fs   vfs.FS
	drop func(vfs.File) error // gives back the pages of a file
	mu   sync.Mutex
	kept []writtenTable // oldest first
	sum  int64          // of their bytes
}

type writtenTable struct {
	name  string
	bytes int64
}

// wrote says that a table is written and synced.
func (p *tablePages) wrote(name string, bytes int64) {
	p.mu.Lock()
	p.kept = append(p.kept, writtenTable{name, bytes})
	p.sum += bytes
	n := 0
	for ; p.sum > keptTableBytes; n++ {
		p.sum -= p.kept[n].bytes
	}
	behind := p.kept[:n:n]
	p.kept = p.kept[n:]
	p.mu.Unlock()
	for _, t := range behind {
		if f, err := p.fs.Open(t.name); err == nil { // else it is gone, and so is its memory
			_ = p.drop(f) // memory, not data: nothing is lost when it stays
			_ = f.Close()
		}
	}
}
