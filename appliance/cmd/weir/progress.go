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
	p.mu.last, p.mu.shown = now, true
	text := fmt.Sprintf("%s: %s %s", p.name, count(done), unit)
	if total > 0 {
		text = fmt.Sprintf("%s: %d%% of %s %s", p.name, done*100/total, count(total), unit)
	}
	if p.terminal {
		fmt.Fprintf(p.w, "\r\x1b[K%s", text)
	} else {
		fmt.Fprintln(p.w, text)
	}
}

// done clears the line.
func (p *progress) done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.shown && p.terminal {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
