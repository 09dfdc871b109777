package appliance

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/weirhq/weir/appliance/config"
	"github.com/weirhq/weir/appliance/consume"
	"github.com/weirhq/weir/appliance/fault"
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
		CacheDir: filepath.Join(b.dir, CacheDir), CompileCommand: c.Wasm.CompileCommand, Imports: guest.Imports(), MemoryBudgetBytes: int64(c.Wasm.Memory), Logger: b.log,
		SpareProcessor: true,
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
		Store: consume.Modules{Store: b.store}, Runtime: runtime, Signatures: module.SignaturePolicy(c.Wasm.Signatures), TrustedKeys: keys,
		Egress: egress.Policy{Hosts: hosts, Private: addresses(c.Wasm.AllowedHosts)}, Logger: b.log,
		Secret: func(name string) (string, bool) { v, ok := secrets[name]; return v, ok },
	})
	return err
}

// addresses are the allowed hosts that are given as an address and a port: only
// those are reached when they are not public.
func addresses(hosts []string) []netip.AddrPort {
	var out []netip.AddrPort
	for _, h := range hosts {
		if a, err := netip.ParseAddrPort(h); err == nil {
			out = append(out, netip.AddrPortFrom(a.Addr().Unmap(), a.Port()))
		}
	}
	return out
}

// openConsumers makes the engine that runs consumer modules.
func (b *box) openConsumers(context.Context, *config.Loaded) error {
	b.consumers = consume.New(consume.Options{Store: b.store, Modules: b.modules, Logger: b.log})
	return nil
}

func trustedKeys(files []string) ([]ed25519.PublicKey, error) {
	var keys []ed25519.PublicKey
	for i, name := range files {
		key, err := trustedKey(i, name)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// trustedKey reads the file of wasm.trusted_keys[i].
func trustedKey(i int, name string) (ed25519.PublicKey, error) {
	text, err := os.ReadFile(name)
	var key ed25519.PublicKey
	if err == nil {
		key, err = module.ParsePublicKey(text)
	}
	if err != nil {
		return nil, &fault.Error{Class: fault.Environment, Subject: fmt.Sprintf("wasm.trusted_keys[%d]", i), Value: name, Expect: "expecting a public key", Err: fault.Cause(err), Try: "weir module keygen"}
	}
	return key, nil
}
