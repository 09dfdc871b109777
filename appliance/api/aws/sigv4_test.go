package aws

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"net/http"
	"strings"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/appliance/api/apitest"
)

type keyring map[string]Credential

func (k keyring) Lookup(id string) (Credential, bool) { c, ok := k[id]; return c, ok }

var (
	sigNow  = time.Date(2026, 11, 23, 4, 30, 0, 0, time.UTC)
	sigUser = &api.Identity{Name: "device", AccessKeyID: "AKIDEXAMPLE", Means: api.MeansSigV4, Policy: api.FullAccess}
	sigKeys = keyring{
		"AKIDEXAMPLE": {SecretAccessKey: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", Identity: sigUser},
		"ASIASESSION": {SecretAccessKey: "other", SessionToken: "the-token", Identity: sigUser},
	}
)

func sigVerifier() *Verifier {
	return NewVerifier(VerifierOptions{Keyring: sigKeys, Clock: func() time.Time { return sigNow }})
}

func newSigRequest(body string) *http.Request {
	r, err := http.NewRequest("POST", "http://localhost:4567/", strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	r.Header.Set("X-Amz-Target", "Kinesis_20131202.ListStreams")
	r.Header.Set("Content-Type", jsonType)
	r.Header.Set("Amz-Sdk-Request", "attempt=1;  max=3 ")
	r.ContentLength = int64(len(body))
	return r
}

func hashOf(body string) string {
	sum := sha256.Sum256([]byte(body))
	return hex.EncodeToString(sum[:])
}

func sign(t testing.TB, r *http.Request, key, service, region, payload string, at time.Time) {
	t.Helper()
	cred := awssdk.Credentials{AccessKeyID: key, SecretAccessKey: sigKeys[key].SecretAccessKey, SessionToken: sigKeys[key].SessionToken}
	if err := v4.NewSigner().SignHTTP(context.Background(), cred, r, payload, service, region, at); err != nil {
		t.Fatal(err)
	}
}

// asExchange turns a client's request into what the listener makes of it.
func asExchange(r *http.Request, body string) *apitest.Request {
	h := r.Header.Clone()
	if r.ContentLength > 0 {
		h.Set("Content-Length", itoa(int(r.ContentLength)))
	}
	target := r.URL.EscapedPath()
	if r.URL.RawQuery != "" {
		target += "?" + r.URL.RawQuery
	}
	return &apitest.Request{Verb: r.Method, Target: target, Headers: h, HostName: r.Host, Payload: []byte(body)}
}

func itoa(n int) string { w := Writer{}; w.Int(int64(n)); return string(w.Buf) }

func verify(t testing.TB, v *Verifier, r *apitest.Request, service string) (id *api.Identity, err *Error) {
	t.Helper()
	apitest.Do(context.Background(), api.HandlerFunc(func(_ context.Context, req api.Request, _ api.Response) {
		id, err = v.Verify(req, service)
	}), r)
	return id, err
}

func TestSignaturesOfTheSDKAreAccepted(t *testing.T) {
	const body = `{"Limit":5}`
	v := sigVerifier()
	f := func(change func(*http.Request), payload string, edit func(*apitest.Request)) {
		t.Helper()
		for range 2 { // the second time with the signing key from the cache
			r := newSigRequest(body)
			change(r)
			sign(t, r, "AKIDEXAMPLE", "kinesis", "eu-west-1", payload, sigNow)
			x := asExchange(r, body)
			edit(x)
			if id, err := verify(t, v, x, "kinesis"); err != nil || id != sigUser {
				t.Fatalf("%v, %v", id, err)
			}
		}
	}
	same := func(*apitest.Request) {}
	f(func(*http.Request) {}, hashOf(body), same)
	f(func(r *http.Request) { r.Header.Set("X-Amz-Content-Sha256", hashOf(body)) }, hashOf(body), same)
	f(func(r *http.Request) { r.Header.Set("X-Amz-Content-Sha256", unsignedPayload) }, unsignedPayload, func(x *apitest.Request) { x.State = &tls.ConnectionState{} })
	f(func(r *http.Request) { r.URL.Path = "/a b/ü"; r.URL.RawPath = "/a%20b/%C3%BC" }, hashOf(body), same)
	f(func(r *http.Request) { r.URL.RawQuery = "b=2&a=%2F+x&a=1&c" }, hashOf(body), same)
	f(func(r *http.Request) { r.Header["X-Amz-Multi"] = []string{"one", " two  three "} }, hashOf(body), same)
	if len(v.signing) != 1 {
		t.Errorf("%d signing keys in the cache", len(v.signing))
	}
}

func TestPresignedQueryIsAccepted(t *testing.T) {
	cred := awssdk.Credentials{AccessKeyID: "ASIASESSION", SecretAccessKey: "other", SessionToken: "the-token"}
	r := newSigRequest("")
	r.URL.RawQuery = "X-Amz-Expires=600"
	uri, headers, err := v4.NewSigner().PresignHTTP(context.Background(), cred, r, hashOf(""), "kinesis", "eu-west-1", sigNow.Add(-9*time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	x := asExchange(r, "")
	x.Headers = headers
	x.Target = uri[strings.Index(uri, "/?"):]
	if id, err := verify(t, sigVerifier(), x, "kinesis"); err != nil || id != sigUser {
		t.Fatalf("%v, %v", id, err)
	}
	x.Target = strings.Replace(x.Target, "X-Amz-Expires=600", "X-Amz-Expires=601", 1)
	if _, err := verify(t, sigVerifier(), x, "kinesis"); err == nil || err.Kind != InvalidSignature {
		t.Errorf("changed life: %v", err)
	}
	x.Target = strings.Replace(x.Target, "X-Amz-Expires=601", "X-Amz-Expires=60", 1)
	if _, err := verify(t, sigVerifier(), x, "kinesis"); err == nil || !strings.HasPrefix(err.Message, "Signature expired: 20261123T042200Z is now earlier than 20261123T043000Z") {
		t.Errorf("expired: %v", err)
	}
	x.Target = strings.Replace(x.Target, "X-Amz-Expires=60", "X-Amz-Expires=0", 1)
	if _, err := verify(t, sigVerifier(), x, "kinesis"); err == nil || err.Kind != IncompleteSignature {
		t.Errorf("no life: %v", err)
	}
}

// TestPresignedQueryEndsWhenItSays has a signature of 60 seconds, seen from moments
// around its life: the tolerance is for a clock that is ahead of ours only.
func TestPresignedQueryEndsWhenItSays(t *testing.T) {
	cred := awssdk.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: sigKeys["AKIDEXAMPLE"].SecretAccessKey}
	f := func(age time.Duration, ok bool) {
		t.Helper()
		r := newSigRequest("")
		r.URL.RawQuery = "X-Amz-Expires=60"
		uri, headers, err := v4.NewSigner().PresignHTTP(context.Background(), cred, r, hashOf(""), "kinesis", "eu-west-1", sigNow.Add(-age))
		if err != nil {
			t.Fatal(err)
		}
		x := asExchange(r, "")
		x.Headers, x.Target = headers, uri[strings.Index(uri, "/?"):]
		if _, err := verify(t, sigVerifier(), x, "kinesis"); (err == nil) != ok {
			t.Errorf("%s after it was signed: %v", age, err)
		}
	}
	f(0, true)
	f(60*time.Second, true)
	f(61*time.Second, false)
	f(15*time.Minute, false)
	f(-15*time.Minute, true)
	f(-16*time.Minute, false)
}

func TestBadSignatures(t *testing.T) {
	const body = `{"Limit":5}`
	f := func(kind *ErrorKind, text string, change func(x *apitest.Request)) {
		t.Helper()
		r := newSigRequest(body)
		sign(t, r, "AKIDEXAMPLE", "kinesis", "eu-west-1", hashOf(body), sigNow)
		x := asExchange(r, body)
		change(x)
		id, err := verify(t, sigVerifier(), x, "kinesis")
		if id != nil || err == nil || err.Kind != kind || !strings.Contains(err.Message, text) {
			t.Errorf("%v, %v; want %s %s", id, err, kind.Name, text)
		}
	}
	auth := func(from, to string) func(*apitest.Request) {
		return func(x *apitest.Request) {
			x.Headers.Set("Authorization", strings.Replace(x.Headers.Get("Authorization"), from, to, 1))
		}
	}
	header := func(name, value string) func(*apitest.Request) {
		return func(x *apitest.Request) {
			if value == "" {
				x.Headers.Del(name)
				return
			}
			x.Headers.Set(name, value)
		}
	}
	f(MissingAuthenticationToken, "Missing Authentication Token", header("Authorization", ""))
	f(IncompleteSignature, "Authorization header requires 'Credential' parameter. Authorization header requires 'Signature' parameter. Authorization header requires 'SignedHeaders' parameter. Authorization=Basic eA==", header("Authorization", "Basic eA=="))
	f(IncompleteSignature, "requires existence of either a 'X-Amz-Date' or a 'Date' header. ", header("X-Amz-Date", ""))
	f(IncompleteSignature, "Date must be in ISO-8601 'basic format'. Got '201'.", header("X-Amz-Date", "201"))
	f(IncompleteSignature, "Date must be", header("X-Amz-Date", "20261323T043000Z"))
	f(IncompleteSignature, "Unsupported AWS 'algorithm': 'AWS4-HMAC-SHA25'", auth("SHA256", "SHA25"))
	f(IncompleteSignature, "Credential must have exactly 5 slash-delimited elements", auth("/kinesis/", "/"))
	f(IncompleteSignature, "Credential must have exactly 5 slash-delimited elements", auth("/kinesis/", "/kinesis/x/"))
	f(InvalidSignature, "scoped to correct service: 'kinesis'", auth("/kinesis/", "/firehose/"))
	f(InvalidSignature, "valid terminator", auth("aws4_request", "aws5_request"))
	f(InvalidSignature, "Date in Credential scope does not match YYYYMMDD", auth("/20261123/", "/20261122/"))
	f(InvalidSignature, "Found both 'X-Amz-Algorithm'", func(x *apitest.Request) { x.Target = "/?X-Amz-Algorithm=AWS4-HMAC-SHA256" })
	f(UnrecognizedClient, "security token included in the request is invalid", auth("AKIDEXAMPLE", "AKIDUNKNOWN"))
	f(UnrecognizedClient, "security token included in the request is invalid", header("X-Amz-Security-Token", "x"))
	f(InvalidSignature, "'Host'", auth("content-type;host;", "content-type;"))
	f(InvalidSignature, "'X-Amz-Target' must be", auth(";x-amz-target", ""))
	f(InvalidSignature, "The request signature we calculated does not match", auth("Signature=", "Signature=0"))
	f(InvalidSignature, "The request signature we calculated does not match", auth("eu-west-1", "eu-west-2"))
	f(InvalidSignature, "should have been\n'POST\n/\n\n", header("Content-Type", "application/x-amz-cbor-1.1"))
	f(InvalidSignature, "does not match", header("X-Amz-Target", "Kinesis_20131202.DeleteStream"))
	f(InvalidSignature, "does not match", func(x *apitest.Request) { x.Payload[5] ^= 1 })
	f(InvalidSignature, "does not match", func(x *apitest.Request) { x.HostName = "localhost" })
	f(InvalidSignature, "does not match", func(x *apitest.Request) { x.Target = "/x" })
	f(InvalidSignature, "does not match", func(x *apitest.Request) { x.Target = "/?a" })
	f(InvalidSignature, "'x-amz-content-sha256' header does not match", header("X-Amz-Content-Sha256", hashOf("x")))
	f(InvalidSignature, "accepted over TLS only", header("X-Amz-Content-Sha256", unsignedPayload))
	f(InvalidSignature, "signed in chunks", header("X-Amz-Content-Sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"))
	f(InvalidSignature, "does not match", header("X-Amz-Content-Sha256", strings.Repeat("x", 1000)))

	v := NewVerifier(VerifierOptions{Keyring: sigKeys, Regions: []string{"us-east-1"}, Clock: func() time.Time { return sigNow.Add(time.Hour) }})
	at := func(d time.Duration) *Error {
		r := newSigRequest(body)
		sign(t, r, "AKIDEXAMPLE", "kinesis", "eu-west-1", hashOf(body), sigNow.Add(d))
		_, err := verify(t, v, asExchange(r, body), "kinesis")
		return err
	}
	for d, want := range map[time.Duration]string{
		0:                "Signature expired: 20261123T043000Z is now earlier than 20261123T051500Z (20261123T053000Z - 15 min.)",
		76 * time.Minute: "Signature not yet current: 20261123T054600Z is still later than 20261123T054500Z (20261123T053000Z + 15 min.)",
		time.Hour:        "Credential should be scoped to a valid region, not 'eu-west-1'.",
	} {
		if err := at(d); err == nil || err.Kind != InvalidSignature || !strings.Contains(err.Message, want) {
			t.Errorf("%v: %v", d, err)
		}
	}
	v.o.ClockTolerance, v.o.Regions = -1, nil
	if err := at(-9999 * time.Hour); err != nil {
		t.Errorf("no bound on the clock: %v", err)
	}
}

func TestPseudoHeaderIsSigned(t *testing.T) {
	// What the JavaScript SDK signs over HTTP/2.
	st := &sigState{}
	st.signedHeaders = ":authority;x-amz-date"
	apitest.Do(t.Context(), api.HandlerFunc(func(_ context.Context, req api.Request, _ api.Response) {
		if got := st.appendHeader(nil, req, ":authority"); string(got) != "box:4567" {
			t.Errorf("%q", got)
		}
		if err := st.checkSignedHeaders(req); err != nil {
			t.Error(err)
		}
	}), &apitest.Request{HostName: "box:4567"})
}

func TestSecretThatChangedIsNotCached(t *testing.T) {
	keys := keyring{"AKIDEXAMPLE": sigKeys["AKIDEXAMPLE"]}
	v := NewVerifier(VerifierOptions{Keyring: keys, Clock: func() time.Time { return sigNow }})
	r := newSigRequest("")
	sign(t, r, "AKIDEXAMPLE", "kinesis", "eu-west-1", hashOf(""), sigNow)
	if _, err := verify(t, v, asExchange(r, ""), "kinesis"); err != nil {
		t.Fatal(err)
	}
	keys["AKIDEXAMPLE"] = Credential{SecretAccessKey: "new", Identity: sigUser}
	if _, err := verify(t, v, asExchange(r, ""), "kinesis"); err == nil || err.Kind != InvalidSignature {
		t.Errorf("old secret: %v", err)
	}
}

func FuzzSigV4(f *testing.F) {
	r := newSigRequest("")
	sign(f, r, "AKIDEXAMPLE", "kinesis", "eu-west-1", hashOf(""), sigNow)
	f.Add(r.Header.Get("Authorization"), "", "20261123T043000Z", "/")
	f.Add("", "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20261123%2Feu-west-1%2Fkinesis%2Faws4_request&X-Amz-Date=20261123T043000Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature="+strings.Repeat("0", 64), "", "/a%")
	f.Add("AWS4-HMAC-SHA256 Credential=/////, SignedHeaders=;;;host, Signature==", "%%%=&&&a=%zz", "x", "")
	v := sigVerifier()
	good := r.Header.Get("Authorization")
	f.Fuzz(func(t *testing.T, auth, query, date, path string) {
		x := asExchange(newSigRequest(""), "")
		x.Target = path + "?" + query
		x.Headers["Authorization"] = []string{auth}
		x.Headers["X-Amz-Date"] = []string{date}
		if auth == "" {
			delete(x.Headers, "Authorization")
		}
		id, err := verify(t, v, x, "kinesis")
		if (id == nil) == (err == nil) {
			t.Fatalf("%v, %v", id, err)
		}
		if id != nil && !bytes.Contains([]byte(auth), []byte(good[strings.LastIndex(good, "=")+1:])) {
			t.Fatalf("accepted %q", auth)
		}
	})
}

// benchExchange verifies again and again within one exchange, so that only the
// verification is measured.
func benchExchange(tb testing.TB, body string, run func(v *Verifier, req api.Request)) {
	r := newSigRequest(body)
	sign(tb, r, "AKIDEXAMPLE", "kinesis", "eu-west-1", hashOf(body), sigNow)
	v := sigVerifier()
	apitest.Do(context.Background(), api.HandlerFunc(func(_ context.Context, req api.Request, _ api.Response) {
		run(v, req)
	}), asExchange(r, body))
}

func BenchmarkVerify(b *testing.B) {
	for _, size := range []int{300, 150_000} {
		b.Run("body="+itoa(size), func(b *testing.B) {
			benchExchange(b, strings.Repeat("x", size), func(v *Verifier, req api.Request) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := v.Verify(req, "kinesis"); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}
