package module_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weirhq/weir/wasm/abi"
	"github.com/weirhq/weir/wasm/guest"
	"github.com/weirhq/weir/wasm/host"
	"github.com/weirhq/weir/wasm/manifest"
	"github.com/weirhq/weir/wasm/module"
	"github.com/weirhq/weir/wasm/transform"
	"github.com/weirhq/weir/wasm/wasmtest"
)

// memory is a module.Store without a disk. fail makes its next commits fail.
type memory struct {
	mu      sync.Mutex
	rows    map[string][]byte
	fail    error
	commits int
}

func (m *memory) Get(_ context.Context, key []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return bytes.Clone(m.rows[string(key)]), nil
}

func (m *memory) Scan(_ context.Context, prefix []byte, fn func(key, value []byte) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var keys []string
	for k := range m.rows {
		if strings.HasPrefix(k, string(prefix)) {
			keys = append(keys, k)
		}
	}
	sort.Strings(keys)
	for _, k := range keys {
		if err := fn([]byte(k), m.rows[k]); err != nil {
			return err
		}
	}
	return nil
}

func (m *memory) Commit(_ context.Context, changes []module.Change) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	m.commits++
	for _, c := range changes {
		if c.Value == nil {
			delete(m.rows, string(c.Key))
		} else {
			m.rows[string(c.Key)] = bytes.Clone(c.Value)
		}
	}
	return nil
}

func (m *memory) keys(prefix string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for k := range m.rows {
		if strings.HasPrefix(k, prefix) {
			n++
		}
	}
	return n
}

func open(t testing.TB, store *memory, change func(*module.Options)) *module.Catalog {
	t.Helper()
	if store.rows == nil {
		store.rows = map[string][]byte{}
	}
	o := module.Options{Store: store, Runtime: wasmtest.Runtime(t, host.Options{}), Now: time.Now}
	if change != nil {
		change(&o)
	}
	c, err := module.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// add uploads a test guest under a name and version.
func add(t testing.TB, c *module.Catalog, guestName, version string, lines ...string) error {
	t.Helper()
	wasm := wasmtest.Module(t, guestName)
	text := []byte(strings.Join(append([]string{"name: m", "version: " + version, "kind: transform"}, lines...), "\n"))
	return addBytes(c, wasm, text, nil)
}

func addBytes(c *module.Catalog, wasm, text, sig []byte) error {
	d := sha256.Sum256(wasm)
	if err := c.Upload(context.Background(), d[:], bytes.NewReader(wasm)); err != nil {
		return err
	}
	_, err := c.Add(context.Background(), module.Addition{Digest: d[:], Size: int64(len(wasm)), Manifest: text, Signature: sig})
	return err
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func process(t testing.TB, c *module.Catalog, data ...string) string {
	t.Helper()
	tr, err := c.Transform("m")
	must(t, err)
	out := ""
	must(t, tr.Process(context.Background(), &transform.Batch{Records: wasmtest.Records(data...)}, func(o *transform.Output) error {
		out += fmt.Sprintf("%s %s;", o.Status, o.Data)
		return nil
	}))
	return out
}

func TestLifeOfAModule(t *testing.T) {
	store := &memory{}
	c := open(t, store, nil)
	ctx := context.Background()
	if _, err := c.Transform("m"); !errors.Is(err, module.ErrNotFound) {
		t.Fatalf("Transform of nothing = %v", err)
	}
	must(t, add(t, c, "pass", "1.0.0"))
	if _, err := c.Transform("m"); !errors.Is(err, module.ErrNoVersion) {
		t.Fatalf("Transform before activation = %v", err)
	}
	changed := c.Changed()
	must(t, c.Activate(ctx, "m", "1.0.0"))
	<-changed
	if got := process(t, c, "rA"); got != "unchanged ;" {
		t.Fatal(got)
	}
	must(t, add(t, c, "moods", "1.1.0"))
	if got := process(t, c, "rA"); got != "unchanged ;" {
		t.Fatalf("a version that is not active ran: %s", got)
	}
	must(t, c.Activate(ctx, "m", "1.1.0"))
	if got := process(t, c, "rA"); got != "replaced A;" {
		t.Fatal(got)
	}
	must(t, c.Rollback(ctx, "m"))
	if got := process(t, c, "rA"); got != "unchanged ;" {
		t.Fatal(got)
	}
	if err := c.Rollback(ctx, "m"); !errors.Is(err, module.ErrNoPrevious) {
		t.Fatalf("second rollback = %v", err)
	}

	// What is stored comes back.
	c2 := open(t, store, nil)
	i, err := c2.Describe("m")
	must(t, err)
	if i.Active != "1.0.0" || len(i.Versions) != 2 || i.Versions[0].Failure == "" {
		t.Fatalf("%+v", i)
	}
	if got := process(t, c2, "x"); got != "unchanged ;" {
		t.Fatal(got)
	}
	if err := c2.Remove(ctx, "m", "1.0.0"); !errors.Is(err, module.ErrActive) {
		t.Fatalf("removal of the active version = %v", err)
	}
	must(t, c2.Remove(ctx, "m", ""))
	if n := store.keys(""); n != 0 {
		t.Fatalf("%d rows are left after removal", n)
	}
}

func TestThreeVersionsAreKept(t *testing.T) {
	store := &memory{}
	c := open(t, store, nil)
	ctx := context.Background()
	must(t, add(t, c, "pass", "1.0.0"))
	must(t, c.Activate(ctx, "m", "1.0.0"))
	for i := 1; i < 6; i++ {
		must(t, add(t, c, "moods", fmt.Sprintf("1.%d.0", i)))
	}
	i, err := c.Describe("m")
	must(t, err)
	var got []string
	for _, v := range i.Versions {
		got = append(got, v.Version)
	}
	if fmt.Sprint(got) != "[1.5.0 1.4.0 1.0.0]" {
		t.Fatalf("versions %v", got)
	}
	if n := store.keys("b/"); n != 2 { // pass and moods, one piece each
		t.Fatalf("%d pieces stored", n)
	}
}

func TestWhatIsRefused(t *testing.T) {
	c := open(t, &memory{}, func(o *module.Options) { o.MaxBytes = 300 << 10 })
	ctx := context.Background()
	must(t, add(t, c, "pass", "1.0.0"))
	must(t, add(t, c, "pass", "1.0.0")) // again: nothing to do
	for name, test := range map[string]struct {
		err  error
		want error
	}{
		"same version, other content": {add(t, c, "moods", "1.0.0"), module.ErrExists},
		"above the size limit":        {c.Upload(ctx, make([]byte, 32), bytes.NewReader(make([]byte, 301<<10))), module.ErrTooLarge},
		"not WebAssembly":             {addBytes(c, []byte("hello"), []byte("name: x\nversion: 1.0.0\nkind: transform"), nil), host.ErrInvalid},
		"imports not granted":         {addBytes(c, wasmtest.Module(t, "counter"), []byte("name: x\nversion: 1.0.0\nkind: transform"), nil), host.ErrImport},
		"no weir/1 exports":           {addBytes(c, wasmtest.Module(t, "lines"), []byte("name: x\nversion: 1.0.0\nkind: transform"), nil), host.ErrExport},
		"config refused":              {addBytes(c, wasmtest.Module(t, "calls"), []byte("name: x\nversion: 1.0.0\nkind: consumer\ninputs: [a]\noutputs: [b]\ncapabilities: {state: true, emit: true, http: {hosts: ['a:1']}}\nconfig: {ref: 12345}"), nil), guest.ErrConfigure},
		"of another kind":             {addBytes(c, wasmtest.Module(t, "pass"), []byte("name: m\nversion: 2.0.0\nkind: consumer\ninputs: [a]"), nil), module.ErrKind},
		"vector fails":                {add(t, c, "moods", "3.0.0", "tests: [{name: v, records: [{data: d}], expect: [{status: unchanged}]}]"), module.ErrVectors},
		"unknown version":             {c.Activate(ctx, "m", "9.9.9"), module.ErrNoVersion},
	} {
		if !errors.Is(test.err, test.want) {
			t.Errorf("%s: %v, want %v", name, test.err, test.want)
		}
	}
	var p manifest.Problems
	if err := add(t, c, "pass", "nope"); !errors.As(err, &p) {
		t.Errorf("bad manifest: %v", err)
	}
	wasm := wasmtest.Module(t, "moods")
	d := sha256.Sum256(wasm)
	must(t, c.PutChunk(ctx, d[:], 0, append([]byte("x"), wasm[1:]...)))
	if _, err := c.Add(ctx, module.Addition{Digest: d[:], Size: int64(len(wasm)), Manifest: []byte("name: y\nversion: 1.0.0\nkind: transform")}); !errors.Is(err, module.ErrUpload) {
		t.Errorf("bytes that don't fit the digest: %v", err)
	}
}

func TestVectorsOfAConsumer(t *testing.T) {
	c := open(t, &memory{}, nil)
	text := `name: count
version: 1.0.0
kind: consumer
inputs: [in]
outputs: [out]
capabilities: {state: true, emit: true}
tests:
  - name: counts
    records: [{key: a, data: x}, {key: a, data: y}, {key: b, data: f}]
    expect: [{status: replaced}, {status: replaced}, {status: failed, code: 42}]
    tick: 1000
    emits: [{key: a, data: a=1}, {key: a, data: a=2}, {data: tick}]
    state: [{key: a, value_base64: AgAAAAAAAAA=}]
`
	must(t, addBytes(c, wasmtest.Module(t, "counter"), []byte(text), nil))
	err := addBytes(c, wasmtest.Module(t, "counter"), []byte(strings.NewReplacer("1.0.0", "1.0.1", "a=2", "a=3").Replace(text)), nil)
	if !errors.Is(err, module.ErrVectors) || !strings.Contains(err.Error(), `emit 1: data "a=2"; expecting "a=3"`) {
		t.Fatalf("err = %v", err)
	}
}

// keyPair makes a key to sign with and reads it back from its files.
func keyPair(t *testing.T) (ed25519.PrivateKey, ed25519.PublicKey) {
	t.Helper()
	private, public, err := module.GenerateKey()
	must(t, err)
	key, err := module.ParsePrivateKey(private)
	must(t, err)
	trusted, err := module.ParsePublicKey(public)
	must(t, err)
	return key, trusted
}

func TestSignatures(t *testing.T) {
	key, trusted := keyPair(t)
	_, stranger, err := ed25519.GenerateKey(nil)
	must(t, err)
	wasm, text := wasmtest.Module(t, "pass"), []byte("name: m\nversion: 1.0.0\nkind: transform")
	good := module.Sign(key, wasm, text)
	back, err := module.DecodeSignature(module.EncodeSignature(good))
	must(t, err)
	if !bytes.Equal(back, good) {
		t.Fatal("the signature file does not come back")
	}
	other := append([]byte(nil), text...)
	copy(other[15:], "2")
	for _, test := range []struct {
		policy   module.SignaturePolicy
		sig      []byte
		text     []byte
		refused  bool
		warning  bool
		signedBy bool
	}{
		{module.SignaturesOff, nil, text, false, false, false},
		{module.SignaturesWarn, nil, text, false, true, false},
		{module.SignaturesWarn, good, text, false, false, true},
		{module.SignaturesWarn, module.Sign(stranger, wasm, text), text, false, true, false},
		{module.SignaturesRequire, nil, text, true, false, false},
		{module.SignaturesRequire, good, text, false, false, true},
		{module.SignaturesRequire, good[:63], text, true, false, false},
		{module.SignaturesRequire, module.Sign(stranger, wasm, text), text, true, false, false},
		{module.SignaturesRequire, good, append(text, '\n'), true, false, false},
	} {
		c := open(t, &memory{}, func(o *module.Options) { o.Signatures, o.TrustedKeys = test.policy, []ed25519.PublicKey{trusted} })
		err := addBytes(c, wasm, test.text, test.sig)
		if errors.Is(err, module.ErrSignature) != test.refused {
			t.Errorf("%+v: %v", test, err)
			continue
		}
		if i, err := c.Describe("m"); err == nil && ((i.Versions[0].Warning != "") != test.warning || (i.Versions[0].SignedBy != "") != test.signedBy) {
			t.Errorf("%+v: %+v", test, i.Versions[0])
		}
	}
}

// TestPolicyThatBecomesStrictStopsWhatIsNotSigned opens a catalogue again as a box does whose
// configuration now requires signatures.
func TestPolicyThatBecomesStrictStopsWhatIsNotSigned(t *testing.T) {
	key, trusted := keyPair(t)
	ctx, store := context.Background(), &memory{}
	wasm := wasmtest.Module(t, "pass")
	text := func(version string) []byte { return []byte("name: m\nversion: " + version + "\nkind: transform") }
	c := open(t, store, nil)
	must(t, addBytes(c, wasm, text("1.0.0"), nil))
	must(t, addBytes(c, wasm, text("2.0.0"), module.Sign(key, wasm, text("2.0.0")))) // nobody looked at it
	must(t, addBytes(c, wasm, text("3.0.0"), nil))
	must(t, c.Activate(ctx, "m", "1.0.0"))
	must(t, c.Shadow(ctx, "m", "3.0.0"))
	c.Close()

	var log bytes.Buffer
	strict := func(o *module.Options) {
		o.Signatures, o.TrustedKeys = module.SignaturesRequire, []ed25519.PublicKey{trusted}
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	}
	c = open(t, store, strict)
	refused := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, module.ErrSignature) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := c.Transform("m")
	refused("the active version", err)
	_, err = c.Active("m")
	refused("the active version by itself", err)
	digest := sha256.Sum256(wasm)
	if c.ShadowOf("m") != nil {
		t.Error("an unsigned shadow runs")
	}
	refused("activate", c.Activate(ctx, "m", "3.0.0"))
	refused("shadow", c.Shadow(ctx, "m", "3.0.0"))
	if tr, err := c.TransformByDigest("m", hex.EncodeToString(digest[:])); err != nil || tr.Version() != "2.0.0" {
		t.Errorf("the signed version with the same bytes: %v", err)
	}
	info, err := c.Describe("m")
	must(t, err)
	signed, unsigned := info.Versions[1], info.Versions[2]
	if info.Active != "1.0.0" || signed.SignedBy == "" || signed.Warning != "" || !strings.HasPrefix(unsigned.Warning, "not run: ") {
		t.Errorf("%+v", info)
	}
	if !strings.Contains(log.String(), "module is not run") || !strings.Contains(log.String(), "version=1.0.0") {
		t.Errorf("log: %s", &log)
	}

	must(t, addBytes(c, wasm, text("1.0.0"), module.Sign(key, wasm, text("1.0.0")))) // the same, signed
	if got := process(t, c, "x"); got == "" {
		t.Error("it does not run with its signature")
	}
	if info, err := c.Describe("m"); err != nil || info.Versions[2].Warning != "" {
		t.Errorf("%+v, %v", info, err)
	}
	must(t, c.Activate(ctx, "m", "2.0.0"))
	c.Close()
	if got := process(t, open(t, store, strict), "x"); got == "" {
		t.Error("a signed version does not run after a restart")
	}
}

// TestStatsCountABatchOnce runs a batch again as a delivery does for its failed records.
func TestStatsCountABatchOnce(t *testing.T) {
	c := open(t, &memory{}, nil)
	must(t, add(t, c, "pass", "1.0.0"))
	must(t, c.Activate(context.Background(), "m", "1.0.0"))
	tr, err := c.Transform("m")
	must(t, err)
	for _, repeat := range []bool{false, true} {
		must(t, tr.Process(context.Background(), &transform.Batch{ID: 1, Repeat: repeat, Records: wasmtest.Records("a", "b")}, func(*transform.Output) error { return nil }))
	}
	broken := errors.New("the stage after failed")
	if err := tr.Process(context.Background(), &transform.Batch{ID: 2, Records: wasmtest.Records("a")}, func(*transform.Output) error { return broken }); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	info, err := c.Describe("m")
	must(t, err)
	if s := info.Versions[0].Stats; s.Records != 2 || s.Batches != 1 || s.Outputs != 2 || s.Errors != 1 {
		t.Errorf("%+v", s)
	}
}

func TestVersionThatFailsItsBudgetIsRolledBack(t *testing.T) {
	for name, batch := range map[string][]string{
		"poison": {"T", "T", "T", "T", "T", "T"},
		"ratio":  append(slicesRepeat("x", 80), slicesRepeat("f1", 20)...),
	} {
		t.Run(name, func(t *testing.T) {
			c := open(t, &memory{}, nil)
			ctx := context.Background()
			must(t, add(t, c, "pass", "1.0.0"))
			must(t, c.Activate(ctx, "m", "1.0.0"))
			process(t, c, "x")
			must(t, add(t, c, "moods", "1.1.0"))
			must(t, c.Activate(ctx, "m", "1.1.0"))
			process(t, c, batch...)
			wasmtest.Until(t, "rollback", func() bool { i, _ := c.Describe("m"); return i.Active == "1.0.0" })
			i, err := c.Describe("m")
			must(t, err)
			if !strings.Contains(i.Versions[0].Failure, "by itself") {
				t.Fatalf("%+v", i.Versions[0])
			}
			if got := process(t, c, "T"); got != "unchanged ;" {
				t.Fatal(got)
			}
		})
	}
}

func TestVersionWithinItsBudgetStays(t *testing.T) {
	now := time.Now()
	var mu sync.Mutex
	c := open(t, &memory{}, func(o *module.Options) {
		o.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	})
	ctx := context.Background()
	must(t, add(t, c, "pass", "1.0.0"))
	must(t, c.Activate(ctx, "m", "1.0.0"))
	must(t, add(t, c, "moods", "1.1.0"))
	must(t, c.Activate(ctx, "m", "1.1.0"))
	process(t, c, "T", "T", "T")
	mu.Lock()
	now = now.Add(11 * time.Minute)
	mu.Unlock()
	process(t, c, slicesRepeat("T", 20)...) // late: the operator's to decide
	if i, _ := c.Describe("m"); i.Active != "1.1.0" {
		t.Fatalf("%+v", i)
	}
}

func TestShadowReportsDifferencesAndHasNoEffect(t *testing.T) {
	c := open(t, &memory{}, nil)
	ctx := context.Background()
	must(t, add(t, c, "pass", "1.0.0"))
	must(t, add(t, c, "moods", "1.1.0"))
	must(t, c.Activate(ctx, "m", "1.0.0"))
	must(t, c.Shadow(ctx, "m", "1.1.0"))
	if got := process(t, c, "x", "rA", "d", "T"); got != "unchanged ;unchanged ;unchanged ;unchanged ;" {
		t.Fatal(got)
	}
	var r *transform.ShadowReport
	wasmtest.Until(t, "comparison", func() bool {
		i, err := c.Describe("m")
		must(t, err)
		r = i.Versions[1].Stats.Shadow
		return r != nil && r.Records == 4
	})
	if r.Differ != 3 || len(r.Examples) != 3 || r.Examples[0].Shadow != `replaced data="A"` || r.Examples[0].Active != "unchanged" {
		t.Fatalf("%+v", r)
	}
	must(t, c.Activate(ctx, "m", "1.1.0"))
	if i, _ := c.Describe("m"); i.Shadow != "" {
		t.Fatal("the shadow became active and is still a shadow")
	}
}

// TestVersionThatIsActiveAgainShadowsNobody: one that shadowed the version after it.
func TestVersionThatIsActiveAgainShadowsNobody(t *testing.T) {
	c := open(t, &memory{}, nil)
	ctx := context.Background()
	must(t, add(t, c, "pass", "1.0.0"))
	must(t, add(t, c, "moods", "1.1.0"))
	must(t, c.Activate(ctx, "m", "1.0.0"))
	must(t, c.Activate(ctx, "m", "1.1.0"))
	must(t, c.Shadow(ctx, "m", "1.0.0"))
	must(t, c.Rollback(ctx, "m"))
	if i, err := c.Describe("m"); err != nil || i.Active != "1.0.0" || i.Shadow != "" || c.ShadowOf("m") != nil {
		t.Fatalf("%+v, %v", i, err)
	}
}

func TestDeactivationKeepsTheWayBack(t *testing.T) {
	c := open(t, &memory{}, nil)
	ctx := context.Background()
	for _, version := range []string{"1.0.0", "1.1.0"} {
		must(t, add(t, c, "pass", version))
	}
	previous := func(want string) {
		t.Helper()
		if i, err := c.Describe("m"); err != nil || i.Previous != want {
			t.Fatalf("the previous version is %q, %v; want %q", i.Previous, err, want)
		}
	}
	must(t, c.Activate(ctx, "m", "1.0.0"))
	must(t, c.Deactivate(ctx, "m"))
	must(t, c.Deactivate(ctx, "m"))
	previous("1.0.0")
	must(t, c.Activate(ctx, "m", "1.1.0"))
	previous("1.0.0")
	must(t, c.Deactivate(ctx, "m"))
	must(t, c.Activate(ctx, "m", "1.1.0"))
	previous("")
}

// TestVectorsLoadTheModuleOnce: each vector has an instance of its own.
func TestVectorsLoadTheModuleOnce(t *testing.T) {
	m := wasmtest.ConsumerManifest(t, "c", "inputs: [in]", "outputs: [out]", "capabilities: {state: true, emit: true}",
		"tests:", "  - {name: one, tick: 1000, emits: [{data: tick}]}", "  - {name: two, tick: 2000, emits: [{data: tick}]}")
	loads := 0
	v := module.NewVersion(m, "", module.Environment{Runtime: wasmtest.Runtime(t, host.Options{})}, func(context.Context) ([]byte, error) {
		loads++
		return wasmtest.Module(t, "counter"), nil
	})
	defer v.Close()
	results, err := v.RunVectors(context.Background())
	if err != nil || len(results) != 2 || len(results[0].Problems)+len(results[1].Problems) > 0 {
		t.Fatalf("%+v, %v", results, err)
	}
	if loads != 1 {
		t.Fatalf("loaded %d times", loads)
	}
}

func TestFailedStoreChangesNothing(t *testing.T) {
	store := &memory{}
	c := open(t, store, nil)
	must(t, add(t, c, "pass", "1.0.0"))
	store.fail = errors.New("no space")
	if err := c.Activate(context.Background(), "m", "1.0.0"); !errors.Is(err, store.fail) {
		t.Fatalf("Activate = %v", err)
	}
	if _, err := c.Transform("m"); !errors.Is(err, module.ErrNoVersion) {
		t.Fatalf("the version is active all the same: %v", err)
	}
}

func TestUploadsNobodyFinishesMakeRoom(t *testing.T) {
	store := &memory{}
	c := open(t, store, nil)
	for i := range 50 {
		d := sha256.Sum256([]byte{byte(i)})
		must(t, c.PutChunk(context.Background(), d[:], 0, []byte("x")))
	}
	if n := store.keys("b/"); n > 5 {
		t.Fatalf("%d pieces of unfinished uploads", n)
	}
}

func TestLogsAndMetrics(t *testing.T) {
	c := open(t, &memory{}, nil)
	text := "name: m\nversion: 1.0.0\nkind: transform\ncapabilities: {http: {hosts: ['a:1']}}\n"
	// calls imports state and emit too, which a transform can't have.
	if err := addBytes(c, wasmtest.Module(t, "calls"), []byte(text), nil); !errors.Is(err, host.ErrImport) || !strings.Contains(err.Error(), "capabilities: {") {
		t.Fatalf("err = %v", err)
	}
	must(t, add(t, c, "moods", "1.0.0"))
	must(t, c.Activate(context.Background(), "m", "1.0.0"))
	process(t, c, "G", "T")
	v, err := c.Active("m")
	must(t, err)
	lines := v.Logs()
	if len(lines) < 100 || !strings.Contains(lines[len(lines)-1].Text, "trap") {
		t.Fatalf("%d lines, last %+v", len(lines), lines[len(lines)-1])
	}
	if s := v.Stats(); s.Records != 2 || s.Failed != 1 || s.Aborts == 0 || s.Fuel == 0 || s.LastError == "" {
		t.Fatalf("%+v", s)
	}
}

// TestRequestsThatFailAreInTheLog: the module gets a code, its author the reason, once.
func TestRequestsThatFailAreInTheLog(t *testing.T) {
	c := open(t, &memory{}, nil)
	text := "name: m\nversion: 1.0.0\nkind: transform\ncapabilities: {http: {hosts: ['a:1']}}\n"
	must(t, addBytes(c, wasmtest.Module(t, "pass"), []byte(text), nil))
	must(t, c.Activate(context.Background(), "m", "1.0.0"))
	v, err := c.Active("m")
	must(t, err)
	for range 3 {
		if _, code := v.HTTP().Call(context.Background(), []byte("GET http://b:1/\n\n")); code != int32(abi.Denied) {
			t.Fatalf("code %d", code)
		}
	}
	if lines := v.Logs(); len(lines) != 1 || lines[0].Level != "warn" || !strings.Contains(lines[0].Text, "b:1 is not among the manifest's hosts a:1") {
		t.Fatalf("logged %v", lines)
	}
}

func slicesRepeat(s string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = s
	}
	return out
}

func FuzzDecodeSignature(f *testing.F) {
	f.Add(module.EncodeSignature(make([]byte, 64)))
	f.Add([]byte("weir-signature-1 AA=="))
	f.Fuzz(func(t *testing.T, text []byte) {
		if sig, err := module.DecodeSignature(text); err == nil && len(sig) != 64 {
			t.Fatalf("accepted %d bytes", len(sig))
		}
	})
}
