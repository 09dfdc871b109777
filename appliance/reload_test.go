package appliance

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/appliance/config"
	"github.com/weirhq/weir/appliance/fault"
	"github.com/weirhq/weir/appliance/listen"
	"github.com/weirhq/weir/appliance/trust"
	"github.com/weirhq/weir/storage"
)

// TestReloadThatFailsAppliesNothing reads configurations of which one part can't be
// applied: the certificate, the authorities, or the streams, for a disk that is full or
// a log that takes nothing. The other parts must stay, too.
func TestReloadThatFailsAppliesNothing(t *testing.T) {
	dir := t.TempDir()
	another, err := trust.Open(filepath.Join(dir, "another"), []string{"box"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	listenWith := func(more string) string {
		both := filepath.Join(another.Dir, "server.pem") // with its key
		return "listen: {tls_cert: " + both + ", tls_key: " + both + more + "}\n"
	}
	nothing := file("nothing.pem", []byte("no certificate\n"))
	const rest = "auth: {tokens: [{name: device, token: a-token-of-the-test, actions: [\"*\"], streams: [\"*\"]}]}\ntelemetry: {log_level: debug}\n"
	const added = "streams: [{name: one}, {name: two}]\n"
	for _, c := range []struct {
		what, text string
		full, shut bool
		class      fault.Class
	}{
		{what: "certificate", text: "listen: {tls_cert: " + nothing + ", tls_key: " + nothing + "}\n" + rest + added, class: fault.Environment},
		{what: "authorities", text: listenWith(", client_ca: "+nothing) + rest + added, class: fault.Environment},
		{what: "full disk", text: listenWith("") + rest + added, full: true, class: fault.Environment},
		{what: "log that takes nothing", text: listenWith("") + rest + added, shut: true, class: fault.Runtime},
		{what: "nothing", text: listenWith("") + rest + added},
	} {
		t.Run(c.what, func(t *testing.T) {
			disk := &smallDisk{FS: vfs.NewMem(), free: 1 << 40}
			if c.full {
				disk.free = 1 << 20
			}
			b := &box{log: slog.New(slog.DiscardHandler)}
			b.server = listen.New(listen.Options{Certificate: b.cert.get, Handler: api.HandlerFunc(b.health.healthz)})
			b.begun = &config.Loaded{Config: config.Default()}
			b.mu.config = b.begun
			if b.trust, err = trust.Open(filepath.Join(t.TempDir(), "trust"), []string{"box"}, time.Now()); err != nil {
				t.Fatal(err)
			}
			if err := b.cert.load(&b.begun.Listen, b.trust); err != nil {
				t.Fatal(err)
			}
			b.access.fill(b.trust, &b.begun.Auth)
			if b.store, err = storage.Open(t.Context(), "data", storage.Options{FS: disk, ReserveBytes: -1}); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := b.store.Close(); err != nil && !errors.Is(err, storage.ErrClosed) {
					t.Error(err)
				}
			}()
			for deadline := time.Now().Add(time.Minute); c.full && b.store.State().Writable; {
				if time.Now().After(deadline) {
					t.Fatal("the store does not see the full disk")
				}
				<-time.After(10 * time.Millisecond)
			}
			if c.shut {
				if err := b.store.Close(); err != nil {
					t.Fatal(err)
				}
			}
			path := file("weir.yaml", []byte(c.text))
			b.Reload = func() (*config.Loaded, error) { return config.Load(path, nil) }
			before, _ := b.cert.get()
			_, err := b.reload(t.Context())
			failed := c.class != 0
			if (err != nil) != failed || failed && fault.ClassOf(err) != c.class {
				t.Fatalf("reload: %v", err)
			}
			if shown, _ := b.cert.get(); (shown == before) != failed {
				t.Error("the certificate is another, or should be")
			}
			if (b.access.Token("a-token-of-the-test") == nil) != failed {
				t.Error("the token is known, or should be")
			}
			if (b.level.Level() == slog.LevelInfo) != failed {
				t.Errorf("log level %v", b.level.Level())
			}
			if n := len(b.store.Streams()); (n == 0) != failed {
				t.Errorf("%d streams", n)
			}
			if (b.mu.config == b.begun) != failed {
				t.Error("the configuration is another, or should be")
			}
		})
	}
}

// smallDisk says how much is free.
type smallDisk struct {
	vfs.FS
	free uint64
}

func (d *smallDisk) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{AvailBytes: d.free, TotalBytes: 1 << 41, UsedBytes: 1<<41 - d.free}, nil
}
