package host_test

import (
	"context"
	"errors"
	"runtime"
	"testing"

	"github.com/weirhq/weir/wasm/host"
	"github.com/weirhq/weir/wasm/wasmtest/hostile"
)

// TestGuestsTakeTurns has one turn for three guests: two that never end and one
// that behaves, which must get on all the same.
func TestGuestsTakeTurns(t *testing.T) {
	forEngines(t, func(t *testing.T, o host.Options) {
		o.Guests = 1
		running := make(chan struct{}, 2)
		o.Imports = []host.ImportModule{hostile.Started(func() { running <- struct{}{} })}
		r := open(t, o)
		mod := compile(t, r, hostile.Endless()["endless loop"]())
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 2)
		for range 2 {
			i := instantiate(t, mod, host.InstanceOptions{Limits: host.Limits{Fuel: 1 << 62, Wall: patience}})
			go func() {
				_, err := i.Function("attack").Call(ctx)
				ended <- err
			}()
		}
		<-running
		<-running // the second began although the first never ends
		count := instantiate(t, compile(t, r, counterGuest()), host.InstanceOptions{}).Function("count")
		for n := range 20 {
			if got, err := count.Call(context.Background(), 1000); err != nil || got != uint64(n+1)*1000 {
				t.Fatalf("counted to %d: %v", got, err)
			}
		}
		done, stop := context.WithCancel(context.Background())
		stop()
		if _, err := count.Call(done, 1); err == nil {
			t.Log("a turn was free") // the two may both be between turns
		} else if !errors.Is(err, context.Canceled) && !errors.Is(err, host.ErrCanceled) {
			t.Errorf("a call that waits for its turn ends with %v", err)
		}
		cancel()
		for range 2 {
			if err := <-ended; !errors.Is(err, host.ErrCanceled) {
				t.Errorf("the attack ended with %v", err)
			}
		}
	})
}

// TestSpareProcessorIsAddedOnceAndOnlyForGuests checks GOMAXPROCS around two runtimes.
func TestSpareProcessorIsAddedOnceAndOnlyForGuests(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	a, b := open(t, host.Options{SpareProcessor: true}), open(t, host.Options{SpareProcessor: true})
	mod := compile(t, a, counterGuest())
	if n := runtime.GOMAXPROCS(0); n != before {
		t.Fatalf("%d processors before there is a guest; %d were there", n, before)
	}
	instantiate(t, mod, host.InstanceOptions{})
	after := runtime.GOMAXPROCS(0)
	if after != before+1 && after != before { // an earlier run of this test has raised it
		t.Fatalf("%d processors with a guest; %d were there", after, before)
	}
	instantiate(t, mod, host.InstanceOptions{})
	instantiate(t, compile(t, b, counterGuest()), host.InstanceOptions{})
	if n := runtime.GOMAXPROCS(0); n != after {
		t.Fatalf("%d processors with more guests; expecting %d", n, after)
	}
}
