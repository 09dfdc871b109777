package plain

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/appliance/api/apitest"
	"github.com/weirhq/weir/storage"
)

// box is a service over a store in memory, with a clock of its own.
type box struct {
	*Service
	t     testing.TB
	fs    vfs.FS
	clock *apitest.Clock
}

var device = &api.Identity{Name: "device-7", Policy: api.FullAccess}

func newBox(t testing.TB, o Options, shards int) *box {
	t.Helper()
	b := &box{t: t, fs: vfs.NewMem(), clock: apitest.NewClock()}
	b.open(o)
	if _, err := b.store.CreateStream(context.Background(), storage.StreamConfig{Name: "s", Shards: shards, MaxRecordBytes: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *box) open(o Options) {
	b.t.Helper()
	store, err := storage.Open(context.Background(), "data", storage.Options{FS: b.fs, Clock: b.clock.Now, ReserveBytes: -1})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = store.Close() })
	o.Clock = b.clock.Now
	if b.Service, err = New(store, o); err != nil {
		b.t.Fatal(err)
	}
}

// call sends a request; headers are names and values in turn.
func (b *box) call(verb, target, body string, headers ...string) *apitest.Result {
	b.t.Helper()
	r := &apitest.Request{Verb: verb, Target: target, Payload: []byte(body), Headers: http.Header{}, Who: device}
	for i := 0; i < len(headers); i += 2 {
		r.Headers.Set(headers[i], headers[i+1])
	}
	return apitest.Do(context.Background(), b.Service, r)
}

// post writes and expects success.
func (b *box) post(query, body string, headers ...string) string {
	b.t.Helper()
	r := b.call("POST", "/v1/streams/s/records"+query, body, headers...)
	if r.Status != 200 {
		b.t.Fatalf("%d %s", r.Status, r.Body)
	}
	return string(r.Body)
}

// refused expects an error with a status and code.
func (b *box) refused(r *apitest.Result, status int, code string) {
	b.t.Helper()
	var e struct {
		Error struct{ Code, Message string }
	}
	if err := json.Unmarshal(r.Body, &e); err != nil || r.Status != status || e.Error.Code != code || e.Error.Message == "" {
		b.t.Errorf("%d %s; want %d %s", r.Status, r.Body, status, code)
	}
	if wait := r.Header.Get("Retry-After"); (status == 429) != (wait != "") {
		b.t.Errorf("%d with Retry-After %q", status, wait)
	}
}

type got struct{ Key, Data, Sequence, Shard, Arrival string }

// records reads a shard back, page by page.
func (b *box) records(shard int, limit int) []got {
	b.t.Helper()
	var out []got
	after := ""
	for {
		target := fmt.Sprintf("/v1/streams/s/records?shard=%d&limit=%d", shard, limit)
		if after != "" {
			target += "&after=" + after
		}
		r := b.call("GET", target, "")
		var page struct {
			Records []struct {
				SequenceNumber string `json:"sequence_number"`
				Shard          string
				PartitionKey   string `json:"partition_key"`
				Arrival, Data  string
			}
			Next               string
			MillisBehindLatest *int `json:"millis_behind_latest"`
			Children           []string
		}
		if err := json.Unmarshal(r.Body, &page); err != nil || r.Status != 200 || page.MillisBehindLatest == nil {
			b.t.Fatalf("%d %s: %v", r.Status, r.Body, err)
		}
		for _, rec := range page.Records {
			data, err := base64.StdEncoding.DecodeString(rec.Data)
			if err != nil {
				b.t.Fatal(err)
			}
			out = append(out, got{rec.PartitionKey, string(data), rec.SequenceNumber, rec.Shard, rec.Arrival})
		}
		if len(page.Records) < limit || page.Next == "" {
			return out
		}
		after = page.Next
	}
}

func TestBodiesBecomeRecords(t *testing.T) {
	b := newBox(t, Options{}, 1)
	b.post("", "one body\nwith a line break")
	b.post("?key=k%201", `{"id":"x"}`+"\n"+`{"id":"y"}`, "Content-Type", typeNDJSON)
	b.post("?key_pointer=/id", `{"id":"x"}`+"\n"+`{"id":17}`, "Content-Type", typeNDJSON)
	b.post("", "with a header", headerKey, "from header")
	b.post("", string(batchOf(entry{[]byte("own"), []byte("1")}, entry{nil, []byte{}})), "Content-Type", typeBatch)
	b.post("", string(gzipped([]byte("zipped"))), "Content-Encoding", "gzip")
	b.post("", string(zstded([]byte("a\nb"))), "Content-Encoding", "zstd", "Content-Type", typeNDJSON)
	want := []got{
		{Key: "device-7", Data: "one body\nwith a line break"},
		{Key: "k 1", Data: `{"id":"x"}`},
		{Key: "k 1", Data: `{"id":"y"}`},
		{Key: "x", Data: `{"id":"x"}`},
		{Key: "17", Data: `{"id":17}`},
		{Key: "from header", Data: "with a header"},
		{Key: "own", Data: "1"},
		{Key: "device-7", Data: ""},
		{Key: "device-7", Data: "zipped"},
		{Key: "device-7", Data: "a"},
		{Key: "device-7", Data: "b"},
	}
	have := b.records(0, 4)
	for i := range have {
		if have[i].Shard != "shardId-000000000000" || have[i].Arrival != "2027-01-15T08:00:00.000Z" || len(have[i].Sequence) != 56 {
			t.Fatalf("%+v", have[i])
		}
		have[i] = got{Key: have[i].Key, Data: have[i].Data}
	}
	if !slices.Equal(have, want) {
		t.Fatalf("%q\nwant %q", have, want)
	}
}

func TestAnswerSaysWhereTheRecordsAre(t *testing.T) {
	b := newBox(t, Options{}, 4)
	var out struct {
		Count   int
		Records []struct {
			Shard          string
			SequenceNumber string `json:"sequence_number"`
		}
	}
	if err := json.Unmarshal([]byte(b.post("?key_pointer=/k", "{\"k\":1}\n{\"k\":2}\n{\"k\":3}", "Content-Type", typeNDJSON)), &out); err != nil {
		t.Fatal(err)
	}
	if out.Count != 3 || len(out.Records) != 3 {
		t.Fatalf("%+v", out)
	}
	found := 0
	for shard := range 4 {
		for _, r := range b.records(shard, 10) {
			if slices.ContainsFunc(out.Records, func(o struct {
				Shard          string
				SequenceNumber string `json:"sequence_number"`
			},
			) bool {
				return o.Shard == r.Shard && o.SequenceNumber == r.Sequence
			}) {
				found++
			}
		}
	}
	if found != 3 {
		t.Fatalf("%d of 3 records are where the answer says", found)
	}
}

func TestRefusals(t *testing.T) {
	b := newBox(t, Options{MaxBodyBytes: 2 << 20, MaxRecords: 3}, 2)
	post := func(target, body string, headers ...string) *apitest.Result {
		return b.call("POST", target, body, headers...)
	}
	const records = "/v1/streams/s/records"
	b.refused(post("/v1/streams/none/records", "x"), 404, "StreamNotFound")
	b.refused(post("/v1/other", "x"), 404, "NotFound")
	b.refused(post("/v1/streams/s/other", "x"), 404, "NotFound")
	b.refused(b.call("DELETE", records, ""), 405, "MethodNotAllowed")
	b.refused(post(records, strings.Repeat("x", 1<<20)), 413, "RecordTooLarge")
	b.refused(post(records, strings.Repeat("x", 3<<20)), 413, "TooLarge")
	b.refused(post(records, string(gzipped(make([]byte, 3<<20))), "Content-Encoding", "gzip"), 413, "TooLarge")
	b.refused(post(records, "x", "Content-Encoding", "br"), 415, "UnsupportedContentEncoding")
	b.refused(post(records, "x", "Content-Encoding", "gzip"), 400, "BadEncoding")
	b.refused(post(records, "1\n2\n3\n4", "Content-Type", typeNDJSON), 413, "TooManyRecords")
	b.refused(post(records, "WRB", "Content-Type", typeBatch), 400, "BadBatch")
	b.refused(post(records+"?key_pointer=id", "{}"), 400, "BadKeyPointer")
	b.refused(post(records+"?key_pointer=/id", "{}"), 400, "BadRecord")
	b.refused(post(records+"?key_pointer=/id", "no json"), 400, "BadRecord")
	b.refused(post(records+"?key="+strings.Repeat("k", 257), "x"), 400, "BadPartitionKey")
	b.refused(post(records, "x", headerRetry, strings.Repeat("k", 129)), 400, "BadIdempotencyKey")
	b.refused(post(records+"?partition_key=k", "x"), 400, "UnknownParameter")
	b.refused(post(records+"?key=%zz", "x"), 400, "BadQuery")
	b.refused(post(records+"?key=a&key=b", "x"), 400, "BadQuery")
	b.refused(b.call("GET", records+"?shard=0&key=a", ""), 400, "UnknownParameter")
	b.refused(b.call("GET", records, ""), 400, "ShardNeeded")
	b.refused(b.call("GET", records+"?shard=x", ""), 400, "BadShard")
	b.refused(b.call("GET", records+"?shard=9", ""), 404, "ShardNotFound")
	b.refused(b.call("GET", records+"?shard=0&limit=0", ""), 400, "BadLimit")
	b.refused(b.call("GET", records+"?shard=0&from=then", ""), 400, "BadPosition")
	b.refused(b.call("GET", records+"?shard=0&after=1", ""), 400, "BadPosition")
	b.refused(b.call("GET", "/v1/streams/s/tail", "", "Last-Event-Id", "x"), 400, "BadEventID")
	if n := len(b.records(0, 10)) + len(b.records(1, 10)); n != 0 {
		t.Errorf("%d records were written by requests that were refused", n)
	}
}

func TestPolicies(t *testing.T) {
	b := newBox(t, Options{}, 1)
	writer := &api.Identity{Name: "w", Policy: api.Policy{{Actions: []string{actionPut}, Streams: []string{"s"}}}}
	do := func(verb string) int {
		return apitest.Do(context.Background(), b.Service, &apitest.Request{Verb: verb, Target: "/v1/streams/s/records", Payload: []byte("x"), Who: writer}).Status
	}
	if put, get := do("POST"), do("GET"); put != 200 || get != 403 {
		t.Fatalf("writer: put %d, get %d", put, get)
	}
}

func TestIdempotencyKeys(t *testing.T) {
	b := newBox(t, Options{MaxKeys: 100}, 1)
	first := b.post("", "reading 1", headerRetry, "boot-3/1")
	again := b.call("POST", "/v1/streams/s/records", "reading 1", headerRetry, "boot-3/1")
	if !strings.Contains(first, `"count":1,"records"`) || string(again.Body) != "{\"count\":1,\"replayed\":true}\n" || again.Header.Get(headerReplayed) != "true" {
		t.Fatalf("%s, then %s", first, again.Body)
	}
	b.refused(b.call("POST", "/v1/streams/s/records", "reading 2", headerRetry, "boot-3/1"), 422, "IdempotencyKeyReused")
	// A restart forgets nothing.
	if err := b.store.Close(); err != nil {
		t.Fatal(err)
	}
	b.open(Options{MaxKeys: 100})
	b.post("", "reading 1", headerRetry, "boot-3/1")
	if n := len(b.records(0, 10)); n != 1 {
		t.Fatalf("%d records; want 1", n)
	}
	// Another caller has keys of its own.
	other := &apitest.Request{
		Verb: "POST", Target: "/v1/streams/s/records", Payload: []byte("reading 1"), Headers: http.Header{headerRetry: {"boot-3/1"}},
		Who: &api.Identity{Name: "device-8", Policy: api.FullAccess},
	}
	if r := apitest.Do(context.Background(), b.Service, other); strings.Contains(string(r.Body), "replayed") {
		t.Fatalf("%s", r.Body)
	}
	// After its life a key is as new.
	b.clock.Pass(24 * time.Hour)
	b.post("", "reading 1", headerRetry, "boot-3/1")
	if n := len(b.records(0, 10)); n != 3 {
		t.Fatalf("%d records; want 3", n)
	}
	b.clock.Pass(25 * time.Hour)
	if n, err := b.keys.sweep(context.Background(), b.Service, sweepRows); err != nil || n != 2 || b.keys.stored.Load() != 0 {
		t.Fatalf("%d keys swept, %d left, %v", n, b.keys.stored.Load(), err)
	}
}

// TestIdempotencyKeysAreCountedOnce has requests at the limit make room side by side: what
// one of them forgot is not taken off the count by another, or there would be ever more.
func TestIdempotencyKeysAreCountedOnce(t *testing.T) {
	const most, clients, each = 20, 16, 30
	b := newBox(t, Options{MaxKeys: most}, 1)
	var all sync.WaitGroup
	for c := range clients {
		all.Go(func() {
			for i := range each {
				b.post("", "x", headerRetry, fmt.Sprintf("%d-%d", c, i))
			}
		})
	}
	all.Wait()
	rows := int64(0)
	if err := b.store.Scan(storage.TableDeduplication, []byte(timeRowPrefix), nil, 0, func(_, _ []byte) bool { rows++; return true }); err != nil {
		t.Fatal(err)
	}
	if n := b.keys.stored.Load(); n != rows || rows > most+clients {
		t.Errorf("%d keys are stored and %d counted; expecting %d and one for each client at most", rows, n, most)
	}
}

func TestIdempotencyKeysAreBounded(t *testing.T) {
	b := newBox(t, Options{MaxKeys: 5}, 1)
	for i := range 12 {
		b.clock.Pass(time.Second)
		b.post("", "x", headerRetry, fmt.Sprint("k", i))
	}
	rows := func(prefix string) int {
		n := 0
		if err := b.store.Scan(storage.TableDeduplication, []byte(prefix), nil, 0, func(_, _ []byte) bool { n++; return true }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if k, tm := rows(keyRowPrefix), rows(timeRowPrefix); k != 5 || tm != 5 {
		t.Fatalf("%d keys, %d times; want 5 of each", k, tm)
	}
	if r := b.call("POST", "/v1/streams/s/records", "x", headerRetry, "k11"); r.Header.Get(headerReplayed) != "true" {
		t.Errorf("the newest key is forgotten: %s", r.Body)
	}
}

func TestTheSameRequestTwiceAtATimeIsStoredOnce(t *testing.T) {
	b := newBox(t, Options{}, 1)
	const devices = 8
	var all sync.WaitGroup
	statuses := make([]int, devices)
	for i := range devices {
		all.Go(func() {
			statuses[i] = b.call("POST", "/v1/streams/s/records", "once", headerRetry, "same").Status
		})
	}
	all.Wait()
	for _, s := range statuses {
		if s != 200 && s != 409 {
			t.Errorf("status %d", s)
		}
	}
	if n := len(b.records(0, 100)); n != 1 {
		t.Fatalf("%d records; want 1", n)
	}
}

func TestBusyStoreIs429(t *testing.T) {
	b := newBox(t, Options{AdmissionWait: time.Millisecond}, 1)
	txn, err := b.store.Begin(context.Background(), 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	b.refused(b.call("POST", "/v1/streams/s/records", "x"), 429, "Busy")
	txn.Release()
	b.post("", "x")
}

func TestReadingPositions(t *testing.T) {
	b := newBox(t, Options{}, 1)
	b.post("", "old")
	b.clock.Pass(time.Hour)
	b.post("", "new")
	read := func(query string) string {
		r := b.call("GET", "/v1/streams/s/records?"+query, "", "Accept", typeNDJSON)
		if r.Status != 200 || r.Header.Get(headerNext) == "" {
			t.Fatalf("%s: %d %s", query, r.Status, r.Body)
		}
		return fmt.Sprint(strings.Count(string(r.Body), "\n"))
	}
	for query, want := range map[string]string{
		"": "2", "from=oldest": "2", "from=latest": "0", "from=2027-01-15T09:00:00Z": "1", "from=1800000000001": "1", "limit=1": "1",
	} {
		if got := read(query); got != want {
			t.Errorf("%s: %s records; want %s", query, got, want)
		}
	}
	st, err := b.store.Stream("s")
	if err != nil {
		t.Fatal(err)
	}
	if err := st.UpdateShardCount(context.Background(), 2); err != nil {
		t.Fatal(err)
	}
	r := b.call("GET", "/v1/streams/s/records?shard=0", "")
	if !strings.Contains(string(r.Body), `],"children":["shardId-000000000001","shardId-000000000002"]`) || strings.Contains(string(r.Body), `"next"`) {
		t.Errorf("the end of a shard: %s", r.Body)
	}
}

// tail runs a tail until it has nothing to send for the time of a heartbeat.
func (b *box) tail(target string, headers ...string) *apitest.Result {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r := &apitest.Request{Verb: "GET", Target: target, Headers: http.Header{}, Who: device, Flushed: func(body []byte) {
		if bytes.HasSuffix(body, []byte(": still here\n\n")) {
			cancel()
		}
	}}
	for i := 0; i < len(headers); i += 2 {
		r.Headers.Set(headers[i], headers[i+1])
	}
	return apitest.Do(ctx, b.Service, r)
}

func TestTailSendsAndResumes(t *testing.T) {
	b := newBox(t, Options{Heartbeat: 10 * time.Millisecond}, 2)
	for i := range 20 {
		b.post(fmt.Sprintf("?key=k%d", i), fmt.Sprint("r", i))
	}
	first := b.tail("/v1/streams/s/tail?from=oldest")
	sent := strings.Count(string(first.Body), "data: ")
	if sent != 20 || first.Header.Get("Content-Type") != "text/event-stream" || first.Err != nil {
		t.Fatalf("%d events, %v: %s", sent, first.Err, first.Body)
	}
	id := ""
	for _, l := range strings.Split(string(first.Body), "\n") {
		if strings.HasPrefix(l, "id: ") {
			id = l[4:]
		}
	}
	b.post("?key=k1", "after the tail")
	resumed := b.tail("/v1/streams/s/tail", "Last-Event-Id", id)
	if n := strings.Count(string(resumed.Body), "data: "); n != 1 || !strings.Contains(string(resumed.Body), base64.StdEncoding.EncodeToString([]byte("after the tail"))) {
		t.Fatalf("%d events after %s: %s", n, id, resumed.Body)
	}
	latest := b.tail("/v1/streams/s/tail")
	if strings.Contains(string(latest.Body), "data: ") {
		t.Fatalf("latest: %s", latest.Body)
	}
}

// TestTailOfReshardedStreamsMissesNothing: a client that was away while its shard was split
// twice gets what came meanwhile, each key's records in order, and so does one that begins
// with the oldest.
func TestTailOfReshardedStreamsMissesNothing(t *testing.T) {
	b := newBox(t, Options{Heartbeat: 10 * time.Millisecond}, 1)
	st, err := b.store.Stream("s")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	put := func() {
		want = append(want, base64.StdEncoding.EncodeToString(fmt.Append(nil, "r", len(want))))
		b.post("?key=k", fmt.Sprint("r", len(want)-1))
	}
	tail := func(query string, headers ...string) (sent []string, id string) {
		for _, line := range strings.Split(string(b.tail("/v1/streams/s/tail"+query, headers...).Body), "\n") {
			if rest, ok := strings.CutPrefix(line, "id: "); ok {
				id = rest
			}
			if _, rest, ok := strings.Cut(line, `"data":"`); ok {
				sent = append(sent, strings.TrimSuffix(rest, `"}`))
			}
		}
		return sent, id
	}
	put()
	_, id := tail("?from=oldest")
	for _, shards := range []int{2, 4, 1} {
		put()
		if err := st.UpdateShardCount(t.Context(), shards); err != nil {
			t.Fatal(err)
		}
		b.clock.Pass(time.Hour)
		put()
	}
	for _, query := range []string{"", "?from=oldest"} { // a browser comes back with the query it had
		if sent, _ := tail(query, "Last-Event-Id", id); fmt.Sprint(sent) != fmt.Sprint(want[1:]) {
			t.Errorf("%s, after %s came %q, want %q", query, id, sent, want[1:])
		}
	}
	sent, end := tail("?from=oldest")
	if fmt.Sprint(sent) != fmt.Sprint(want) {
		t.Errorf("from the oldest came %q, want %q", sent, want)
	}
	if sent, _ := tail("?from=oldest", "Last-Event-Id", end); len(sent) > 0 {
		t.Errorf("after all of it came %q", sent)
	}
	since := b.clock.Now().Add(-30 * time.Minute).UTC().Format(time.RFC3339)
	if sent, _ := tail("?from=" + since); fmt.Sprint(sent) != fmt.Sprint(want[len(want)-1:]) {
		t.Errorf("since %s came %q, want %q", since, sent, want[len(want)-1:])
	}
}

func TestTailFollowsASplitAndEndsWithTheStream(t *testing.T) {
	b := newBox(t, Options{Heartbeat: 5 * time.Millisecond}, 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var sent atomic.Int32
	done := make(chan *apitest.Result, 1)
	go func() {
		done <- apitest.Do(ctx, b.Service, &apitest.Request{
			Verb: "GET", Target: "/v1/streams/s/tail?from=oldest", Who: device,
			Flushed: func(body []byte) { sent.Store(int32(bytes.Count(body, []byte("data: ")))) },
		})
	}()
	apitest.Until(t, "the tail is open", func() bool { return b.tails.Load() == 1 })
	st, err := b.store.Stream("s")
	if err != nil {
		t.Fatal(err)
	}
	b.post("?key=a", "before")
	if err := st.UpdateShardCount(ctx, 2); err != nil {
		t.Fatal(err)
	}
	b.post("?key=a", "after")
	b.post("?key=b", "after")
	apitest.Until(t, "all three records are sent", func() bool { return sent.Load() == 3 })
	if err := b.store.DeleteStream(ctx, "s"); err != nil {
		t.Fatal(err)
	}
	r := <-done
	if r.Err != nil || b.tails.Load() != 0 {
		t.Fatalf("%v, %d tails", r.Err, b.tails.Load())
	}
}

func TestTailsAreBounded(t *testing.T) {
	b := newBox(t, Options{MaxTails: 1, Heartbeat: 10 * time.Millisecond}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	opened, done := make(chan struct{}, 1), make(chan *apitest.Result, 1)
	go func() {
		done <- apitest.Do(ctx, b.Service, &apitest.Request{
			Verb: "GET", Target: "/v1/streams/s/tail", Who: device, Flushed: func([]byte) {
				select {
				case opened <- struct{}{}:
				default:
				}
			},
		})
	}()
	<-opened
	b.refused(b.call("GET", "/v1/streams/s/tail", ""), 429, "TooManyTails")
	cancel()
	<-done
	if r := b.tail("/v1/streams/s/tail"); r.Status != 200 {
		t.Errorf("when the other has ended: %d %s", r.Status, r.Body)
	}
}

func FuzzEventID(f *testing.F) {
	f.Add("0:1,2:3")
	f.Add("0:")
	f.Fuzz(func(t *testing.T, id string) {
		if got, err := parseEventID(id); err == nil && len(got) > tailMaxShards {
			t.Fatalf("%d shards", len(got))
		}
	})
}

// TestReadsHaveTheRoomThereIs: where memory is short, an answer has fewer records and
// the place to go on from; where there is none for one record, the reader is to wait.
func TestReadsHaveTheRoomThereIs(t *testing.T) {
	b := newBox(t, Options{}, 1)
	var want []string
	for i := range 30 {
		data := strings.Repeat(string(rune('A'+i)), 20)
		if i == 13 {
			data = strings.Repeat("m", 50_000)
		}
		b.post("?key=k", data)
		want = append(want, data)
	}
	ask := func(target string, room int) *apitest.Result {
		return apitest.Do(context.Background(), b.Service, &apitest.Request{Verb: "GET", Target: target, Headers: http.Header{}, Who: device, Room: room})
	}
	for _, room := range []int{0, 80_000} {
		var got []string
		for target := "/v1/streams/s/records?from=oldest"; len(got) < len(want); {
			r := ask(target, room)
			var out struct {
				Records []struct{ Data []byte }
				Next    string
			}
			if err := json.Unmarshal(r.Body, &out); err != nil || r.Status != 200 || len(out.Records) == 0 {
				t.Fatalf("%d %v %.100s", r.Status, err, r.Body)
			}
			for _, rec := range out.Records {
				got = append(got, string(rec.Data))
			}
			target = "/v1/streams/s/records?after=" + out.Next
		}
		if !slices.Equal(got, want) {
			t.Errorf("with room for %d bytes: %d records, expecting %d", room, len(got), len(want))
		}
	}
	r := ask("/v1/streams/s/records?from=oldest", 50_000)
	var out struct{ Next string }
	if err := json.Unmarshal(r.Body, &out); err != nil {
		t.Fatal(err)
	}
	b.refused(ask("/v1/streams/s/records?after="+out.Next, 50_000), 429, "Busy")
}
