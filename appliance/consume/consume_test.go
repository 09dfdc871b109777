package consume_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weirhq/weir/appliance/consume"
	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
	"github.com/weirhq/weir/wasm/egress"
	"github.com/weirhq/weir/wasm/host"
	"github.com/weirhq/weir/wasm/module"
	"github.com/weirhq/weir/wasm/transform"
	"github.com/weirhq/weir/wasm/wasmtest"
)

// box is a store with a catalogue and a running engine.
type box struct {
	t       testing.TB
	store   *storage.Store
	modules *module.Catalog
	engine  *consume.Engine
	rest    time.Duration // consume.Options.Rest; zero = the default
	ahead   time.Duration // of the engine's clock
	outbox  int           // requests of a shard that may wait; zero = the default
	shadows time.Duration // what a shadow may take of a shard's time; zero = the default
	stop    func()
}

func openBox(t testing.TB, dir string, change func(*module.Options)) *box {
	t.Helper()
	store, err := storage.Open(context.Background(), dir, storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b := &box{t: t, store: store}
	o := module.Options{Store: consume.Modules{Store: store}, Runtime: wasmtest.Runtime(t, host.Options{})}
	if change != nil {
		change(&o)
	}
	if b.modules, err = module.Open(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	b.start()
	t.Cleanup(func() {
		b.stop()
		b.modules.Close()
		if err := store.Close(); err != nil {
			t.Errorf("close store: %v", err)
		}
	})
	return b
}

// start runs an engine; stop ends it.
func (b *box) start() {
	ahead := b.ahead
	b.engine = consume.New(consume.Options{
		Store: b.store, Modules: b.modules, Poll: 20 * time.Millisecond, Rest: b.rest,
		Now: func() time.Time { return time.Now().Add(ahead) },
	})
	if b.outbox > 0 {
		b.engine.LimitOutbox(b.outbox)
	}
	if b.shadows > 0 {
		b.engine.LimitShadow(b.shadows)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.engine.Run(ctx) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("engine: %v", err)
		}
	})
}

func (b *box) stream(name string, shards int) *storage.Stream {
	b.t.Helper()
	st, err := b.store.CreateStream(context.Background(), storage.StreamConfig{Name: name, Shards: shards, Retention: 24 * time.Hour})
	if err != nil {
		b.t.Fatal(err)
	}
	return st
}

// add uploads and activates a consumer.
func (b *box) add(guestName, version string, lines ...string) {
	b.t.Helper()
	if err := add(b.modules, wasmtest.Module(b.t, guestName), version, lines...); err != nil {
		b.t.Fatal(err)
	}
}

func add(c *module.Catalog, wasm []byte, version string, lines ...string) error {
	ctx := context.Background()
	usual := slices.DeleteFunc([]string{"inputs: [in]", "batch: {records: 500, wait: 1ms}"}, func(line string) bool {
		key, _, _ := strings.Cut(line, ":")
		return slices.ContainsFunc(lines, func(given string) bool { return strings.HasPrefix(given, key+":") })
	})
	text := strings.Join(slices.Concat([]string{"name: c", "version: " + version, "kind: consumer"}, usual, lines), "\n")
	d := sha256.Sum256(wasm)
	if err := c.Upload(ctx, d[:], bytes.NewReader(wasm)); err != nil {
		return err
	}
	if _, err := c.Add(ctx, module.Addition{Digest: d[:], Size: int64(len(wasm)), Manifest: []byte(text)}); err != nil {
		return err
	}
	return c.Activate(ctx, "c", version)
}

var counting = []string{"outputs: [out]", "capabilities: {state: true, emit: true}"}

func (b *box) put(st *storage.Stream, records ...string) {
	b.t.Helper()
	if err := put(b.store, st, records...); err != nil {
		b.t.Fatal(err)
	}
}

// put appends records given as "key data".
func put(s *storage.Store, st *storage.Stream, records ...string) error {
	t, err := s.Begin(context.Background(), 100*len(records))
	if err != nil {
		return err
	}
	defer t.Release()
	for _, r := range records {
		k, d, _ := strings.Cut(r, " ")
		if err := t.Append(st, []byte(k), nil, []byte(d)); err != nil {
			return err
		}
	}
	return t.Commit(context.Background())
}

// records reads all of a stream, as "key data".
func records(t testing.TB, st *storage.Stream) []string {
	t.Helper()
	var out []string
	for _, s := range st.Shards() {
		r, err := st.NewReader(s.Number, storage.Position{Kind: storage.TrimHorizon})
		if err != nil {
			t.Fatal(err)
		}
		for {
			n, err := r.Read(1000, 1<<20, func(r *record.Record) bool {
				out = append(out, fmt.Sprintf("%s %s", r.PartitionKey, r.Data))
				return true
			})
			if n == 0 || err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		r.Close()
	}
	return out
}

func (b *box) status() consume.ShardStatus {
	for _, s := range b.engine.Status() {
		return s
	}
	return consume.ShardStatus{}
}

// stateOf reads a counter from the state of any shard that has it.
func (b *box) stateOf(key string) (values []uint64) {
	b.t.Helper()
	err := b.store.Scan(storage.TableModuleState, []byte("c\x00"), nil, 0, func(k, v []byte) bool {
		if string(k[10:]) == key {
			values = append(values, binary.LittleEndian.Uint64(v))
		}
		return true
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return values
}

func TestConsumerKeepsStateAndEmits(t *testing.T) {
	b := openBox(t, t.TempDir(), nil)
	in, out := b.stream("in", 1), b.stream("out", 1)
	b.put(in, "a x", "b x", "a x")
	b.add("counter", "1.0.0", counting...)
	wasmtest.Until(t, "three records out", func() bool { return len(records(t, out)) == 3 })
	if got := records(t, out); !slices.Equal(got, []string{"a a=1", "b b=1", "a a=2"}) {
		t.Fatal(got)
	}
	b.stop()
	b.start()
	b.put(in, "a x")
	wasmtest.Until(t, "a fourth", func() bool { return len(records(t, out)) == 4 })
	if got := records(t, out); got[3] != "a a=3" {
		t.Fatal(got)
	}
	if got := b.stateOf("sum"); !slices.Equal(got, []uint64{4}) {
		t.Fatalf("sum %v", got)
	}
	wasmtest.Until(t, "status", func() bool { s := b.status(); return s.State == consume.Waiting && s.Next == 5 && s.StateEntries == 3 })
}

// TestIdleConsumerRests: its instance and code are freed while there is nothing to
// do, and it goes on with its state when there is.
func TestIdleConsumerRests(t *testing.T) {
	var rt *host.Runtime
	b := openBox(t, t.TempDir(), func(o *module.Options) { rt = o.Runtime })
	b.stop()
	b.rest = time.Millisecond
	b.start()
	in, out := b.stream("in", 1), b.stream("out", 1)
	b.add("counter", "1.0.0", counting...)
	for n := 1; n <= 3; n++ {
		b.put(in, "a x")
		wasmtest.Until(t, "a record out", func() bool { return len(records(t, out)) == n })
		wasmtest.Until(t, "no memory in use", func() bool { used, _ := rt.MemoryUsed(); return used == 0 })
		wasmtest.Until(t, "waiting", func() bool { return b.status().State == consume.Waiting })
	}
	if got := records(t, out); !slices.Equal(got, []string{"a a=1", "a a=2", "a a=3"}) {
		t.Fatal(got)
	}
}

func TestPoisonRecordsAreDeadLetteredAndTheirEffectsUndone(t *testing.T) {
	b := openBox(t, t.TempDir(), nil)
	in, out := b.stream("in", 1), b.stream("out", 1)
	b.put(in, "a x", "a x", "p T", "a x", "q f", "a x", "r T")
	b.add("counter", "1.0.0", counting...)
	wasmtest.Until(t, "records out", func() bool { return len(records(t, out)) == 4 })
	wasmtest.Until(t, "dead letters", func() bool {
		st, err := b.store.Stream("c-dead-letters")
		return err == nil && len(records(t, st)) == 3
	})
	if got := records(t, out); !slices.Equal(got, []string{"a a=1", "a a=2", "a a=3", "a a=4"}) {
		t.Fatal(got)
	}
	if s := b.status(); s.DeadLetters != "c-dead-letters" {
		t.Errorf("the status names %q as the stream of dead letters", s.DeadLetters)
	}
	dead, err := b.store.Stream("c-dead-letters")
	if err == nil && dead.Config().System {
		t.Error("dead letters are hidden from whoever could read them")
	}
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range records(t, dead) {
		key, text, _ := strings.Cut(r, " ")
		var d transform.DeadLetter
		if err := json.Unmarshal([]byte(text), &d); err != nil {
			t.Fatal(err)
		}
		if d.Digest == "" || d.SequenceNumber == "" || d.Stream != "in" || d.Shard != "shardId-000000000000" {
			t.Errorf("%+v", d)
		}
		got = append(got, fmt.Sprintf("%s %s %#x", key, d.Data, d.Code))
	}
	if want := []string{"p T 0xffff0001", "q f 0x2a", "r T 0xffff0001"}; !slices.Equal(got, want) {
		t.Fatalf("dead letters %v, want %v", got, want)
	}
	// "sum" counts calls that lasted: each record is in exactly one of them, the failed one included.
	if got := b.stateOf("sum"); !slices.Equal(got, []uint64{5}) {
		t.Fatalf("sum %v", got)
	}
}

func TestHaltWaitsForSomeoneAndANewVersion(t *testing.T) {
	b := openBox(t, t.TempDir(), nil)
	in, out := b.stream("in", 1), b.stream("out", 1)
	b.put(in, "a x")
	b.add("counter", "1.0.0", append(counting, "on_error: {then: halt}")...)
	wasmtest.Until(t, "a record out", func() bool { return len(records(t, out)) == 1 })
	b.put(in, "p T", "a x")
	wasmtest.Until(t, "halt", func() bool { return b.status().State == consume.Halted })
	b.engine.Resume("c")
	wasmtest.Until(t, "halt again", func() bool { return b.status().State == consume.Halted })
	if s := b.status(); s.LagRecords != 2 {
		t.Fatalf("%d records behind while halted before two", s.LagRecords)
	}
	halted, err := b.modules.Active("c")
	if err != nil {
		t.Fatal(err)
	}
	if n := len(records(t, out)); n != 1 {
		t.Fatalf("%d records out while halted", n)
	}
	b.add("counter", "1.0.1", append(counting, "on_error: {then: drop}")...)
	wasmtest.Until(t, "progress with the new version", func() bool { return len(records(t, out)) == 2 })
	if got := records(t, out); got[1] != "a a=2" {
		t.Fatal(got)
	}
	next, err := b.modules.Active("c")
	if err != nil {
		t.Fatal(err)
	}
	wasmtest.Until(t, "records counted", func() bool { return next.Stats().Records > 0 })
	if was, is := halted.Stats().Records, next.Stats().Records; was != 1 || is != 2 {
		t.Fatalf("the version that halted counted %d records and the next %d; they committed 1 and 2", was, is)
	}
}

func TestTicks(t *testing.T) {
	b := openBox(t, t.TempDir(), nil)
	b.stream("in", 1)
	out := b.stream("out", 1)
	b.add("counter", "1.0.0", append(counting, "tick: 100ms")...)
	wasmtest.Until(t, "three ticks", func() bool { return len(records(t, out)) >= 3 })
	if got := records(t, out)[0]; got != "shardId-000000000000 tick" {
		t.Fatalf("%q", got)
	}
	wasmtest.Until(t, "ticks counted", func() bool { v := b.stateOf("ticks"); return len(v) == 1 && v[0] >= 3 })
}

// TestTicksGoOnWhenTheClockWentBack: a box without a battery may begin in 1970 again.
func TestTicksGoOnWhenTheClockWentBack(t *testing.T) {
	b := openBox(t, t.TempDir(), nil)
	b.stop()
	b.ahead = 20 * 365 * 24 * time.Hour
	b.start()
	b.stream("in", 1)
	out := b.stream("out", 1)
	b.add("counter", "1.0.0", append(counting, "tick: 100ms")...)
	wasmtest.Until(t, "a tick", func() bool { return len(records(t, out)) >= 1 })
	b.stop()
	before := len(records(t, out))
	b.ahead = 0
	b.start()
	wasmtest.Until(t, "two ticks more", func() bool { return len(records(t, out)) >= before+2 })
}

// TestDeadLetterOfALargeRecordIsCut: in base64 it is larger than any record, and
// the shard must go on all the same.
func TestDeadLetterOfALargeRecordIsCut(t *testing.T) {
	b := openBox(t, t.TempDir(), nil)
	in, out := b.stream("in", 1), b.stream("out", 1)
	if err := in.Update(context.Background(), func(c *storage.StreamConfig) { c.MaxRecordBytes = record.MaxDataBytes }); err != nil {
		t.Fatal(err)
	}
	b.put(in, "p T"+strings.Repeat("x", record.MaxDataBytes-1), "a x")
	b.add("counter", "1.0.0", counting...)
	wasmtest.Until(t, "the next record out", func() bool { return len(records(t, out)) == 1 })
	dead, err := b.store.Stream("c-dead-letters")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(records(t, dead)[0], " ")
	var d transform.DeadLetter
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	if d.DataBytes != record.MaxDataBytes || len(d.Data) < 7<<20 || d.Data[0] != 'T' || d.SequenceNumber == "" {
		t.Fatalf("%d of %d bytes, sequence number %q", len(d.Data), d.DataBytes, d.SequenceNumber)
	}
}

func TestStateFollowsItsShardThroughSplitAndMerge(t *testing.T) {
	b := openBox(t, t.TempDir(), nil)
	in, out := b.stream("in", 1), b.stream("out", 1)
	b.add("counter", "1.0.0", counting...)
	var keys []string
	for i := range 40 {
		keys = append(keys, fmt.Sprintf("key%d x", i))
	}
	total := 0
	send := func(times int) {
		for range times {
			b.put(in, keys...)
			total += len(keys)
		}
	}
	settled := func() { wasmtest.Until(t, "all records out", func() bool { return len(records(t, out)) == total }) }
	send(3)
	middle, err := record.ParseHashKey("170141183460469231731687303715884105728")
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Split(context.Background(), 0, middle); err != nil {
		t.Fatal(err)
	}
	send(2)
	settled()
	if err := in.Merge(context.Background(), 1, 2); err != nil {
		t.Fatal(err)
	}
	send(2)
	settled()
	last := map[string]string{}
	for _, r := range records(t, out) {
		k, d, _ := strings.Cut(r, " ")
		last[k] = d
	}
	for _, k := range keys {
		k = strings.TrimSuffix(k, " x")
		if last[k] != k+"=7" {
			t.Fatalf("%s ended with %s, want %s=7", k, last[k], k)
		}
	}
	if got := b.stateOf("key1"); !slices.Equal(got, []uint64{7}) {
		t.Fatalf("key1 is kept as %v", got)
	}
	// "sum" isn't a partition key: one shard has it at any time.
	if got := b.stateOf("sum"); len(got) != 1 {
		t.Fatalf("sum %v", got)
	}
}

// TestABatchSaysWhichInputItIsOfAndWhenAShardEnds: a module that reads several streams
// tells them apart by that alone.
func TestABatchSaysWhichInputItIsOfAndWhenAShardEnds(t *testing.T) {
	b := openBox(t, t.TempDir(), nil)
	other, in, out := b.stream("other", 1), b.stream("in", 1), b.stream("out", 1)
	b.stop()
	b.put(in, "a ?", "b ?", "c ?")
	b.put(other, "d ?")
	middle, _ := record.HashKey{}.Prev()
	middle[0] = 0x80
	if err := in.Split(context.Background(), 0, middle); err != nil {
		t.Fatal(err)
	}
	b.put(in, "e ?")
	b.add("counter", "1.0.0", append(counting, "inputs: [other, in]", "batch: {records: 2, wait: 1ms}")...)
	b.start()
	wasmtest.Until(t, "all records out", func() bool { return len(records(t, out)) == 5 })
	got := records(t, out)
	slices.Sort(got)
	if want := []string{"a a=1/0", "b b=1/0", "c c=1/4", "d d=0/0", "e e=1/0"}; !slices.Equal(got, want) {
		t.Errorf("%q, expecting %q", got, want)
	}
}

func TestWorkSpreadsOverShardsWithOneInstanceEach(t *testing.T) {
	b := openBox(t, t.TempDir(), nil)
	in, out := b.stream("in", 8), b.stream("out", 2)
	b.add("counter", "1.0.0", counting...)
	var recs []string
	for i := range 400 {
		recs = append(recs, fmt.Sprintf("k%d x", i%80))
	}
	b.put(in, recs...)
	wasmtest.Until(t, "all out", func() bool { return len(records(t, out)) == 400 })
	wasmtest.Until(t, "eight workers", func() bool { return len(b.engine.Status()) == 8 })
	got := records(t, out)
	for i := range 80 {
		for n := 1; n <= 5; n++ {
			if want := fmt.Sprintf("k%d k%d=%d", i, i, n); !slices.Contains(got, want) {
				t.Fatalf("no %q", want)
			}
		}
	}
}

func TestStartAtLatestSkipsWhatIsThere(t *testing.T) {
	b := openBox(t, t.TempDir(), nil)
	in, out := b.stream("in", 2), b.stream("out", 1)
	b.put(in, "a x", "b x", "c x")
	b.add("counter", "1.0.0", append(counting, "start: latest")...)
	wasmtest.Until(t, "two workers", func() bool { return len(b.engine.Status()) == 2 })
	b.put(in, "a x", "b x")
	wasmtest.Until(t, "two out", func() bool { return len(records(t, out)) == 2 })
	got := records(t, out)
	slices.Sort(got)
	if !slices.Equal(got, []string{"a a=1", "b b=1"}) {
		t.Fatal(got)
	}
}

func TestForgetDeletesEverythingKept(t *testing.T) {
	b := openBox(t, t.TempDir(), nil)
	in, out := b.stream("in", 1), b.stream("out", 1)
	b.put(in, "a x")
	b.add("counter", "1.0.0", counting...)
	wasmtest.Until(t, "out", func() bool { return len(records(t, out)) == 1 })
	if err := b.engine.Forget(context.Background(), "c"); err == nil {
		t.Fatal("an active consumer was forgotten")
	}
	if err := b.modules.Deactivate(context.Background(), "c"); err != nil {
		t.Fatal(err)
	}
	wasmtest.Until(t, "forgotten", func() bool { return b.engine.Forget(context.Background(), "c") == nil })
	if got := b.stateOf("a"); got != nil {
		t.Fatalf("state %v", got)
	}
	if err := b.modules.Activate(context.Background(), "c", "1.0.0"); err != nil {
		t.Fatal(err)
	}
	wasmtest.Until(t, "from the beginning", func() bool { return len(records(t, out)) == 2 })
	if got := records(t, out)[1]; got != "a a=1" {
		t.Fatal(got)
	}
}

// TestDeletedStreamLeavesNothingBehind: its number never comes again, so nobody would ever
// delete what was kept for it.
func TestDeletedStreamLeavesNothingBehind(t *testing.T) {
	b := openBox(t, t.TempDir(), nil)
	in, out := b.stream("in", 2), b.stream("out", 1)
	b.put(in, "a x", "b x")
	b.add("counter", "1.0.0", counting...)
	wasmtest.Until(t, "out", func() bool { return len(records(t, out)) == 2 })
	if err := b.store.DeleteStream(context.Background(), "in"); err != nil {
		t.Fatal(err)
	}
	rows := func() (n int) {
		for _, table := range []storage.Table{storage.TableLease, storage.TableCheckpoint, storage.TableConsumer, storage.TableModuleState} {
			if err := b.store.Scan(table, nil, nil, 0, func(_, _ []byte) bool { n++; return true }); err != nil {
				t.Fatal(err)
			}
		}
		return n
	}
	wasmtest.Until(t, "no rows", func() bool { return rows() == 0 })
	b.put(b.stream("in", 1), "a x")
	wasmtest.Until(t, "out again", func() bool { return len(records(t, out)) == 3 })
	if got := records(t, out)[2]; got != "a a=1" {
		t.Fatal(got)
	}
}

func TestMissingOutputIsSaidAndWaitedFor(t *testing.T) {
	b := openBox(t, t.TempDir(), nil)
	in := b.stream("in", 1)
	b.put(in, "a x")
	b.add("counter", "1.0.0", counting...)
	wasmtest.Until(t, "a reason", func() bool { s := b.status(); return s.State == consume.Backing && strings.Contains(s.Reason, "out") })
	out := b.stream("out", 1)
	wasmtest.Until(t, "progress", func() bool { return len(records(t, out)) == 1 })
}

func TestOutboxIsSentAfterTheCommit(t *testing.T) {
	var mu sync.Mutex
	var got []string
	fail := 2
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		body, _ := io.ReadAll(r.Body)
		if string(body) == "refuse" {
			w.WriteHeader(400)
			return
		}
		if fail > 0 {
			fail--
			w.WriteHeader(503)
			return
		}
		got = append(got, fmt.Sprintf("%s %s %d", r.Method, body, len(r.Header.Get("Idempotency-Key"))))
	}))
	defer server.Close()
	addr := netip.MustParseAddrPort(server.Listener.Addr().String())
	b := openBox(t, t.TempDir(), func(o *module.Options) { o.Egress = egress.Policy{Private: []netip.AddrPort{addr}} })
	in, out := b.stream("in", 1), b.stream("out", 1)
	b.add("calls", "1.0.0", append(counting[:1:1], "capabilities: {state: true, emit: true, http: {hosts: ['"+addr.String()+"']}}")...)
	b.put(in, "k Q POST+"+server.URL+"/~~one", "k Q POST+"+server.URL+"/~~two", "k Q POST+http://elsewhere/~~x", "k Q POST+"+server.URL+"/~~refuse", "k Q junk")
	wasmtest.Until(t, "answers", func() bool { return len(records(t, out)) == 5 })
	if got := records(t, out); !slices.Equal(got, []string{"k 0 0", "k 0 0", "k -4 0", "k 0 0", "k -3 0"}) {
		t.Fatal(got)
	}
	wasmtest.Until(t, "requests", func() bool { mu.Lock(); defer mu.Unlock(); return len(got) == 2 })
	if !slices.Equal(got, []string{"POST one 44", "POST two 44"}) {
		t.Fatal(got)
	}
	wasmtest.Until(t, "the refused one among the dead letters", func() bool {
		st, err := b.store.Stream("c-dead-letters")
		return err == nil && len(records(t, st)) == 1
	})
	v, err := b.modules.Active("c")
	if err != nil {
		t.Fatal(err)
	}
	var logged []string
	for _, l := range v.Logs() {
		logged = append(logged, l.Text)
	}
	for _, want := range []string{"was answered with status 503", "was answered with status 400"} {
		if !strings.Contains(strings.Join(logged, "\n"), want) {
			t.Errorf("the module's log doesn't say %q: %q", want, logged)
		}
	}
	if rows := b.outboxRows(); rows != 0 {
		t.Fatalf("%d rows left in the outbox", rows)
	}
}

// posting opens a box with a consumer that posts each record's last word to a server.
func posting(t *testing.T, outbox int, handler http.HandlerFunc) (b *box, in, out *storage.Stream, url string) {
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	addr := netip.MustParseAddrPort(server.Listener.Addr().String())
	b = openBox(t, t.TempDir(), func(o *module.Options) { o.Egress = egress.Policy{Private: []netip.AddrPort{addr}} })
	b.stop()
	b.outbox = outbox
	b.start()
	in, out = b.stream("in", 1), b.stream("out", 1)
	b.add("calls", "1.0.0", append(counting[:1:1], "capabilities: {state: true, emit: true, http: {hosts: ['"+addr.String()+"']}}")...)
	return b, in, out, server.URL
}

func (b *box) outboxRows() int {
	rows := 0
	if err := b.store.Scan(storage.TableOutbox, nil, nil, 0, func(_, _ []byte) bool { rows++; return true }); err != nil {
		b.t.Fatal(err)
	}
	return rows
}

// TestOutboxHasRoomAgainForWhatWasSent: what was sent doesn't count against the
// limit of what may wait.
func TestOutboxHasRoomAgainForWhatWasSent(t *testing.T) {
	b, in, out, url := posting(t, 4, func(http.ResponseWriter, *http.Request) {})
	for n := 1; n <= 12; n++ {
		b.put(in, "k Q POST+"+url+"/~~one")
		wasmtest.Until(t, "an answer", func() bool { return len(records(t, out)) == n })
		wasmtest.Until(t, "an empty outbox", func() bool { return b.outboxRows() == 0 })
	}
	for i, r := range records(t, out) {
		if r != "k 0 0" {
			t.Fatalf("request %d was answered %q", i, r)
		}
	}
}

func TestFullOutboxAnswersUnavailable(t *testing.T) {
	b, in, out, url := posting(t, 4, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
	for n := 1; n <= 6; n++ {
		b.put(in, "k Q POST+"+url+"/~~one")
		wasmtest.Until(t, "an answer", func() bool { return len(records(t, out)) == n })
	}
	if got := records(t, out); !slices.Equal(got, []string{"k 0 0", "k 0 0", "k 0 0", "k 0 0", "k -7 0", "k -7 0"}) {
		t.Fatal(got)
	}
}

// TestOutboxGoesOnWhenTheClockWentBack: the time of the next attempt may lie decades ahead then.
func TestOutboxGoesOnWhenTheClockWentBack(t *testing.T) {
	var up atomic.Bool
	b, in, _, url := posting(t, 0, func(w http.ResponseWriter, _ *http.Request) {
		if !up.Load() {
			w.WriteHeader(503)
		}
	})
	b.stop()
	b.ahead = 20 * 365 * 24 * time.Hour
	b.start()
	b.put(in, "k Q POST+"+url+"/~~one")
	attempted := func() bool {
		waits := false
		err := b.store.Scan(storage.TableOutbox, nil, nil, 0, func(_, v []byte) bool {
			waits = bytes.Contains(v, []byte("not_before_ms"))
			return true
		})
		return err == nil && waits
	}
	wasmtest.Until(t, "an attempt that failed", attempted)
	b.stop()
	up.Store(true)
	b.ahead = 0
	b.start()
	wasmtest.Until(t, "the request sent", func() bool { return b.outboxRows() == 0 })
}

// TestWhatAModuleCountedOutlivesARestart: its own metrics, its requests, and what its
// shadow did otherwise.
func TestWhatAModuleCountedOutlivesARestart(t *testing.T) {
	b, in, out, url := posting(t, 0, func(http.ResponseWriter, *http.Request) {})
	b.put(in, "k D 0 sent_total", "k A 0 5", "k D 2 size", "k O 1 3", "k Q POST+"+url+"/~~one")
	wasmtest.Until(t, "answers", func() bool { return len(records(t, out)) == 5 && b.outboxRows() == 0 })
	b.shadow(wasmtest.Module(t, "calls"), "1.1.0", "outputs: [out]",
		"capabilities: {state: true, emit: true, http: {hosts: ['"+strings.TrimPrefix(url, "http://")+"']}}")
	b.put(in, "k A 0 2")
	var before module.Stats
	wasmtest.Until(t, "all counted", func() bool {
		v, err := b.modules.Active("c")
		if err != nil {
			t.Fatal(err)
		}
		before = v.Stats()
		return len(before.Metrics) == 2 && before.Metrics[0].Value == 7 && before.HTTP.Requests == 1 && before.Shadow != nil && before.Shadow.Records+before.Shadow.Skipped > 0
	})
	b.stop()
	b.modules.Close()
	var err error
	if b.modules, err = module.Open(context.Background(), module.Options{Store: consume.Modules{Store: b.store}, Runtime: wasmtest.Runtime(t, host.Options{})}); err != nil {
		t.Fatal(err)
	}
	v, err := b.modules.Active("c")
	if err != nil {
		t.Fatal(err)
	}
	if after := v.Stats(); !reflect.DeepEqual(after.Metrics, before.Metrics) || *after.HTTP != *before.HTTP || !reflect.DeepEqual(after.Shadow, before.Shadow) {
		t.Fatalf("after a restart %+v, %+v, %+v\nbefore it %+v, %+v, %+v", after.Metrics, after.HTTP, after.Shadow, before.Metrics, before.HTTP, before.Shadow)
	}
}

// loads counts how often the pieces of modules are read.
type loads struct {
	module.Store
	n atomic.Int64
}

func (l *loads) Get(ctx context.Context, key []byte) ([]byte, error) {
	if bytes.HasPrefix(key, []byte("b/")) {
		l.n.Add(1)
	}
	return l.Store.Get(ctx, key)
}

// TestInstanceIsReplacedWithoutLoadingItsModuleAgain: what breaks a module would cost a
// compilation for each record else.
func TestInstanceIsReplacedWithoutLoadingItsModuleAgain(t *testing.T) {
	var l *loads
	b := openBox(t, t.TempDir(), func(o *module.Options) {
		l = &loads{Store: o.Store}
		o.Store = l
	})
	in, out := b.stream("in", 1), b.stream("out", 1)
	b.add("counter", "1.0.0", append(counting, "on_error: {then: drop}")...)
	b.put(in, "a x")
	wasmtest.Until(t, "a record out", func() bool { return len(records(t, out)) == 1 })
	before := l.n.Load()
	b.put(in, "p T", "p T", "p T", "p T", "a x")
	wasmtest.Until(t, "the next record out", func() bool { return len(records(t, out)) == 2 })
	if n := l.n.Load() - before; n > 0 {
		t.Fatalf("four records that broke the module had it loaded %d times", n)
	}
}

func BenchmarkPutPerRecord(b *testing.B) {
	bx := openBox(b, b.TempDir(), nil)
	in := bx.stream("in", 4)
	bx.stream("out", 1)
	const batch = 5000
	recs := make([]string, batch)
	for i := range recs {
		recs[i] = fmt.Sprintf("device-%03d %s", i%200, strings.Repeat("x", 180))
	}
	n := 0
	for b.Loop() {
		bx.put(in, recs...)
		n += batch
	}
	b.StopTimer()
	// Everything is in the stream: now consume it.
	b.StartTimer()
	start := time.Now()
	if err := add(bx.modules, wasmtest.Module(b, "puts"), "1.0.0", "capabilities: {state: true}"); err != nil {
		b.Fatal(err)
	}
	wasmtest.Until(b, "all consumed", func() bool {
		next := uint64(0)
		for _, s := range bx.engine.Status() {
			next += s.Next
		}
		return next >= uint64(n)
	})
	took := time.Since(start)
	b.ReportMetric(float64(n)/took.Seconds(), "records/s")
}
