package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/weirhq/weir/benchmarks/process"
	"github.com/weirhq/weir/benchmarks/report"
)

// The peers.
const (
	kindNATS       = "NATS JetStream, default sync"
	kindNATSAlways = "NATS JetStream, sync always"
	kindEmulator   = "kinesis-local"
)

// system is one thing that takes records, in a process of its own.
type system struct {
	name  string
	p     *process.Process
	drive func(context.Context, load) (outcome, error)
	peer  bool // somebody else's: what it refuses is noted, and not measured
	slow  bool // a round lasts as long as its first requests: no warming up, and small loads only
	close func() error
}

// maxSlow is how many records a slow system gets at once: a round ends with the
// requests in flight, which at more than this takes minutes.
const maxSlow = 16 * 500

// takes tells whether the system is measured under a load.
func (s *system) takes(l load) bool { return !s.slow || l.Connections*l.Records <= maxSlow }

// round drives the system once and counts its CPU.
func (s *system) round(ctx context.Context, l load) (outcome, error) {
	cpu := s.p.CPU()
	o, err := s.drive(ctx, l)
	if err == nil && o.Error != "" {
		err = errors.New(o.Error)
	}
	if err == nil && o.Records == 0 {
		err = errors.New("no record was taken")
	}
	if err != nil {
		return o, fmt.Errorf("%s, %d connections × %d records: %w", s.name, l.Connections, l.Records, err)
	}
	o.cpuS = (s.p.CPU() - cpu).Seconds()
	return o, nil
}

// openOurs starts one of ours.
func openOurs(ctx context.Context, kind, dir string) (*system, error) {
	p, err := startChild(ctx, kind, dir)
	if err != nil {
		return nil, err
	}
	s := &system{name: kind, p: p, close: p.Stop}
	if kind == kindStore {
		s.drive = func(_ context.Context, l load) (o outcome, err error) {
			o.allocs = math.NaN()
			return o, errors.Join(p.Tell(l), p.Hear(&o))
		}
		return s, nil
	}
	var a address
	if err := p.Hear(&a); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	s.drive = func(ctx context.Context, l load) (outcome, error) {
		var before, after count
		if err := errors.Join(p.Tell("allocs"), p.Hear(&before)); err != nil {
			return outcome{}, err
		}
		o, err := overHTTP(ctx, a, l)
		if err == nil {
			err = errors.Join(p.Tell("allocs"), p.Hear(&after))
		}
		o.allocs = float64(after.Allocs - before.Allocs)
		return o, err
	}
	if kind == kindWeir {
		if err := createStream(a); err != nil {
			return nil, errors.Join(err, p.Stop())
		}
	}
	return s, nil
}

// openPeers starts the peers. One that cannot be had on this machine is left out,
// with a note.
func openPeers(ctx context.Context, o report.Options, r *report.Report) (systems []*system) {
	peers, err := process.Repository(ctx, "benchmarks", "ingest", "testdata")
	if err != nil {
		r.Note("No peer was measured: their sources are in the repository, and this run is not: %v", err)
		return nil
	}
	add := func(s *system, err error) {
		if err != nil {
			r.Note("A peer was not measured: %v", err)
			return
		}
		systems = append(systems, s)
	}
	program := filepath.Join(o.Dir, "nats")
	if err := process.Build(ctx, filepath.Join(peers, "nats"), program, "."); err != nil {
		r.Note("NATS JetStream was not measured: %v", err)
	} else {
		add(openNATS(ctx, kindNATS, program, filepath.Join(o.Dir, "nats-default"), "default"))
		add(openNATS(ctx, kindNATSAlways, program, filepath.Join(o.Dir, "nats-always"), "always"))
	}
	add(openEmulator(ctx, filepath.Join(peers, "kinesis-local"), filepath.Join(o.Dir, "kinesis-local")))
	return systems
}

// openNATS starts the server and its load, each in a process of its own.
func openNATS(ctx context.Context, name, program, dir, sync string) (*system, error) {
	p, err := process.Start(exec.CommandContext(ctx, program, "serve", dir, sync))
	if err != nil {
		return nil, err
	}
	var a address
	if err := p.Hear(&a); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	publisher, err := process.Start(exec.CommandContext(ctx, program, "load", a.Address))
	if err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	pool := samples(poolSize)
	messages := make([][]byte, len(pool))
	for i := range pool {
		messages[i] = pool[i].data
	}
	return &system{
		name: name, p: p, peer: true, slow: sync == "always",
		drive: func(_ context.Context, l load) (o outcome, err error) {
			o.allocs = math.NaN()
			return o, errors.Join(publisher.Tell(struct {
				load
				Messages [][]byte `json:"messages"`
			}{l, messages}), publisher.Hear(&o))
		},
		close: func() error { return errors.Join(publisher.Stop(), p.Stop()) },
	}, nil
}

// openEmulator installs kinesis-local by its lock file and starts it, holding its
// data in memory as it does by default.
func openEmulator(ctx context.Context, source, dir string) (*system, error) {
	if err := os.CopyFS(dir, os.DirFS(source)); err != nil {
		return nil, err
	}
	install := exec.CommandContext(ctx, "npm", "ci", "--no-audit", "--no-fund", "--loglevel=error")
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: npm ci: %w: %s", kindEmulator, err, out)
	}
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "node", "main.js")
	cmd.Dir = filepath.Join(dir, "node_modules", "kinesis-local")
	var said bytes.Buffer // mostly that it is busy
	cmd.Stderr = &said
	p, err := process.Start(cmd, "KINESIS_MOCK_PLAIN_PORT="+ports[0], "KINESIS_MOCK_TLS_PORT="+ports[1], "LOG_LEVEL=ERROR", "AWS_REGION=us-east-1")
	if err != nil {
		return nil, err
	}
	a := address{"127.0.0.1:" + ports[0], "AKIDEXAMPLEEXAMPLE", "secret"}
	if err := createStream(a); err != nil {
		err = errors.Join(err, p.Kill())
		return nil, fmt.Errorf("%s: %w: %s", kindEmulator, err, said.Bytes())
	}
	return &system{
		name: kindEmulator, p: p, peer: true, slow: true, close: p.Kill,
		drive: func(ctx context.Context, l load) (outcome, error) {
			o, err := overHTTP(ctx, a, l)
			o.allocs = math.NaN()
			return o, err
		},
	}, nil
}

// freePorts are TCP ports that nobody listens on.
func freePorts(n int) (ports []string, err error) {
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer ln.Close()
		ports = append(ports, strconv.Itoa(ln.Addr().(*net.TCPAddr).Port))
	}
	return ports, nil
}
