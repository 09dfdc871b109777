package appliance

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/weirhq/weir/appliance/config"
	"github.com/weirhq/weir/appliance/fault"
	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/wasm/egress"
	"github.com/weirhq/weir/wasm/guest"
	"github.com/weirhq/weir/wasm/host"
	"github.com/weirhq/weir/wasm/module"
)

// openModules opens the runtime and the catalogue of modules.
func (b *box) openModules(ctx context.Context, c *config.Loaded) error {
	keys, err := trustedKeys(c.Wasm.TrustedKeys)
	if err != nil {
		return err
	}
	runtime, err := host.New(ctx, host.Options{
		CacheDir: filepath.Join(b.dir, CacheDir), Imports: guest.Imports(), MemoryBudgetBytes: int64(c.Wasm.Memory), Logger: b.log,
	})
	if err != nil {
		return err
	}
	b.runtime = runtime
	hosts := append([]string{}, c.Wasm.AllowedHosts...) // not nil: none allowed
	if slices.Contains(hosts, "*") {
		hosts = nil
	}
	secrets := map[string]string{}
	for _, s := range c.Wasm.Secrets {
		secrets[s.Name] = s.Value.Reveal()
	}
	b.modules, err = module.Open(ctx, module.Options{
		Store: moduleStore{b.store}, Runtime: runtime, Signatures: module.SignaturePolicy(c.Wasm.Signatures), TrustedKeys: keys,
		Egress: egress.Policy{Hosts: hosts}, Logger: b.log,
		Secret: func(name string) (string, bool) { v, ok := secrets[name]; return v, ok },
	})
	return err
}

func trustedKeys(files []string) ([]ed25519.PublicKey, error) {
	var keys []ed25519.PublicKey
	for i, name := range files {
		text, err := os.ReadFile(name)
		var key ed25519.PublicKey
		if err == nil {
			key, err = module.ParsePublicKey(text)
		}
		if err != nil {
			return nil, &fault.Error{Class: fault.Environment, Subject: fmt.Sprintf("wasm.trusted_keys[%d]", i), Value: name, Expect: "expecting a public key", Err: err, Try: "weir module keygen"}
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// moduleStore keeps the catalogue's rows in a table of the log's.
type moduleStore struct{ store *storage.Store }

// Get implements module.Store.
func (m moduleStore) Get(_ context.Context, key []byte) ([]byte, error) {
	value, err := m.store.Get(storage.TableModule, key)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil
	}
	return value, err
}

// Scan implements module.Store.
func (m moduleStore) Scan(_ context.Context, prefix []byte, fn func(key, value []byte) error) error {
	var failed error
	err := m.store.Scan(storage.TableModule, prefix, nil, 0, func(key, value []byte) bool {
		failed = fn(key, value)
		return failed == nil
	})
	return errors.Join(err, failed)
}

// Commit implements module.Store.
func (m moduleStore) Commit(ctx context.Context, changes []module.Change) error {
	size := 0
	for _, c := range changes {
		size += len(c.Key) + len(c.Value)
	}
	txn, err := m.store.Begin(ctx, size)
	if err != nil {
		return err
	}
	defer txn.Release()
	for _, c := range changes {
		if c.Value == nil {
			txn.Delete(storage.TableModule, c.Key)
		} else {
			txn.Put(storage.TableModule, c.Key, c.Value)
		}
	}
	return txn.Commit(ctx)
}
