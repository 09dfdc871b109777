package consume_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/weirhq/weir/appliance/consume"
	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
	"github.com/weirhq/weir/wasm/guest"
	"github.com/weirhq/weir/wasm/host"
	"github.com/weirhq/weir/wasm/module"
	"github.com/weirhq/weir/wasm/wasmtest"
)

// childEnv holds the data directory in a process that TestKill starts.
const childEnv = "WEIR_CONSUME_TEST_CHILD"

func TestMain(m *testing.M) {
	host.ServeCompile()
	if dir := os.Getenv(childEnv); dir != "" {
		if err := child(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child produces and consumes until it is killed; it prints a line for each
// commit of the producer, with how often the consumer has committed.
func child(dir string) error {
	ctx := context.Background()
	store, err := storage.Open(ctx, dir, storage.Options{})
	if err != nil {
		return err
	}
	rt, err := host.New(ctx, host.Options{Imports: guest.Imports()})
	if err != nil {
		return err
	}
	modules, err := module.Open(ctx, module.Options{Store: consume.Modules{Store: store}, Runtime: rt})
	if err != nil {
		return err
	}
	in, err := stream(store, "in", 3)
	if err != nil {
		return err
	}
	if _, err := stream(store, "out", 2); err != nil {
		return err
	}
	if _, err := modules.Active("c"); err != nil {
		wasm, err := os.ReadFile(os.Getenv("WEIR_CONSUME_TEST_MODULE"))
		if err != nil {
			return err
		}
		if err := add(modules, wasm, "1.0.0", "outputs: [out]", "capabilities: {state: true, emit: true}", "on_error: {dead_letter: dead}"); err != nil {
			return err
		}
	}
	engine := consume.New(consume.Options{Store: store, Modules: modules, Poll: 5 * time.Millisecond})
	failed := make(chan error, 1)
	go func() { failed <- engine.Run(ctx) }()
	rng := rand.New(rand.NewPCG(uint64(os.Getpid()), 1))
	for {
		var recs []string
		for range 1 + rng.IntN(60) {
			data := "x"
			if rng.IntN(40) == 0 {
				data = "T"
			}
			recs = append(recs, fmt.Sprintf("key%d %s", rng.IntN(25), data))
		}
		if err := put(store, in, recs...); err != nil {
			return err
		}
		select {
		case err := <-failed:
			return fmt.Errorf("engine ended: %v", err)
		default:
		}
		commits := uint64(0)
		for _, w := range engine.Status() {
			commits += w.Commits
		}
		fmt.Printf("put %d, consumed in %d commits\n", len(recs), commits)
	}
}

func stream(s *storage.Store, name string, shards int) (*storage.Stream, error) {
	if st, err := s.Stream(name); err == nil {
		return st, nil
	}
	return s.CreateStream(context.Background(), storage.StreamConfig{Name: name, Shards: shards, Retention: 24 * time.Hour})
}

// TestKill kills a process that consumes with SIGKILL, again and again, and
// each time looks at what it left: state, emitted records, dead letters and
// checkpoints must tell the same story.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	wasm := dir + "/counter.wasm"
	if err := os.WriteFile(wasm, wasmtest.Module(t, "counter"), 0o600); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 7))
	handled := uint64(0)
	for round := range 12 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+dir+"/data", "WEIR_CONSUME_TEST_MODULE="+wasm)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		// Every other time the consumer has had its turn, however long it took to load.
		for n := 1 + rng.IntN(80); n > 0 && lines.Scan(); {
			if round%2 == 0 || !strings.HasSuffix(lines.Text(), " 0 commits") {
				n--
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() {
		}
		if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("the child ended by itself: %v", err)
		}
		now := audit(t, dir+"/data")
		if now < handled {
			t.Fatalf("%d records handled, %d before", now, handled)
		}
		handled = now
	}
	if handled == 0 {
		t.Fatal("nothing was ever handled")
	}
	t.Logf("%d records handled over 12 kills", handled)
}

// audit opens a killed store and compares what the consumer left.
func audit(t *testing.T, dir string) (handled uint64) {
	t.Helper()
	store, err := storage.Open(context.Background(), dir, storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	b := &box{t: t, store: store}
	in, err := store.Stream("in")
	if err != nil {
		return 0 // killed before it was made
	}
	// What the checkpoints say was handled is what should have happened.
	counts, poison := map[string]uint64{}, 0
	for _, s := range in.Shards() {
		var c struct{ Next uint64 }
		key := fmt.Appendf([]byte("wasm/c\x00"), "%s%s", be32(in.ID()), be32(uint32(s.Number)))
		raw, err := store.Get(storage.TableCheckpoint, key)
		if err != nil {
			continue
		}
		if err := json.Unmarshal(raw, &c); err != nil {
			t.Fatal(err)
		}
		r, err := in.NewReader(s.Number, storage.Position{Kind: storage.TrimHorizon})
		if err != nil {
			t.Fatal(err)
		}
		for r.Position() < c.Next {
			n, err := r.Read(1, 1<<20, func(r *record.Record) bool {
				if r.Index >= c.Next {
					return false
				}
				handled++
				if string(r.Data) == "T" {
					poison++
				} else {
					counts[string(r.PartitionKey)]++
				}
				return true
			})
			if err != nil || n == 0 {
				break
			}
		}
		r.Close()
	}
	out, err := store.Stream("out")
	if err != nil {
		return handled
	}
	emitted := map[string]uint64{}
	for _, r := range records(t, out) {
		k, d, _ := strings.Cut(r, " ")
		emitted[k]++
		if want := fmt.Sprintf("%s=%d", k, emitted[k]); d != want {
			t.Fatalf("emitted %s, want %s", d, want)
		}
	}
	dead := 0
	if st, err := store.Stream("dead"); err == nil {
		dead = len(records(t, st))
	}
	if dead != poison {
		t.Fatalf("%d dead letters for %d poison records handled", dead, poison)
	}
	for i := range 25 {
		k := fmt.Sprintf("key%d", i)
		kept := uint64(0)
		if v := b.stateOf(k); len(v) == 1 {
			kept = v[0]
		} else if len(v) > 1 {
			t.Fatalf("%s is kept on %d shards", k, len(v))
		}
		if kept != counts[k] || emitted[k] != counts[k] {
			t.Fatalf("%s: %d handled, %d in the state, %d emitted", k, counts[k], kept, emitted[k])
		}
	}
	return handled
}

func be32(v uint32) []byte { return []byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)} }
