package remote

import (
	"bytes"
	"io"
	"net/http"
)

// Steady returns a transport that reads a request's body before it sends it.
//
// The AWS SDK closes a request's body as soon as the answer's header is there.
// When the answer is fast, net/http may still be looking for the end of the body
// then; it takes the close for a failure and closes the connection under the
// answer. Here it finds nothing left to wait for.
func Steady(t http.RoundTripper) http.RoundTripper { return steady{t} }

type steady struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (s steady) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body == nil || req.Body == http.NoBody {
		return s.RoundTripper.RoundTrip(req)
	}
	body, err := io.ReadAll(req.Body)
	req.Body.Close()
	if err != nil {
		return nil, err
	}
	again := req.Clone(req.Context())
	again.Body, again.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	again.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	return s.RoundTripper.RoundTrip(again)
}
