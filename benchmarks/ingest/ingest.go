package ingest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirhq/weir/benchmarks/report"
	"github.com/weirhq/weir/benchmarks/storage"
)

// Run measures the front door.
func Run(ctx context.Context, o report.Options, r *report.Report) (err error) {
	servers := map[string]*server{}
	defer func() {
		for _, s := range servers {
			err = errors.Join(err, s.stop())
		}
	}()
	for _, kind := range []string{kindWeir, kindLimit} {
		s, err := start(ctx, kind, filepath.Join(o.Dir, "server"))
		if err != nil {
			return err
		}
		servers[kind] = s
	}
	if err := createStream(servers[kindWeir]); err != nil {
		return err
	}
	r.Add("memory of the server", "idle", "resident_MB", servers[kindWeir].residentMB())
	rounds, d := 5, 3*time.Second
	connections := []int{1, 16, 256, 2000}
	if o.Quick {
		rounds, d, connections = 2, 700*time.Millisecond, []int{1, 16, 256}
	}
	var door float64
	for _, shape := range []struct {
		name    string
		records int
	}{{"500 records a PutRecords", 500}, {"single PutRecord", 1}} {
		for _, n := range connections {
			if shape.records > 1 && n > 256 {
				continue // half a gigabyte of bodies in flight measures the limits, not the path
			}
			cpu, err := measure(ctx, r, servers, shape.name, n, shape.records, rounds, d)
			if err != nil {
				return err
			}
			if shape.records == 500 && n == 16 {
				door = cpu
			}
			o.Logf("%s, %d connections", shape.name, n)
		}
	}
	alone, err := storage.CPUPerMillion(ctx, vfs.Default, filepath.Join(o.Dir, "store"), 16, 500, rounds, d)
	if err != nil {
		return err
	}
	r.Add("16 × 500 without a door", "store alone", "cpu_s/Mrec", alone, "door/this", door/alone)
	r.AtMost("server CPU of PutRecords of the store's alone, 16 × 500", 2.2, door/alone)
	r.Note("Requests are encoded and signed before the clock starts; the load runs on the same cores as the server, so records/s is what is left to the server. CPU is the server process's own. The peers NATS JetStream and kinesis-local are not run.")
	return nil
}

// measure runs both servers in turn, and returns the median CPU seconds a million
// records of ours.
func measure(ctx context.Context, r *report.Report, servers map[string]*server, name string, connections, records, rounds int, d time.Duration) (float64, error) {
	kinds := []string{kindWeir, kindLimit}
	outs := map[string][]outcome{}
	for round := -1; round < rounds; round++ {
		for _, kind := range kinds {
			out, err := drive(ctx, servers[kind], connections, records, d)
			if err != nil {
				return 0, fmt.Errorf("%s, %s, %d connections: %w", kind, name, connections, err)
			}
			if round >= 0 {
				outs[kind] = append(outs[kind], out)
			}
		}
	}
	var ratios []float64
	for i := range outs[kindWeir] {
		ratios = append(ratios, outs[kindWeir][i].perSecond()/outs[kindLimit][i].perSecond())
	}
	for _, kind := range kinds {
		ratio := 1.0
		if kind != kindWeir {
			ratio = median(ratios)
		}
		r.Add("signed and synced, over HTTP/1.1 ("+name+")", fmt.Sprintf("%d connections, %s", connections, kind),
			"ours/this", ratio, "krecords/s", of(outs[kind], outcome.perSecond)/1e3, "p50_ms", quantile(outs[kind], 0.5), "p99_ms", quantile(outs[kind], 0.99),
			"cpu_s/Mrec", of(outs[kind], outcome.cpuPerM), "resident_MB", servers[kind].residentMB())
	}
	return of(outs[kindWeir], outcome.cpuPerM), nil
}

func of(outs []outcome, f func(outcome) float64) float64 {
	var v []float64
	for _, o := range outs {
		v = append(v, f(o))
	}
	return median(v)
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

func quantile(outs []outcome, q float64) float64 {
	var all []time.Duration
	for _, o := range outs {
		all = append(all, o.latencies...)
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return float64(all[min(int(q*float64(len(all))), len(all)-1)]) / 1e6
}

// createStream makes the stream of the load, with four shards, and waits until
// it takes records.
func createStream(s *server) error {
	if _, err := call(s, "CreateStream", `{"StreamName":"load","ShardCount":4}`); err != nil {
		return err
	}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if _, err := call(s, "PutRecord", `{"StreamName":"load","Data":"eA==","PartitionKey":"k"}`); err == nil {
			return nil
		}
	}
	return errors.New("the stream takes no records")
}

func call(s *server, action, body string) (string, error) {
	c, err := net.Dial("tcp", s.Address)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := c.Write(request(s.address, action, []byte(body))); err != nil {
		return "", err
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", action, res.Status, text)
	}
	return string(text), err
}
