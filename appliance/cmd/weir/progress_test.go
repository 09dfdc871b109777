package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// firstWrite is a writer that tells of what it was given first.
type firstWrite struct {
	bytes.Buffer
	wrote chan struct{}
}

func (w *firstWrite) Write(p []byte) (int, error) {
	if w.Len() == 0 {
		defer close(w.wrote)
	}
	return w.Buffer.Write(p)
}

// TestCompilerIsShownWhileItIsSilent builds with a compiler that says nothing until
// something of ours is shown.
func TestCompilerIsShownWhileItIsSilent(t *testing.T) {
	w := &firstWrite{wrote: make(chan struct{})}
	a := &app{streams: streams{err: w}}
	bar := a.progress("build")
	said := bar.beside(w)
	bar.during("cargo build", func() {
		<-w.wrote
		fmt.Fprintln(said, "warning: unused")
	})
	if got := w.String(); !strings.HasPrefix(got, "build: cargo build, ") || !strings.HasSuffix(got, " s\nwarning: unused\n") {
		t.Errorf("%q", got)
	}
}

func TestWorkThatOnlyEndsIsShownWhileItLasts(t *testing.T) {
	w := &firstWrite{wrote: make(chan struct{})}
	a := &app{streams: streams{err: w}}
	a.progress("check").during("sink far", func() { <-w.wrote })
	if !strings.HasPrefix(w.String(), "check: sink far, ") || !strings.HasSuffix(w.String(), " s\n") {
		t.Errorf("%q", w.String())
	}
	w.Reset()
	a.progress("check").during("sink near", func() {})
	a.JSON = true
	bar := a.progress("check")
	bar.say("to nobody")
	if w.Len() > 0 {
		t.Errorf("%q", w.String())
	}
}
