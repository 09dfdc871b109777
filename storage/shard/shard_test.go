package shard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/weirhq/weir/storage/commit"
	"github.com/weirhq/weir/storage/epoch"
	"github.com/weirhq/weir/storage/keyspace"
	"github.com/weirhq/weir/storage/record"
	"github.com/weirhq/weir/storage/storagetest/bed"
)

var ctx = context.Background()

// oneShard is a shard over a database in memory, written through a committer.
type oneShard struct {
	t    *testing.T
	env  *Env
	c    *commit.Committer
	s    *Shard
	wall time.Time
	up   time.Duration
	n    int
	// damage is what Env.Damaged was told.
	damage []string
}

func newShard(t *testing.T, state commit.LogState) *oneShard {
	t.Helper()
	b := &oneShard{t: t, wall: time.UnixMilli(1_800_000_000_000)}
	under := bed.New(t, func() time.Time { return b.wall }, func() time.Duration { return b.up })
	b.c = under.Committer
	b.env = &Env{DB: under.DB, Dir: under.Directory, Now: func() time.Time { return b.wall }}
	b.env.Damaged = func(s *Shard, first, last uint64, cause error) {
		b.damage = append(b.damage, fmt.Sprintf("%d-%d %v", first, last, cause))
		s.AddLoss(Loss{First: first, Last: last, Records: last - first + 1, Reason: keyspace.LossDamage})
	}
	if state.First == 0 {
		state.First, state.Next = 1, 1
	}
	b.s = New(b.env, commit.NewLog(7, 3, 1, commit.CodecZstd, state), record.HashRange{}, keyspace.ShardRow{ID: 7, Number: 3}, nil)
	t.Cleanup(b.env.Close)
	return b
}

// put commits n records, "1", "2", … as one group, a second after the last one.
func (b *oneShard) put(n int) {
	b.t.Helper()
	tx, err := b.c.Begin(ctx, 100)
	if err != nil {
		b.t.Fatal(err)
	}
	defer tx.Recycle()
	for range n {
		b.n++
		text := fmt.Sprint(b.n)
		data, err := tx.Reserve(b.s.Log, []byte("key"), nil, len(text))
		if err != nil {
			b.t.Fatal(err)
		}
		copy(data, text)
	}
	if err := b.c.Do(func() { b.wall, b.up = b.wall.Add(time.Second), b.up+time.Second }); err != nil {
		b.t.Fatal(err)
	}
	if err := tx.Commit(ctx); err != nil {
		b.t.Fatal(err)
	}
}

func (b *oneShard) closeEpoch() {
	b.t.Helper()
	if err := b.c.CloseEpoch(); err != nil {
		b.t.Fatal(err)
	}
}

func (b *oneShard) reader(p Position) *Reader {
	b.t.Helper()
	r, err := b.s.NewReader(p)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(r.Close)
	return r
}

// read reads with these limits and returns the data read, joined by spaces.
func read(t *testing.T, r *Reader, records, bytes int) (string, error) {
	t.Helper()
	var got []string
	n, err := r.Read(records, bytes, func(rec *record.Record) bool {
		if want := r.Position(); rec.Index < want {
			t.Fatalf("record %d at position %d", rec.Index, want)
		}
		got = append(got, string(rec.Data))
		return true
	})
	if n != len(got) {
		t.Fatalf("read says %d, it gave %d", n, len(got))
	}
	return strings.Join(got, " "), err
}

func TestReaderBeginsWhereItsPositionSays(t *testing.T) {
	b := newShard(t, commit.LogState{})
	for range 3 {
		b.put(2)
		b.closeEpoch()
	}
	b.put(2) // in the open epoch
	start := time.UnixMilli(1_800_000_000_000)
	for _, c := range []struct {
		p    Position
		want string
	}{
		{Position{}, "1 2 3 4 5 6 7 8"},
		{Position{Kind: Latest}, ""},
		{Position{Kind: AtIndex, Index: 0}, "1 2 3 4 5 6 7 8"},
		{Position{Kind: AtIndex, Index: 4}, "4 5 6 7 8"},
		{Position{Kind: AfterIndex, Index: 4}, "5 6 7 8"},
		{Position{Kind: AfterIndex, Index: 8}, ""},
		{Position{Kind: AtIndex, Index: 9}, ""},
		{Position{Kind: AtTime, Time: time.Unix(0, 0)}, "1 2 3 4 5 6 7 8"},
		{Position{Kind: AtTime, Time: start.Add(2 * time.Second)}, "3 4 5 6 7 8"},
		{Position{Kind: AtTime, Time: start.Add(2*time.Second + time.Millisecond)}, "5 6 7 8"},
		{Position{Kind: AtTime, Time: start.Add(4 * time.Second)}, "7 8"},
		{Position{Kind: AtTime, Time: start.Add(time.Hour)}, ""},
	} {
		if got, err := read(t, b.reader(c.p), 100, 1<<20); got != c.want || err != nil {
			t.Errorf("%+v: read %q, %v; want %q", c.p, got, err, c.want)
		}
	}
	if _, err := b.s.NewReader(Position{Kind: 99}); err == nil {
		t.Error("an unknown kind is taken")
	}
}

func TestReadKeepsItsLimits(t *testing.T) {
	b := newShard(t, commit.LogState{})
	b.put(9)
	r := b.reader(Position{})
	for _, c := range []struct {
		records, bytes int
		want           string
	}{
		{3, 1 << 20, "1 2 3"},
		{100, 8, "4 5"}, // a key of three bytes and one of data each
		{100, 1, "6"},   // one is read however large
		{0, 0, "7"},
		{100, 1 << 20, "8 9"},
		{100, 1 << 20, ""},
	} {
		if got, err := read(t, r, c.records, c.bytes); got != c.want || err != nil {
			t.Fatalf("limits %d and %d: read %q, %v; want %q", c.records, c.bytes, got, err, c.want)
		}
	}
	// What fn refuses is read again.
	r = b.reader(Position{Kind: AtIndex, Index: 5})
	if n, err := r.Read(10, 1<<20, func(rec *record.Record) bool { return rec.Index < 7 }); n != 2 || err != nil || r.Position() != 7 {
		t.Fatalf("%d, %v, position %d", n, err, r.Position())
	}
}

func TestClosedShardEndsAndOpenOneWaits(t *testing.T) {
	b := newShard(t, commit.LogState{})
	b.put(1)
	r := b.reader(Position{})
	if got, err := read(t, r, 10, 100); got != "1" || err != nil {
		t.Fatal(got, err)
	}
	woken := make(chan error, 1)
	go func() { woken <- r.Wait(ctx) }()
	b.put(1)
	if err := <-woken; err != nil {
		t.Fatal(err)
	}
	if got, err := read(t, r, 10, 100); got != "2" || err != nil {
		t.Fatal(got, err)
	}
	if n, bytes, age := r.Lag(); n != 0 || bytes != 0 || age != 0 {
		t.Fatalf("lag at the tip: %d, %d, %v", n, bytes, age)
	}
	b.s.Log.Close()
	b.s.Seal()
	if _, err := read(t, r, 10, 100); err != io.EOF {
		t.Fatal(err)
	}
	// The last records of a closed shard come without the end, which the next call tells.
	r = b.reader(Position{})
	if got, err := read(t, r, 10, 100); got != "1 2" || err != nil {
		t.Fatal(got, err)
	}
	if _, err := read(t, r, 10, 100); err != io.EOF {
		t.Fatal(err)
	}
	b.s.Delete()
	if _, err := read(t, r, 10, 100); !errors.Is(err, ErrDeleted) {
		t.Fatal(err)
	}
	if _, err := b.s.NewReader(Position{}); !errors.Is(err, ErrDeleted) {
		t.Fatal(err)
	}
}

func TestReaderIsToldWhatWasTakenBeforeIt(t *testing.T) {
	b := newShard(t, commit.LogState{})
	for range 3 {
		b.put(2)
		b.closeEpoch()
	}
	r := b.reader(Position{})
	old := b.reader(Position{Kind: AtIndex, Index: 2})
	first := true
	b.s.Trim(func(*epoch.Run) bool { defer func() { first = false }(); return first })
	if got, err := read(t, r, 10, 1<<20); got != "3 4 5 6" || err != nil {
		t.Fatal(got, err)
	}
	if g := r.Skipped(); fmt.Sprint(g) != fmt.Sprint([]Gap{{1, 2, 2, GapRetention}}) || r.Skipped() != nil {
		t.Fatalf("%+v", g)
	}
	b.s.AddLoss(Loss{First: 1, Last: 2, Records: 2, Reason: keyspace.LossDropped})
	if got, err := read(t, old, 1, 1<<20); got != "3" || err != nil {
		t.Fatal(got, err)
	}
	if g := old.Skipped(); fmt.Sprint(g) != fmt.Sprint([]Gap{{2, 2, 1, GapDropped}}) {
		t.Fatalf("%+v", g)
	}
}

func TestReadersPassOverAJumpInSilence(t *testing.T) {
	b := newShard(t, commit.LogState{First: 1, Next: 1001, Jumps: []commit.Jump{{First: 1, Last: 1000}}})
	b.put(2)
	r := b.reader(Position{})
	if n, _, _ := r.Lag(); n != 2 {
		t.Fatalf("%d behind, want 2", n)
	}
	if got, err := read(t, r, 10, 1<<20); got != "1 2" || err != nil || r.Position() != 1003 {
		t.Fatal(got, err, r.Position())
	}
	if g := r.Skipped(); g != nil {
		t.Fatalf("a jump is told as a loss: %+v", g)
	}
}

// TestDamagedBlockIsPassedOverOnce overwrites a stored block: what is around it is
// read, the damage is told to the store once, and to each reader.
func TestDamagedBlockIsPassedOverOnce(t *testing.T) {
	b := newShard(t, commit.LogState{})
	for range 3 {
		b.put(2)
	}
	key := keyspace.DataKey{Lane: 1, Epoch: 1, Shard: 7, Last: 4}.Append(nil)
	if err := b.env.DB.Set(key, bytes.Repeat([]byte{1}, 60), pebble.NoSync); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r := b.reader(Position{})
		if got, err := read(t, r, 10, 1<<20); got != "1 2 5 6" || err != nil {
			t.Fatal(got, err)
		}
		if g := r.Skipped(); fmt.Sprint(g) != fmt.Sprint([]Gap{{3, 4, 2, GapDamage}}) {
			t.Fatalf("%+v", g)
		}
	}
	if len(b.damage) != 1 || !strings.HasPrefix(b.damage[0], "3-4 ") {
		t.Fatalf("%q", b.damage)
	}
}

// TestTailReadersShareOneDecodedBlock lets several readers follow: the newest block is
// decoded once for all of them.
func TestTailReadersShareOneDecodedBlock(t *testing.T) {
	b := newShard(t, commit.LogState{})
	readers := []*Reader{b.reader(Position{}), b.reader(Position{}), b.reader(Position{})}
	b.put(5)
	for i, r := range readers {
		if got, err := read(t, r, 2, 1<<20); got != "1 2" || err != nil {
			t.Fatal(i, got, err)
		}
		if r.block == &r.own || r.block != readers[0].block {
			t.Fatalf("reader %d has a block of its own", i)
		}
	}
	b.put(1) // the shared block is another one now; who stands in the old one goes on
	for i, r := range readers {
		if got, err := read(t, r, 100, 1<<20); got != "3 4 5 6" || err != nil {
			t.Fatal(i, got, err)
		}
	}
}

func TestFramesAreWhatIsStored(t *testing.T) {
	b := newShard(t, commit.LogState{})
	b.put(3)
	b.put(2)
	r := b.reader(Position{Kind: AtIndex, Index: 2})
	var got []string
	if err := r.Frames(1<<20, func(f Frame) bool {
		var keys, data int
		if err := f.Meta(func(rec *record.Record, length int) bool { keys += len(rec.PartitionKey); data += length; return true }); err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%d-%d partial %v skip %d keys %d data %d raw %d", f.First, f.Last, f.Partial, f.Skip, keys, data, f.RawLen))
		return true
	}); err != nil {
		t.Fatal(err)
	}
	want := "1-3 partial true skip 1 keys 9 data 3 raw 3, 4-5 partial false skip 0 keys 6 data 2 raw 2"
	if strings.Join(got, ", ") != want || r.Position() != 6 {
		t.Fatalf("got  %s\nwant %s\nposition %d", strings.Join(got, ", "), want, r.Position())
	}
}

func TestLossesAreKeptInOrderJoinedAndBounded(t *testing.T) {
	s := New(&Env{}, commit.NewLog(1, 0, 0, commit.CodecZstd, commit.LogState{First: 1, Next: 1}), record.HashRange{}, keyspace.ShardRow{}, nil)
	loss := func(first, last uint64, r keyspace.LossReason) Loss {
		return Loss{First: first, Last: last, Records: last - first + 1, Reason: r}
	}
	s.AddLoss(loss(11, 20, keyspace.LossDropped))
	s.AddLoss(loss(1, 5, keyspace.LossThinned))
	s.AddLoss(loss(21, 30, keyspace.LossDropped)) // joins the first
	s.AddLoss(loss(31, 40, keyspace.LossDamage))  // another reason does not
	var got []string
	for _, l := range s.Losses() {
		got = append(got, fmt.Sprintf("%d-%d %d %s", l.First, l.Last, l.Records, l.Reason))
	}
	if want := "1-5 5 thinned, 11-30 20 dropped, 31-40 10 damage"; strings.Join(got, ", ") != want {
		t.Fatalf("got %s, want %s", strings.Join(got, ", "), want)
	}
	// What is lost once more is of the reason that came first, in rows that begin apart.
	l := loss(31, 50, keyspace.LossDropped)
	l.Records -= s.Lost(31, 50)
	if kept, ok := s.AddLoss(l); !ok || kept.First != 41 || kept.Last != 50 || kept.Records != 10 {
		t.Fatalf("behind damage: %+v %v", kept, ok)
	}
	if kept, ok := s.AddLoss(loss(35, 45, keyspace.LossDamage)); ok {
		t.Fatalf("lost already: %+v", kept)
	}
	got = nil
	s.gaps(25, 55, 52, func(g Gap) { got = append(got, fmt.Sprint(g)) })
	if want := "{25 30 6 dropped} {31 40 10 damage} {41 50 10 dropped} {51 55 5 damage}"; strings.Join(got, " ") != want {
		t.Fatalf("got %s, want %s", strings.Join(got, " "), want)
	}
	for i := range uint64(maxLosses) {
		s.AddLoss(loss(100+2*i, 100+2*i, keyspace.LossThinned))
	}
	if gone := s.ForgetLosses(); len(gone) != 4 || gone[0].First != 1 || len(s.Losses()) != maxLosses {
		t.Fatalf("forgot %+v, kept %d", gone, len(s.Losses()))
	}
}

func TestCloseWaitsForReadersUnderWay(t *testing.T) {
	e := &Env{}
	if err := e.Enter(); err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	go func() { e.Close(); close(closed) }()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for e.Enter() == nil {
		e.Leave()
		<-tick.C
	}
	select {
	case <-closed:
		t.Fatal("closed under a reader")
	default:
	}
	e.Leave()
	<-closed
	if err := e.Enter(); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}
