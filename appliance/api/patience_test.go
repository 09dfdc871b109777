package api

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestPatienceEndsAfterTheFirstWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent, cancel := context.WithCancel(t.Context())
		var p Patience
		ctx := p.Begin(parent, 4*time.Second)
		timer := time.NewTimer(time.Minute) // before anybody waits, no time passes
		<-timer.C
		if ctx.Err() != nil {
			t.Error(ctx.Err())
		}
		begin := time.Now()
		<-ctx.Done()
		if d := time.Since(begin); d != 4*time.Second || !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			t.Errorf("%v after %v", ctx.Err(), d)
		}
		p.End()

		ctx = p.Begin(parent, time.Hour)
		cancel()
		if !errors.Is(ctx.Err(), context.Canceled) {
			t.Error(ctx.Err())
		}
		<-ctx.Done()
		if !errors.Is(ctx.Err(), context.Canceled) {
			t.Error(ctx.Err())
		}
		p.End()
	})
}

func TestPatienceThatIsNotNeededIsFree(t *testing.T) {
	var p Patience
	ctx := context.Background()
	if n := testing.AllocsPerRun(100, func() { _ = p.Begin(ctx, time.Second).Err(); p.End() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
