package wasm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/weirhq/weir/benchmarks/process"
	"github.com/weirhq/weir/benchmarks/report"
	"github.com/weirhq/weir/wasm/host"
)

// peer measures Extism's Go host, which is wazero too, with the C SDK's rename
// behind its contract, in turns with ours. It stands in a module of its own, so
// that the product doesn't depend on it.
func (b *run) peer(ctx context.Context) error {
	if !b.o.Peers {
		return nil
	}
	i := slices.IndexFunc(b.guests, func(g *guest) bool { return g.name() == "c rename" })
	if i < 0 {
		b.r.Note("Extism was not measured: the C rename example could not be built")
		return nil
	}
	p, err := b.startPeer(ctx)
	if err != nil {
		b.r.Note("Extism was not measured: %v", err)
		return nil
	}
	theirs, err := b.againstPeer(ctx, p, b.guests[i])
	if err := errors.Join(err, p.Stop()); err != nil {
		return err
	}
	ours := theirs["ours"]
	for _, name := range slices.Sorted(maps.Keys(theirs)) {
		ratios := make([]float64, len(ours))
		for i, v := range theirs[name] {
			ratios[i] = v / ours[i]
		}
		title := "Extism 1.7.1, " + name
		if name == "ours" {
			title = "Weir, 500 records a call, metered"
		}
		b.r.Add("C rename through the whole host, CPU ns/record", title, "this/Weir", report.Median(ratios), "ns/record", report.Median(theirs[name]))
	}
	return nil
}

// againstPeer runs both in turns and returns the ns per record by way and round.
func (b *run) againstPeer(ctx context.Context, p *peerProcess, g *guest) (map[string][]float64, error) {
	rt, err := openHost(ctx, host.Options{CacheDir: filepath.Join(b.o.Dir, "peer-ours")})
	if err != nil {
		return nil, err
	}
	defer rt.Close(ctx)
	ours, free, err := b.transformer(ctx, rt, g, 500)
	if err != nil {
		return nil, err
	}
	defer free()
	all := map[string][]float64{}
	for range 1 + b.rounds() { // the first warms up
		if err := compare(1, []*contender{ours}); err != nil {
			return nil, err
		}
		took, err := p.round()
		if err != nil {
			return nil, err
		}
		for name, ns := range took {
			all[name] = append(all[name], ns)
		}
	}
	all["ours"] = ours.ns
	for name := range all {
		all[name] = all[name][1:]
	}
	return all, nil
}

// peerProcess is the running peer.
type peerProcess struct{ *process.Process }

func (b *run) startPeer(ctx context.Context) (*peerProcess, error) {
	source := filepath.Join(b.root, "benchmarks", "wasm", "testdata", "extism")
	program, module := filepath.Join(b.o.Dir, "extism"), filepath.Join(b.o.Dir, "extism-rename.wasm")
	if err := process.Build(ctx, source, program, "."); err != nil {
		return nil, err
	}
	if err := b.buildPeerGuest(ctx, filepath.Join(source, "guest", "rename.c"), module); err != nil {
		return nil, err
	}
	p, err := process.Start(exec.CommandContext(ctx, program))
	if err != nil {
		return nil, err
	}
	order := struct {
		Module  string   `json:"module"`
		Records [][]byte `json:"records"`
	}{Module: module}
	for _, r := range b.records {
		order.Records = append(order.Records, r.data)
	}
	return &peerProcess{p}, p.Tell(order)
}

// buildPeerGuest compiles with the flags of the C SDK.
func (b *run) buildPeerGuest(ctx context.Context, source, module string) error {
	sdk := filepath.Join(b.root, "sdk", "guest", "c")
	err := errors.New("no clang")
	for _, clang := range []string{"clang", "clang-19", "clang-18", "clang-17", "clang-16", "clang-15", "clang-14"} {
		if _, missing := exec.LookPath(clang); missing != nil {
			continue
		}
		var out []byte
		if out, err = exec.CommandContext(ctx, clang, "@"+filepath.Join(sdk, "flags"), "-I"+sdk, "-o", module, source).CombinedOutput(); err == nil {
			return nil
		}
		err = fmt.Errorf("build its guest with %s: %w: %.200s", clang, err, out)
	}
	return err
}

// round has the peer measure each of its ways once.
func (p *peerProcess) round() (map[string]float64, error) {
	var took map[string]float64
	return took, errors.Join(p.Tell("round"), p.Hear(&took))
}
