package s3_test

import (
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/appliance/sink/s3"
	"github.com/weirhq/weir/appliance/sink/sinktest"
)

// issuer gives out credentials of the gateway with a token of its own each
// time, as STS and the instance metadata service do.
type issuer struct {
	sync.Mutex
	t      *testing.T
	g      *sinktest.Gateway
	issued int
	life   time.Duration
	caller string // whose key assumes the role

	skewed int // requests refused for their time
}

func (i *issuer) token() string { return fmt.Sprintf("token-%d", i.issued) }

func (i *issuer) next() (token string, expires string) {
	i.issued++
	return i.token(), time.Now().Add(i.life).UTC().Format(time.RFC3339)
}

// ServeHTTP speaks both protocols: GET and PUT are those of IMDSv2, POST is STS.
func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.Lock()
	defer i.Unlock()
	switch {
	case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token":
		_, _ = io.WriteString(w, "session")
	case r.Method == http.MethodGet && r.Header.Get("X-Aws-Ec2-Metadata-Token") != "session":
		w.WriteHeader(http.StatusUnauthorized)
	case r.URL.Path == "/latest/meta-data/iam/security-credentials/":
		_, _ = io.WriteString(w, "box")
	case r.URL.Path == "/latest/meta-data/iam/security-credentials/box":
		token, expires := i.next()
		fmt.Fprintf(w, `{"Code":"Success","AccessKeyId":%q,"SecretAccessKey":%q,"Token":%q,"Expiration":%q}`, i.g.Access, i.g.Secret, token, expires)
	case r.Method == http.MethodPost:
		i.assume(w, r)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (i *issuer) assume(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	form, err := url.ParseQuery(string(body))
	signed, _ := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	auth := r.Header.Get("Authorization")
	if err != nil || form.Get("Action") != "AssumeRole" || form.Get("RoleArn") != "arn:aws:iam::1:role/box" || form.Get("ExternalId") != "outside" ||
		!strings.Contains(auth, "Credential="+i.caller+"/"+signed.Format("20060102")+"/us-east-1/sts/aws4_request") {
		i.t.Errorf("request %s with %s", body, auth)
	}
	if token := r.Header.Get("X-Amz-Security-Token"); (token != "") != (i.caller == i.g.Access) {
		i.t.Errorf("the role is asked for with token %q", token)
	}
	if time.Since(signed).Abs() > 15*time.Minute {
		i.skewed++
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Code>SignatureDoesNotMatch</Code><Message>Signature expired</Message></Error></ErrorResponse>`)
		return
	}
	token, expires := i.next()
	type credentials struct{ AccessKeyId, SecretAccessKey, SessionToken, Expiration string }
	_ = xml.NewEncoder(w).Encode(struct {
		XMLName xml.Name                          `xml:"https://sts.amazonaws.com/doc/2011-06-15/ AssumeRoleResponse"`
		Result  struct{ Credentials credentials } `xml:"AssumeRoleResult"`
	}{Result: struct{ Credentials credentials }{credentials{i.g.Access, i.g.Secret, token, expires}}})
}

// newIssuer returns an issuer and a way to its gateway that lets in only who
// has the newest token. The gateway itself knows no tokens.
func newIssuer(t *testing.T, life time.Duration) (*issuer, *httptest.Server, *sinktest.Proxy) {
	t.Helper()
	g := sinktest.NewGateway(t, "bucket")
	i := &issuer{t: t, g: g, life: life, caller: "caller"}
	server := httptest.NewServer(i)
	t.Cleanup(server.Close)
	p := sinktest.NewProxy(t, g.URL)
	p.Every(func(r *http.Request) *sinktest.Fault {
		i.Lock()
		defer i.Unlock()
		if got := r.Header.Get("X-Amz-Security-Token"); got != i.token() {
			return &sinktest.Fault{Status: 400, Code: "ExpiredToken"}
		}
		return nil
	})
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	p.Rewrite(func(r *http.Request) {
		r.Header.Del("X-Amz-Security-Token")
		r.Header.Del("Authorization")
		err := signer.SignHTTP(r.Context(), aws.Credentials{AccessKeyID: g.Access, SecretAccessKey: g.Secret}, r, r.Header.Get("X-Amz-Content-Sha256"), "s3", "us-east-1", time.Now().UTC())
		if err != nil {
			t.Error(err)
		}
	})
	return i, server, p
}

// TestCredentialsThatExpireMidWay: whoever issues them, credentials that a store
// no longer takes are asked for again, and the object is there once.
func TestCredentialsThatExpireMidWay(t *testing.T) {
	for _, source := range []string{"instance", "role", "role of an instance"} {
		t.Run(source, func(t *testing.T) {
			i, server, p := newIssuer(t, time.Hour)
			s := s3.Settings{Endpoint: p.URL, Region: "us-east-1", Bucket: "bucket", Timeout: delivery.Duration(10 * time.Second)}
			want := 1
			if source != "role" {
				s.Source, s.MetadataEndpoint = "instance", server.URL
			}
			if source != "instance" {
				s.RoleARN, s.ExternalID, s.STSEndpoint = "arn:aws:iam::1:role/box", "outside", server.URL
			}
			switch source {
			case "role":
				s.AccessKeyID, s.SecretAccessKey = "caller", "secret"
			case "role of an instance":
				i.caller, want = i.g.Access, 2 // the instance's, and the role's with them
			}
			sink, err := s3.Open(s, nil)
			if err != nil {
				t.Fatal(err)
			}
			put := func(key string, size int) error {
				_, err := sink.PutObject(t.Context(), sinktest.Object(key, "r", sinktest.Content(size)))
				return err
			}
			if err := put("first", 1000); err != nil {
				t.Fatal(err)
			}
			if i.issued != want {
				t.Errorf("%d credentials were issued for one put, want %d", i.issued, want)
			}
			i.Lock()
			i.issued++ // the token is withdrawn
			i.Unlock()
			err = put("large", 12<<20) // in parts
			if e, ok := err.(*delivery.SinkError); !ok || e.Code != "S3.ExpiredToken" || !e.Refused {
				t.Fatalf("with an expired token: %v", err)
			}
			if err := put("large", 12<<20); err != nil {
				t.Fatalf("after it: %v", err)
			}
			if raw, found := i.g.Read("bucket", "large"); !found || len(raw) != 12<<20 {
				t.Errorf("the object has %d bytes", len(raw))
			}
		})
	}
}

// TestShortCredentialsAreRenewedInTime: nothing fails when credentials end
// between two objects as announced.
func TestShortCredentialsAreRenewedInTime(t *testing.T) {
	i, server, p := newIssuer(t, -time.Second) // each is over when it comes
	sink, err := s3.Open(s3.Settings{Endpoint: p.URL, Bucket: "bucket", Source: "instance", MetadataEndpoint: server.URL}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		if _, err := sink.PutObject(t.Context(), sinktest.Object(fmt.Sprint(n), "r", []byte("x"))); err != nil {
			t.Fatal(err)
		}
	}
	if i.issued < 3 {
		t.Errorf("%d credentials for three objects, all of which had ended", i.issued)
	}
}

// TestIssuerThatFailsIsNamed: it is not the store that has to be looked at, and nothing was stored.
func TestIssuerThatFailsIsNamed(t *testing.T) {
	g := sinktest.NewGateway(t, "bucket")
	server := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	for _, s := range []s3.Settings{
		{Source: "instance", MetadataEndpoint: server.URL},
		{AccessKeyID: "caller", SecretAccessKey: "secret", RoleARN: "arn:aws:iam::1:role/box", STSEndpoint: server.URL},
	} {
		s.Endpoint, s.Bucket = g.URL, "bucket"
		sink, err := s3.Open(s, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = sink.PutObject(t.Context(), sinktest.Object("k", "r", []byte("x")))
		e, ok := err.(*delivery.SinkError)
		if !ok || e.Code != "S3.Credentials" || !e.Refused || !strings.HasPrefix(e.Err.Error(), "no credentials from the ") || !strings.Contains(e.Err.Error(), server.URL) {
			t.Errorf("%s%s: %v", s.Source, s.RoleARN, err)
		}
	}
}

// TestRoleWithWrongClock: a box whose clock is years off can assume its role.
func TestRoleWithWrongClock(t *testing.T) {
	i, server, p := newIssuer(t, time.Hour)
	sink, err := s3.Open(s3.Settings{
		Endpoint: p.URL, Region: "us-east-1", Bucket: "bucket", AccessKeyID: "caller", SecretAccessKey: "secret",
		RoleARN: "arn:aws:iam::1:role/box", ExternalID: "outside", STSEndpoint: server.URL,
	}, func() time.Time { return time.Now().Add(-10 * 365 * 24 * time.Hour) })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sink.PutObject(t.Context(), sinktest.Object("k", "r", []byte("x"))); err != nil {
		t.Fatal(err)
	}
	if i.skewed != 1 {
		t.Errorf("%d requests were refused for their time, want the first", i.skewed)
	}
}

// TestOwnAuthority stores over TLS in a store whose certificate only its own
// authority has signed.
func TestOwnAuthority(t *testing.T) {
	g := sinktest.NewTLSGateway(t, "bucket")
	for ca, fails := range map[string]bool{g.CA: false, "": true} {
		s := settings(g, g.URL)
		s.CAFile = ca
		sink, err := s3.Open(s, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = sink.PutObject(t.Context(), sinktest.Object("k", "r", sinktest.Content(8<<20)))
		e, _ := err.(*delivery.SinkError)
		if fails && (e == nil || !e.Refused || e.Code != "S3.SSLHandshake") || !fails && err != nil {
			t.Errorf("authority %q: %v", ca, err)
		}
	}
	if raw, found := g.Read("bucket", "k"); !found || len(raw) != 8<<20 {
		t.Errorf("%d bytes are stored", len(raw))
	}
}

// TestObjectOptions: what a store is asked for besides storing, in one PUT and
// in parts.
func TestObjectOptions(t *testing.T) {
	g := sinktest.NewGateway(t, "bucket")
	p := sinktest.NewProxy(t, g.URL)
	var mu sync.Mutex
	var seen []http.Header
	p.Every(func(r *http.Request) *sinktest.Fault {
		mu.Lock()
		defer mu.Unlock()
		if r.Method == http.MethodPut && !r.URL.Query().Has("partNumber") || r.Method == http.MethodPost && r.URL.Query().Has("uploads") {
			seen = append(seen, r.Header.Clone())
		}
		return nil
	})
	for name, c := range map[string]struct {
		change func(*s3.Settings)
		want   map[string]string
	}{
		"sse":     {func(s *s3.Settings) { s.SSE = "AES256" }, map[string]string{"X-Amz-Server-Side-Encryption": "AES256"}},
		"kms":     {func(s *s3.Settings) { s.SSE, s.KMSKeyID = "aws:kms", "key-1" }, map[string]string{"X-Amz-Server-Side-Encryption": "aws:kms", "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id": "key-1"}},
		"class":   {func(s *s3.Settings) { s.StorageClass = "STANDARD" }, map[string]string{"X-Amz-Storage-Class": "STANDARD"}},
		"tags":    {func(s *s3.Settings) { s.Tags = map[string]string{"site": "north"} }, map[string]string{"X-Amz-Tagging": "site=north"}},
		"nothing": {func(*s3.Settings) {}, map[string]string{"X-Amz-Server-Side-Encryption": "", "X-Amz-Storage-Class": "", "X-Amz-Tagging": ""}},
	} {
		s := settings(g, p.URL)
		c.change(&s)
		sink, err := s3.Open(s, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{1000, 7 << 20} {
			mu.Lock()
			seen = nil
			mu.Unlock()
			if _, err := sink.PutObject(t.Context(), sinktest.Object(fmt.Sprint(name, size), "r", sinktest.Content(size))); err != nil {
				t.Errorf("%s, %d bytes: %v", name, size, err)
				continue
			}
			for k, want := range c.want {
				if len(seen) == 0 || seen[0].Get(k) != want {
					t.Errorf("%s, %d bytes: %s is %q, want %q", name, size, k, seen[0].Get(k), want)
				}
			}
		}
	}
}
