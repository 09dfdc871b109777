package commit

import "github.com/weirhq/weir/storage/block"

// group is what becomes durable with one sync. It is guarded by the committer's
// lock until the group is taken, and the committer's alone from then until done is closed.
type group struct {
	writers int // transactions that joined and have neither committed nor rolled back
	ops     int // transactions that committed
	refs    int // transactions that still read err and stamp
	bytes   int64
	txns    []*Txn
	done    chan struct{}
	err     error
	stamp   block.Stamp
}

// join puts a transaction into the open group, or in line for the next one
// when the open group is full. The line is first in, first out.
func (t *Txn) join() error {
	c := t.c
	c.mu.Lock()
	if err := c.refusalLocked(); err != nil {
		c.mu.Unlock()
		return err
	}
	if len(c.mu.line) == 0 && c.fitsLocked(t) {
		c.enterLocked(t)
		c.mu.Unlock()
		return nil
	}
	if t.ready == nil {
		t.ready = make(chan error, 1)
	}
	c.mu.line = append(c.mu.line, t)
	if c.mu.wakeAt > 0 {
		c.kick() // a group that others wait to leave has lingered enough
	}
	c.mu.Unlock()
	select {
	case err := <-t.ready:
		return err
	case <-t.ctx.Done():
	}
	c.mu.Lock()
	for i, o := range c.mu.line {
		if o == t {
			c.mu.line = append(c.mu.line[:i], c.mu.line[i+1:]...)
			c.mu.Unlock()
			return t.ctx.Err()
		}
	}
	c.mu.Unlock()
	return <-t.ready // it was let in meanwhile
}

func (c *Committer) fitsLocked(t *Txn) bool {
	g := c.mu.open
	return g.bytes == 0 || g.bytes+t.admitted <= c.o.GroupBytes
}

func (c *Committer) enterLocked(t *Txn) {
	t.g = c.mu.open
	t.g.writers++
	if t.then != nil {
		t.then()
	}
	t.g.bytes += max(t.admitted, 1)
}

// admitLineLocked lets in who waited for the new open group.
func (c *Committer) admitLineLocked() {
	n := 0
	for n < len(c.mu.line) && c.fitsLocked(c.mu.line[n]) {
		c.enterLocked(c.mu.line[n])
		c.mu.line[n].ready <- nil
		n++
	}
	c.mu.line = append(c.mu.line[:0], c.mu.line[n:]...)
}

// leaveLocked counts a writer out of its group and wakes the committer if
// that is what it waits for.
func (c *Committer) leaveLocked(t *Txn, committed bool) {
	g := t.g
	g.writers--
	if committed {
		g.ops++
	} else if g == c.mu.open {
		// A group in which nobody commits is never taken: its room must come back.
		g.bytes -= max(t.admitted, 1)
		c.admitLineLocked()
	}
	if g != c.mu.open {
		if g.writers == 0 {
			c.kick()
		}
		return
	}
	if c.mu.wakeAt > 0 && (g.ops >= c.mu.wakeAt || g.bytes >= c.o.GroupBytes) {
		c.kick()
	}
}

// kick wakes the committer.
func (c *Committer) kick() {
	select {
	case c.kicked <- struct{}{}:
	default:
	}
}

// unref counts a transaction out; the last one gives the group back.
func (c *Committer) unref(g *group) {
	c.mu.Lock()
	g.refs--
	last := g.refs == 0
	c.mu.Unlock()
	if last {
		c.recycle(g)
	}
}

func (c *Committer) recycle(g *group) {
	clear(g.txns)
	c.mu.Lock()
	if len(c.mu.idle) < 2 {
		g.writers, g.ops, g.bytes, g.txns, g.err, g.done = 0, 0, 0, g.txns[:0], nil, nil
		c.mu.idle = append(c.mu.idle, g)
	}
	c.mu.Unlock()
}

// newGroupLocked returns an empty group.
func (c *Committer) newGroupLocked() *group {
	var g *group
	if n := len(c.mu.idle); n > 0 {
		g = c.mu.idle[n-1]
		c.mu.idle = c.mu.idle[:n-1]
	} else {
		g = &group{}
	}
	g.done = make(chan struct{})
	return g
}
