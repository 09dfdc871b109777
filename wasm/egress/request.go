package egress

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// Sizes of a request's parts.
const (
	MaxRequestBytes = 1 << 20
	maxURL          = 4 << 10
	maxHeaders      = 64
	maxHeaderBytes  = 16 << 10
)

// Request is an HTTP request as a module writes it; see ABI.md. Body points
// into the text it was parsed from.
type Request struct {
	Method  string
	URL     *url.URL
	Headers [][2]string
	Body    []byte
}

// ErrRequest means that a request's text is not of ABI.md's form.
var ErrRequest = errors.New("request")

var methods = map[string]bool{"GET": true, "HEAD": true, "POST": true, "PUT": true, "PATCH": true, "DELETE": true}

// ownedByHost are headers that a module can't set: they decide where the
// request goes, how it is framed, or who it comes from.
var ownedByHost = map[string]bool{
	"host": true, "content-length": true, "transfer-encoding": true, "connection": true, "accept-encoding": true, "te": true,
	"trailer": true, "upgrade": true, "proxy-authorization": true, "proxy-connection": true, "keep-alive": true, "expect": true,
	"idempotency-key": true,
}

// Parse reads a request in weir/1's text form.
func Parse(text []byte) (*Request, error) {
	if len(text) > MaxRequestBytes {
		return nil, fmt.Errorf("%w: %d bytes; expecting at most %d", ErrRequest, len(text), MaxRequestBytes)
	}
	head, body, _ := bytes.Cut(text, []byte("\n\n"))
	if len(head) > maxURL+maxHeaderBytes {
		return nil, fmt.Errorf("%w: %d bytes before the body; expecting at most %d", ErrRequest, len(head), maxURL+maxHeaderBytes)
	}
	lines := strings.Split(strings.TrimSuffix(string(head), "\n"), "\n")
	method, target, _ := strings.Cut(lines[0], " ")
	if !methods[method] {
		return nil, fmt.Errorf("%w: method %.20q; expecting GET, HEAD, POST, PUT, PATCH or DELETE", ErrRequest, method)
	}
	u, err := url.Parse(target)
	if err != nil || len(target) > maxURL || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.User != nil || u.Opaque != "" {
		return nil, fmt.Errorf("%w: URL %.100q; expecting http:// or https:// with a host and no user", ErrRequest, target)
	}
	if len(lines)-1 > maxHeaders {
		return nil, fmt.Errorf("%w: %d headers; expecting at most %d", ErrRequest, len(lines)-1, maxHeaders)
	}
	r := &Request{Method: method, URL: u, Body: body}
	for _, line := range lines[1:] {
		name, value, ok := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		if !ok || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return nil, fmt.Errorf("%w: header line %.60q; expecting Name: value", ErrRequest, line)
		}
		if ownedByHost[strings.ToLower(name)] {
			return nil, fmt.Errorf("%w: header %s is set by the host", ErrRequest, name)
		}
		r.Headers = append(r.Headers, [2]string{name, value})
	}
	return r, nil
}

// Target is the host:port the request goes to.
func (r *Request) Target() string {
	port := r.URL.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[r.URL.Scheme]
	}
	return net.JoinHostPort(strings.ToLower(r.URL.Hostname()), port)
}

// expand puts secrets in the place of ${secret:name}.
func expand(value string, secret func(string) (string, error)) (string, error) {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(value, "${secret:")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed {
			return "", fmt.Errorf("%w: ${secret: without }", ErrRequest)
		}
		s, err := secret(name)
		if err != nil {
			return "", err
		}
		b.WriteString(s)
		value = after
	}
}
