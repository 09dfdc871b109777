package plain

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/storage"
)

// Options says how the service behaves. The zero value is usable.
type Options struct {
	// MaxBodyBytes bounds a body after decompression. Default 16 MiB.
	MaxBodyBytes int
	// MaxRecords bounds the records of one request. Default 10,000.
	MaxRecords int
	// KeyLife is how long an idempotency key is remembered. Default 24 h.
	KeyLife time.Duration
	// MaxKeys bounds the idempotency keys remembered. At the limit the oldest is
	// forgotten before its time. Default 100,000.
	MaxKeys int
	// AdmissionWait is how long a write waits for its turn before it is answered
	// with 429. Default 4 s.
	AdmissionWait time.Duration
	// Heartbeat is the time after which an idle tail sends a comment. Default 15 s.
	Heartbeat time.Duration
	// MaxTails bounds the tails open at a time. Default 128.
	MaxTails int
	// Clock tells the time. Default time.Now.
	Clock func() time.Time
	// Logger gets what an operator should know. Default: nothing is logged.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	setDefault(&o.MaxBodyBytes, 16<<20)
	setDefault(&o.MaxRecords, 10000)
	setDefault(&o.KeyLife, 24*time.Hour)
	setDefault(&o.MaxKeys, 100_000)
	setDefault(&o.AdmissionWait, 4*time.Second)
	setDefault(&o.Heartbeat, 15*time.Second)
	setDefault(&o.MaxTails, 128)
	return o
}

func setDefault[T int | time.Duration](v *T, def T) {
	if *v == 0 {
		*v = def
	}
}

// Service serves the plain API. It is an api.Handler for every path under Prefix.
type Service struct {
	store *storage.Store
	o     Options
	keys  keys
	tails atomic.Int64
}

// Prefix is what the paths of the service begin with.
const Prefix = "/v1/"

var _ api.Handler = (*Service)(nil)

// New returns the service over store. It counts the idempotency keys that are
// stored.
func New(store *storage.Store, o Options) (*Service, error) {
	s := &Service{store: store, o: o.withDefaults()}
	if err := s.keys.open(s); err != nil {
		return nil, err
	}
	return s, nil
}

// refuse returns an error that is answered as it is.
func refuse(status int, code, message string) *api.Refusal {
	return &api.Refusal{Status: status, Code: code, Message: message}
}

// Serve answers one request.
func (s *Service) Serve(ctx context.Context, req api.Request, res api.Response) {
	var why *api.Refusal
	err := s.route(ctx, req, res)
	switch {
	case err == nil:
		return
	case errors.As(err, &why):
	default:
		why = s.storeRefusal(err)
	}
	if why.Status == 429 {
		res.SetHeader("Retry-After", "1")
	}
	if why.Status >= 500 {
		s.o.Logger.Error("request failed", "path", string(req.Path()), "error", err)
	}
	api.WriteError(res, why)
}

// parameters are what the query of each request may say.
var parameters = map[string][]string{
	"records POST": {"key", "key_pointer"},
	"records GET":  {"after", "from", "limit", "shard"},
	"tail GET":     {"from", "shard"},
}

// checkQuery refuses a query that would not be read as its sender means it: a
// device whose partition keys go to a misspelt parameter would not notice for long.
func checkQuery(req api.Request, what string) error {
	known, ok := parameters[what]
	if !ok || len(req.RawQuery()) == 0 {
		return nil
	}
	values, err := url.ParseQuery(string(req.RawQuery()))
	if err != nil {
		return refuse(400, "BadQuery", fmt.Sprintf("query %q: %v", req.RawQuery(), err))
	}
	for name, v := range values {
		switch {
		case strings.HasPrefix(name, "X-Amz-"): // a signature
		case !slices.Contains(known, name):
			return refuse(400, "UnknownParameter", fmt.Sprintf("parameter %q; expecting %s", name, strings.Join(known, ", ")))
		case len(v) > 1:
			return refuse(400, "BadQuery", fmt.Sprintf("parameter %q stands %d times; expecting it once", name, len(v)))
		}
	}
	return nil
}

// route finds the function for a path /v1/streams/{name}/{records|tail}.
func (s *Service) route(ctx context.Context, req api.Request, res api.Response) error {
	rest, ok := bytes.CutPrefix(req.Path(), []byte(Prefix+"streams/"))
	escaped, leaf, found := bytes.Cut(rest, []byte("/"))
	name, err := url.PathUnescape(string(escaped))
	if !ok || !found || err != nil || name == "" {
		return refuse(404, "NotFound", "nothing is served at "+string(req.Path())+"; expecting /v1/streams/{name}/records or /v1/streams/{name}/tail")
	}
	what := string(leaf) + " " + req.Method()
	if err := checkQuery(req, what); err != nil {
		return err
	}
	switch what {
	case "records POST":
		return s.put(ctx, req, res, name)
	case "records GET":
		return s.read(ctx, req, res, name)
	case "tail GET":
		return s.tail(ctx, req, res, name)
	}
	if l := string(leaf); l != "records" && l != "tail" {
		return refuse(404, "NotFound", "nothing is served at "+string(req.Path())+"; expecting records or tail behind the stream's name")
	}
	res.SetHeader("Allow", map[string]string{"records": "GET, POST", "tail": "GET"}[string(leaf)])
	return refuse(405, "MethodNotAllowed", req.Method()+" is not served at "+string(req.Path()))
}

// The actions of a policy.
const (
	actionPut = "plain:Put"
	actionGet = "plain:Get"
)

// stream returns the stream of a name for a caller who may do the action.
func (s *Service) stream(req api.Request, name, action string) (*storage.Stream, error) {
	if !req.Identity().Allows(action, name) {
		return nil, refuse(403, "AccessDenied", "this identity may not do "+action+" on stream "+name)
	}
	st, err := s.store.Stream(name)
	if err == nil && st.Config().System {
		err = storage.ErrStreamNotFound
	}
	if errors.Is(err, storage.ErrStreamNotFound) {
		return nil, refuse(404, "StreamNotFound", "there is no stream "+name)
	}
	return st, err
}

// storeRefusal is what a client sees of an error of the store.
func (s *Service) storeRefusal(err error) *api.Refusal {
	switch {
	case errors.Is(err, storage.ErrDiskFull):
		return refuse(429, "DiskFull", "this server takes no records now, its disk is full")
	case errors.Is(err, storage.ErrReadOnly):
		return refuse(429, "ReadOnly", "this server takes no records now, its store is read-only")
	case errors.Is(err, context.DeadlineExceeded):
		return refuse(429, "Busy", "this server takes no records now, it has more to write than it can take in")
	case errors.Is(err, storage.ErrClosed):
		return refuse(503, "Stopping", "this server is stopping")
	case errors.Is(err, storage.ErrTooLarge):
		return refuse(413, "TooLarge", err.Error())
	case errors.Is(err, storage.ErrStreamNotFound):
		return refuse(404, "StreamNotFound", "the stream was deleted")
	case errors.Is(err, storage.ErrShardNotFound):
		return refuse(404, "ShardNotFound", "the stream has no such shard, or no longer")
	}
	return refuse(500, "Internal", "internal error")
}
