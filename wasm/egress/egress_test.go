package egress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/weirhq/weir/wasm/abi"
)

// server answers on loopback; its address is listed as reachable unless private is false.
func server(t *testing.T, private bool, h http.HandlerFunc) (url string, o Options) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	addr := netip.MustParseAddrPort(s.Listener.Addr().String())
	o = Options{Hosts: []string{addr.String()}, Timeout: 5 * time.Second}
	if private {
		o.Policy.Private = []netip.AddrPort{addr}
	}
	return s.URL, o
}

func do(t *testing.T, o Options, text string) (*Response, error) {
	t.Helper()
	r, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	c := New(o)
	defer c.Close()
	return c.Do(context.Background(), r, "")
}

func TestRequestReachesAListedHostWithItsSecret(t *testing.T) {
	url, o := server(t, true, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %s %s", r.Method, r.URL.Path, r.Header.Get("X-Token"), body, r.Header.Get("Accept-Encoding"))
	})
	o.Secrets, o.Secret = []string{"token"}, func(n string) (string, bool) { return "s3cret-" + n, true }
	res, err := do(t, o, "POST "+url+"/a\nX-Token: Bearer ${secret:token}\n\nhello\n\nworld")
	if err != nil || string(res.Body) != "POST /a Bearer s3cret-token hello\n\nworld " {
		t.Fatalf("%+v, %v", res, err)
	}
}

func TestWhatIsNotListedIsDenied(t *testing.T) {
	url, o := server(t, true, func(http.ResponseWriter, *http.Request) { t.Error("the request arrived") })
	for name, change := range map[string]func(*Options) string{
		"host not in the manifest": func(o *Options) string { o.Hosts = nil; return url },
		"host not in the policy":   func(o *Options) string { o.Policy.Hosts = []string{"example.com:443"}; return url },
		"loopback not listed":      func(o *Options) string { o.Policy.Private = nil; return url },
		"another port is listed": func(o *Options) string {
			o.Policy.Private = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")}
			return url
		},
		"a name that is loopback": func(o *Options) string {
			u := strings.Replace(url, "127.0.0.1", "localhost", 1)
			o.Hosts = []string{u[7:]}
			o.Policy.Private = nil
			return u
		},
		"a secret that isn't granted": func(*Options) string { return url + "\nA: ${secret:token}" },
	} {
		t.Run(name, func(t *testing.T) {
			o := o
			o.Policy.Private = append([]netip.AddrPort(nil), o.Policy.Private...)
			target := change(&o)
			if _, err := do(t, o, "GET "+target); !errors.Is(err, ErrDenied) {
				t.Fatalf("err = %v", err)
			}
		})
	}
}

func TestAddresses(t *testing.T) {
	for addr, want := range map[string]bool{
		"8.8.8.8": true, "2606:4700::1111": true, "127.0.0.1": false, "10.1.2.3": false, "172.16.0.1": false, "192.168.1.1": false,
		"169.254.169.254": false, "100.64.1.1": false, "0.0.0.0": false, "::1": false, "::": false, "fe80::1%eth0": false, "fd00::1": false,
		"::ffff:10.0.0.1": false, "::ffff:8.8.8.8": true, "64:ff9b::a00:1": false, "64:ff9b::808:808": true, "2002:a00:1::": false,
		"224.0.0.1": false, "255.255.255.255": false, "2001::1": false, "198.18.0.1": false,
	} {
		if got := public(netip.MustParseAddr(addr)); got != want {
			t.Errorf("public(%s) = %v", addr, got)
		}
	}
}

func TestRedirectsAreAnsweredNotFollowed(t *testing.T) {
	url, o := server(t, true, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			t.Error("the redirect was followed")
		}
		http.Redirect(w, r, "/other", http.StatusFound)
	})
	res, err := do(t, o, "GET "+url+"/")
	if err != nil || res.Status != 302 || res.Headers.Get("Location") != "/other" {
		t.Fatalf("%+v, %v", res, err)
	}
}

func TestProxyOfTheEnvironmentIsNotUsed(t *testing.T) {
	url, o := server(t, true, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) })
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	if res, err := do(t, o, "GET "+url); err != nil || res.Status != 204 {
		t.Fatalf("%+v, %v", res, err)
	}
}

func TestResponseAboveTheLimitIsRefused(t *testing.T) {
	url, o := server(t, true, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, MaxResponseBytes+1)) })
	if _, err := do(t, o, "GET "+url); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("err = %v", err)
	}
}

func TestCallAnswersCodes(t *testing.T) {
	stop := make(chan struct{})
	url, o := server(t, true, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			select {
			case <-stop:
			case <-r.Context().Done():
			}
			return
		}
		w.Header().Set("X-A", "b")
		w.Header()["Date"] = nil
		fmt.Fprint(w, "body")
	})
	defer close(stop)
	o.Timeout = 100 * time.Millisecond
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := netip.MustParseAddrPort(closed.Addr().String())
	closed.Close()
	o.Hosts, o.Policy.Private = append(o.Hosts, gone.String()), append(o.Policy.Private, gone)
	c := New(o)
	for text, want := range map[string]int32{
		"GET " + url:                    200,
		"BREW " + url:                   int32(abi.Invalid),
		"GET http://example.com/":       int32(abi.Denied),
		"GET " + url + "/slow":          int32(abi.Timeout),
		"GET http://" + gone.String():   int32(abi.Unavailable),
		"GET " + url + "\nHost: other":  int32(abi.Invalid),
		"GET " + url + "\nbad header\n": int32(abi.Invalid),
	} {
		body, code := c.Call(context.Background(), []byte(text))
		if code != want {
			t.Errorf("%q: code %d, want %d", text, code, want)
		}
		if code == 200 && string(body) != "200\ncontent-length: 4\ncontent-type: text/plain; charset=utf-8\nx-a: b\n\nbody" {
			t.Errorf("response %q", body)
		}
	}
	if s := c.Stats(); s.Requests != 1 || s.Denied != 1 || s.Failed != 2 {
		t.Errorf("stats %+v", s)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("GET http://a/"))
	f.Add([]byte("POST https://a:1/b?c=d\nX: ${secret:y}\n\nbody"))
	f.Add([]byte("GET http://u:p@h/\nHost: x\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := Parse(text)
		if err != nil {
			return
		}
		if r.URL.User != nil || r.URL.Hostname() == "" {
			t.Fatalf("accepted %+v", r.URL)
		}
		for _, h := range r.Headers {
			if ownedByHost[strings.ToLower(h[0])] || strings.ContainsAny(h[1], "\r\n") {
				t.Fatalf("accepted header %q", h)
			}
			_, _ = expand(h[1], func(string) (string, error) { return "x", nil })
		}
	})
}
