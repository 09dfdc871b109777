package appliance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/weirhq/weir/appliance/admin"
	"github.com/weirhq/weir/appliance/api/kinesis"
	"github.com/weirhq/weir/appliance/api/plain"
	"github.com/weirhq/weir/appliance/config"
	"github.com/weirhq/weir/appliance/consume"
	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/appliance/fault"
	"github.com/weirhq/weir/appliance/listen"
	"github.com/weirhq/weir/appliance/sink"
	"github.com/weirhq/weir/appliance/trust"
	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/wasm/host"
	"github.com/weirhq/weir/wasm/module"
)

// parts is what a box is made of, in the order of opening.
type parts struct {
	dir     string
	store   *storage.Store
	trust   *trust.Trust
	access  access
	cert    certificate
	kinesis *kinesis.Service
	plain   *plain.Service

	runtime    *host.Runtime
	modules    *module.Catalog
	consumers  *consume.Engine
	sinks      *sink.Table
	deliveries *delivery.Engine
	gate       *listen.Gate
	server     *listen.Server
	listener   net.Listener
	endpoint   string
}

func (b *box) openDirectory(_ context.Context, c *config.Loaded) error {
	b.dir = c.Dir
	if err := os.MkdirAll(b.dir, 0o700); errors.Is(err, fs.ErrNotExist) { // as in /proc, which takes none
		return &fault.Error{Class: fault.Environment, Subject: "data directory", Value: b.dir, Expect: "can't be made there", Try: "--dir with a place on a disk"}
	} else if err != nil {
		return DirectoryFault(b.dir, err)
	}
	return nil
}

func (b *box) endpointFile() string { return filepath.Join(b.dir, EndpointFile) }

// DirectoryFault says what keeps the data directory from being used: a fault of
// class Environment around err.
func DirectoryFault(dir string, err error) error {
	f := &fault.Error{Class: fault.Environment, Subject: "data directory", Value: dir, Err: err, Try: "weir doctor --dir " + dir}
	switch {
	case errors.Is(err, storage.ErrNewerFormat):
		f.Expect, f.Try = "written by a newer version of weir; nothing in it was changed", "the newer weir; the way back is weir export there and weir import here"
	case errors.Is(err, storage.ErrLocked):
		f.Err, f.Expect = storage.ErrLocked, "another process has it open" // what is below it says the same in other words
		// Who holds the lock itself, as a program with two boxes may, must not ask.
		if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES) {
			if _, pid, unknown := storage.Holder(StorePath(dir)); unknown == nil && pid > 0 {
				f.Expect = fmt.Sprintf("process %d has it open", pid)
			}
		}
		f.Try = "end the box that runs on it, or use the commands that talk to it (stream, put, tail, delivery)"
	case errors.Is(err, fs.ErrNotExist):
		f.Err, f.Expect, f.Try = nil, "there is no log in it", "weir serve --dir "+dir+", which makes one"
	case errors.Is(err, syscall.ENOTDIR):
		f.Err, f.Expect, f.Try = nil, "not a directory", "--dir with the directory that weir serve was given"
	case storage.NoSpace(err):
		f.Expect, f.Try = "the disk is full", "free space on it: df -h "+dir
	case errors.Is(err, syscall.EROFS):
		f.Expect, f.Try = "the disk is read-only", "mount it to be written; verify and inspect work on it as it is, the rest on a copy of the directory"
	case errors.Is(err, fs.ErrPermission):
		f.Expect, f.Try = "not allowed for this user", "the user that the box runs as, or --dir with another directory: ls -ld "+dir
	default:
		f.Expect = "can't be used"
	}
	return f
}

func (b *box) openStore(ctx context.Context, c *config.Loaded) error {
	store, err := storage.Open(ctx, StorePath(b.dir), storage.Options{
		MemTableBytes: int64(c.Storage.MemTableBytes), CacheBytes: int64(c.Storage.CacheBytes), AdmissionBytes: int64(c.Storage.AdmissionBytes),
		TotalBytes: int64(c.Storage.TotalBytes), EnduranceBytes: int64(c.Storage.EnduranceBytes), Logger: b.log,
	})
	if err != nil {
		return DirectoryFault(b.dir, err)
	}
	b.store, b.health.store = store, store
	// The directory is ours now: what a box that was killed left is not true any more.
	if err := os.Remove(b.endpointFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return DirectoryFault(b.dir, err)
	}
	if now := time.Now(); now.Before(trust.ClockFloor) {
		b.log.Warn("the clock is not set", "now", now, "effect", "arrival times are wrong until it is; order and identity of records do not depend on it")
	}
	return nil
}

func (b *box) openTrust(_ context.Context, c *config.Loaded) error {
	t, err := trust.Open(filepath.Join(b.dir, TrustDir), append(trust.Hosts(), c.Listen.Names...), time.Now())
	if err != nil {
		return err
	}
	b.trust = t
	b.access.fill(t, &c.Auth)
	b.cert.file = filepath.Join(b.dir, ShownCertificateFile)
	return b.cert.load(&c.Listen, t)
}

// openStreams makes the streams of the configuration that are missing, and changes those
// that are there. That the latter can't be done, on a full disk say, keeps no box from its work.
func (b *box) openStreams(ctx context.Context, c *config.Loaded) error {
	if err := b.makeStreams(ctx, c); err != nil {
		return err
	}
	if err := b.followStreams(ctx, c); err != nil {
		b.log.Warn("a stream is not as the configuration says", "error", err)
	}
	return nil
}

// followStreams changes streams to what the configuration sets. What it leaves at its
// default stays as it was set at the command line or by a client.
func (b *box) followStreams(ctx context.Context, c *config.Loaded) error {
	var errs []error
	for i := range c.Streams {
		s := &c.Streams[i]
		st, err := b.store.Stream(s.Name)
		if err != nil {
			continue // deleted since
		}
		sets := func(key string) bool { return c.Sets(fmt.Sprintf("streams[%d].%s", i, key)) }
		changed, err := admin.Follow(ctx, st, s, sets)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("streams[%d]: change %s: %w", i, s.Name, err))
		case len(changed) > 0:
			b.log.Info("stream is now as the configuration says", "stream", s.Name, "changed", changed)
		}
		if has := st.Config(); sets("shards") && has.Mode == storage.Provisioned && has.Shards != s.Shards {
			b.log.Warn("stream has another number of shards than the configuration", "stream", s.Name, "shards", has.Shards, "configured", s.Shards, "try", fmt.Sprintf("weir stream reshard %s --shards %d", s.Name, s.Shards))
		}
	}
	return errors.Join(errs...)
}

func (b *box) makeStreams(ctx context.Context, c *config.Loaded) error {
	for i := range c.Streams {
		cfg, err := admin.StorageStream(&c.Streams[i])
		if err != nil {
			return err
		}
		if _, err := b.store.CreateStream(ctx, cfg); err != nil && !errors.Is(err, storage.ErrStreamExists) {
			return fmt.Errorf("streams[%d]: create %s: %w", i, cfg.Name, err)
		}
	}
	return nil
}

func (b *box) openPort(ctx context.Context, c *config.Loaded) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Listen.Address)
	if err != nil {
		try := "WEIR_LISTEN_ADDRESS=:PORT with a free port"
		if errors.Is(err, syscall.EADDRNOTAVAIL) {
			try = "an address that this machine has, or :PORT for all of them"
		}
		return &fault.Error{Class: fault.Environment, Subject: "listen.address", Value: c.Listen.Address, Expect: "can't listen", Err: fault.Cause(err), Try: try}
	}
	b.listener = l
	b.endpoint = endpointOf(l.Addr().(*net.TCPAddr))
	return nil
}

// endpointOf is the URL for clients on this machine.
func endpointOf(a *net.TCPAddr) string {
	host := a.IP.String()
	if a.IP.IsUnspecified() {
		host = "localhost"
	}
	u := url.URL{Scheme: "https", Host: net.JoinHostPort(host, fmt.Sprint(a.Port))}
	return u.String()
}

// announce says that the box serves: to clients on this machine, to the service
// manager, and to whoever started it.
func (b *box) announce() error {
	if err := writeEndpoint(b.dir, b.endpoint); err != nil {
		return DirectoryFault(b.dir, err)
	}
	if err := b.Manager.Ready(); err != nil {
		b.log.Warn("ready", "error", err)
	}
	b.log.Info("serving", "endpoint", b.endpoint, "directory", b.dir, "seconds", time.Since(b.started).Seconds())
	if b.Ready != nil {
		b.Ready(b.endpoint, b.trust)
	}
	return nil
}

// close closes what was opened, the last first.
func (b *box) close() error {
	var errs []error
	if b.listener != nil {
		errs = append(errs, ignoreClosed(b.listener.Close()), os.Remove(b.endpointFile()))
	}
	if b.modules != nil {
		b.modules.Close()
	}
	if b.runtime != nil {
		errs = append(errs, b.runtime.Close(context.Background()))
	}
	if b.store != nil {
		if err := b.store.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close %s: %w", b.dir, err))
		}
	}
	return errors.Join(errs...)
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
