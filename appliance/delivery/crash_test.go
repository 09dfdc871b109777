package delivery_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/appliance/delivery/codec"
	"github.com/weirhq/weir/appliance/sink"
	"github.com/weirhq/weir/appliance/sink/sinktest"
	"github.com/weirhq/weir/storage"
)

var rounds = flag.Int("rounds", 15, "how often the child process is killed")

const (
	crashEnv = "WEIR_DELIVERY_CHILD" // JSON of childConfig: run as the child
	shards   = 2
)

// childConfig tells the child what to do.
type childConfig struct {
	Dir   string      // of the store
	From  int         // number of the first record that may be missing
	Sink  sink.Config // where to deliver
	Drain bool        // put nothing, end when all is delivered
	Codec codec.Codec
}

func TestMain(m *testing.M) {
	if raw := os.Getenv(crashEnv); raw != "" {
		if err := child(raw); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	os.Exit(m.Run())
}

// drainTime is how long the last life may take: never so long, unless it is stuck.
const drainTime = time.Minute

// child opens the store, delivers, and puts records until it is killed. It
// writes a line for each commit that was acknowledged: its last record.
func child(raw string) error {
	var c childConfig
	if err := json.Unmarshal([]byte(raw), &c); err != nil {
		return err
	}
	ctx := context.Background()
	store, err := storage.Open(ctx, c.Dir, storage.Options{SoftFreeBytes: 1, ReserveBytes: -1})
	if err != nil {
		return err
	}
	st, err := store.Stream("s")
	if err != nil {
		if st, err = store.CreateStream(ctx, storage.StreamConfig{Name: "s", Shards: shards}); err != nil {
			return err
		}
	}
	table, err := sink.New([]sink.Config{c.Sink}, nil)
	if err != nil {
		return err
	}
	e, err := delivery.New(store, delivery.Options{OpenSink: table.Open, MaxBackoff: 50 * time.Millisecond})
	if err != nil {
		return err
	}
	if len(e.List()) == 0 {
		err := e.Create(ctx, delivery.Config{
			Name: "d", Source: delivery.Source{Stream: "s"}, Sink: delivery.Target{Name: c.Sink.Name},
			Buffer:      delivery.Buffer{SizeBytes: 30_000, Interval: delivery.Every(30 * time.Millisecond)},
			Compression: delivery.Compression{Format: c.Codec},
		})
		if err != nil {
			return err
		}
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- e.Run(running) }()
	if c.Drain {
		for deadline := time.Now().Add(drainTime); ; {
			s, err := e.Stats("d")
			if err != nil {
				return err
			}
			if s.LagRecords == 0 {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%d records are left: %+v", s.LagRecords, s.LastError)
			}
			<-time.After(10 * time.Millisecond)
		}
		stop()
		if err := <-done; err != nil {
			return err
		}
		return store.Close()
	}
	for n := c.From; ; {
		txn, err := store.Begin(ctx, 20_000)
		if err != nil {
			return err
		}
		first := n
		for ; n < first+20; n++ {
			if err := txn.Append(st, fmt.Appendf(nil, "key-%d", n%7), nil, line(n)); err != nil {
				return err
			}
		}
		if err := txn.Commit(ctx); err != nil {
			return err
		}
		txn.Release()
		fmt.Println(n)
	}
}

// life runs the child until it is killed after about d, or ends by itself, and
// returns the last record number that was acknowledged, plus one.
func life(t *testing.T, c childConfig, d time.Duration) int {
	t.Helper()
	raw, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), crashEnv+"="+string(raw))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if d > 0 {
		timer := time.AfterFunc(d, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
	}
	acked := c.From
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if n, err := strconv.Atoi(lines.Text()); err == nil {
			acked = n
		}
	}
	err = cmd.Wait()
	if (d == 0) != (err == nil) {
		t.Fatalf("child: %v: %s", err, stderr.String())
	}
	return acked
}

// delivered reads the numbers out of all objects, in name order.
func delivered(t *testing.T, dir string) []int {
	t.Helper()
	objects := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if d != nil && (d.Name() == ".weir" || d.Name() == ".sgwtmp") {
				return filepath.SkipDir
			}
			return err
		}
		if strings.HasSuffix(path, ".part") {
			return nil
		}
		raw, err := os.ReadFile(path)
		objects[path] = raw
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return numbers(t, objects)
}

// crashRounds kills the child again and again and then has it drain. What was
// acknowledged is delivered exactly once, per key in order; what was not
// acknowledged at most once.
//
// trouble is called before each round, and with -1 before the last, which
// drains; what it returns runs beside the round.
func crashRounds(t *testing.T, c childConfig, objects string, trouble func(round int) (during func())) {
	next := 0
	for round := range *rounds {
		var beside sync.WaitGroup
		if trouble != nil {
			if during := trouble(round); during != nil {
				beside.Go(during)
			}
		}
		c.From = next
		acked := life(t, c, time.Duration(100+rand.IntN(400))*time.Millisecond)
		beside.Wait()
		// The commit after the last acknowledged one may be there, too.
		next = acked + 20
		if acked == c.From {
			next = c.From + 20
		}
		missing = append(missing, [2]int{acked, next})
	}
	if trouble != nil {
		trouble(-1)
	}
	c.Drain = true
	life(t, c, 0)
	got := delivered(t, objects)
	optional := map[int]bool{}
	for _, m := range missing {
		for n := m[0]; n < m[1]; n++ {
			optional[n] = true
		}
	}
	missing = nil
	seen := map[int]int{}
	last := map[int]int{}
	for _, n := range got {
		seen[n]++
		if before, ok := last[n%7]; ok && before > n {
			t.Fatalf("record %d of key %d comes after %d", n, n%7, before)
		}
		last[n%7] = n
	}
	for n := range next {
		if seen[n] > 1 || seen[n] == 0 && !optional[n] {
			t.Fatalf("record %d was delivered %d times", n, seen[n])
		}
	}
	t.Logf("%d rounds, %d records, each exactly once", *rounds, len(got))
}

// missing are the ranges that were put but not acknowledged, by round.
var missing [][2]int

func TestKilledIntoFolder(t *testing.T) {
	dir := t.TempDir()
	settings, _ := json.Marshal(map[string]string{"dir": dir})
	crashRounds(t, childConfig{Dir: t.TempDir(), Codec: codec.Gzip, Sink: sink.Config{Name: "sink", Kind: "file", Settings: settings}}, dir, nil)
}

// TestKilledIntoGateway kills the box, the store, and cuts the line between.
func TestKilledIntoGateway(t *testing.T) {
	g := sinktest.NewGateway(t, "bucket")
	p := sinktest.NewProxy(t, g.URL)
	settings, _ := json.Marshal(map[string]string{
		"endpoint": p.URL, "bucket": "bucket", "access_key_id": g.Access, "secret_access_key": g.Secret, "timeout": "5s",
	})
	c := childConfig{Dir: t.TempDir(), Codec: codec.Zstd, Sink: sink.Config{Name: "sink", Kind: "s3", Settings: settings}}
	crashRounds(t, c, filepath.Join(g.Dir, "bucket"), func(round int) func() {
		switch {
		case round < 0:
			p.Every(nil)
		case round%3 == 2: // while objects are on their way
			p.Every(nil)
			return func() {
				<-time.After(time.Duration(rand.IntN(400)) * time.Millisecond)
				g.Kill()
				g.Start()
			}
		default:
			p.Every(func(r *http.Request) *sinktest.Fault {
				if r.Method != http.MethodPut || rand.IntN(3) > 0 {
					return nil
				}
				return &sinktest.Faults[rand.IntN(len(sinktest.Faults))]
			})
		}
		return nil
	})
}
