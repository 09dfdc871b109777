package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/appliance/api/apitest"
	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/appliance/sink"
	"github.com/weirhq/weir/storage"
)

// service returns the control API over a store in memory, without modules and
// deliveries.
func service(t *testing.T) *Service {
	t.Helper()
	store, err := storage.Open(t.Context(), "store", storage.Options{FS: vfs.NewMem(), ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	sinks, err := sink.New(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	deliveries, err := delivery.New(store, delivery.Options{OpenSink: sinks.Open})
	if err != nil {
		t.Fatal(err)
	}
	return New(Options{
		Store: store, Deliveries: deliveries, ShowSink: sinks.Show, Version: "test", Started: time.Now(),
		Reload: func(context.Context) (*Reloaded, error) { return nil, errors.New("weir.yaml:1: nam: unknown key") },
	})
}

var root = &api.Identity{Name: "root", Policy: api.FullAccess}

// do makes a request and returns the status and the body.
func do(t *testing.T, s *Service, who *api.Identity, verb, path, body string) (int, string) {
	t.Helper()
	r := apitest.Do(t.Context(), s, &apitest.Request{Verb: verb, Target: Prefix + path, Payload: []byte(body), Who: who})
	if got := r.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("%s %s: Content-Type %q", verb, path, got)
	}
	return r.Status, string(r.Body)
}

// refusal makes a request that has to be refused so, with a message that holds the words.
func refusal(t *testing.T, s *Service, who *api.Identity, verb, path, body string, status int, code string, words ...string) {
	t.Helper()
	got, text := do(t, s, who, verb, path, body)
	var e struct {
		Error struct{ Code, Message string }
	}
	if err := json.Unmarshal([]byte(text), &e); err != nil || got != status || e.Error.Code != code {
		t.Errorf("%s %s %s: %d %s, want %d %s", verb, path, body, got, text, status, code)
	}
	for _, w := range words {
		if !strings.Contains(e.Error.Message, w) {
			t.Errorf("%s %s %s: no %q in %q", verb, path, body, w, e.Error.Message)
		}
	}
}

// answer makes a request that has to succeed, and reads the body.
func answer[T any](t *testing.T, s *Service, verb, path, body string) (v T) {
	t.Helper()
	status, text := do(t, s, root, verb, path, body)
	if err := json.Unmarshal([]byte(text), &v); err != nil || status != 200 {
		t.Fatalf("%s %s %s: %d %s", verb, path, body, status, text)
	}
	return v
}

func TestEveryRouteIsAnActionOfItsOwn(t *testing.T) {
	s := service(t)
	nobody := &api.Identity{Name: "nobody", Policy: api.Policy{{Actions: []string{"kinesis:*"}, Streams: []string{"*"}}}}
	for _, r := range s.routes {
		path := strings.NewReplacer("{name}", "x", "{digest}", "d", "{piece}", "0").Replace(r.path)
		refusal(t, s, nobody, r.method, path, "", 403, "AccessDenied", "admin:"+r.action)
		refusal(t, s, nil, r.method, path, "", 403, "AccessDenied")
	}
}

func TestPolicyIsHeldAgainstTheStreamOfThePath(t *testing.T) {
	s := service(t)
	for _, name := range []string{"mine", "theirs"} {
		answer[Stream](t, s, "POST", "streams", `{"name":"`+name+`"}`)
	}
	who := &api.Identity{Name: "half", Policy: api.Policy{{Actions: []string{"admin:*Stream"}, Streams: []string{"mine"}}}}
	if status, text := do(t, s, who, "GET", "streams/mine", ""); status != 200 {
		t.Errorf("%d %s", status, text)
	}
	refusal(t, s, who, "GET", "streams/theirs", "", 403, "AccessDenied")
	refusal(t, s, who, "DELETE", "streams/%74heirs", "", 403, "AccessDenied") // the same, escaped
}

func TestWhatIsNotServedSaysSo(t *testing.T) {
	s := service(t)
	refusal(t, s, root, "GET", "nothing", "", 404, "NotFound", "nothing is served at /admin/v1/nothing")
	refusal(t, s, root, "GET", "streams/a/b/c", "", 404, "NotFound")
	refusal(t, s, root, "GET", "streams//", "", 404, "NotFound")
	refusal(t, s, root, "PUT", "streams", "", 405, "MethodNotAllowed", "PUT")
	refusal(t, s, root, "GET", "streams?a=%zz", "", 400, "InvalidQuery")
	refusal(t, s, root, "POST", "streams", "", 400, "InvalidBody")
	refusal(t, s, root, "POST", "streams", `{"name":"a","shard":1}`, 400, "InvalidBody", `unknown field "shard"`)
}

func TestAStreamMadeWithoutANumberOfShardsHasThatOfItsMode(t *testing.T) {
	s := service(t)
	for body, want := range map[string]int{
		`{"name":"a"}`: 1, `{"name":"b","mode":"on-demand"}`: 4, `{"name":"c","mode":"on-demand","shards":1}`: 1,
	} {
		if made := answer[Stream](t, s, "POST", "streams", body); made.OpenShards != want {
			t.Errorf("%s: %d shards, expecting %d", body, made.OpenShards, want)
		}
	}
}

func TestLifeOfAStream(t *testing.T) {
	s := service(t)
	made := answer[Stream](t, s, "POST", "streams", `{"name":"a","shards":2,"retention":"48h","retention_bytes":"1GiB","when_full":"drop-oldest","codec":"s2","max_record_bytes":"2MiB"}`)
	if made.OpenShards != 2 || made.Retention != "2d" || made.RetentionBytes != 1<<30 || made.WhenFull != "drop-oldest" || made.Codec != "s2" || made.MaxRecordBytes != 2<<20 {
		t.Errorf("made %+v", made)
	}
	refusal(t, s, root, "POST", "streams", `{"name":"a"}`, 409, "StreamExists")
	if got := answer[Stream](t, s, "PATCH", "streams/a", `{"retention":"7d"}`); got.Retention != "7d" || got.WhenFull != "drop-oldest" {
		t.Errorf("changed to %+v", got)
	}
	got := answer[Stream](t, s, "POST", "streams/a/reshard", `{"split":"shardId-000000000001"}`)
	if got.OpenShards != 3 || len(got.Shards) != 4 || got.Shards[1].Open || got.Shards[2].Parent != "shardId-000000000001" {
		t.Errorf("split into %+v", got)
	}
	if got := answer[Stream](t, s, "POST", "streams/a/reshard", `{"merge":["shardId-000000000002","shardId-000000000003"]}`); got.OpenShards != 2 {
		t.Errorf("merged into %+v", got)
	}
	if got := answer[Stream](t, s, "POST", "streams/a/reshard", `{"shards":4}`); got.OpenShards != 4 {
		t.Errorf("resharded to %+v", got)
	}
	if list := answer[struct{ Streams []Stream }](t, s, "GET", "streams", ""); len(list.Streams) != 1 || list.Streams[0].Shards != nil {
		t.Errorf("listed %+v", list)
	}
	answer[struct{ Deleted string }](t, s, "DELETE", "streams/a", "")
	refusal(t, s, root, "GET", "streams/a", "", 404, "StreamNotFound", `"a"`)
	refusal(t, s, root, "DELETE", "streams/a", "", 404, "StreamNotFound")
}

func TestWrongSettingsNameTheSettingAndTheExpectation(t *testing.T) {
	s := service(t)
	answer[Stream](t, s, "POST", "streams", `{"name":"there"}`)
	for body, words := range map[string][]string{
		`{"name":"a","shards":0}`:                         {"shards: 0", "at least 1"},
		`{"name":"a","shards":1000000}`:                   {"shards", "1000000"},
		`{"name":"a b"}`:                                  {"name", "letters, digits"},
		`{"name":""}`:                                     {"name"},
		`{"name":"` + strings.Repeat("a", 129) + `"}`:     {"name of 129 bytes: want 1 to 128", "1 to 128"},
		`{"name":"a","mode":"elastic"}`:                   {"mode", "elastic", "on-demand"},
		`{"name":"a","retention":"5"}`:                    {"retention", `"5" has no unit`},
		`{"name":"a","retention":"5m"}`:                   {"retention", "1h"},
		`{"name":"a","retention_bytes":"many"}`:           {"retention_bytes", "many"},
		`{"name":"a","when_full":"panic"}`:                {"when_full", "panic", "thin-out"},
		`{"name":"a","codec":"lzma"}`:                     {"codec", "lzma", "zstd"},
		`{"name":"a","max_record_bytes":"1GiB"}`:          {"max record bytes"},
		`{"name":"a","max_record_bytes":"99999999999GB"}`: {"max_record_bytes"},
	} {
		refusal(t, s, root, "POST", "streams", body, 400, "InvalidArgument", words...)
	}
	refusal(t, s, root, "PATCH", "streams/there", `{"name":"b"}`, 400, "InvalidArgument", "can't be changed here")
	refusal(t, s, root, "PATCH", "streams/nope", `{"retention":"7d"}`, 404, "StreamNotFound")
	refusal(t, s, root, "POST", "streams/there/reshard", `{}`, 400, "InvalidArgument", "exactly one of")
	refusal(t, s, root, "POST", "streams/there/reshard", `{"shards":2,"split":"shardId-000000000000"}`, 400, "InvalidArgument", "exactly one of")
	refusal(t, s, root, "POST", "streams/there/reshard", `{"split":"zero"}`, 400, "InvalidArgument", `"zero" is not a shard id`)
	refusal(t, s, root, "POST", "streams/there/reshard", `{"split":"shardId-000000000009"}`, 404, "ShardNotFound")
	refusal(t, s, root, "POST", "streams/there/reshard", `{"split":"shardId-000000000000","at":"x"}`, 400, "InvalidArgument")
	if list := answer[struct{ Streams []Stream }](t, s, "GET", "streams", ""); len(list.Streams) != 1 {
		t.Errorf("a refused request made a stream: %+v", list)
	}
}

// TestWhatIsShownCanBeSentBack: the secrets in it are *** and stay what they were.
func TestWhatIsShownCanBeSentBack(t *testing.T) {
	s := service(t)
	answer[Stream](t, s, "POST", "streams", `{"name":"readings"}`)
	made := answer[delivery.Info](t, s, "POST", "deliveries", `{"name":"out","source":{"stream":"readings"},
		"sink":{"kind":"http","settings":{"url":"http://127.0.0.1:1/","access_key":"open sesame"}},
		"backup":{"sink":{"kind":"s3","settings":{"endpoint":"http://127.0.0.1:1","bucket":"raw","access_key_id":"ID","secret_access_key":"hush"}}}}`)
	if strings.Contains(fmt.Sprintf("%s%s", made.Sink.Settings, made.Config.Backup.Sink.Settings), "hush") {
		t.Fatal("secrets are shown")
	}
	update := func(c delivery.Config) string {
		b, err := json.Marshal(DeliveryUpdate{Version: made.Version, Config: c})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	made.Config.Buffer.SizeBytes = 2 << 20
	changed := answer[delivery.Info](t, s, "PUT", "deliveries/out", update(made.Config))
	if changed.Config.Buffer.SizeBytes != 2<<20 {
		t.Fatalf("changed to %+v", changed.Config)
	}
	kept, err := s.Deliveries.Describe("out")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(kept.Config.Sink.Settings), `"open sesame"`) || !strings.Contains(string(kept.Config.Backup.Sink.Settings), `"hush"`) {
		t.Errorf("the secrets are now those of %s and %s", kept.Config.Sink.Settings, kept.Config.Backup.Sink.Settings)
	}
	with := `{"name":"aside","source":{"stream":"readings"},"sink":{"kind":"s3","settings":{"endpoint":"http://127.0.0.1:1","bucket":"raw"}},` +
		`"error_sink":{"kind":"s3","settings":{"endpoint":"http://127.0.0.1:1","bucket":"bad","access_key_id":"ID","secret_access_key":"hush"}}}`
	aside := answer[delivery.Info](t, s, "POST", "deliveries", with)
	back, _ := json.Marshal(DeliveryUpdate{Version: aside.Version, Config: aside.Config})
	answer[delivery.Info](t, s, "PUT", "deliveries/aside", string(back))
	if kept, err = s.Deliveries.Describe("aside"); err != nil || !strings.Contains(string(kept.Config.ErrorSink.Settings), `"hush"`) {
		t.Errorf("%v; the secret is now that of %s", err, kept.Config.ErrorSink.Settings)
	}
	// A secret of another sink is not handed on to a new one.
	made.Version, made.Config.OnFailure = changed.Version, &delivery.OnFailure{Sink: made.Config.Backup.Sink}
	refusal(t, s, root, "PUT", "deliveries/out", update(made.Config), 400, "InvalidDelivery", "on_failure.sink.settings.secret_access_key: ***")
}

func TestReloadHandsOnWhatIsWrong(t *testing.T) {
	refusal(t, service(t), root, "POST", "reload", "", 400, "ConfigurationRefused", "weir.yaml:1: nam: unknown key")
}

func TestClockIsShownAndConfirmed(t *testing.T) {
	s := service(t)
	for _, request := range [][2]string{{"GET", "clock"}, {"POST", "clock/confirm"}} {
		if c := answer[Clock](t, s, request[0], request[1], ""); c.Held || c.Machine.IsZero() {
			t.Errorf("%s %s: %+v", request[0], request[1], c)
		}
	}
}

// Every error of the parts has one answer, also wrapped; one that no row knows is ours.
func TestErrorsOfThePartsHaveTheirAnswers(t *testing.T) {
	for _, row := range errorTable {
		if e := errorOf(fmt.Errorf("stream x: %w", row.is)); e.Status != row.status || e.Code != row.code || !strings.HasPrefix(e.Message, "stream x: ") {
			t.Errorf("%v: %+v, want %d %s", row.is, e, row.status, row.code)
		}
	}
	if e := errorOf(errors.New("surprise")); e.Status != 500 || e.Code != "InternalFailure" {
		t.Errorf("%+v", e)
	}
	if e := errorOf(fmt.Errorf("out: %w", delivery.ErrNotFound)); e.Status != 404 {
		t.Errorf("%+v", e)
	}
}
