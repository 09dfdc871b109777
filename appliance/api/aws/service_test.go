package aws

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/appliance/api/apitest"
)

type toyTag struct {
	Key   string `aws:"required,shape=TagKey"`
	Value *string
}

type toyInput struct {
	StreamName *string           `aws:"required,shape=StreamName"`
	Limit      *int              `aws:"shape=Limit"`
	Mode       string            `aws:"shape=Mode"`
	Data       []byte            `aws:"shape=Data"`
	At         *time.Time        `aws:"name=Timestamp"`
	Big        int64             ``
	DryRun     bool              ``
	TagKeys    []string          `aws:"shape=TagKeyList"`
	TagMap     map[string]string `aws:"shape=TagMap"`
	Tags       []toyTag          `aws:"shape=Tags"`
	Inner      *toyInner         ``
	Ratio      float64           `aws:"omitempty"`
}

type toyInner struct {
	Levels []toyLevel `aws:"shape=Levels"`
}

type toyLevel string

var toyModel = NewModel(Shapes{
	"StreamName": {Min: At(1), Max: At(8), Pattern: `[a-zA-Z0-9_.-]+`},
	"Limit":      {Min: At(1), Max: At(100)},
	"Mode":       {Enum: []string{"ON", "OFF"}},
	"Data":       {Max: At(4)},
	"TagKey":     {Min: At(1), Max: At(5)},
	"TagKeyList": {Min: At(1), Max: At(2), Member: "TagKey"},
	"TagMap":     {Max: At(2), Key: "TagKey", Member: "TagValue"},
	"TagValue":   {Max: At(3)},
	"Tags":       {Max: At(12)},
	"Levels":     {Member: "Level"},
	"Level":      {Enum: []string{"A", "B"}},
})

func toyService() *Service {
	return NewService(ServiceOptions{Target: "Toy_1", Name: "toy", CBOR: true, Model: toyModel},
		Op("Echo", func(_ context.Context, c *Call, in *toyInput) (*toyInput, error) {
			if err := c.Authorize(*in.StreamName); err != nil {
				return nil, err
			}
			return in, nil
		}),
		Op("Nothing", func(_ context.Context, c *Call, _ *toyInput) (*Empty, error) { return nil, c.Authorize("") }),
		Op("Fail", func(_ context.Context, c *Call, in *toyInput) (*Empty, error) {
			if *in.StreamName == "internal" {
				return nil, errors.New("the disk is on fire")
			}
			return nil, ResourceNotFound.New("Stream %s under account 000000000000 not found.", *in.StreamName)
		}),
	)
}

var toyUser = &api.Identity{Name: "toy-user", Policy: api.FullAccess}

func toyCall(t *testing.T, op, contentType, body string) *apitest.Result {
	t.Helper()
	return apitest.Do(t.Context(), toyService(), &apitest.Request{
		Headers: http.Header{"X-Amz-Target": {"Toy_1." + op}, "Content-Type": {contentType}},
		Payload: []byte(body), Who: toyUser,
	})
}

const jsonType = "application/x-amz-json-1.1"

func TestEchoInJSON(t *testing.T) {
	f := func(in, want string) {
		t.Helper()
		got := toyCall(t, "Echo", jsonType, in)
		if got.Status != 200 || string(got.Body) != want {
			t.Errorf("%s\n got %d %s\nwant 200 %s", in, got.Status, got.Body, want)
		}
	}
	f(`{"StreamName":"s"}`, `{"StreamName":"s","Mode":"","Big":0,"DryRun":false}`)
	f(` { "Unknown" : {"a":[1,2,{"b":null}],"c":"\u00e9"} , "Data":"AQID", "StreamName":"\u0073", "Timestamp":1700000000.123, "Mode":"ON", "Big":9007199254740993, "DryRun":true,"Limit":3.9 } `,
		`{"StreamName":"s","Limit":3,"Mode":"ON","Data":"AQID","Timestamp":1700000000.123,"Big":9007199254740993,"DryRun":true}`)
	f(`{"StreamName":null,"StreamName":"b","Limit":null,"TagKeys":["a","b"],"TagMap":{"z":"1","a":"2","n":null},"Tags":[{"Key":"k"},{"Key":"l","Value":"v"}],"Inner":{"Levels":["B"]},"Ratio":0.5}`,
		`{"StreamName":"b","Mode":"","Big":0,"DryRun":false,"TagKeys":["a","b"],"TagMap":{"a":"2","z":"1"},"Tags":[{"Key":"k"},{"Key":"l","Value":"v"}],"Inner":{"Levels":["B"]},"Ratio":0.5}`)
}

func TestErrorsAreInTheWordsOfAWS(t *testing.T) {
	f := func(in, kind, message string) {
		t.Helper()
		got := toyCall(t, "Echo", jsonType, in)
		var body struct{ Type, Message, Lower string }
		var raw map[string]string
		if err := json.Unmarshal(got.Body, &raw); err != nil {
			t.Fatalf("%v: %s", err, got.Body)
		}
		body.Type, body.Message = raw["__type"], raw["message"]
		if kind == "SerializationException" {
			body.Message = raw["Message"]
		}
		if got.Status != 400 || body.Type != kind || body.Message != message {
			t.Errorf("%.200s\n got %d %s %s\nwant 400 %s %s", in, got.Status, body.Type, body.Message, kind, message)
		}
		if got.Header.Get("X-Amzn-Errortype") != kind {
			t.Errorf("error type header is %q", got.Header.Get("X-Amzn-Errortype"))
		}
	}
	ser := func(in, message string) { t.Helper(); f(in, "SerializationException", message) }
	val := func(in, message string) { t.Helper(); f(in, "ValidationException", message) }

	ser(``, "")
	ser(`{`, "")
	ser(`{"StreamName":"a"} x`, "")
	ser(`{"StreamName":5`, "")
	ser(`{"StreamName":5}`, "class java.math.BigDecimal can not be converted to an String")
	ser(`{"StreamName":true}`, "class java.lang.Boolean can not be converted to an String")
	ser(`{"StreamName":[1]}`, "Start of list found where not expected")
	ser(`{"StreamName":{}}`, "Start of structure or map found where not expected.")
	ser(`{"Limit":"5"}`, "class java.lang.String can not be converted to an Integer")
	ser(`{"Big":true}`, "class java.lang.Boolean can not be converted to an Long")
	ser(`{"DryRun":"yup"}`, "'YUP' can not be converted to an Boolean")
	ser(`{"Tags":"x"}`, "Expected list or null")
	ser(`{"Tags":[1]}`, "Expected null")
	ser(`{"TagMap":1}`, "Expected map or null")
	ser(`{"Data":"abc"}`, "'abc' can not be converted to a Blob: Base64 encoded length is expected a multiple of 4 bytes but found: 3")
	ser(`{"Data":"=bcd"}`, "'=bcd' can not be converted to a Blob: Invalid Base64 character: '='")
	ser(`{"Data":"ab_d"}`, "'ab_d' can not be converted to a Blob: Invalid Base64 character: '_'")
	ser(`{"Data":"YWH="}`, "'YWH=' can not be converted to a Blob: Invalid last non-pad Base64 character dectected")
	ser(`{"Data":"YWFh\nYWFh"}`, "'YWFh\nYWFh' can not be converted to a Blob: Base64 encoded length is expected a multiple of 4 bytes but found: 9")
	ser(`{"Tags":[`+strings.Repeat(`{"Key":"k"},`, maxElements)+`{"Key":"k"}]}`, "The request has more than 100000 list and map elements")

	val(`{}`, "1 validation error detected: Value null at 'streamName' failed to satisfy constraint: Member must not be null")
	val(`{"StreamName":"","Limit":0,"Mode":"X"}`,
		"4 validation errors detected: Value '' at 'streamName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+; "+
			"Value '' at 'streamName' failed to satisfy constraint: Member must have length greater than or equal to 1; "+
			"Value '0' at 'limit' failed to satisfy constraint: Member must have value greater than or equal to 1; "+
			"Value 'X' at 'mode' failed to satisfy constraint: Member must satisfy enum value set: [ON, OFF]")
	val(`{"StreamName":"s","Data":"AAAAAAA="}`, "1 validation error detected: Value 'java.nio.HeapByteBuffer[pos=0 lim=5 cap=5]' at 'data' failed to satisfy constraint: Member must have length less than or equal to 4")
	val(`{"StreamName":"s","TagKeys":["a","b","tooolong"]}`,
		"2 validation errors detected: Value '[a, b, tooolong]' at 'tagKeys' failed to satisfy constraint: Member must have length less than or equal to 2; "+
			"Value '[a, b, tooolong]' at 'tagKeys' failed to satisfy constraint: Member must satisfy constraint: [Member must have length less than or equal to 5, Member must have length greater than or equal to 1]")
	val(`{"StreamName":"s","TagMap":{"":"long"}}`,
		"2 validation errors detected: Value '{=long}' at 'tagMap' failed to satisfy constraint: Map keys must satisfy constraint: [Member must have length less than or equal to 5, Member must have length greater than or equal to 1]; "+
			"Value '{=long}' at 'tagMap' failed to satisfy constraint: Map value must satisfy constraint: [Member must have length less than or equal to 3]")
	val(`{"StreamName":"s","Tags":[{"Key":"ok"},{"Key":"tooolong"},{}]}`,
		"2 validation errors detected: Value 'tooolong' at 'tags.2.member.key' failed to satisfy constraint: Member must have length less than or equal to 5; "+
			"Value null at 'tags.3.member.key' failed to satisfy constraint: Member must not be null")
	val(`{"StreamName":"s","Inner":{"Levels":["A","C"]}}`,
		"1 validation error detected: Value '[A, C]' at 'inner.levels' failed to satisfy constraint: Member must satisfy constraint: [Member must satisfy enum value set: [A, B]]")
	val(`{"StreamName":"s","Tags":[{},{},{},{},{},{},{},{},{},{},{}]}`,
		"10 validation errors detected: "+strings.TrimSuffix(func() (s string) {
			for _, i := range strings.Fields("1 2 3 4 5 6 7 8 9 10") {
				s += "Value null at 'tags." + i + ".member.key' failed to satisfy constraint: Member must not be null; "
			}
			return s
		}(), "; "))
}

func TestOperationResults(t *testing.T) {
	got := toyCall(t, "Nothing", jsonType, `{"StreamName":"s"}`)
	if got.Status != 200 || len(got.Body) != 0 || got.Header.Get("Content-Type") != jsonType {
		t.Errorf("empty answer: %d %q %q", got.Status, got.Body, got.Header)
	}
	if id := got.Header.Get("X-Amzn-Requestid"); len(id) != 36 || id[14] != '4' || len(got.Header.Get("X-Amz-Id-2")) != 96 {
		t.Errorf("ids: %q", got.Header)
	}
	got = toyCall(t, "Fail", jsonType+" ; charset=utf-8", `{"StreamName":"s"}`)
	if got.Status != 400 || string(got.Body) != `{"__type":"ResourceNotFoundException","message":"Stream s under account 000000000000 not found."}` {
		t.Errorf("%d %s", got.Status, got.Body)
	}
	got = toyCall(t, "Fail", jsonType, `{"StreamName":"internal"}`)
	if got.Status != 500 || strings.Contains(string(got.Body), "fire") || !strings.Contains(string(got.Body), `"InternalFailure"`) {
		t.Errorf("%d %s", got.Status, got.Body)
	}
	got = toyCall(t, "NoSuch", jsonType, `{}`)
	if got.Status != 400 || string(got.Body) != `{"__type":"UnknownOperationException"}` {
		t.Errorf("%d %s", got.Status, got.Body)
	}
	got = toyCall(t, "Echo", "text/plain", `{}`)
	if got.Status != 404 || !strings.Contains(string(got.Body), "<UnknownOperationException/>") {
		t.Errorf("%d %s", got.Status, got.Body)
	}
	got = toyCall(t, "Echo", "application/json", `{}`)
	if got.Status != 404 || !strings.Contains(string(got.Body), `"Version":"1.0"`) {
		t.Errorf("%d %s", got.Status, got.Body)
	}
}

func TestOperationThatDoesNotAskIsABug(t *testing.T) {
	s := NewService(ServiceOptions{Target: "Toy_1", Name: "toy", Model: toyModel},
		RawOp("Careless", func(context.Context, *Call) error { return nil }))
	defer func() {
		if v, _ := recover().(string); !strings.HasPrefix(v, "BUG: ") {
			t.Errorf("recovered %q", v)
		}
	}()
	apitest.Do(t.Context(), s, &apitest.Request{
		Headers: http.Header{"X-Amz-Target": {"Toy_1.Careless"}, "Content-Type": {jsonType}}, Payload: []byte("{}"), Who: toyUser,
	})
}

func TestPolicyDenies(t *testing.T) {
	req := &apitest.Request{
		Headers: http.Header{"X-Amz-Target": {"Toy_1.Echo"}, "Content-Type": {jsonType}}, Payload: []byte(`{"StreamName":"b"}`),
		Who: &api.Identity{Name: "limited", Policy: api.Policy{{Actions: []string{"toy:*"}, Streams: []string{"a*"}}}},
	}
	got := apitest.Do(t.Context(), toyService(), req)
	if got.Status != 400 || !strings.Contains(string(got.Body), `"AccessDeniedException","message":"User: limited is not authorized to perform: toy:Echo on resource: b`) {
		t.Errorf("%d %s", got.Status, got.Body)
	}
}

func TestRefusalComesAfterEarlierComplaints(t *testing.T) {
	why := &api.Refusal{Status: 400, Code: "MissingAuthenticationTokenException", Message: "Missing Authentication Token"}
	f := func(method, target, contentType, body string, status int, want string) {
		t.Helper()
		h := api.HandlerFunc(func(ctx context.Context, req api.Request, res api.Response) {
			toyService().Refuse(ctx, req, res, why)
		})
		got := apitest.Do(t.Context(), h, &apitest.Request{
			Verb: method, Headers: http.Header{"X-Amz-Target": {target}, "Content-Type": {contentType}}, Payload: []byte(body),
		})
		if got.Status != status || !strings.Contains(string(got.Body), want) {
			t.Errorf("%d %s, want %d %s", got.Status, got.Body, status, want)
		}
	}
	f("GET", "Toy_1.Echo", jsonType, "", 403, "<AccessDeniedException>")
	f("POST", "", "text/plain", "", 403, "<AccessDeniedException>")
	f("POST", "Toy_1.Echo", jsonType, "{", 400, `"SerializationException"`)
	f("POST", "Toy_1.Eco", jsonType, "{}", 400, `"UnknownOperationException"`)
	f("POST", "Toy_1.Echo", jsonType, "{}", 400, `"MissingAuthenticationTokenException","message":"Missing Authentication Token"`)
}

func TestCrossOrigin(t *testing.T) {
	got := apitest.Do(t.Context(), toyService(), &apitest.Request{Verb: "OPTIONS", Headers: http.Header{
		"Origin": {"http://x"}, "Access-Control-Request-Headers": {"a, b"}, "Access-Control-Request-Method": {"POST"},
	}})
	if got.Status != 200 || got.Header.Get("Access-Control-Allow-Headers") != "a, b" || got.Header.Get("Access-Control-Max-Age") != "172800" {
		t.Errorf("%d %v", got.Status, got.Header)
	}
}

func TestCBORInAndOut(t *testing.T) {
	unhex := func(s string) string {
		b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	// {_ "StreamName": (_ "a", "b"), "Data": (_ h'01', h'02'), "Timestamp": 1(1700000000123), "Limit": 5, "DryRun": null, "x": [_ 1.5, {1: undefined}]}
	in := unhex("bf 6a 53747265616d4e616d65 7f 6161 6162 ff 64 44617461 5f 4101 4102 ff 69 54696d657374616d70 c1 1b 0000018bcfe5687b" +
		"65 4c696d6974 05 66 44727952756e f6 6178 9f f93e00 a101f7 ff ff")
	got := toyCall(t, "Echo", "application/x-amz-cbor-1.1", in)
	want := unhex("bf 6a 53747265616d4e616d65 62 6162 65 4c696d6974 05 64 4d6f6465 60 64 44617461 42 0102" +
		"69 54696d657374616d70 c1 1b 0000018bcfe5687b 63 426967 00 66 44727952756e f4 ff")
	if got.Status != 200 || string(got.Body) != want {
		t.Errorf("%d\n got %x\nwant %x", got.Status, got.Body, want)
	}
	got = toyCall(t, "Fail", "application/X-AMZ-cbor-1.1", in)
	if got.Status != 400 || !strings.HasPrefix(string(got.Body), "\xbf\x66__type\x78\x19ResourceNotFoundException\x67message") ||
		got.Header.Get("Content-Type") != "application/x-amz-cbor-1.1" {
		t.Errorf("%d %q", got.Status, got.Body)
	}
	got = toyCall(t, "Echo", "application/x-amz-cbor-1.1", in[:len(in)-1])
	if got.Status != 400 || string(got.Body) != "\xbf\x66__type\x76SerializationException\xff" {
		t.Errorf("%d %q", got.Status, got.Body)
	}
}

func TestCBORTimestamps(t *testing.T) {
	f := func(in string, want int64) {
		t.Helper()
		b, _ := hex.DecodeString(in)
		r := cborReader{b: b}
		got := r.millis()
		r.end()
		if r.err != nil || got != want {
			t.Errorf("%s: %d, %v; want %d", in, got, r.err, want)
		}
	}
	f("c11b0000018bcfe5687b", 1700000000123)       // integer: milliseconds
	f("c1fb41d954fc4007df3b", 1700000000123)       // double: seconds
	f("c1fa44800000", 1024000)                     // single
	f("c1f93e00", 1500)                            // half
	f("c120", -1)                                  // negative milliseconds
	f("1a6553f100", 1700000000000)                 // no tag: seconds
	f("c1fb7ff0000000000000", math.MaxInt64)       // infinity
	f("c1fb7ff8000000000001", 0)                   // not a number
	f("d9d9f7c11b0000018bcfe5687b", 1700000000123) // self-described CBOR before it
}

func TestErrorTableIsWhole(t *testing.T) {
	names := map[string]bool{}
	for _, k := range ErrorTable() {
		if names[k.Name] {
			t.Errorf("%s is there twice", k.Name)
		}
		names[k.Name] = true
		if k.Status != 400 && k.Status != 413 && k.Status != 500 && k.Status != 503 {
			t.Errorf("%s has status %d", k.Name, k.Status)
		}
		if k.Status >= 500 && !k.Retryable {
			t.Errorf("%s is a server's failure that nobody retries", k.Name)
		}
		err := error(k.Wrap(errors.New("cause")))
		if !errors.Is(err, k) || AsError(err).Kind != k || AsError(k).Kind != k {
			t.Errorf("%s does not survive wrapping", k.Name)
		}
	}
	if e := AsError(errors.New("x")); e.Kind != InternalFailure || strings.Contains(e.Message, "x") {
		t.Errorf("unknown error becomes %v", e)
	}
}
