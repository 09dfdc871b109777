package delivery

import (
	"context"
	"errors"
	"time"

	"github.com/weirhq/weir/storage"
)

// ingestBytes is how much comes in each second while a backlog is drained.
const ingestBytes = 20e6

// busy measures the drain of the backlog into a folder while records come into
// another stream of the same store, acknowledged after their sync, at 20 MB/s.
func (b *bench) busy(ctx context.Context) error {
	st, err := b.store.CreateStream(ctx, storage.StreamConfig{Name: "busy", Shards: 1, Retention: time.Hour})
	if err != nil {
		return err
	}
	slowest := 0.0
	for _, k := range kinds {
		if k.name != "zstd, stored frames forwarded" && k.name != "GZIP" && k.name != "uncompressed" {
			continue
		}
		running, stop := context.WithCancel(ctx)
		ended := make(chan error, 1)
		came := int64(0)
		begin := time.Now()
		go func() {
			var err error
			came, err = ingest(running, b.store, st)
			ended <- err
		}()
		took, used, err := b.deliver(ctx, k, folder)
		stop()
		if err = errors.Join(err, <-ended); err != nil {
			return err
		}
		in := float64(came) / 1e6 / time.Since(begin).Seconds()
		speed := float64(b.raw) / 1e6 / took.Seconds()
		b.r.Add("drain of a backlog into a folder while 20 MB/s come in", k.name, "over 20 MB/s", speed/20, "MB/s", speed, "MB/s in", in, "CPU s/GB, with ingest", used.Seconds()/(float64(b.raw)/1e9))
		if in < 0.9*ingestBytes/1e6 {
			b.r.Note("drain while 20 MB/s come in, %s: the disk took only %.1f MB/s in", k.name, in)
		}
		if slowest == 0 || speed < slowest {
			slowest = speed
		}
	}
	b.r.AtLeast("drain of a backlog over 20 MB/s while as much comes in, slowest of three codecs", 5, slowest/20)
	return nil
}

// ingest puts 20 MB/s until ctx ends.
func ingest(ctx context.Context, store *storage.Store, st *storage.Stream) (bytes int64, err error) {
	begin := time.Now()
	for i := 0; ctx.Err() == nil; i += batch {
		n, err := put(ctx, store, st, i)
		if err != nil && ctx.Err() == nil {
			return bytes, err
		}
		bytes += n
		select {
		case <-ctx.Done():
		case <-time.After(time.Until(begin.Add(time.Duration(float64(bytes) / ingestBytes * float64(time.Second))))):
		}
	}
	return bytes, nil
}
