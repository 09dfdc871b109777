package wasm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

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
	if err := errors.Join(err, p.stop()); err != nil {
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
		b.r.Add("C rename through the whole host, CPU ns/record", title, "this/Weir", median(ratios), "ns/record", median(theirs[name]))
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
type peerProcess struct {
	cmd *exec.Cmd
	in  *json.Encoder
	out *json.Decoder
	end func() error
}

func (b *run) startPeer(ctx context.Context) (*peerProcess, error) {
	source := filepath.Join(b.root, "benchmarks", "wasm", "testdata", "extism")
	program, module := filepath.Join(b.o.Dir, "extism"), filepath.Join(b.o.Dir, "extism-rename.wasm")
	build := exec.CommandContext(ctx, "go", "build", "-C", source, "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build %s: %w: %.200s", source, err, out)
	}
	if err := b.buildPeerGuest(ctx, filepath.Join(source, "guest", "rename.c"), module); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &peerProcess{cmd: cmd, in: json.NewEncoder(stdin), out: json.NewDecoder(stdout), end: stdin.Close}
	order := struct {
		Module  string   `json:"module"`
		Records [][]byte `json:"records"`
	}{Module: module}
	for _, r := range b.records {
		order.Records = append(order.Records, r.data)
	}
	return p, p.in.Encode(order)
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
	if err := p.in.Encode("round"); err != nil {
		return nil, err
	}
	var took map[string]float64
	return took, p.out.Decode(&took)
}

func (p *peerProcess) stop() error { return errors.Join(p.end(), p.cmd.Wait()) }
