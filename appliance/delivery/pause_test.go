package delivery

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// jumpClock is a Clock on which waiting takes no time.
type jumpClock struct{ now time.Time }

func (c *jumpClock) Now() time.Time { return c.now }

func (c *jumpClock) After(d time.Duration) <-chan time.Time {
	c.now = c.now.Add(d)
	ch := make(chan time.Time, 1)
	ch <- c.now
	return ch
}

func TestTroubleThatLastsIsLoggedOnceAMinute(t *testing.T) {
	var log bytes.Buffer
	l := &lane{w: &worker{engine: &Engine{clock: &jumpClock{time.UnixMilli(1_800_000_000_000)}}, log: slog.New(slog.NewTextHandler(&log, nil))}}
	for range 150 {
		if err := l.pause(t.Context(), "seal", errors.New("read-only file system")); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.pause(t.Context(), "finish", errors.New("read-only file system")); err != nil {
		t.Fatal(err)
	}
	if seal, finish := strings.Count(log.String(), "doing=seal"), strings.Count(log.String(), "doing=finish"); seal != 3 || finish != 1 {
		t.Errorf("150 s of one trouble made %d lines, and another %d; want 3 and 1:\n%s", seal, finish, log.String())
	}
}
