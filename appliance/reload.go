package appliance

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirhq/weir/appliance/admin"
	"github.com/weirhq/weir/appliance/config"
	"github.com/weirhq/weir/appliance/fault"
	"github.com/weirhq/weir/appliance/telemetry"
)

// reload reads the configuration again and applies what can be applied while
// the box runs: keys, tokens, certificate, authorities of clients, log level, and streams.
// A configuration that is wrong changes nothing: what can be refused is looked at first,
// then what the disk may refuse is done, and last what can't fail.
func (b *box) reload(ctx context.Context) (*admin.Reloaded, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := b.mu.config
	if b.Reload != nil {
		var err error
		if next, err = b.Reload(); err != nil {
			return nil, err
		}
	}
	authorities, err := clientAuthorities(&next.Listen)
	if err != nil {
		return nil, err
	}
	shown, err := pickCertificate(&next.Listen, b.trust)
	if err != nil {
		return nil, err
	}
	if err := b.roomForStreams(next); err != nil {
		return nil, err
	}
	if err := b.makeStreams(ctx, next); err != nil {
		return nil, err
	}
	if err := b.followStreams(ctx, next); err != nil {
		return nil, err
	}
	b.cert.show(shown)
	b.server.SetClientCAs(authorities)
	b.access.fill(b.trust, &next.Auth)
	b.level.Set(telemetry.Level(next.Telemetry.LogLevel))
	waiting := b.begun.NeedRestart(next.Config)
	b.mu.config = next
	b.log.Info("configuration read again", "file", next.File, "waits for a restart", waiting)
	return &admin.Reloaded{File: next.File, NeedRestart: append([]string{}, waiting...)}, nil
}

// roomForStreams says why a stream that the configuration adds can't be made now, before
// another is.
func (b *box) roomForStreams(c *config.Loaded) error {
	state := b.store.State()
	if state.Writable {
		return nil
	}
	for i := range c.Streams {
		name := c.Streams[i].Name
		if _, err := b.store.Stream(name); err != nil {
			return &fault.Error{Class: fault.Environment, Subject: fmt.Sprintf("streams[%d]", i), Value: name, Expect: "can't be made: " + state.Reason, Try: "weir doctor --only space,log; nothing of the new configuration applies"}
		}
	}
	return nil
}

// reloads reads the configuration again at each hang-up, until ctx ends.
func (b *box) reloads(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-b.Hangup:
		}
		if err := b.Manager.Reloading(monotonic()); err != nil {
			b.log.Warn("reloading", "error", err)
		}
		if _, err := b.reload(ctx); err != nil {
			b.log.Error("the configuration is refused; the one before stays", "error", err)
		}
		if err := b.Manager.Ready(); err != nil {
			b.log.Warn("reloaded", "error", err)
		}
	}
}

// monotonic is the time since boot as the service manager counts it.
func monotonic() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
