package ingest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/weirhq/weir/appliance"
	"github.com/weirhq/weir/appliance/config"
	"github.com/weirhq/weir/appliance/trust"
	"github.com/weirhq/weir/benchmarks/process"
	"github.com/weirhq/weir/benchmarks/report"
	"github.com/weirhq/weir/storage"
)

// ChildName is the hidden benchmark that is one of ours until its input ends.
const ChildName = "ingest-child"

// What a child can be.
const (
	kindWeir  = "weir"
	kindLimit = "read and answer"
	kindStore = "store alone"
)

// order is what a child is to be: the first line of its input.
type order struct {
	Kind string `json:"kind"`
	Dir  string `json:"dir"`
}

// address is where a server listens and with which key.
type address struct {
	Address string `json:"address"`
	Key     string `json:"key"`
	Secret  string `json:"secret"`
}

// count is how many objects a child has allocated so far: its answer to each line
// after the first, but for the store's.
type count struct {
	Allocs uint64 `json:"allocs"`
}

func allocated() uint64 {
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	return ms.Mallocs
}

// startChild starts this program again as one of ours.
func startChild(ctx context.Context, kind, dir string) (*process.Process, error) {
	p, err := process.Again(ctx, ChildName)
	if err != nil {
		return nil, err
	}
	return p, p.Tell(order{kind, dir})
}

// Child is one of ours until standard input ends.
func Child(ctx context.Context, _ report.Options, _ *report.Report) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	orders, answers := json.NewDecoder(bufio.NewReader(os.Stdin)), json.NewEncoder(os.Stdout)
	var o order
	if err := orders.Decode(&o); err != nil {
		return err
	}
	if o.Kind == kindStore {
		return serveStore(ctx, o.Dir, orders, answers)
	}
	tell := func(a address) {
		_ = answers.Encode(a)
		go func() {
			defer stop() // the parent has closed our input, or is gone
			for v := (any)(nil); orders.Decode(&v) == nil; {
				_ = answers.Encode(count{allocated()})
			}
		}()
	}
	if o.Kind == kindLimit {
		return serveLimit(ctx, tell)
	}
	c := config.Default()
	c.Dir, c.Listen.Address, c.Telemetry.LogLevel = filepath.Join(o.Dir, "box"), "127.0.0.1:0", "warn"
	c.Listen.MaxRequests = 4096
	return appliance.Run(ctx, &config.Loaded{Config: c}, appliance.Options{Log: os.Stderr, Ready: func(endpoint string, t *trust.Trust) {
		tell(address{strings.TrimPrefix(strings.TrimPrefix(endpoint, "https://"), "http://"), t.AccessKeyID, t.SecretAccessKey})
	}})
}

// serveLimit is the limit of HTTP itself: fasthttp reads the body and says so.
func serveLimit(ctx context.Context, tell func(address)) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := &fasthttp.Server{MaxRequestBodySize: 16 << 20, Handler: func(c *fasthttp.RequestCtx) {
		c.SetContentType("application/x-amz-json-1.1")
		_, _ = fmt.Fprintf(c, `{"FailedRecordCount":0,"Bytes":%d}`, len(c.PostBody()))
	}}
	go func() {
		<-ctx.Done()
		_ = s.Shutdown()
	}()
	tell(address{ln.Addr().String(), "AKIDEXAMPLEEXAMPLE", "secret"})
	return s.Serve(ln)
}

// serveStore appends to a store as PutRecords does, by the loads on its input.
func serveStore(ctx context.Context, dir string, orders *json.Decoder, answers *json.Encoder) (err error) {
	s, err := storage.Open(ctx, filepath.Join(dir, "store"), storage.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	st, err := s.CreateStream(ctx, storage.StreamConfig{Name: "load", Shards: 4})
	if err != nil {
		return err
	}
	pool := samples(poolSize)
	for {
		var l load
		switch err := orders.Decode(&l); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		deadline := time.Now().Add(l.For)
		o, err := together(l.Connections, func(i int) (outcome, error) { return appendBatches(ctx, s, st, pool, i, l.Records, deadline) })
		if err != nil {
			return err
		}
		if err := answers.Encode(o); err != nil {
			return err
		}
	}
}

func appendBatches(ctx context.Context, s *storage.Store, st *storage.Stream, pool []sample, at, records int, deadline time.Time) (o outcome, err error) {
	for ; time.Now().Before(deadline) && ctx.Err() == nil; at++ {
		batch := pool[at*records%(len(pool)-records):][:records]
		start := time.Now()
		if err := appendBatch(ctx, s, st, batch); err != nil {
			return o, err
		}
		o.Latencies = append(o.Latencies, time.Since(start))
		o.Records += records
	}
	return o, nil
}

func appendBatch(ctx context.Context, s *storage.Store, st *storage.Stream, batch []sample) error {
	size := 0
	for i := range batch {
		size += len(batch[i].data)
	}
	t, err := s.Begin(ctx, size)
	if err != nil {
		return err
	}
	defer t.Release()
	for i := range batch {
		if err := t.Append(st, []byte(batch[i].key), nil, batch[i].data); err != nil {
			return err
		}
	}
	return t.Commit(ctx)
}
