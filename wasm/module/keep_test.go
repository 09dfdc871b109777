package module_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weirhq/weir/wasm/host"
	"github.com/weirhq/weir/wasm/module"
	"github.com/weirhq/weir/wasm/wasmtest"
)

func versionOf(t testing.TB, c *module.Catalog) (module.Stats, []module.LogLine) {
	t.Helper()
	v, err := c.Active("m")
	must(t, err)
	return v.Stats(), v.Logs()
}

func TestCountersAndLinesOutliveARestart(t *testing.T) {
	store := &memory{}
	c := open(t, store, nil)
	must(t, add(t, c, "moods", "1.0.0"))
	must(t, c.Activate(context.Background(), "m", "1.0.0"))
	process(t, c, "rA", "d", "T")
	before, lines := versionOf(t, c)
	if before.Records != 3 || before.Failed != 1 || before.Since.IsZero() || len(lines) == 0 {
		t.Fatalf("counted %+v and logged %v", before, lines)
	}
	c.Close()

	c = open(t, store, nil)
	after, again := versionOf(t, c)
	if after.Records != 3 || after.Failed != 1 || !after.Since.Equal(before.Since) || after.LastError != before.LastError {
		t.Fatalf("after a restart %+v; before it %+v", after, before)
	}
	if len(again) != len(lines) || again[0].Text != lines[0].Text {
		t.Fatalf("after a restart the log is %v; before it %v", again, lines)
	}
	process(t, c, "rA")
	if s, _ := versionOf(t, c); s.Records != 4 || s.Batches != before.Batches+1 {
		t.Fatalf("goes on with %+v", s)
	}
	must(t, c.Remove(context.Background(), "m", ""))
	c.Close()
	if n := store.keys("s/"); n != 0 {
		t.Fatalf("%d rows are left of a module that was removed", n)
	}
}

func TestShadowReportOutlivesARestart(t *testing.T) {
	store := &memory{}
	c := open(t, store, nil)
	ctx := context.Background()
	must(t, add(t, c, "pass", "1.0.0"))
	must(t, add(t, c, "moods", "1.1.0"))
	must(t, c.Activate(ctx, "m", "1.0.0"))
	must(t, c.Shadow(ctx, "m", "1.1.0"))
	compared := func(records uint64) {
		t.Helper()
		wasmtest.Until(t, "comparison", func() bool {
			s, _ := versionOf(t, c)
			return s.Shadow != nil && s.Shadow.Records == records
		})
	}
	process(t, c, "x", "rA", "d", "T")
	compared(4)
	c.Close()
	c = open(t, store, nil)
	if s, _ := versionOf(t, c); s.Shadow == nil || s.Shadow.Differ != 3 || len(s.Shadow.Examples) != 3 {
		t.Fatalf("after a restart %+v", s.Shadow)
	}
	process(t, c, "x", "d")
	compared(6)
	must(t, c.Shadow(ctx, "m", ""))
	if s, _ := versionOf(t, c); s.Shadow != nil {
		t.Fatalf("after its end %+v", s.Shadow)
	}
}

// TestCountersAreWrittenSeldom counts commits against what keep.go promises: an error is
// on disk within a minute or so, counting alone costs a write a quarter of an hour, and nothing
// to say costs nothing.
func TestCountersAreWrittenSeldom(t *testing.T) {
	rt := wasmtest.Runtime(t, host.Options{})
	synctest.Test(t, func(t *testing.T) {
		store := &memory{rows: map[string][]byte{}}
		c, err := module.Open(context.Background(), module.Options{Store: store, Runtime: rt})
		must(t, err)
		defer c.Close()
		must(t, add(t, c, "moods", "1.0.0"))
		must(t, c.Activate(context.Background(), "m", "1.0.0"))
		written := func() int { store.mu.Lock(); defer store.mu.Unlock(); return store.commits }
		start := written()
		pass := func(minutes int, records ...string) (commits int) {
			t.Helper()
			before := written()
			for range minutes {
				if len(records) > 0 {
					process(t, c, records...)
				}
				<-time.After(time.Minute)
				synctest.Wait()
			}
			return written() - before
		}
		if n := pass(60); n != 0 || written() != start {
			t.Fatalf("%d commits without a batch", n)
		}
		if n := pass(60, "rA"); n < 3 || n > 4 {
			t.Fatalf("%d commits in an hour of counting; expecting one in 15 minutes", n)
		}
		if n := pass(2, "T"); n == 0 || !strings.Contains(string(store.rows["s/m/1.0.0"]), "unreachable") {
			t.Fatalf("%d commits; an error is not written: %s", n, store.rows["s/m/1.0.0"])
		}
		for range 500 {
			process(t, c, "G"+strings.Repeat("x", 800))
		}
		if n := pass(20); n != 1 {
			t.Fatalf("%d commits after the last line", n)
		}
		if n := len(store.rows["s/m/1.0.0"]); n > 6<<10 {
			t.Fatalf("a row of %d bytes", n)
		}
	})
}

func TestSigningAgainTakesTheWarningAway(t *testing.T) {
	store := &memory{}
	private, public, err := module.GenerateKey()
	must(t, err)
	priv, err := module.ParsePrivateKey(private)
	must(t, err)
	pub, err := module.ParsePublicKey(public)
	must(t, err)
	c := open(t, store, func(o *module.Options) {
		o.Signatures, o.TrustedKeys = module.SignaturesWarn, append(o.TrustedKeys, pub)
	})
	wasm, text := wasmtest.Module(t, "pass"), []byte("name: m\nversion: 1.0.0\nkind: transform\n")
	must(t, addBytes(c, wasm, text, nil))
	if i, err := c.Describe("m"); err != nil || i.Versions[0].Warning == "" {
		t.Fatalf("unsigned: %+v, %v", i, err)
	}
	must(t, addBytes(c, wasm, text, module.Sign(priv, wasm, text)))
	i, err := c.Describe("m")
	if err != nil || len(i.Versions) != 1 || i.Versions[0].Warning != "" || i.Versions[0].SignedBy != module.Fingerprint(pub) {
		t.Fatalf("signed: %+v, %v", i, err)
	}
	must(t, addBytes(c, wasm, text, nil))
	if i, err := c.Describe("m"); err != nil || i.Versions[0].SignedBy == "" {
		t.Fatalf("an upload without a signature took it away: %+v, %v", i, err)
	}
}
