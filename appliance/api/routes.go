package api

import (
	"bytes"
	"context"
)

// Route sends requests to one handler. Exactly one of Target, Query and Path is set.
type Route struct {
	// Target is the service part of X-Amz-Target, before the dot:
	// "Kinesis_20131202".
	Target string
	// Query routes serve the calls of AWS's older services, which are forms: a POST to
	// "/" that says its operation in the body. There is one such route at most.
	Query bool
	// Path is matched against the whole path, or against its beginning when it ends
	// in '/'. "/" alone is the fallback.
	Path string
	// Service is the name that has to stand in the scope of a signature: "kinesis".
	// Any may if it is empty.
	Service string
	// Public routes are served without identity. Health checks are; little else
	// should be.
	Public bool
	// Handler serves the request.
	Handler Handler
}

// Routes is the whole program's routing, one explicit table. A route with a
// Target wins over one with a Path, a longer Path over a shorter one.
type Routes []Route

// Find returns the route that serves req, nil if none does. It does not allocate.
func (rs Routes) Find(req Request) *Route {
	if target := req.Header("X-Amz-Target"); len(target) > 0 {
		if dot := bytes.LastIndexByte(target, '.'); dot > 0 {
			target = target[:dot]
		}
		for i := range rs {
			if rs[i].Target != "" && rs[i].Target == string(target) {
				return &rs[i]
			}
		}
	}
	path := req.Path()
	query := isQuery(req, path)
	var best *Route
	for i := range rs {
		r := &rs[i]
		if query && r.Query {
			return r
		}
		if r.Path == "" || best != nil && len(best.Path) >= len(r.Path) {
			continue
		}
		if string(path) == r.Path ||
			r.Path[len(r.Path)-1] == '/' && len(path) > len(r.Path) && string(path[:len(r.Path)]) == r.Path {
			best = r
		}
	}
	return best
}

func isQuery(req Request, path []byte) bool {
	return len(path) == 1 && req.Method() == "POST" && bytes.HasPrefix(req.Header("Content-Type"), []byte("application/x-www-form-urlencoded"))
}

// Serve hands the request to its route's handler and answers 404 when there is none.
func (rs Routes) Serve(ctx context.Context, req Request, res Response) {
	r := rs.Find(req)
	if r == nil {
		NotFound(req, res)
		return
	}
	r.Handler.Serve(ctx, req, res)
}

// NotFound answers that nothing is served at the request's path.
func NotFound(req Request, res Response) {
	WriteError(res, &Refusal{Status: 404, Code: "NotFound", Message: "nothing is served at " + string(req.Path())})
}
