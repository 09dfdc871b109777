package listen

import (
	"context"
	"errors"
	"io"
	"net/http"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/appliance/api/apitest"
)

// TestMemoryIsGivenBackAfterABurst leaves garbage behind, as connections do, and
// looks at what the runtime still holds.
func TestMemoryIsGivenBackAfterABurst(t *testing.T) {
	const size = 64 << 20
	garbage := make([]byte, size)
	for i := 0; i < len(garbage); i += 4096 {
		garbage[i] = 1
	}
	held := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapSys - m.HeapReleased
	}
	before := held()
	runtime.KeepAlive(garbage)
	var tidy tidier
	defer tidy.close()
	for range tidyParked {
		tidy.parked()
	}
	apitest.Until(t, "it is back", func() bool { return held() < before-size/2 })
}

// TestLargeBuffersAreNotKept has a body of 10 MiB read and echoed: none of its buffers may
// wait in a pool for another one.
func TestLargeBuffersAreNotKept(t *testing.T) {
	for _, n := range []int{smallestBuffer, 64 << 10, largestBuffer} {
		// A pool may hold those that grew, up to those of the next one.
		if b := getBuffer(n); cap(b) < n || cap(b) >= 4*n {
			t.Errorf("%d bytes for %d", cap(b), n)
		}
	}
	const large = 10 << 20
	b := getBuffer(large)
	if cap(b) >= large+large/8 {
		t.Errorf("%d bytes for a body of %d", cap(b), large)
	}
	b = b[:1]
	b[0] = 42
	putBuffer(b)
	for range 100 {
		for _, n := range []int{largestBuffer, large} {
			if b := getBuffer(n); cap(b) > 2*largestBuffer && b[:1][0] == 42 {
				t.Fatal("a large buffer came back")
			}
		}
	}
}

// TestMemoryIsGivenBackAfterLargeBodies drops large buffers as exchanges do.
func TestMemoryIsGivenBackAfterLargeBodies(t *testing.T) {
	held := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapSys - m.HeapReleased
	}
	var tidy tidier
	defer tidy.close()
	before := uint64(0)
	for range 2 {
		b := getBuffer(32 << 20)[:32<<20]
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		before = max(before, held())
		putBuffer(b)
		tidy.dropped(cap(b))
	}
	apitest.Until(t, "it is back", func() bool { return held() < before-24<<20 })
}

// TestAnswersShareTheirMemory: clients that ask for large answers and don't take them
// hold no more than the limit together; what is asked for meanwhile is smaller, and all
// comes back when they have taken theirs, or have gone.
func TestAnswersShareTheirMemory(t *testing.T) {
	const limit, large = 32 << 20, 14 << 20
	handler := api.HandlerFunc(func(ctx context.Context, req api.Request, res api.Response) {
		if string(req.Path()) == "/stream" {
			res.Stream(func(ctx context.Context, w api.StreamWriter) error {
				b := w.Lend(ctx, smallestBuffer, large)
				if b == nil {
					return errors.New("no room")
				}
				if _, err := w.Write(b[:cap(b)]); err != nil {
					return err
				}
				return w.Flush()
			})
			return
		}
		n := res.Reserve(ctx, smallestBuffer, large)
		if n == 0 {
			res.SetStatus(503)
			return
		}
		*res.Body() = (*res.Body())[:n]
	})
	for _, path := range []string{"/", "/stream"} {
		eachClient(t, Options{Handler: handler, MaxAnswerMemory: limit, QueueTimeout: time.Minute}, func(t *testing.T, s *Server, c *http.Client, url, _ string) {
			var sizes []int
			var bodies []io.ReadCloser
			for range 12 {
				res, err := c.Get(url + path)
				if err != nil {
					t.Fatal(err)
				}
				bodies = append(bodies, res.Body)
				if used := s.Stats().AnswerBytes; used > limit {
					t.Fatalf("%d bytes of at most %d", used, limit)
				}
			}
			for _, b := range bodies {
				n, err := io.Copy(io.Discard, b)
				if err != nil || b.Close() != nil {
					t.Fatal(err)
				}
				sizes = append(sizes, int(n))
			}
			if slices.Max(sizes) < large || slices.Min(sizes) < smallestBuffer || slices.Min(sizes) > large/4 {
				t.Errorf("answers of %d bytes", sizes)
			}
			apitest.Until(t, "all is back", func() bool { return s.Stats().AnswerBytes == 0 })
			res, err := c.Get(url + path)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close() // with most of it not taken
			apitest.Until(t, "what nobody takes is back", func() bool { return s.Stats().AnswerBytes == 0 })
		})
	}
}

// TestOneWhoFindsNoRoomWaitsForIt: in turn, and not for ever.
func TestOneWhoFindsNoRoomWaitsForIt(t *testing.T) {
	a := newAllowance(100, time.Millisecond)
	if n := a.take(t.Context(), 10, 1000); n != 50 {
		t.Fatalf("%d of 100", n)
	}
	if n := a.take(t.Context(), 50, 50); n != 50 {
		t.Fatalf("%d of 50", n)
	}
	if n := a.take(t.Context(), 1, 1); n != 0 || a.used.Load() != 100 {
		t.Fatalf("%d of nothing", n)
	}
	a.wait = time.Minute
	got := make(chan int)
	go func() { got <- a.take(context.Background(), 20, 30) }()
	a.give(50)
	if n := <-got; n < 20 {
		t.Fatalf("%d of 50", n)
	}
}

// TestLargeAnswersLeaveRoomForSmallOnes has more readers of large records than fit, who
// don't take their answers.
func TestLargeAnswersLeaveRoomForSmallOnes(t *testing.T) {
	const large = 13 << 20
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{Handler: echo, MaxAnswerMemory: 32 << 20, QueueTimeout: 5 * time.Second})
		a := s.answers
		for i := range 2 {
			if n := a.take(t.Context(), large, large); n != large {
				t.Fatalf("large answer %d got room for %d bytes", i, n)
			}
		}
		began, third := time.Now(), make(chan int)
		go func() { third <- a.take(t.Context(), large, large) }()
		synctest.Wait()
		if n := a.take(t.Context(), 4<<10, 1<<20); n != 1<<20 || time.Since(began) > 0 {
			t.Errorf("a small one got %d after %v", n, time.Since(began))
		}
		a.give(1 << 20)
		if n := <-third; n != 0 || time.Since(began) < 5*time.Second {
			t.Errorf("the third got %d after %v", n, time.Since(began))
		}
		go func() { third <- a.take(t.Context(), large, large) }()
		synctest.Wait()
		a.give(large)
		if n := <-third; n != large {
			t.Errorf("it got %d when another had left", n)
		}
	})
}
