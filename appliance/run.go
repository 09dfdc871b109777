package appliance

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/weirhq/weir/appliance/config"
	"github.com/weirhq/weir/appliance/telemetry"
	"github.com/weirhq/weir/appliance/trust"
)

// Options is what a box gets besides its configuration. The zero value runs.
type Options struct {
	// Reload reads the configuration again; nil keeps the one given.
	Reload func() (*config.Loaded, error)
	// Hangup asks for a reload; what is sent does not matter.
	Hangup <-chan os.Signal
	// Log is where log lines go; nil for nowhere.
	Log io.Writer
	// Manager is the service manager to tell.
	Manager telemetry.Manager
	// Version is what the box calls itself.
	Version string
	// Ready is called once, when the box serves.
	Ready func(endpoint string, t *trust.Trust)
}

// box is one running appliance.
type box struct {
	Options
	parts
	started time.Time
	begun   *config.Loaded // the configuration of the start
	log     *slog.Logger
	level   slog.LevelVar
	health  health
	mu      struct {
		sync.Mutex
		config *config.Loaded // as it applies
	}
}

// Run runs a box until ctx ends, then stops it in order: no new connections,
// answers to what is in flight, deliveries and consumers with their checkpoints,
// the log. What is in flight and gathered has shutdown.drain to be done; the rest
// is told to end, and is taken up at the next start. It returns nil after an
// orderly stop, a fault of class Environment when the machine does not let it
// start, and else what went wrong.
func Run(ctx context.Context, c *config.Loaded, o Options) (err error) {
	if o.Log == nil {
		o.Log = io.Discard
	}
	b := &box{Options: o, started: time.Now(), begun: c}
	b.mu.config = c
	b.level.Set(telemetry.Level(c.Telemetry.LogLevel))
	b.log = telemetry.Logger(o.Log, c.Telemetry.LogFormat, &b.level)

	// Each part is opened before what needs it, and closed after.
	for _, open := range []func(context.Context, *config.Loaded) error{
		b.openDirectory, b.openStore, b.openTrust, b.openStreams, b.openModules, b.openConsumers, b.openDeliveries, b.openServices, b.openPort,
	} {
		if err := open(ctx, c); err != nil {
			return errors.Join(err, b.close())
		}
	}
	return errors.Join(b.serve(ctx), b.close())
}

// serve runs the parts until ctx ends or one of them fails, and drains.
func (b *box) serve(ctx context.Context) error {
	running, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	// Deliveries go on while the box drains: they send what has come in last.
	delivering, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var wg sync.WaitGroup
	start := func(ctx context.Context, run func(context.Context) error) {
		wg.Go(func() {
			if err := run(ctx); err != nil && running.Err() == nil {
				fail(err)
			}
		})
	}
	for _, run := range []func(context.Context) error{b.accept, b.reloads, b.renewals, b.watchdog, b.kinesis.Run, b.plain.Run, b.consumers.Run} {
		start(running, run)
	}
	start(delivering, b.deliveries.Run)
	if err := b.announce(); err != nil {
		fail(err)
	}
	<-running.Done()
	b.drain()
	stop()
	wg.Wait()
	if err := context.Cause(running); !errors.Is(err, context.Canceled) || ctx.Err() == nil {
		return err
	}
	return nil
}

// watchdog tells the service manager that the box is well.
func (b *box) watchdog(ctx context.Context) error {
	b.Manager.Watch(ctx, b.health.alive)
	return nil
}

// drain stops taking requests, lets those in flight end, and has the deliveries
// send what they have gathered, all within the time.
func (b *box) drain() {
	begin := time.Now()
	b.health.stopping.Store(true)
	if err := b.Manager.Stopping(); err != nil {
		b.log.Warn("stopping", "error", err)
	}
	b.mu.Lock()
	limit := b.mu.config.Shutdown.Drain
	b.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := b.server.Shutdown(ctx); err != nil {
		b.log.Warn("requests were cut off", "error", err, "limit", limit)
	}
	if left := b.deliveries.Drain(ctx); len(left) > 0 {
		b.log.Info("deliveries go on at the next start", "left", left)
	}
	b.log.Info("drained", "seconds", time.Since(begin).Seconds())
}
