package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/appliance/trust"
)

// definition writes a delivery stream's definition to a file.
func definition(t *testing.T, c delivery.Config) string {
	t.Helper()
	raw, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "delivery.json")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func folder(t *testing.T, dir string) delivery.Target {
	t.Helper()
	settings, err := json.Marshal(map[string]string{"dir": dir})
	if err != nil {
		t.Fatal(err)
	}
	return delivery.Target{Kind: "file", Settings: settings}
}

// files returns the text of each object below dir, by its name.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if d != nil && d.Name() == ".weir" {
				return fs.SkipDir
			}
			return err
		}
		raw, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		out[name] = string(raw)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestCreateSaysThatItsSinkIsOutOfReach: a delivery stream into a store that asks for
// credentials and got none is made, with a warning that says what to do.
func TestCreateSaysThatItsSinkIsOutOfReach(t *testing.T) {
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>`)
	}))
	defer store.Close()
	box := serve(t, t.TempDir())
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	for name, extra := range map[string][]string{"plain": nil, "asjson": {"--json"}} {
		r := weir(t, nil, append([]string{"--dir", box.dir, "delivery", "create", name, "--to", "s3://bucket", "--s3-endpoint", store.URL}, extra...)...)
		if r.code != 0 || !strings.Contains(r.errout, "S3.AccessDenied") || !strings.Contains(r.errout, "the sink has no credentials") || !strings.Contains(r.errout, "weir delivery test "+name) {
			t.Errorf("%s: exit code %d\n%s%s", name, r.code, r.out, r.errout)
		}
		if extra != nil && !json.Valid([]byte(r.errout)) {
			t.Errorf("not JSON: %s", r.errout)
		}
	}
	r := weir(t, nil, "--dir", box.dir, "delivery", "create", "moduleless", "--module", "nosuch", "--to", "file://"+t.TempDir())
	if r.code != 0 || !strings.Contains(r.errout, "module nosuch: ") {
		t.Errorf("exit code %d\n%s%s", r.code, r.out, r.errout)
	}
	if r := weir(t, nil, "--dir", box.dir, "delivery", "create", "fine", "--to", "file://"+t.TempDir()); r.code != 0 || r.errout != "" {
		t.Errorf("exit code %d\n%s%s", r.code, r.out, r.errout)
	}
}

// TestStreamThatIsDeliveredStays, and who wants to delete it is told what to delete before.
func TestStreamThatIsDeliveredStays(t *testing.T) {
	box := serve(t, t.TempDir())
	must(t, "--dir", box.dir, "stream", "create", "s")
	for _, name := range []string{"first", "second"} {
		must(t, "--dir", box.dir, "delivery", "create", name, "--stream", "s", "--to", "file://"+t.TempDir())
	}
	fails(t, 2, nil, []string{"--dir", box.dir, "stream", "delete", "s", "--yes"},
		`stream "s" is the source of delivery stream first, second; delete that first`, "\nTry: weir delivery delete first, weir delivery delete second; what it has delivered stays\n")
	must(t, "--dir", box.dir, "delivery", "delete", "first", "--yes")
	must(t, "--dir", box.dir, "delivery", "delete", "second", "--yes")
	must(t, "--dir", box.dir, "stream", "delete", "s", "--yes")
	fails(t, 2, nil, []string{"--dir", box.dir, "stream", "delete", "s", "--yes"}, "Try: weir stream list")
}

// TestFlushShowsHowItEnded: what was wrong while flush waited is not shown once all is
// delivered.
func TestFlushShowsHowItEnded(t *testing.T) {
	var puts atomic.Int64
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		switch {
		case r.Method == http.MethodHead:
			w.WriteHeader(http.StatusNotFound)
		case r.Method == http.MethodPut && puts.Add(1) < 3:
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			w.Header().Set("ETag", `"0123456789abcdef0123456789abcdef"`)
		}
	}))
	defer store.Close()
	box := serve(t, t.TempDir())
	settings, err := json.Marshal(map[string]string{"endpoint": store.URL, "bucket": "bucket"})
	if err != nil {
		t.Fatal(err)
	}
	must(t, "--dir", box.dir, "stream", "create", "s")
	must(t, "--dir", box.dir, "put", "s", "one")
	must(t, "--dir", box.dir, "delivery", "create", "d", "--file", definition(t, delivery.Config{
		Source: delivery.Source{Stream: "s"}, Sink: delivery.Target{Kind: "s3", Settings: settings}, Paused: true,
	}))
	puts.Store(0) // what the try at creation sent
	must(t, "--dir", box.dir, "delivery", "resume", "d")
	out := must(t, "--dir", box.dir, "delivery", "flush", "d", "--wait", "60s")
	if puts.Load() < 3 || !strings.Contains(out, "running") || strings.Contains(out, "last error") || !strings.Contains(out, "delivered  1 record in 1 object") {
		t.Errorf("after %d attempts:\n%s", puts.Load(), out)
	}
}

// TestCreateTakesPrefixesWithExpressions: Firehose wants an error prefix then, and flags
// are enough to give one.
func TestCreateTakesPrefixesWithExpressions(t *testing.T) {
	box, to := serve(t, t.TempDir()), t.TempDir()
	must(t, "--dir", box.dir, "stream", "create", "s")
	args := []string{"--dir", box.dir, "delivery", "create", "d", "--stream", "s", "--to", "file://" + to, "--prefix", "in/!{timestamp:yyyy}/"}
	if r := weir(t, nil, args...); r.code != 2 || !strings.Contains(r.errout, "error_prefix: must be given") {
		t.Errorf("without one: exit code %d, %s", r.code, r.errout)
	}
	must(t, append(args, "--error-prefix", "failed/!{firehose:error-output-type}/")...)
	must(t, "--dir", box.dir, "put", "s", "one")
	must(t, "--dir", box.dir, "delivery", "flush", "d", "--wait", "60s")
	for name := range files(t, to) {
		if !strings.HasPrefix(name, "in/2") {
			t.Errorf("there is %s", name)
		}
	}
}

// TestCreateLeavesRecordsAsTheyAre: without flags a sink that takes records gets them
// unchanged, and one that stores objects gets zstd and lines.
func TestCreateLeavesRecordsAsTheyAre(t *testing.T) {
	dir := t.TempDir()
	settings := "sinks:\n  - name: web\n    kind: http\n    settings:\n      url: https://127.0.0.1:1/\n" +
		"  - name: lake\n    kind: file\n    settings:\n      dir: " + t.TempDir() + "\n"
	if err := os.WriteFile(filepath.Join(dir, "weir.yaml"), []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	serve(t, dir)
	for _, c := range []struct {
		to, format, delimiter string
		flags                 []string
	}{
		{"web", "UNCOMPRESSED", "", nil},
		{"lake", "ZSTD", "\n", nil},
		{"web", "UNCOMPRESSED", "\n", []string{"--lines"}},
		{"lake", "UNCOMPRESSED", "", []string{"--no-lines", "--compression", "none"}},
	} {
		out := must(t, append([]string{"--dir", dir, "--json", "delivery", "create", "d", "--to", "sink:" + c.to}, c.flags...)...)
		var made delivery.Info
		if err := json.Unmarshal([]byte(out), &made); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		format := string(made.Compression.Format)
		if format == "" {
			format = "UNCOMPRESSED"
		}
		if format != c.format || made.Delimiter != c.delimiter {
			t.Errorf("%s %v: %q, delimiter %q; want %q and %q", c.to, c.flags, format, made.Delimiter, c.format, c.delimiter)
		}
		must(t, "--dir", dir, "delivery", "delete", "d", "--yes")
	}
}

// TestStopSendsWhatIsGathered: an orderly stop doesn't keep records back until
// the next start because their buffer interval has not passed.
func TestStopSendsWhatIsGathered(t *testing.T) {
	box, out := serve(t, t.TempDir()), t.TempDir()
	at := func(args ...string) []string { return append(args, "--dir", box.dir) }
	must(t, at("stream", "create", "s")...)
	must(t, at("delivery", "create", "d", "--stream", "s", "--to", "file://"+out, "--interval", "15m", "--compression", "none")...)
	must(t, at("put", "s", "one", "two", "three", "--key", "k")...)
	if code := box.stop(t); code != 0 {
		t.Fatalf("exit code %d\n%s", code, box.log)
	}
	var got []string
	for _, text := range files(t, out) {
		got = append(got, text)
	}
	if len(got) != 1 || got[0] != "one\ntwo\nthree\n" {
		t.Fatalf("objects %q after the stop\n%s", got, box.log)
	}
}

// TestModuleAndPartitionsEndToEnd sends records through a module that takes
// their partition off them, into one folder for each.
func TestModuleAndPartitionsEndToEnd(t *testing.T) {
	box, out := serve(t, t.TempDir()), t.TempDir()
	at := func(args ...string) []string { return append(args, "--dir", box.dir) }
	must(t, at("stream", "create", "s")...)
	dir := project(t, "parts", "name: parts", "version: 1.0.0", "kind: transform")
	key := filepath.Join(t.TempDir(), "key.pem")
	must(t, "module", "keygen", key)
	must(t, "module", "sign", dir, "--key", key)
	must(t, at("module", "push", dir, "--activate")...)
	must(t, at("delivery", "create", "d", "--file", definition(t, delivery.Config{
		Source: delivery.Source{Stream: "s"}, Sink: folder(t, out), Transform: &delivery.Transform{Module: "parts"}, Delimiter: "\n",
		Prefix:      "site=!{partitionKeyFromLambda:site}/!{partitionKeyFromLambda:kind}/!{timestamp:yyyy}/",
		ErrorPrefix: "failed/!{firehose:error-output-type}/", Partition: &delivery.Partition{},
	}))...)
	var put []string
	for i := range 60 {
		put = append(put, fmt.Sprintf("site=%c\nkind=k%d|record %d", 'a'+i%3, i%2, i))
	}
	for _, p := range put { // each its own put: the text has newlines
		must(t, at("put", "s", p, "--key", "k")...)
	}
	must(t, at("put", "s", "no partition here", "--key", "k")...)
	must(t, at("delivery", "flush", "d", "--wait", "60s")...)
	got := files(t, out)
	n, failed := 0, 0
	for name, text := range got {
		if strings.HasPrefix(name, "failed/processing-failed/") {
			failed += strings.Count(text, "\n")
			continue
		}
		last := -1
		for l := range strings.Lines(text) {
			var i int
			if _, err := fmt.Sscanf(l, "record %d\n", &i); err != nil {
				t.Fatalf("%s: %q", name, l)
			}
			if want := fmt.Sprintf("site=%c/k%d/2", 'a'+i%3, i%2); !strings.HasPrefix(name, want) {
				t.Errorf("record %d is in %s", i, name)
			}
			if i < last {
				t.Errorf("%s: record %d after %d", name, i, last)
			}
			last = i
			n++
		}
	}
	if n != 60 || failed != 1 {
		t.Errorf("%d records and %d failed, want 60 and 1: %v", n, failed, got)
	}
	// The trace of one record names the module and its own object.
	tail := must(t, at("tail", "s", "--from", "trim-horizon", "--limit", "1", "--json")...)
	seq := parse[struct {
		SequenceNumber string `json:"sequence_number"`
		Shard          string `json:"shard"`
	}](t, strings.SplitN(tail, "\n", 2)[0])
	where := must(t, at("delivery", "where", "s", seq.Shard, seq.SequenceNumber)...)
	if !strings.Contains(where, "delivered") || !strings.Contains(where, "  module     parts ") || !strings.Contains(where, "site=a/k0/") || strings.Count(where, "object ") != 1 {
		t.Errorf("where:\n%s", where)
	}
	must(t, at("stream", "create", "other")...)
	if res := weir(t, nil, at("delivery", "where", "other", seq.Shard, seq.SequenceNumber)...); res.code == 0 || !strings.Contains(res.errout, "of stream other") {
		t.Errorf("a sequence number of another stream: %+v", res)
	}
}

// TestSecondBoxTakesWhatTheFirstSends chains two boxes by the kinesis sink, over
// TLS with the second one's authority, and kills both on the way: every record
// arrives at least once, under its key.
func TestSecondBoxTakesWhatTheFirstSends(t *testing.T) {
	up := serve(t, t.TempDir())
	must(t, "stream", "create", "up", "--shards", "2", "--dir", up.dir)
	box := serve(t, t.TempDir())
	at := func(args ...string) []string { return append(args, "--dir", box.dir) }
	must(t, at("stream", "create", "s", "--shards", "2")...)
	id, secret := up.accessKey(t)
	settings, err := json.Marshal(map[string]string{
		"stream": "up", "endpoint": up.endpoint, "access_key_id": id, "secret_access_key": secret,
		"ca_file": filepath.Join(up.dir, "trust", trust.CAFile),
	})
	if err != nil {
		t.Fatal(err)
	}
	must(t, at("delivery", "create", "d", "--file", definition(t, delivery.Config{
		Source: delivery.Source{Stream: "s"}, Sink: delivery.Target{Kind: "kinesis", Settings: settings},
		Buffer: delivery.Buffer{Interval: delivery.Every(0)},
	}))...)
	if out := must(t, at("delivery", "test", "d")...); !strings.Contains(out, "at-least-once") {
		t.Errorf("test: %s", out)
	}
	put := func(from int) (texts []string) {
		for i := from; i < from+200; i++ {
			texts = append(texts, fmt.Sprintf("record-%04d", i))
		}
		if r := weirIn(t, strings.Join(texts, "\n")+"\n", nil, at("put", "s")...); r.code != 0 {
			t.Fatalf("put: %s%s", r.out, r.errout)
		}
		return texts
	}
	want := put(0)
	box.kill(t)
	box = serve(t, box.dir)
	want = append(want, put(200)...)
	must(t, at("delivery", "flush", "d", "--wait", "60s")...)
	arrived := map[string]bool{}
	client := up.kinesis(t)
	for _, shard := range []string{"shardId-000000000000", "shardId-000000000001"} {
		it, err := client.GetShardIterator(t.Context(), &kinesis.GetShardIteratorInput{
			StreamName: aws.String("up"), ShardId: &shard, ShardIteratorType: types.ShardIteratorTypeTrimHorizon,
		})
		if err != nil {
			t.Fatal(err)
		}
		got, err := client.GetRecords(t.Context(), &kinesis.GetRecordsInput{ShardIterator: it.ShardIterator})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range got.Records {
			arrived[string(r.Data)] = true
		}
	}
	for _, text := range want {
		if !arrived[text] {
			t.Errorf("%s did not arrive", text)
		}
	}
	if describe := must(t, at("delivery", "describe", "d")...); strings.Contains(describe, secret) {
		t.Error("describe shows the secret")
	}
}
