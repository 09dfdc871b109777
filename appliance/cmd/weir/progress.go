package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// progress shows that long work moves: after the first second, a line on
// standard error that is written over when it is a terminal, and once every ten
// seconds when it is not.
type progress struct {
	mu struct {
		sync.Mutex
		last, begin time.Time
		shown       bool
	}
	w        io.Writer
	terminal bool
	name     string
}

// progress begins the report on work of this name. Nothing is shown with --json.
func (a *app) progress(name string) *progress {
	p := &progress{w: a.err, terminal: isTerminal(a.err), name: name}
	if a.JSON {
		p.w = io.Discard
	}
	p.mu.begin = time.Now()
	p.mu.last = p.mu.begin
	return p
}

// step reports how much of total is done, in a unit; a total of 0 is unknown.
func (p *progress) step(done, total int64, unit string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, every := time.Now(), 10*time.Second
	if p.terminal {
		every = 200 * time.Millisecond
	}
	if now.Sub(p.mu.begin) < time.Second || now.Sub(p.mu.last) < every {
		return
	}
	p.mu.last = now
	text := fmt.Sprintf("%s: %s %s", p.name, count(done), unit)
	if total > 0 {
		text = fmt.Sprintf("%s: %d%% of %s %s", p.name, done*100/total, count(total), unit)
	}
	p.sayLocked(text)
}

// during does one piece of the work, of which nothing but its end can be seen:
// after the first second, how long it has taken is shown from time to time.
func (p *progress) during(what string, work func()) {
	begin, over := time.Now(), make(chan struct{})
	var shows sync.WaitGroup
	shows.Go(func() {
		every := 10 * time.Second
		if p.terminal {
			every = time.Second
		}
		for next := time.After(time.Second); ; next = time.After(every) {
			select {
			case <-over:
				return
			case <-next:
				p.say(fmt.Sprintf("%s: %s, %.0f s", p.name, what, time.Since(begin).Seconds()))
			}
		}
	})
	work()
	close(over)
	shows.Wait()
	p.done()
}

func (p *progress) say(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sayLocked(text)
}

func (p *progress) sayLocked(text string) {
	p.mu.shown = true
	if p.terminal {
		fmt.Fprintf(p.w, "\r\x1b[K%s", text)
	} else {
		fmt.Fprintln(p.w, text)
	}
}

// beside returns a writer to w for what another program says meanwhile: it begins
// on a line of its own.
func (p *progress) beside(w io.Writer) io.Writer { return &besides{p, w} }

type besides struct {
	p *progress
	w io.Writer
}

// Write takes the line away before p is written.
func (b *besides) Write(p []byte) (int, error) {
	b.p.mu.Lock()
	defer b.p.mu.Unlock()
	b.p.clearLocked()
	return b.w.Write(p)
}

// done clears the line.
func (p *progress) done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clearLocked()
}

func (p *progress) clearLocked() {
	if p.mu.shown && p.terminal {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
	p.mu.shown = false
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
