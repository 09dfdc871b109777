package api_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/appliance/api/apitest"
)

func TestPolicyMatchesActionsAndStreams(t *testing.T) {
	f := func(p api.Policy, action, stream string, want bool) {
		t.Helper()
		if got := p.Allows(action, stream); got != want {
			t.Errorf("%v.Allows(%q, %q) = %v, want %v", p, action, stream, got, want)
		}
	}
	put := api.Policy{{Actions: []string{"kinesis:Put*", "plain:Put"}, Streams: []string{"sensor-*-raw", "x?"}}}
	f(put, "kinesis:PutRecords", "sensor-a-b-raw", true)
	f(put, "KINESIS:putrecords", "sensor-a-raw", true)
	f(put, "kinesis:GetRecords", "sensor-a-raw", false)
	f(put, "kinesis:PutRecords", "Sensor-a-raw", false)
	f(put, "kinesis:PutRecords", "sensor-a-rawx", false)
	f(put, "plain:Put", "xy", true)
	f(put, "plain:Put", "x", false)
	f(put, "plain:Put", "", false)
	f(nil, "plain:Put", "x", false)
	f(api.FullAccess, "anything", "", true)
	f(api.Policy{{Actions: []string{"*"}}}, "kinesis:ListStreams", "", false)

	if (*api.Identity)(nil).Allows("kinesis:PutRecord", "s") {
		t.Error("no identity is allowed something")
	}
	if n := testing.AllocsPerRun(100, func() { put.Allows("kinesis:PutRecords", "sensor-a-b-raw") }); n != 0 {
		t.Errorf("Allows allocates %v times", n)
	}
}

func TestRoutesTargetFirstThenLongestPath(t *testing.T) {
	say := func(s string) api.Handler {
		return api.HandlerFunc(func(_ context.Context, _ api.Request, res api.Response) { _, _ = res.Write([]byte(s)) })
	}
	routes := api.Routes{
		{Target: "Kinesis_20131202", Handler: say("kinesis")},
		{Path: "/v1/", Handler: say("plain")},
		{Path: "/v1/streams/special", Handler: say("special")},
		{Path: "/healthz", Handler: say("health")},
		{Query: true, Handler: say("query")},
	}
	f := func(path, target, want string) {
		t.Helper()
		h := http.Header{}
		if target != "" {
			h.Set("X-Amz-Target", target)
		}
		got := apitest.Do(t.Context(), routes, &apitest.Request{Target: path, Headers: h})
		if !strings.Contains(string(got.Body), want) {
			t.Errorf("%s %s: %d %s, want %s", path, target, got.Status, got.Body, want)
		}
	}
	f("/", "Kinesis_20131202.PutRecord", "kinesis")
	f("/v1/x", "Kinesis_20131202.PutRecord", "kinesis")
	f("/v1/x", "Unknown.PutRecord", "plain")
	f("/v1/streams/special", "", "special")
	f("/v1/streams/special/x", "", "plain")
	f("/healthz", "", "health")
	f("/healthz/x", "", "NotFound")
	f("/", "", "NotFound")

	form := func(method, path, want string) {
		t.Helper()
		h := http.Header{"Content-Type": {"application/x-www-form-urlencoded; charset=utf-8"}}
		got := apitest.Do(t.Context(), routes, &apitest.Request{Verb: method, Target: path, Headers: h})
		if !strings.Contains(string(got.Body), want) {
			t.Errorf("form by %s to %s: %d %s, want %s", method, path, got.Status, got.Body, want)
		}
	}
	form("POST", "/", "query")
	form("GET", "/", "NotFound")
	form("POST", "/v1/x", "plain")
}

func TestErrorBodyIsJSON(t *testing.T) {
	h := api.HandlerFunc(func(_ context.Context, _ api.Request, res api.Response) {
		_, _ = res.Write([]byte("half an answer"))
		api.WriteError(res, &api.Refusal{Status: 401, Code: "Missing", Message: "say \"who\"\n\x00\\ é \xff"})
	})
	got := apitest.Do(t.Context(), h, &apitest.Request{})
	var body struct {
		Error struct{ Code, Message string }
	}
	if err := json.Unmarshal(got.Body, &body); err != nil {
		t.Fatalf("%v in %q", err, got.Body)
	}
	if got.Status != 401 || body.Error.Code != "Missing" || body.Error.Message != "say \"who\"\n\x00\\ é \ufffd" {
		t.Errorf("%d %q", got.Status, body)
	}
}
