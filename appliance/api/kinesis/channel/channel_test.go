package channel

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/weirhq/weir/appliance/api/apitest"
	"github.com/weirhq/weir/appliance/api/aws"
	"github.com/weirhq/weir/appliance/api/kinesis"
	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/appliance/sink"
	"github.com/weirhq/weir/storage"
)

func open(t *testing.T) (*Deliveries, *storage.Store, string) {
	t.Helper()
	dir := t.TempDir()
	settings, err := json.Marshal(map[string]any{"dir": dir})
	if err != nil {
		t.Fatal(err)
	}
	table, err := sink.New([]sink.Config{{Name: "folder", Kind: "file", Default: true, Settings: settings}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	store, err := storage.Open(context.Background(), t.TempDir(), storage.Options{ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	engine, err := delivery.New(store, delivery.Options{OpenSink: table.Open, Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- engine.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return &Deliveries{Engine: engine, Bucket: table.Bucket}, store, dir
}

func spec() kinesis.ChannelSpec {
	return kinesis.ChannelSpec{
		ID: "0123456789abcdef01234567", Name: "lake", Stream: "s", Format: "JSON", Bucket: "bucket",
		Compression: "ZSTD", Freshness: 300 * time.Second, DeadLetterBucket: "bucket", DeadLetterPrefix: "errors/",
	}
}

func put(t *testing.T, store *storage.Store, data string) {
	t.Helper()
	st, err := store.Stream("s")
	if err != nil {
		t.Fatal(err)
	}
	txn, err := store.Begin(context.Background(), len(data))
	if err != nil {
		t.Fatal(err)
	}
	defer txn.Release()
	if err := txn.Append(st, []byte("k"), nil, []byte(data)); err != nil {
		t.Fatal(err)
	}
	if err := txn.Commit(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// objects are the data objects below a folder, decompressed.
func objects(t *testing.T, dir string) map[string]string {
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(p, ".zst") {
			return err
		}
		raw, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		r, err := zstd.NewReader(nil)
		if err != nil {
			return err
		}
		defer r.Close()
		data, err := r.DecodeAll(raw, nil)
		rel, _ := filepath.Rel(dir, p)
		out[filepath.ToSlash(rel)] = string(data)
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return out
}

func TestChannelDeliversWhatArrivesAfterIt(t *testing.T) {
	d, store, dir := open(t)
	ctx := context.Background()
	if _, err := store.CreateStream(ctx, storage.StreamConfig{Name: "s", Shards: 1, Mode: storage.OnDemand}); err != nil {
		t.Fatal(err)
	}
	put(t, store, `{"n":0}`)
	if err := d.OpenChannel(ctx, spec()); err != nil {
		t.Fatal(err)
	}
	put(t, store, `{"n":1}`)
	put(t, store, `{"n":2}`)
	if err := d.Engine.Flush(nameOf(spec().ID)); err != nil {
		t.Fatal(err)
	}
	var found map[string]string
	apitest.Until(t, "an object is there", func() bool { found = objects(t, dir); return len(found) > 0 })
	for key, data := range found {
		if !strings.Contains(key, "kinesis-channel/lake/"+spec().ID+"/20") || data != "{\"n\":1}\n{\"n\":2}\n" {
			t.Fatalf("%s: %q", key, data)
		}
	}
	if err := d.UpdateChannel(ctx, spec().ID, 600*time.Second); err != nil {
		t.Fatal(err)
	}
	if c, _, err := d.Engine.Definition(nameOf(spec().ID)); err != nil || time.Duration(*c.Buffer.Interval) != 600*time.Second {
		t.Fatalf("%+v, %v", c.Buffer, err)
	}
	if why := d.ChannelFailure(spec().ID); why != "" {
		t.Fatal(why)
	}
	for range 2 { // the second time there is nothing to close
		if err := d.CloseChannel(ctx, spec().ID); err != nil {
			t.Fatal(err)
		}
	}
	if why := d.ChannelFailure(spec().ID); why == "" {
		t.Fatal("a channel without its delivery stream has not failed")
	}
}

// TestRecordsThatAreNotOfTheFormat: they go to the dead letters, in a bucket of their
// own if one is named, and the others are delivered.
func TestRecordsThatAreNotOfTheFormat(t *testing.T) {
	for format, c := range map[string]struct{ good, bad []string }{
		"JSON":   {good: []string{`{"n":1}`, `[1,2]`, `"text"`}, bad: []string{`{"n":`, "{}{}", "\xff"}},
		"STRING": {good: []string{"plain", "grün", `{"n":`}, bad: []string{"\xff\xfe", "cut \xe2\x82"}},
	} {
		t.Run(format, func(t *testing.T) {
			d, store, dir := open(t)
			ctx := context.Background()
			if _, err := store.CreateStream(ctx, storage.StreamConfig{Name: "s", Shards: 1, Mode: storage.OnDemand}); err != nil {
				t.Fatal(err)
			}
			s := spec()
			s.Format, s.DeadLetterBucket = format, "letters"
			if err := d.OpenChannel(ctx, s); err != nil {
				t.Fatal(err)
			}
			for i := range max(len(c.good), len(c.bad)) {
				for _, list := range [][]string{c.good, c.bad} {
					if i < len(list) {
						put(t, store, list[i])
					}
				}
			}
			if err := d.Engine.Flush(nameOf(s.ID)); err != nil {
				t.Fatal(err)
			}
			apitest.Until(t, "everything is delivered", func() bool {
				stats, err := d.Engine.Stats(nameOf(s.ID))
				return err == nil && stats.LagRecords == 0
			})
			data := ""
			for _, text := range objects(t, filepath.Join(dir, "bucket")) {
				data += text
			}
			if want := strings.Join(c.good, "\n") + "\n"; data != want {
				t.Errorf("delivered %q; want %q", data, want)
			}
			var dead []string
			letters, err := filepath.Glob(filepath.Join(dir, "letters", "errors", "processing-failed", "*", "*", "*", "*", "*"))
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range letters {
				raw, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				for line := range strings.Lines(string(raw)) {
					var row struct {
						RawData   []byte
						ErrorCode string
					}
					if err := json.Unmarshal([]byte(line), &row); err != nil || !strings.HasPrefix(row.ErrorCode, "DataFormat.Invalid") {
						t.Errorf("%s: %v", line, err)
					}
					dead = append(dead, string(row.RawData))
				}
			}
			if !slices.Equal(dead, c.bad) {
				t.Errorf("dead letters %q; want %q", dead, c.bad)
			}
		})
	}
}

func TestWhatIsNotDoneIsRefused(t *testing.T) {
	d, store, _ := open(t)
	if _, err := store.CreateStream(context.Background(), storage.StreamConfig{Name: "s", Shards: 1}); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*kinesis.ChannelSpec){
		"records of a registry":       func(s *kinesis.ChannelSpec) { s.Format = "GSR_JSON" },
		"a storage class":             func(s *kinesis.ChannelSpec) { s.StorageClass = "GLACIER_IR" },
		"an unknown template":         func(s *kinesis.ChannelSpec) { s.KeyTemplate = "x/!{weather}/" },
		"an extension in the middle":  func(s *kinesis.ChannelSpec) { s.KeyTemplate = "!{extension}/x" },
		"freshness beyond the engine": func(s *kinesis.ChannelSpec) { s.Freshness = time.Hour },
	} {
		s := spec()
		change(&s)
		if err := d.OpenChannel(context.Background(), s); !errors.Is(err, aws.InvalidArgument) {
			t.Errorf("%s: %v; want InvalidArgumentException", name, err)
		}
	}
}

func TestTemplates(t *testing.T) {
	for template, want := range map[string]string{
		"": "kinesis-channel/lake/0123456789abcdef01234567/!{timestamp:yyyy}/!{timestamp:MM}/!{timestamp:dd}/!{timestamp:HH}/",
		"raw/!{yyyy}-!{MM}/!{channel-name}.!{extension}": "raw/!{timestamp:yyyy}-!{timestamp:MM}/lake",
		"plain/": "plain/",
	} {
		s := spec()
		s.KeyTemplate = template
		if got, err := prefixOf(s); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", template, got, err, want)
		}
	}
}
