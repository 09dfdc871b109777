package listen

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/appliance/api/apitest"
	"github.com/weirhq/weir/appliance/api/aws"
	"github.com/weirhq/weir/appliance/remote"
)

type keyring map[string]aws.Credential

func (k keyring) Lookup(id string) (aws.Credential, bool) { c, ok := k[id]; return c, ok }

// directory knows one of each.
type directory struct{}

func (directory) Token(token string) *api.Identity {
	if token == "good-token" {
		return &api.Identity{Name: "token", Means: api.MeansBearer, Policy: api.FullAccess}
	}
	return nil
}

func (directory) Password(user, password string) *api.Identity {
	if user == "admin" && password == "good:password" {
		return &api.Identity{Name: "admin", Means: api.MeansBasic, Policy: api.FullAccess}
	}
	return nil
}

func (directory) Certificate(cert *x509.Certificate) *api.Identity {
	if cert.Subject.CommonName == "device-1" {
		return &api.Identity{Name: cert.Subject.CommonName, Means: api.MeansCertificate, Policy: api.FullAccess}
	}
	return nil
}

var (
	keys = keyring{
		"AKIDTEST": {SecretAccessKey: "secret", Identity: &api.Identity{Name: "tester", AccessKeyID: "AKIDTEST", Means: api.MeansSigV4, Policy: api.FullAccess}},
		"AKIDREAD": {SecretAccessKey: "secret", Identity: &api.Identity{Name: "reader", Policy: api.Policy{{Actions: []string{"kinesis:Get*"}, Streams: []string{"*"}}}}},
	}
	guest = &api.Identity{Name: "guest", Means: api.MeansOpen, Policy: api.FullAccess}
)

var whoami = api.HandlerFunc(func(_ context.Context, req api.Request, res api.Response) {
	_, _ = fmt.Fprintf(res, "%s by %s", req.Identity().Name, req.Identity().Means)
})

var toyModel = aws.NewModel(aws.Shapes{
	"StreamName": {Min: aws.At(1), Max: aws.At(128), Pattern: `[a-zA-Z0-9_.-]+`},
	"Records":    {Min: aws.At(1), Max: aws.At(500)},
	"Key":        {Min: aws.At(1), Max: aws.At(256)},
})

type toyPutInput struct {
	Records []struct {
		Data            []byte  `aws:"required"`
		PartitionKey    *string `aws:"required,shape=Key"`
		ExplicitHashKey *string
	} `aws:"required,shape=Records"`
	StreamName *string `aws:"shape=StreamName"`
	StreamARN  *string
}

type toyPutOutput struct {
	FailedRecordCount int
	Records           []toyPutResult
}

type toyPutResult struct{ ShardId, SequenceNumber string }

type toySubscribeInput struct {
	ConsumerARN, ShardId string
}

// toyKinesis answers a few operations of Kinesis, without storing anything.
func toyKinesis() *aws.Service {
	put := aws.NewBatchSchema[toyPutInput](toyModel)
	return aws.NewService(aws.ServiceOptions{Target: "Kinesis_20131202", Name: "kinesis", CBOR: true, Model: toyModel},
		aws.RawOp("PutRecords", func(_ context.Context, c *aws.Call) error {
			b, err := put.Parse(c.Encoding, c.Body())
			if err != nil {
				return err
			}
			defer b.Release()
			if err := c.Authorize(string(b.StreamName)); err != nil {
				return err
			}
			var out toyPutOutput
			for i := range b.Records {
				data := make([]byte, b.Records[i].Data.Len())
				if err := b.Records[i].Data.Decode(data); err != nil {
					return err
				}
				out.Records = append(out.Records, toyPutResult{"shardId-000000000000", fmt.Sprintf("%s=%s", b.Records[i].PartitionKey, data)})
			}
			c.Answer(&out)
			return nil
		}),
		aws.Op("SubscribeToShard", func(_ context.Context, c *aws.Call, in *toySubscribeInput) (*aws.Empty, error) {
			if err := c.Authorize(""); err != nil {
				return nil, err
			}
			c.Response.SetHeader("Content-Type", aws.EventStreamType)
			c.Response.Stream(func(_ context.Context, w api.StreamWriter) error {
				frame := aws.AppendEventBytes(nil, "initial-response", "application/x-amz-json-1.1", []byte("{}"))
				for i := range 3 {
					frame = aws.AppendEventBytes(frame, "SubscribeToShardEvent", "application/x-amz-json-1.1",
						fmt.Appendf(nil, `{"Records":[],"ContinuationSequenceNumber":"%d","MillisBehindLatest":0}`, i))
					if _, err := w.Write(frame); err != nil {
						return err
					}
					if err := w.Flush(); err != nil {
						return err
					}
					frame = frame[:0]
				}
				_, err := w.Write(aws.AppendException(nil, aws.ResourceInUse.New("taken over"), true))
				return err
			})
			return nil, nil
		}))
}

func testGate(change func(*GateOptions)) *Gate {
	o := GateOptions{
		Routes: api.Routes{
			{Target: "Kinesis_20131202", Service: "kinesis", Handler: toyKinesis()},
			{Path: "/v1/", Handler: whoami},
			{Path: "/healthz", Public: true, Handler: api.HandlerFunc(func(_ context.Context, _ api.Request, res api.Response) {
				_, _ = res.Write([]byte("ok"))
			})},
		},
		Verifier:  aws.NewVerifier(aws.VerifierOptions{Keyring: keys}),
		Directory: directory{},
	}
	if change != nil {
		change(&o)
	}
	return NewGate(o)
}

func sdk(c *http.Client, url, key, secret string) *kinesis.Client {
	return kinesis.New(kinesis.Options{
		Region: "eu-central-1", BaseEndpoint: &url, HTTPClient: &http.Client{Transport: remote.Steady(c.Transport)}, RetryMaxAttempts: 1,
		Credentials: credentials(key, secret),
	})
}

func credentials(key, secret string) awssdk.CredentialsProviderFunc {
	return func(context.Context) (awssdk.Credentials, error) {
		return awssdk.Credentials{AccessKeyID: key, SecretAccessKey: secret}, nil
	}
}

func TestSDKOverEveryTransport(t *testing.T) {
	eachClient(t, Options{Handler: testGate(nil)}, func(t *testing.T, _ *Server, c *http.Client, url, _ string) {
		client := sdk(c, url, "AKIDTEST", "secret")
		in := &kinesis.PutRecordsInput{StreamName: awssdk.String("s")}
		for i := range 500 {
			in.Records = append(in.Records, types.PutRecordsRequestEntry{Data: fmt.Appendf(nil, "data %d \x00\xff", i), PartitionKey: awssdk.String(fmt.Sprint("k", i))})
		}
		out, err := client.PutRecords(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		if len(out.Records) != 500 || *out.FailedRecordCount != 0 || *out.Records[499].SequenceNumber != "k499=data 499 \x00\uFFFD" {
			t.Errorf("%d records, last %q", len(out.Records), *out.Records[499].SequenceNumber)
		}
		fails := func(kind, text string, err error) {
			t.Helper()
			var e smithy.APIError
			if !errors.As(err, &e) || e.ErrorCode() != kind || !strings.Contains(e.ErrorMessage(), text) {
				t.Errorf("%v, want %s %s", err, kind, text)
			}
		}
		in.Records = append(in.Records, in.Records[0])
		_, err = client.PutRecords(t.Context(), in)
		fails("ValidationException", "at 'records' failed to satisfy constraint: Member must have length less than or equal to 500", err)
		in.Records = in.Records[:1]
		_, err = sdk(c, url, "AKIDREAD", "secret").PutRecords(t.Context(), in)
		fails("AccessDeniedException", "User: reader is not authorized to perform: kinesis:PutRecords", err)
		_, err = sdk(c, url, "AKIDTEST", "wrong").PutRecords(t.Context(), in)
		fails("InvalidSignatureException", "The request signature we calculated does not match", err)
		_, err = sdk(c, url, "AKIDNOBODY", "secret").PutRecords(t.Context(), in)
		fails("UnrecognizedClientException", "The security token included in the request is invalid.", err)
		_, err = client.ListStreams(t.Context(), nil)
		fails("UnknownOperationException", "", err)
		subscribe(t, client)
	})
}

func subscribe(t *testing.T, client *kinesis.Client) {
	t.Helper()
	out, err := client.SubscribeToShard(t.Context(), &kinesis.SubscribeToShardInput{
		ConsumerARN: awssdk.String("arn:aws:kinesis:eu-central-1:000000000000:stream/s/consumer/c:1"), ShardId: awssdk.String("shardId-000000000000"),
		StartingPosition: &types.StartingPosition{Type: types.ShardIteratorTypeLatest},
	})
	if err != nil {
		t.Fatal(err)
	}
	stream := out.GetStream()
	defer func() { _ = stream.Close() }()
	n := 0
	for e := range stream.Events() {
		if got := *e.(*types.SubscribeToShardEventStreamMemberSubscribeToShardEvent).Value.ContinuationSequenceNumber; got != fmt.Sprint(n) {
			t.Errorf("event %d continues at %s", n, got)
		}
		n++
	}
	var taken *types.ResourceInUseException
	if err := stream.Err(); n != 3 || !errors.As(err, &taken) || taken.ErrorMessage() != "taken over" {
		t.Errorf("%d events, then %v", n, err)
	}
}

func TestClockIsLearntFromTheAnswer(t *testing.T) {
	// A client whose clock is off gets InvalidSignatureException with our Date and
	// corrects itself: a box may be that client, or that server.
	g := testGate(func(o *GateOptions) {
		o.Verifier = aws.NewVerifier(aws.VerifierOptions{Keyring: keys, Clock: func() time.Time { return time.Now().Add(time.Hour) }})
	})
	_, addr := start(t, Options{Handler: g})
	_, err := sdk(&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, "http://"+addr, "AKIDTEST", "secret").PutRecords(t.Context(), &kinesis.PutRecordsInput{
		StreamName: awssdk.String("s"), Records: []types.PutRecordsRequestEntry{{Data: []byte("x"), PartitionKey: awssdk.String("k")}},
	})
	var e smithy.APIError
	if !errors.As(err, &e) || e.ErrorCode() != "InvalidSignatureException" || !strings.HasPrefix(e.ErrorMessage(), "Signature expired: ") {
		t.Error(err)
	}
}

func gateRequest(remote, path, authorization string) *apitest.Request {
	h := http.Header{}
	if authorization != "" {
		h.Set("Authorization", authorization)
	}
	return &apitest.Request{Verb: "GET", Target: path, Headers: h, Remote: netip.MustParseAddrPort(remote + ":1")}
}

func TestGate(t *testing.T) {
	g := testGate(nil)
	f := func(g *Gate, r *apitest.Request, status int, want string) {
		t.Helper()
		got := apitest.Do(context.Background(), g, r)
		if got.Status != status || !strings.Contains(string(got.Body), want) {
			t.Errorf("%s %v: %d %s, want %d %s", r.Target, r.Headers, got.Status, got.Body, status, want)
		}
		if (status == 401) != (got.Header.Get("Www-Authenticate") != "") {
			t.Errorf("Www-Authenticate: %q", got.Header)
		}
	}
	const far, near = "192.0.2.1", "127.0.0.1"
	basic := "Basic YWRtaW46Z29vZDpwYXNzd29yZA==" // admin:good:password
	f(g, gateRequest(far, "/healthz", ""), 200, "ok")
	f(g, gateRequest(far, "/v1/x", ""), 401, "MissingAuthenticationToken")
	f(g, gateRequest(near, "/v1/x", ""), 401, "MissingAuthenticationToken")
	f(g, gateRequest(far, "/nothing", ""), 401, "MissingAuthenticationToken")
	f(g, gateRequest(far, "/nothing", basic), 404, "nothing is served at /nothing")
	f(g, gateRequest(far, "/v1/x", "Bearer good-token"), 200, "token by bearer")
	f(g, gateRequest(far, "/v1/x", "bearer  good-token "), 200, "token by bearer")
	f(g, gateRequest(far, "/v1/x", "Bearer bad-token"), 401, "UnrecognizedClient")
	f(g, gateRequest(far, "/v1/x", basic), 200, "admin by basic")
	f(g, gateRequest(far, "/v1/x", "Basic YWRtaW46"), 401, "UnrecognizedClient")
	f(g, gateRequest(far, "/v1/x", "Basic ???"), 401, "UnrecognizedClient")
	f(g, gateRequest(far, "/v1/x", "Digest x"), 401, "MissingAuthenticationToken")

	preflight := gateRequest(far, "/", "")
	preflight.Verb = "OPTIONS"
	f(g, preflight, 401, "")
	preflight.Headers.Set("Origin", "http://page")
	f(g, preflight, 200, "")
	call := gateRequest(far, "/", "")
	call.Verb, call.Payload = "POST", []byte(`{"Records":[]}`)
	call.Headers.Set("Content-Type", "application/x-amz-json-1.1")
	call.Headers.Set("X-Amz-Target", "Kinesis_20131202.PutRecords")
	f(g, call, 400, `{"__type":"MissingAuthenticationTokenException","message":"Missing Authentication Token"}`)
	call.Headers.Set("X-Amz-Target", "Unknown_1.PutRecords")
	f(g, call, 400, `{"__type":"UnknownOperationException"}`)

	for _, peers := range []Peers{LoopbackPeer, AnyPeer, NoPeer} {
		open := testGate(func(o *GateOptions) { o.Anonymous, o.AnonymousPeers = guest, peers })
		wantNear, wantFar := 200, 401
		switch peers {
		case AnyPeer:
			wantFar = 200
		case NoPeer:
			wantNear = 401
		}
		f(open, gateRequest(near, "/v1/x", ""), wantNear, "")
		f(open, gateRequest(far, "/v1/x", ""), wantFar, "")
		f(open, gateRequest(near, "/v1/x", "Bearer bad-token"), 401, "")
		signed := "AWS4-HMAC-SHA256 Credential=%s/20200101/us-east-1/kinesis/aws4_request, SignedHeaders=host, Signature=00"
		f(open, gateRequest(near, "/v1/x", fmt.Sprintf(signed, "example")), wantNear, "")
		f(open, gateRequest(near, "/v1/x", fmt.Sprintf(signed, "AKIDTEST")), 401, "")
	}
}

func TestClientCertificateIsAnIdentity(t *testing.T) {
	_, addr := start(t, Options{Handler: testGate(nil), ClientCAs: testAuthority().pool})
	get := func(cert *tls.Certificate, auth string) string {
		cfg := clientTLS()
		if cert != nil {
			cfg.Certificates = []tls.Certificate{*cert}
		}
		c := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg, DisableKeepAlives: true}}
		req, _ := http.NewRequestWithContext(t.Context(), "GET", "https://"+addr+"/v1/x", nil)
		if auth != "" {
			req.Header.Set("Authorization", auth)
		}
		res, err := c.Do(req)
		if err != nil {
			return "error"
		}
		defer func() { _ = res.Body.Close() }()
		b, _ := io.ReadAll(res.Body)
		return fmt.Sprint(res.StatusCode, " ", string(b))
	}
	f := func(cert *tls.Certificate, auth, want string) {
		t.Helper()
		if got := get(cert, auth); !strings.HasPrefix(got, want) {
			t.Errorf("%s, want %s", got, want)
		}
	}
	f(testAuthority().issue("device-1"), "", "200 device-1 by certificate")
	f(testAuthority().issue("device-1"), "Bearer good-token", "200 token by bearer")
	for range 30 { // a certificate holds nothing to guess, and takes nobody's attempts
		f(testAuthority().issue("device-2"), "", "401 ")
	}
	f(nil, "Bearer good-token", "200 token by bearer")
	for range 30 {
		f(nil, "Bearer bad-token", "4")
	}
	f(nil, "Bearer bad-token", "429 ")
	f(testAuthority().issue("device-1"), "", "200 device-1 by certificate")
	f(nil, "Bearer good-token", "200 token by bearer") // has succeeded from there before
	f(nil, "", "401 ")
	f(newAuthority().issue("device-1"), "", "error")
}

func TestFailedAttemptsAreLimitedPerAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := testGate(func(o *GateOptions) { o.FailureBurst, o.FailureRefill = 3, time.Second })
		f := func(remote, auth string, want int) {
			t.Helper()
			if got := apitest.Do(context.Background(), g, gateRequest(remote, "/v1/x", auth)); got.Status != want {
				t.Errorf("%s %s: %d %s, want %d", remote, auth, got.Status, got.Body, want)
			}
		}
		const a, b, basic = "192.0.2.1", "192.0.2.2", "Basic YWRtaW46Z29vZDpwYXNzd29yZA=="
		f(a, basic, 200)
		for range 3 {
			f(a, "Bearer bad", 401)
		}
		f(a, "Bearer bad", 429)
		f(a, "Bearer good-token", 429) // a guess might be right
		f(a, basic, 200)               // has succeeded from there before
		f(a, "Basic YWRtaW46YmFk", 429)
		f(a, "", 401)
		f(b, "Bearer good-token", 200)
		f(b, "Bearer bad", 401)
		<-time.After(time.Second)
		f(a, "Bearer bad", 401)
		f(a, "Bearer bad", 429)
		<-time.After(time.Hour)
		for range 3 {
			f(a, "Bearer bad", 401)
		}
		f(a, "Bearer bad", 429)
		for i := range maxAddresses + 10 {
			g.attempts.failed(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), "")
		}
		if n := len(g.attempts.byAddr); n > maxAddresses {
			t.Errorf("%d addresses are remembered", n)
		}
		for i := range maxProven + 10 {
			g.attempts.succeeded(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), &proof{means: api.MeansBearer})
		}
		if n := len(g.attempts.proven); n > maxProven {
			t.Errorf("%d proofs are remembered", n)
		}
	})
}

// TestOneBrokenDeviceDoesNotShutOutTheOthers has all of them behind one address, as NAT
// shows them.
func TestOneBrokenDeviceDoesNotShutOutTheOthers(t *testing.T) {
	gate := testGate(func(o *GateOptions) { o.FailureBurst, o.FailureRefill = 3, time.Hour })
	_, addr := start(t, Options{Handler: gate})
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	f := func(key, secret, want string) {
		t.Helper()
		_, err := sdk(&http.Client{Transport: transport}, "http://"+addr, key, secret).PutRecords(t.Context(), &kinesis.PutRecordsInput{
			StreamName: awssdk.String("s"), Records: []types.PutRecordsRequestEntry{{Data: []byte("x"), PartitionKey: awssdk.String("k")}},
		})
		if got := fmt.Sprint(err); !strings.Contains(got, want) {
			t.Errorf("%s with %s: %s, want %s", key, secret, got, want)
		}
	}
	for range 3 {
		f("AKIDNOBODY", "secret", "UnrecognizedClientException")
	}
	f("AKIDNOBODY", "secret", "ThrottlingException")
	for range 3 {
		f("AKIDREAD", "wrong", "InvalidSignatureException")
	}
	f("AKIDREAD", "wrong", "ThrottlingException")
	f("AKIDREAD", "secret", "ThrottlingException") // a guess might be right
	f("AKIDTEST", "secret", "<nil>")
	for range 3 {
		f("AKIDTEST", "wrong", "InvalidSignatureException")
	}
	f("AKIDTEST", "wrong", "ThrottlingException")
	f("AKIDTEST", "secret", "<nil>") // has succeeded from there before
	if s := gate.Stats(); s != (GateStats{Failed: 10, Limited: 3}) {
		t.Errorf("counted %+v", s)
	}
	f("AKIDOTHER", "secret", "ThrottlingException")
}

func TestLargeBodyOfAStrangerIsNotRead(t *testing.T) {
	_, addr := start(t, Options{Handler: testGate(nil)})
	for _, length := range []string{"Content-Length: 10000000", "Transfer-Encoding: chunked"} {
		c := dial(t, addr)
		c.send("POST / HTTP/1.1\r\nHost: h\r\nX-Amz-Target: Kinesis_20131202.PutRecords\r\nContent-Type: application/x-amz-json-1.1\r\n" + length + "\r\n\r\n")
		c.send("2000\r\n" + strings.Repeat("x", 8192) + "\r\n") // and no more
		if res, got := c.answer(); res.StatusCode != 400 || !strings.Contains(got, "Exception") {
			t.Errorf("%s: %d %s", length, res.StatusCode, got)
		}
		_ = c.Close()
	}
}
