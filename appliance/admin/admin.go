// Package admin is the control API under /admin/v1/: what the command line and
// the console are made of.
//
// It owns the routes, the JSON shapes and the mapping of errors to answers. It
// keeps no state and decides nothing: each route calls the part that does. Every
// route is an action of its own (admin:CreateStream), which an access key's
// policy must allow.
//
//	GET  /admin/v1/status                     POST   /admin/v1/reload
//	GET  /admin/v1/clock                      POST   /admin/v1/clock/confirm
//	GET  /admin/v1/streams                    POST   /admin/v1/streams
//	GET  /admin/v1/streams/{name}             PATCH  /admin/v1/streams/{name}
//	POST /admin/v1/streams/{name}/reshard     DELETE /admin/v1/streams/{name}
//	GET  /admin/v1/streams/{name}/where?shard=…&sequence=…
//	GET, POST /admin/v1/modules               GET    /admin/v1/modules/{name}, …/logs
//	PUT  /admin/v1/module-pieces/{digest}/{n} POST   /admin/v1/modules/{name}/activate, shadow, remove, rollback, deactivate, resume, forget
//	GET  /admin/v1/consumers
//	GET, POST /admin/v1/deliveries            GET, PUT, DELETE /admin/v1/deliveries/{name}
//	GET  /admin/v1/deliveries/{name}/objects  POST   /admin/v1/deliveries/{name}/pause, resume, flush, test, redrive
//
// Answers are JSON objects; an error is {"error":{"code":"…","message":"…"}}.
package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/appliance/consume"
	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/wasm/module"
)

// Prefix is the path that all routes begin with.
const Prefix = "/admin/v1/"

// Options connects the service to the parts it controls.
type Options struct {
	Store      *storage.Store
	Modules    *module.Catalog
	Consumers  *consume.Engine
	Deliveries *delivery.Engine
	// ShowSink returns a target's kind and settings, secrets hidden.
	ShowSink func(delivery.Target) (kind string, settings any, err error)
	Version  string
	Started  time.Time // when the process began
	Manager  string    // the service manager that watches the process, empty for none
	// Reload reads the configuration again and applies what it can.
	Reload func(ctx context.Context) (*Reloaded, error)
}

// Service serves the control API. Its methods are safe from any goroutine.
type Service struct {
	Options
	routes []route
}

// New returns the service.
func New(o Options) *Service {
	s := &Service{Options: o}
	s.routes = append(s.routes, s.boxRoutes()...)
	s.routes = append(s.routes, s.streamRoutes()...)
	s.routes = append(s.routes, s.moduleRoutes()...)
	s.routes = append(s.routes, s.deliveryRoutes()...)
	return s
}

// route is one method on one path. A segment in braces matches any one segment
// and is handed over by its name.
type route struct {
	method, path string // path below Prefix
	action       string // without "admin:"
	serve        func(ctx context.Context, c *call) (any, error)
}

// call is the input of a route. Body and what it points to belong to the
// listener and end with the call.
type call struct {
	params map[string]string
	query  url.Values
	body   []byte
	who    *api.Identity
}

// decode reads the body as JSON into v; a member that v lacks is an error, and
// so is an empty body.
func (c *call) decode(v any) error {
	dec := json.NewDecoder(bytes.NewReader(c.body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return &Error{Status: 400, Code: "InvalidBody", Message: fmt.Sprintf("body: %v", err)}
	}
	return nil
}

// streamed is the result of a route that writes its answer bit by bit.
type streamed struct {
	contentType string
	write       func(ctx context.Context, w api.StreamWriter) error
}

// Error is an answer other than success.
type Error struct {
	Status  int
	Code    string
	Message string
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Serve implements api.Handler.
func (s *Service) Serve(ctx context.Context, req api.Request, res api.Response) {
	result, err := s.dispatch(ctx, req)
	if err != nil {
		e := errorOf(err)
		api.WriteError(res, &api.Refusal{Status: e.Status, Code: e.Code, Message: e.Message})
		return
	}
	if st, ok := result.(*streamed); ok {
		res.SetHeader("Content-Type", st.contentType)
		res.Stream(st.write)
		return
	}
	res.SetHeader("Content-Type", "application/json")
	if err := json.NewEncoder(res).Encode(result); err != nil {
		api.WriteError(res, &api.Refusal{Status: 500, Code: "InternalFailure", Message: err.Error()})
	}
}

func (s *Service) dispatch(ctx context.Context, req api.Request) (any, error) {
	path, ok := strings.CutPrefix(string(req.Path()), Prefix)
	if !ok {
		path = ""
	}
	found := false
	for i := range s.routes {
		r := &s.routes[i]
		params, ok := match(r.path, path)
		if !ok {
			continue
		}
		if found = true; r.method != req.Method() {
			continue
		}
		if !req.Identity().Allows("admin:"+r.action, params["name"]) {
			return nil, &Error{Status: 403, Code: "AccessDenied", Message: fmt.Sprintf("%s: not allowed for this access key", "admin:"+r.action)}
		}
		query, err := url.ParseQuery(string(req.RawQuery()))
		if err != nil {
			return nil, &Error{Status: 400, Code: "InvalidQuery", Message: err.Error()}
		}
		return r.serve(ctx, &call{params: params, query: query, body: req.Body(), who: req.Identity()})
	}
	if found {
		return nil, &Error{Status: 405, Code: "MethodNotAllowed", Message: fmt.Sprintf("%s is not served at %s%s", req.Method(), Prefix, path)}
	}
	return nil, &Error{Status: 404, Code: "NotFound", Message: fmt.Sprintf("nothing is served at %s", req.Path())}
}

// match compares a route's path with a request's, segment by segment.
func match(pattern, path string) (map[string]string, bool) {
	params := map[string]string{}
	for {
		p, moreP, okP := strings.Cut(pattern, "/")
		s, moreS, okS := strings.Cut(path, "/")
		if okP != okS {
			return nil, false
		}
		if name, ok := strings.CutPrefix(p, "{"); ok {
			value, err := url.PathUnescape(s)
			if err != nil || value == "" {
				return nil, false
			}
			params[strings.TrimSuffix(name, "}")] = value
		} else if p != s {
			return nil, false
		}
		if !okP {
			return params, true
		}
		pattern, path = moreP, moreS
	}
}

// errorTable says how the errors of the parts are answered. The first that fits counts.
var errorTable = []struct {
	is     error
	status int
	code   string
}{
	{delivery.ErrNotFound, 404, "DeliveryNotFound"},
	{delivery.ErrExists, 409, "DeliveryExists"},
	{delivery.ErrVersion, 409, "DeliveryVersion"},
	{delivery.ErrInvalid, 400, "InvalidDelivery"},
	{storage.ErrStreamNotFound, 404, "StreamNotFound"},
	{storage.ErrShardNotFound, 404, "ShardNotFound"},
	{storage.ErrNotFound, 404, "NotFound"},
	{storage.ErrStreamExists, 409, "StreamExists"},
	{storage.ErrShardClosed, 409, "ShardClosed"},
	{storage.ErrConflict, 409, "Conflict"},
	{storage.ErrInvalid, 400, "InvalidArgument"},
	{storage.ErrTooLarge, 400, "TooLarge"},
	{storage.ErrDiskFull, 507, "DiskFull"},
	{storage.ErrReadOnly, 503, "ReadOnly"},
	{storage.ErrOutcomeUnknown, 503, "OutcomeUnknown"},
	{storage.ErrClosed, 503, "ShuttingDown"},
	{context.Canceled, 503, "ShuttingDown"},
	{context.DeadlineExceeded, 504, "Timeout"},
}

func errorOf(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	for _, row := range errorTable {
		if errors.Is(err, row.is) {
			return &Error{Status: row.status, Code: row.code, Message: err.Error()}
		}
	}
	return &Error{Status: 500, Code: "InternalFailure", Message: err.Error()}
}
