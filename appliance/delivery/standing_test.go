package delivery

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// TestASuccessEndsThePauseOfOthers has one batch wait for a sink that failed
// while another reaches it.
func TestASuccessEndsThePauseOfOthers(t *testing.T) {
	for name, heal := range map[string]func(*worker){
		"success": func(w *worker) { w.succeeded(time.Now()) },
		"flush": func(w *worker) {
			w.engine.mu.workers = map[string]*worker{"d": w}
			if err := w.engine.Flush("d"); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &worker{engine: &Engine{clock: SystemClock{}, calendar: time.Now}, log: slog.New(slog.DiscardHandler), budget: make(chan budget, 1)}
				w.budget <- budget{}
				start := time.Now()
				w.mu.circuit = circuit{Failures: 1, Next: start.Add(50 * time.Second)}
				l := &lane{w: w, def: &definition{}, probe: make(chan struct{}, 1)}
				passed := make(chan time.Duration, 1)
				go func() {
					leave, err := l.gate(t.Context(), &job{bind: &binding{zone: time.UTC}})
					if err != nil {
						t.Error(err)
						return
					}
					leave()
					passed <- time.Since(start)
				}()
				synctest.Wait()
				if s := w.waitingFor(); s != "the sink failed" {
					t.Fatalf("waits for %q", s)
				}
				heal(w)
				if s := w.waitingFor(); s != "" {
					t.Errorf("after the %s it is said to wait: %s", name, s)
				}
				if d := <-passed; d != 0 {
					t.Errorf("went on %v after the %s", d, name)
				}
				if s := w.waitingFor(); s != "" {
					t.Errorf("past the gate it is said to wait: %s", s)
				}
			})
		})
	}
}

func (w *worker) waitingFor() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.waiting
}

// TestNothingVanishesWhileItIsSealed reads where a stream stands while records
// go from the log into recipes: a reader that misses them takes the stream for
// delivered.
func TestNothingVanishesWhileItIsSealed(t *testing.T) {
	w := &worker{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := range uint64(20_000) {
			w.mu.Lock()
			w.mu.cursor.Next, w.mu.pending = n%2, map[uint64]*Recipe{}
			if n%2 == 1 {
				w.mu.pending[n] = &Recipe{}
			}
			w.mu.Unlock()
		}
	}()
	for {
		if pending, cur := w.standing(); uint64(len(pending)) != cur.Next {
			t.Fatalf("%d recipes with a cursor at %d", len(pending), cur.Next)
		}
		select {
		case <-done:
			return
		default:
		}
	}
}
