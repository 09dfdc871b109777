package delivery

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/weirhq/weir/benchmarks/process"
	"github.com/weirhq/weir/benchmarks/report"
)

// telegraf is the peer: it tails the same records as lines of a file and writes
// them to the same versitygw. Its program stands in a module of its own, so that
// the product doesn't depend on it.
type telegraf struct {
	program string
	input   string          // the records as a file
	dir     string          // of its configuration and upload cache
	failed  map[string]bool // the kinds that it is not measured in
}

// telegrafWays are the kinds that it is measured in, by the kind of ours that
// each is compared with. Without compression it begins an object each second,
// which is its way of bounding them. Compressed it writes one: its encoder has
// one buffer, and a batch that spans two objects arrives in them corrupt.
var telegrafWays = []struct{ kind, compression, object string }{
	{"uncompressed", "", "{{.Time.Unix}}.ndjson"},
	{"GZIP", "gzip", "all.ndjson.gz"},
}

const telegrafName = "Telegraf 1.37.2: "

// openTelegraf builds the peer; one that can't be built is left out with a note.
func (b *bench) openTelegraf(ctx context.Context) {
	b.o.Logf("delivery: build Telegraf, which takes minutes the first time")
	t := &telegraf{input: filepath.Join(b.o.Dir, "records.ndjson"), dir: filepath.Join(b.o.Dir, "telegraf"), failed: map[string]bool{}}
	if err := t.build(ctx); err != nil {
		b.r.Note("Telegraf was not measured: %v", err)
		return
	}
	b.peer = t
}

func (t *telegraf) build(ctx context.Context) error {
	source, err := process.Repository(ctx, "benchmarks", "delivery", "testdata", "telegraf")
	if err != nil {
		return err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	t.program = filepath.Join(cache, "weir-test", "telegraf-1.37.2") // go builds it again only when it has changed
	return process.Build(ctx, source, t.program, ".")
}

// prepare writes n records to the file that Telegraf reads.
func (t *telegraf) prepare(n int) error {
	if t == nil {
		return nil
	}
	f, err := os.Create(t.input)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	for i := range n {
		if _, err := w.Write(sensor(i)); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return errors.Join(w.Flush(), f.Sync(), f.Close()) // not to be written back while something is measured
}

// runTelegraf measures it once in each way. A way that fails isn't run again: the
// note says how, and its row says "not measured".
func (b *bench) runTelegraf(ctx context.Context, speed, cpu map[string][]float64) error {
	if b.peer == nil {
		return nil
	}
	for _, way := range telegrafWays {
		if b.peer.failed[way.kind] {
			continue
		}
		name := telegrafName + way.kind
		b.o.Logf("delivery: %s to %s", name, store3)
		took, used, err := b.telegraf(ctx, way.compression, way.object)
		if err := errors.Join(ctx.Err(), b.s3.empty(), os.RemoveAll(b.peer.dir)); err != nil {
			return err
		}
		if err != nil {
			b.r.Note("%s to %s was not measured: %v", name, store3, err)
			b.peer.failed[way.kind] = true
			delete(speed, name)
			continue
		}
		speed[name] = append(speed[name], float64(b.raw)/1e6/took.Seconds())
		cpu[name] = append(cpu[name], used.Seconds()/(float64(b.raw)/1e9))
	}
	return nil
}

// reportTelegraf writes the rows against ours of the same kind.
func (b *bench) reportTelegraf(speed, cpu map[string][]float64) {
	if !b.o.Peers {
		return
	}
	for _, way := range telegrafWays {
		ours, theirs := store3+": "+way.kind, telegrafName+way.kind
		mbs, cost := math.NaN(), math.NaN()
		if len(speed[theirs]) > 0 {
			mbs, cost = report.Median(speed[theirs]), report.Median(cpu[theirs])
		}
		b.r.Add("Weir / Telegraf 1.37.2, to "+store3, way.kind, "Weir/Telegraf MB/s", report.Median(speed[ours])/mbs, "Weir/Telegraf CPU", report.Median(cpu[ours])/cost,
			"Telegraf MB/s", mbs, "Telegraf CPU s/GB", cost)
	}
}

// telegraf runs the agent until all records are stored. The time is from when it
// begins to read to when the last object was stored, the CPU that of its process
// without its start.
func (b *bench) telegraf(ctx context.Context, compression, object string) (took, used time.Duration, err error) {
	if err := os.MkdirAll(b.peer.dir, 0o755); err != nil {
		return 0, 0, err
	}
	config := filepath.Join(b.peer.dir, "telegraf.conf")
	if err := os.WriteFile(config, b.telegrafConfig(compression, object), 0o600); err != nil {
		return 0, 0, err
	}
	running, stop := context.WithTimeout(ctx, time.Duration(float64(b.raw)/2e6*float64(time.Second))) // 2 MB/s is given up on
	defer stop()
	cmd := exec.CommandContext(running, b.peer.program, config)
	cmd.Env = append(os.Environ(), "HOME="+b.peer.dir, "XDG_CACHE_HOME="+b.peer.dir) // rclone keeps files there before it uploads them
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	var start float64
	_, err = fmt.Fscanln(out, &start)
	if err == nil {
		took, err = b.waitStored(running, time.Now())
	}
	stop()
	ended := cmd.Wait() // of the interrupt
	if !cmd.ProcessState.Success() {
		err = errors.Join(err, ended)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("%w; it said %.300q", err, said.String())
	}
	used = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime() - time.Duration(start*float64(time.Second))
	return took, used, nil
}

// telegrafConfig is the agent's configuration: batches of about 2 MB, as many
// lines under way as keep it busy, and uploads as soon as an object rests.
func (b *bench) telegrafConfig(compression, object string) []byte {
	return fmt.Appendf(nil, `[agent]
  omit_hostname = true
  interval = "1s"
  flush_interval = "1s"
  metric_batch_size = 10000
  metric_buffer_limit = 100000
  skip_processors_after_aggregators = true
[[inputs.tail]]
  files = [%q]
  initial_read_offset = "beginning"
  max_undelivered_lines = 50000
  path_tag = ""
  data_format = "value"
  data_type = "string"
[[outputs.remotefile]]
  remote = 's3,provider=Other,access_key_id=%s,secret_access_key=%s,region=us-east-1,endpoint="%s":%s'
  files = ['%s']
  cache_write_back = "250ms"
  compression_algorithm = %q
  use_batch_format = true
  data_format = "template"
  batch_template = "{{range .}}{{.Field \"value\"}}\n{{end}}"
`, b.peer.input, gatewayKey, gatewaySecret, b.s3.url, bucket, object, compression)
}

// waitStored returns the time from begin to the last change of the objects that
// hold every record. It reads them when they have rested for a second.
func (b *bench) waitStored(ctx context.Context, begin time.Time) (time.Duration, error) {
	var last string
	changed, read, lines := begin, false, 0
	for {
		objects, now, err := b.s3.objects()
		if err != nil {
			return 0, err
		}
		if now != last {
			last, changed, read = now, time.Now(), false
		}
		if !read && len(objects) > 0 && time.Since(changed) >= time.Second {
			var size int64
			if lines, size, err = contents(objects); err != nil {
				return 0, err
			}
			if lines == b.n && size == b.raw {
				return changed.Sub(begin), nil
			}
			read = true
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("its objects held %d lines of %d when it was given up on: %w", lines, b.n, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// objects are the files of the stored objects, and what tells a change of them.
func (g *gateway) objects() (files []string, state string, err error) {
	entries, err := os.ReadDir(filepath.Join(g.dir, bucket))
	if err != nil {
		return nil, "", err
	}
	var s strings.Builder
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		info, err := e.Info()
		if err != nil { // being replaced
			continue
		}
		files = append(files, filepath.Join(g.dir, bucket, e.Name()))
		fmt.Fprintln(&s, e.Name(), info.Size(), info.ModTime().UnixNano())
	}
	return files, s.String(), nil
}

// contents are the lines and bytes of the objects without their compression.
func contents(files []string) (lines int, size int64, err error) {
	for _, name := range files {
		n, m, err := content(name)
		if err != nil {
			return 0, 0, fmt.Errorf("read %s: %w", filepath.Base(name), err)
		}
		lines, size = lines+n, size+m
	}
	return lines, size, nil
}

func content(name string) (lines int, size int64, err error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(name, ".gz") {
		if r, err = gzip.NewReader(f); err != nil {
			return 0, 0, err
		}
	}
	buf := make([]byte, 1<<20)
	for {
		n, err := r.Read(buf)
		lines += bytes.Count(buf[:n], []byte("\n"))
		size += int64(n)
		if errors.Is(err, io.EOF) {
			return lines, size, nil
		}
		if err != nil {
			return lines, size, err
		}
	}
}
