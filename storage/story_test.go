package storage

import (
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirhq/weir/storage/record"
)

// story is the store that a file of testdata tells about.
type story struct {
	t     *testing.T
	fs    *vfs.MemFS
	calls *calls
	clock *testClock
	total int64 // Options.TotalBytes
	s     *Store
}

// open opens the store on the file system as it is.
func (y *story) open() {
	y.calls.FS = y.fs
	o := small(y.calls, y.clock)
	o.TotalBytes = y.total
	y.s = mustOpen(y.t, o)
}

// TestStories runs the files in testdata: commands, and what they show.
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata/stories", func(t *testing.T, path string) {
		st := &story{t: t, fs: vfs.NewCrashableMem(), clock: newTestClock(), calls: &calls{log: map[string]int{}}}
		st.open()
		datadriven.RunTest(t, path, st.run)
		if err := st.s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// run answers one command.
func (y *story) run(t *testing.T, d *datadriven.TestData) string {
	out, err := y.command(d)
	if err != nil {
		return out + "error: " + err.Error() + "\n"
	}
	return out
}

func (y *story) command(d *datadriven.TestData) (string, error) {
	switch d.Cmd {
	case "create":
		var name string
		shards := 1
		d.ScanArgs(y.t, "name", &name)
		d.MaybeScanArgs(y.t, "shards", &shards)
		_, err := y.s.CreateStream(ctx, StreamConfig{Name: name, Shards: shards})
		return "", err
	case "delete":
		return "", y.s.DeleteStream(ctx, d.CmdArgs[0].Key)
	case "put":
		return y.put(d)
	case "split", "merge", "count":
		return "", y.reshard(d)
	case "pass":
		p, err := time.ParseDuration(d.CmdArgs[0].Key)
		y.clock.pass(p)
		return "", err
	case "retain":
		return "", y.s.Retain(ctx)
	case "reopen", "crash":
		return y.reopen(d.Cmd == "crash")
	case "shards":
		return y.shards(d.CmdArgs[0].Key)
	case "read":
		return y.read(d.CmdArgs[0].Key)
	case "rows":
		return y.rows()
	case "limit":
		_, err := fmt.Sscan(d.CmdArgs[0].Key, &y.total)
		return "", err
	case "fill":
		return "", y.fill(d)
	case "policy":
		return "", y.policy(d)
	case "flush":
		return "", y.flush()
	case "losses":
		return y.losses(d.CmdArgs[0].Key)
	case "calls":
		return y.callsSince(d)
	}
	return "", fmt.Errorf("no such command: %s", d.Cmd)
}

// fill appends records of 1 KiB that don't compress, 64 to a transaction.
func (y *story) fill(d *datadriven.TestData) error {
	var name string
	txns := 1
	d.ScanArgs(y.t, "name", &name)
	d.MaybeScanArgs(y.t, "transactions", &txns)
	st, err := y.s.Stream(name)
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for range txns {
		put(y.t, y.s, st, 64, func(int) (string, string) { return "k", noise(rng, 1024) })
	}
	return nil
}

func (y *story) policy(d *datadriven.TestData) error {
	var name, policy string
	d.ScanArgs(y.t, "name", &name)
	d.ScanArgs(y.t, "when-full", &policy)
	st, err := y.s.Stream(name)
	if err != nil {
		return err
	}
	policies := map[string]Policy{"reject": Reject, "drop": DropOldest, "thin": ThinOut}
	return st.Update(ctx, func(c *StreamConfig) { c.WhenFull = policies[policy] })
}

// flush closes the epoch and waits until its table lies where it stays.
func (y *story) flush() error {
	if err := y.s.committer.CloseEpoch(); err != nil {
		return err
	}
	y.settled()
	return nil
}

func (y *story) settled() {
	waitFor(y.t, func() bool { return y.s.Metrics().UnderWay == 0 && y.s.db.Metrics().Levels[0].TablesCount == 0 })
}

func (y *story) losses(name string) (string, error) {
	st, err := y.s.Stream(name)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, i := range st.Shards() {
		losses, err := st.Losses(i.Number)
		if err != nil {
			return "", err
		}
		for _, l := range losses {
			fmt.Fprintf(&b, "%s %d…%d, %d records of %d bytes: %s\n", i.Number, l.First, l.Last, l.Records, l.Bytes, l.Reason)
		}
	}
	return b.String(), nil
}

// callsSince shows the file-system calls since the last time. Files that are no longer
// needed are removed by and by: the input names the calls to wait for, as "remove table=2".
func (y *story) callsSince(d *datadriven.TestData) (string, error) {
	for _, line := range strings.Split(d.Input, "\n") {
		call, times, ok := strings.Cut(line, "=")
		if !ok {
			continue
		}
		n, err := strconv.Atoi(times)
		if err != nil {
			return "", err
		}
		waitFor(y.t, func() bool { return y.calls.count(call) >= n })
	}
	y.settled()
	return y.calls.take(d.Input), nil
}

// put appends a line per record: key, then data.
func (y *story) put(d *datadriven.TestData) (string, error) {
	st, err := y.s.Stream(d.CmdArgs[0].Key)
	if err != nil {
		return "", err
	}
	tx, err := y.s.Begin(ctx, len(d.Input))
	if err != nil {
		return "", err
	}
	defer tx.Release()
	for _, line := range strings.Split(d.Input, "\n") {
		key, data, _ := strings.Cut(line, " ")
		if err := tx.Append(st, []byte(key), nil, []byte(data)); err != nil {
			return "", err
		}
	}
	if err := tx.Commit(ctx); err != nil {
		return "", err
	}
	var b strings.Builder
	for i := range tx.Len() {
		shard, index, _ := tx.Result(i)
		fmt.Fprintf(&b, "%s %d\n", shard, index)
	}
	return b.String(), nil
}

func (y *story) reshard(d *datadriven.TestData) error {
	var name string
	var a, b int
	d.ScanArgs(y.t, "name", &name)
	st, err := y.s.Stream(name)
	if err != nil {
		return err
	}
	switch d.Cmd {
	case "count":
		d.ScanArgs(y.t, "to", &a)
		return st.UpdateShardCount(ctx, a)
	case "merge":
		d.ScanArgs(y.t, "a", &a)
		d.ScanArgs(y.t, "b", &b)
		return st.Merge(ctx, record.ShardNumber(a), record.ShardNumber(b))
	}
	d.ScanArgs(y.t, "shard", &a)
	info, err := st.Shard(record.ShardNumber(a))
	if err != nil {
		return err
	}
	mid, _ := info.Hash.Mid()
	return st.Split(ctx, record.ShardNumber(a), mid)
}

func (y *story) reopen(crash bool) (string, error) {
	fs := y.fs
	if crash {
		fs = y.fs.CrashClone(vfs.CrashCloneCfg{})
	}
	if err := y.s.Close(); err != nil {
		return "", err
	}
	y.fs = fs
	y.calls.take("") // of the process that is no more
	y.open()
	r := y.s.Recovery()
	var b strings.Builder
	fmt.Fprintf(&b, "session %d, clean %v\n", r.Session, r.Clean)
	for _, j := range r.Jumps {
		fmt.Fprintf(&b, "jump %s %s %d…%d\n", j.Stream, j.Shard, j.First, j.Last)
	}
	for _, d := range r.Damaged {
		fmt.Fprintf(&b, "damaged %s %s %d…%d\n", d.Stream, d.Shard, d.First, d.Last)
	}
	return b.String(), nil
}

func (y *story) shards(name string) (string, error) {
	st, err := y.s.Stream(name)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, i := range st.Shards() {
		fmt.Fprintf(&b, "%s %s…%s records %d…%d", i.Number, i.Hash.First, i.Hash.Last, i.First, i.Last)
		if i.HasParent {
			fmt.Fprintf(&b, " parent %d", i.Parent)
		}
		if i.HasAdjacentParent {
			fmt.Fprintf(&b, " and %d", i.AdjacentParent)
		}
		if !i.Open() {
			fmt.Fprint(&b, " closed")
		}
		fmt.Fprintf(&b, "\n  from %s\n", i.StartingSequenceNumber())
	}
	return b.String(), nil
}

func (y *story) read(name string) (string, error) {
	st, err := y.s.Stream(name)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, i := range st.Shards() {
		r, err := st.NewReader(i.Number, Position{})
		if err != nil {
			return b.String(), err
		}
		for n := 1; n > 0 && err == nil; {
			n, err = r.Read(10, 1<<20, func(rec *record.Record) bool {
				fmt.Fprintf(&b, "%s %d %s %s %s\n", i.Number, rec.Index, rec.Arrival.UTC().Format(time.TimeOnly), rec.PartitionKey, rec.Data)
				return true
			})
		}
		for _, g := range r.Skipped() {
			fmt.Fprintf(&b, "%s skipped %d…%d, %d records: %s\n", i.Number, g.First, g.Last, g.Records, g.Reason)
		}
		if err == io.EOF {
			fmt.Fprintf(&b, "%s ends\n", i.Number)
			err = nil
		}
		r.Close()
		if err != nil {
			return b.String(), err
		}
	}
	return b.String(), nil
}

// rows closes the store, shows its keys, and opens it again.
func (y *story) rows() (string, error) {
	if err := y.s.Close(); err != nil {
		return "", err
	}
	var b strings.Builder
	err := Inspect(ctx, "data", small(y.fs, y.clock), InspectOptions{Blocks: true}, func(i Item) error {
		fmt.Fprintf(&b, "%-8s %x", i.Kind, i.Key)
		if block, ok := i.Fields.(BlockItem); ok {
			fmt.Fprintf(&b, " %s %s %d…%d %s/%s", block.Stream, block.Shard, block.First, block.Last, block.DataCodec, block.MetaCodec)
		}
		fmt.Fprintln(&b)
		return nil
	})
	y.open()
	return b.String(), err
}
