package storagetest

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
)

var killRounds = flag.Int("kill-rounds", 20, "how often the writing process is killed")

// childDirVar makes the test binary a writer in that directory.
const childDirVar = "STORAGETEST_CHILD_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDirVar); dir != "" {
		os.Exit(child(dir))
	}
	os.Exit(m.Run())
}

const (
	kept    = "kept"    // nothing of it is trimmed
	rolling = "rolling" // a small window of it is kept
)

const killProducers = 8

// child writes until it is killed: each producer appends runs of its own counter
// under its own key to both streams in one transaction, while shards split and
// merge and retention takes the oldest of one. Standard input says where each counter goes on; standard output gets a
// line "producer last" for every acknowledged transaction.
func child(dir string) int {
	ctx := context.Background()
	s, err := storage.Open(ctx, dir, storage.Options{ReserveBytes: -1, MemTableBytes: 1 << 20})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var streams []*storage.Stream
	for _, c := range []storage.StreamConfig{{Name: kept, Shards: 2}, {Name: rolling, Shards: 2, RetentionBytes: 2 << 20}} {
		st, err := s.Stream(c.Name)
		if errors.Is(err, storage.ErrStreamNotFound) {
			st, err = s.CreateStream(ctx, c)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		streams = append(streams, st)
	}
	var first [killProducers]int
	for p := range first {
		if _, err := fmt.Scan(&first[p]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	fail := make(chan error, killProducers+2)
	var out sync.Mutex
	for p := range killProducers {
		go func() { fail <- produce(ctx, s, streams, p, first[p], &out) }()
	}
	go func() { fail <- reshardForEver(ctx, streams) }()
	go func() { fail <- retainForEver(ctx, s) }()
	fmt.Fprintln(os.Stderr, <-fail)
	return 1
}

func produce(ctx context.Context, s *storage.Store, streams []*storage.Stream, p, next int, out *sync.Mutex) error {
	rng := rand.New(rand.NewPCG(uint64(p), uint64(next)))
	key := []byte("producer-" + strconv.Itoa(p))
	filler := strings.Repeat("0123456789", 30)
	for {
		n := 1
		if p%2 == 0 {
			n = 1 + rng.IntN(100)
		}
		tx, err := s.Begin(ctx, n*300)
		if err != nil {
			return err
		}
		for i := range n {
			data := fmt.Appendf(nil, "%d %s", next+i, filler[:rng.IntN(len(filler))])
			for _, st := range streams {
				if err := tx.Append(st, key, nil, data); err != nil {
					return err
				}
			}
		}
		tx.Put(storage.TableCheckpoint, key, fmt.Appendf(nil, "%d", next+n-1))
		if err := tx.Commit(ctx); err != nil {
			return err
		}
		tx.Release()
		next += n
		out.Lock()
		_, err = fmt.Printf("%d %d\n", p, next-1)
		out.Unlock()
		if err != nil {
			return err
		}
	}
}

func reshardForEver(ctx context.Context, streams []*storage.Stream) error {
	rng := rand.New(rand.NewPCG(uint64(os.Getpid()), 0))
	for {
		st := streams[rng.IntN(len(streams))]
		if err := st.UpdateShardCount(ctx, 1+rng.IntN(5)); err != nil {
			return err
		}
	}
}

// retainForEver applies retention far more often than the store does by itself.
func retainForEver(ctx context.Context, s *storage.Store) error {
	for tick := time.NewTicker(50 * time.Millisecond); ; <-tick.C {
		if err := s.Retain(ctx); err != nil {
			return err
		}
	}
}

// TestKilledWriterLosesNothing kills a writing process at random, again and
// again, and checks after each time that every acknowledged record is there once
// and in order, that nothing is there in part, and that a row agrees with the
// records it was committed with.
func TestKilledWriterLosesNothing(t *testing.T) {
	dir := t.TempDir()
	var acked [killProducers]int
	for p := range acked {
		acked[p] = -1
	}
	rng := rand.New(rand.NewPCG(5, uint64(*killRounds)))
	var taken uint64
	for round := range *killRounds {
		last := runAndKill(t, dir, acked, 20+rng.IntN(800))
		s, err := storage.Open(context.Background(), dir, storage.Options{ReserveBytes: -1, MemTableBytes: 1 << 20})
		if err != nil {
			t.Fatalf("round %d: open: %v", round, err)
		}
		// What retention is about to take must not go between the reading of two shards.
		if err := s.Retain(context.Background()); err != nil {
			t.Fatalf("round %d: retain: %v", round, err)
		}
		there, err := checkKilled(s, last)
		if err != nil {
			t.Fatalf("round %d: %v (recovery: %+v)", round, err, s.Recovery())
		}
		acked = there
		taken = takenFrom(t, s)
		if err := s.Close(); err != nil {
			t.Fatalf("round %d: close: %v", round, err)
		}
	}
	t.Logf("%d rounds, counters %v, %d indexes of the rolling stream below what retention keeps", *killRounds, acked, taken)
	if taken == 0 && *killRounds >= 20 {
		t.Error("retention took nothing")
	}
}

// takenFrom counts the indexes below what the rolling stream's shards keep.
func takenFrom(t *testing.T, s *storage.Store) (taken uint64) {
	t.Helper()
	st, err := s.Stream(rolling)
	if errors.Is(err, storage.ErrStreamNotFound) {
		return 0 // killed before it was made
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range st.Shards() {
		taken += info.First - 1
	}
	return taken
}

// runAndKill starts the writer and kills it after so many acknowledgements. It
// returns the last acknowledged counter of each producer.
func runAndKill(t *testing.T, dir string, acked [killProducers]int, acks int) [killProducers]int {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childDirVar+"="+dir)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	var in strings.Builder
	for _, a := range acked {
		fmt.Fprintln(&in, a+1)
	}
	cmd.Stdin = strings.NewReader(in.String())
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	for n := 0; lines.Scan(); n++ {
		var p, last int
		// The last line may be cut by the kill, and then says less, not more.
		if k, err := fmt.Sscanf(lines.Text(), "%d %d", &p, &last); k == 2 && err == nil && p < killProducers {
			acked[p] = max(acked[p], last)
		}
		if n == acks {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait() // killed
	if stderr.Len() > 0 {
		t.Fatalf("writer: %s", stderr.String())
	}
	return acked
}

// checkKilled returns the last counter that is there for each producer.
func checkKilled(s *storage.Store, acked [killProducers]int) (there [killProducers]int, err error) {
	for p := range there {
		there[p] = -1
	}
	for _, name := range []string{kept, rolling} {
		counters, err := readCounters(s, name)
		if err != nil {
			return there, err
		}
		for p := range killProducers {
			c := counters["producer-"+strconv.Itoa(p)]
			for i := 1; i < len(c); i++ {
				if c[i] != c[i-1]+1 {
					return there, fmt.Errorf("%s: producer %d: %d follows %d", name, p, c[i], c[i-1])
				}
			}
			switch {
			case len(c) == 0 && (name == rolling || acked[p] < 0):
				continue
			case len(c) == 0:
				return there, fmt.Errorf("%s: producer %d: nothing is there, %d was acknowledged", name, p, acked[p])
			case name == kept && c[0] != 0:
				return there, fmt.Errorf("%s: producer %d: begins at %d", name, p, c[0])
			case c[len(c)-1] < acked[p]:
				return there, fmt.Errorf("%s: producer %d: ends at %d, %d was acknowledged", name, p, c[len(c)-1], acked[p])
			case name == rolling && c[len(c)-1] != there[p]:
				return there, fmt.Errorf("producer %d: %s ends at %d, %s at %d: a transaction is there in part", p, rolling, c[len(c)-1], kept, there[p])
			}
			there[p] = c[len(c)-1]
		}
	}
	for p, last := range there {
		row, err := s.Get(storage.TableCheckpoint, []byte("producer-"+strconv.Itoa(p)))
		if errors.Is(err, storage.ErrNotFound) && last < 0 {
			continue
		}
		if err != nil || string(row) != strconv.Itoa(last) {
			return there, fmt.Errorf("producer %d: checkpoint %q (%v), last record %d", p, row, err, last)
		}
	}
	return there, nil
}

// readCounters returns the counters of each key in the order in which consumers
// see them: parents before children.
func readCounters(s *storage.Store, name string) (map[string][]int, error) {
	st, err := s.Stream(name)
	if errors.Is(err, storage.ErrStreamNotFound) {
		return nil, nil // killed before it was made
	}
	if err != nil {
		return nil, err
	}
	shards := st.Shards()
	slices.SortFunc(shards, func(a, b storage.ShardInfo) int { return cmp.Compare(a.Number, b.Number) })
	counters := map[string][]int{}
	for _, info := range shards {
		if err := readShardCounters(st, info.Number, counters); err != nil {
			return nil, fmt.Errorf("%s %s: %w", name, info.Number, err)
		}
	}
	return counters, nil
}

func readShardCounters(st *storage.Stream, n record.ShardNumber, counters map[string][]int) error {
	r, err := st.NewReader(n, storage.Position{Kind: storage.TrimHorizon})
	if err != nil {
		return err
	}
	defer r.Close()
	var bad error
	for {
		k, err := r.Read(10_000, 10<<20, func(rec *record.Record) bool {
			text, _, _ := strings.Cut(string(rec.Data), " ")
			v, err := strconv.Atoi(text)
			if err != nil {
				bad = fmt.Errorf("record %d: %q: %w", rec.Index, rec.Data, err)
			}
			counters[string(rec.PartitionKey)] = append(counters[string(rec.PartitionKey)], v)
			return bad == nil
		})
		switch {
		case bad != nil:
			return bad
		case errors.Is(err, io.EOF) || err == nil && k == 0:
			return nil
		case err != nil:
			return err
		}
	}
}
