package wasm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/weirhq/weir/appliance/consume"
	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/wasm/host"
	"github.com/weirhq/weir/wasm/module"
)

// consumerManifest is that of the module that puts one key per record.
const consumerManifest = `name: puts
version: 1.0.0
kind: consumer
inputs: [in]
batch: {records: 500, wait: 1ms}
capabilities: {state: true}
`

// consumerKeys is how many partition keys, and so rows of state, there are: each
// batch of a shard has as many different ones as records.
const consumerKeys = 20_000

// consumer measures a stateful consumer: one state put per record, state and
// checkpoint of each batch in one synced commit, over 4 shards.
func (b *run) consumer(ctx context.Context) error {
	store, err := storage.Open(ctx, filepath.Join(b.o.Dir, "consumer"), storage.Options{})
	if err != nil {
		return err
	}
	defer store.Close()
	rt, err := openHost(ctx, host.Options{CacheDir: filepath.Join(b.o.Dir, "consumer-cache")})
	if err != nil {
		return err
	}
	defer rt.Close(ctx)
	n := 500_000
	if b.o.Quick {
		n = 200_000
	}
	if err := b.fill(ctx, store, n); err != nil {
		return err
	}
	modules, err := module.Open(ctx, module.Options{Store: consume.Modules{Store: store}, Runtime: rt})
	if err != nil {
		return err
	}
	defer modules.Close()
	if err := b.activate(ctx, modules); err != nil {
		return err
	}
	engine := consume.New(consume.Options{Store: store, Modules: modules, Poll: 10 * time.Millisecond})
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	start := time.Now()
	go func() { ended <- engine.Run(ctx) }()
	for done := uint64(0); done < uint64(n); {
		select {
		case err := <-ended:
			return fmt.Errorf("the engine ended after %d of %d records: %w", done, n, errors.Join(err, context.Cause(ctx)))
		case <-time.After(5 * time.Millisecond):
		}
		done = 0
		for _, s := range engine.Status() {
			done += s.Next
		}
	}
	rate := float64(n) / time.Since(start).Seconds()
	cancel()
	if err := <-ended; err != nil {
		return err
	}
	rows := 0
	if err := store.Scan(storage.TableModuleState, nil, nil, 0, func(_, _ []byte) bool { rows++; return true }); err != nil {
		return err
	}
	if rows < consumerKeys {
		return fmt.Errorf("%d rows of state after %d records; there should be %d", rows, n, consumerKeys)
	}
	b.r.Add("stateful consumer, one put per record, each batch of 500 in one synced commit", "C, 4 shards", "records/s", rate, "records", n, "keys", consumerKeys)
	b.r.AtLeast("stateful consumer with one put per record, records/s", 150_000, rate)
	return nil
}

// fill appends n records to a new stream.
func (b *run) fill(ctx context.Context, store *storage.Store, n int) error {
	st, err := store.CreateStream(ctx, storage.StreamConfig{Name: "in", Shards: 4, Retention: 24 * time.Hour})
	if err != nil {
		return err
	}
	for k := 0; k < n; k += 1000 {
		txn, err := store.Begin(ctx, 1000*220)
		if err != nil {
			return err
		}
		for i := range min(1000, n-k) {
			if err := txn.Append(st, fmt.Appendf(nil, "device-%05d", (k+i)%consumerKeys), nil, b.records[i%len(b.records)].data); err != nil {
				txn.Rollback()
				return err
			}
		}
		if err := txn.Commit(ctx); err != nil {
			return err
		}
		txn.Release()
	}
	return nil
}

func (b *run) activate(ctx context.Context, modules *module.Catalog) error {
	wasm, err := os.ReadFile(filepath.Join(b.root, "wasm", "wasmtest", "modules", "puts.wasm"))
	if err != nil {
		return err
	}
	sum := sha256.Sum256(wasm)
	if err := modules.Upload(ctx, sum[:], bytes.NewReader(wasm)); err != nil {
		return err
	}
	if _, err := modules.Add(ctx, module.Addition{Digest: sum[:], Size: int64(len(wasm)), Manifest: []byte(consumerManifest)}); err != nil {
		return err
	}
	return modules.Activate(ctx, "puts", "1.0.0")
}
