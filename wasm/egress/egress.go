// Package egress performs HTTP requests for modules, and refuses those that
// their manifest or the operator doesn't allow.
//
// It owns the whole way out: which host:port may be named, which addresses a
// name may resolve to (checked on the address that is dialed, so a name that
// changes its answer between check and use gains nothing), secrets, sizes and
// time. It uses no proxy and follows no redirect. Private, loopback, link-local
// and other special addresses are refused unless the operator lists that very
// address and port. It logs where requests went, never what was in them.
package egress

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/weirhq/weir/wasm/abi"
)

// MaxResponseBytes is the largest response body handed to a module.
const MaxResponseBytes = 1 << 20

var (
	// ErrDenied means that the manifest or the operator doesn't allow the
	// request. Nothing was sent.
	ErrDenied = errors.New("denied")
	// ErrTooLarge means that the response's body is above MaxResponseBytes.
	ErrTooLarge = errors.New("response too large")
)

// Policy is the operator's: it holds for every module.
type Policy struct {
	// Hosts are the host:port that modules may name in their manifests at all. Nil = any.
	Hosts []string
	// Private are addresses that are reachable though they aren't public.
	Private []netip.AddrPort
}

// Options of a Client.
type Options struct {
	Hosts   []string // host:port of the manifest
	Secrets []string // names the manifest grants
	// Secret returns a secret's value. Nil = there are none.
	Secret  func(name string) (string, bool)
	Policy  Policy
	Timeout time.Duration // of one request; zero = 1 s
	Logger  *slog.Logger  // nil = nothing is logged
	// Refused is told why a request was denied or not answered. Default: nobody.
	Refused func(error)
}

// Stats counts what a client did.
type Stats struct {
	Requests uint64 `json:"requests"` // answered with a status
	Denied   uint64 `json:"denied"`
	Failed   uint64 `json:"failed"` // refused connections, timeouts, too large responses
}

// Client performs the requests of one module version. Safe for concurrent use.
type Client struct {
	o                        Options
	http                     *http.Client
	transport                *http.Transport
	requests, denied, failed atomic.Uint64
}

// New returns a client. Close it to drop its idle connections.
func New(o Options) *Client {
	if o.Timeout <= 0 {
		o.Timeout = time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Client{o: o}
	dialer := &net.Dialer{Timeout: o.Timeout, Control: c.checkAddress}
	c.transport = &http.Transport{
		Proxy: nil, DialContext: dialer.DialContext, ForceAttemptHTTP2: true, DisableCompression: true,
		MaxIdleConns: 4, MaxConnsPerHost: 8, IdleConnTimeout: 30 * time.Second, TLSHandshakeTimeout: o.Timeout,
		ResponseHeaderTimeout: o.Timeout, MaxResponseHeaderBytes: 64 << 10,
	}
	c.http = &http.Client{Transport: c.transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return c
}

// Close drops idle connections.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Stats returns the counters.
func (c *Client) Stats() Stats {
	return Stats{Requests: c.requests.Load(), Denied: c.denied.Load(), Failed: c.failed.Load()}
}

// Restore sets the counters, for a client that goes on counting.
func (c *Client) Restore(s Stats) {
	c.requests.Store(s.Requests)
	c.denied.Store(s.Denied)
	c.failed.Store(s.Failed)
}

// Allowed reports, as ErrDenied, a request that this module may not make.
// Addresses are checked when they are dialed.
func (c *Client) Allowed(r *Request) error {
	target := r.Target()
	if !contains(c.o.Hosts, target) {
		return fmt.Errorf("%w: %s is not among the manifest's hosts %s", ErrDenied, target, strings.Join(c.o.Hosts, ", "))
	}
	if c.o.Policy.Hosts != nil && !contains(c.o.Policy.Hosts, target) {
		return fmt.Errorf("%w: %s is not among the hosts the operator allows", ErrDenied, target)
	}
	for _, h := range r.Headers {
		if _, err := expand(h[1], c.secret); err != nil {
			return err
		}
	}
	return nil
}

func contains(hosts []string, target string) bool {
	return slices.ContainsFunc(hosts, func(h string) bool { return strings.EqualFold(h, target) })
}

func (c *Client) secret(name string) (string, error) {
	if !slices.Contains(c.o.Secrets, name) {
		return "", fmt.Errorf("%w: secret %q is not granted by the manifest", ErrDenied, name)
	}
	if c.o.Secret != nil {
		if v, ok := c.o.Secret(name); ok {
			return v, nil
		}
	}
	return "", fmt.Errorf("%w: secret %q has no value on this box", ErrDenied, name)
}

// special are the ranges that netip's own predicates don't cover.
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("192.88.99.0/24"), netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("100::/64"), netip.MustParsePrefix("2001::/23"),
	netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("fec0::/10"),
}

var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// public reports whether an address is an ordinary one on the internet.
func public(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if nat64.Contains(a) {
		b := a.As16()
		a = netip.AddrFrom4([4]byte(b[12:]))
	}
	if !a.IsGlobalUnicast() || a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() {
		return false
	}
	return !slices.ContainsFunc(special, func(p netip.Prefix) bool { return p.Contains(a) })
}

// checkAddress sees every address that is about to be dialed.
func (c *Client) checkAddress(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: address %q: %w", ErrDenied, address, err)
	}
	if public(ap.Addr()) || slices.Contains(c.o.Policy.Private, netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())) {
		return nil
	}
	return fmt.Errorf("%w: %s is not a public address and the operator doesn't list it", ErrDenied, address)
}

// Response is an answer, its body read and bounded.
type Response struct {
	Status  int
	Headers http.Header
	Body    []byte
}

// Do performs a request. idempotencyKey, when not empty, is sent as the header
// of that name. ErrDenied, ErrTooLarge, a context error, or the connection's.
func (c *Client) Do(ctx context.Context, r *Request, idempotencyKey string) (*Response, error) {
	start := time.Now()
	res, err := c.do(ctx, r, idempotencyKey)
	status := 0
	switch {
	case err == nil:
		c.requests.Add(1)
		status = res.Status
	case errors.Is(err, ErrDenied), errors.Is(err, ErrRequest):
		c.denied.Add(1)
	default:
		c.failed.Add(1)
	}
	c.o.Logger.Info("module request", "method", r.Method, "target", r.Target(), "status", status, "seconds", time.Since(start).Seconds(), "error", err)
	if err != nil && c.o.Refused != nil {
		c.o.Refused(err)
	}
	return res, err
}

func (c *Client) do(ctx context.Context, r *Request, idempotencyKey string) (*Response, error) {
	if err := c.Allowed(r); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, r.Method, r.URL.String(), bytes.NewReader(r.Body))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	for _, h := range r.Headers {
		v, err := expand(h[1], c.secret)
		if err != nil {
			return nil, err
		}
		req.Header.Add(h[0], v)
	}
	if idempotencyKey != "" {
		req.Header.Set("Idempotency-Key", idempotencyKey)
	}
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", "weir")
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", r.Method, r.Target(), redact(err))
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, MaxResponseBytes+1))
	if err != nil {
		return nil, fmt.Errorf("%s %s: read response: %w", r.Method, r.Target(), err)
	}
	if len(body) > MaxResponseBytes {
		return nil, fmt.Errorf("%s %s: %w: above %d bytes", r.Method, r.Target(), ErrTooLarge, MaxResponseBytes)
	}
	return &Response{Status: res.StatusCode, Headers: res.Header, Body: body}, nil
}

// redact drops the URL that net/http puts into its errors: query strings hold tokens.
func redact(err error) error {
	var u interface{ Unwrap() error }
	if errors.As(err, &u) && u.Unwrap() != nil {
		return u.Unwrap()
	}
	return err
}

// Call implements guest.Caller.
func (c *Client) Call(ctx context.Context, text []byte) ([]byte, int32) {
	r, err := Parse(text)
	if err != nil {
		return nil, int32(abi.Invalid)
	}
	if d, ok := ctx.Deadline(); ok {
		// A host call's context says its deadline but doesn't end by itself.
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, d)
		defer cancel()
	}
	res, err := c.Do(ctx, r, "")
	switch {
	case err == nil:
		return res.Text(), int32(res.Status)
	case errors.Is(err, ErrDenied):
		return nil, int32(abi.Denied)
	case errors.Is(err, ErrTooLarge):
		return nil, int32(abi.Quota)
	case errors.Is(err, ErrRequest):
		return nil, int32(abi.Invalid)
	case isTimeout(err):
		return nil, int32(abi.Timeout)
	}
	return nil, int32(abi.Unavailable)
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &n) && n.Timeout()
}

// Text returns the response in weir/1's text form.
func (r *Response) Text() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%d\n", r.Status)
	names := make([]string, 0, len(r.Headers))
	for n := range r.Headers {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		for _, v := range r.Headers[n] {
			fmt.Fprintf(&b, "%s: %s\n", strings.ToLower(n), v)
		}
	}
	b.WriteByte('\n')
	b.Write(r.Body)
	return b.Bytes()
}
