package listen

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/appliance/api/aws"
)

// Directory finds the identities that are not access keys. Its methods are called
// from many goroutines; a method returns nil for what it does not know. Secrets
// have to be compared in constant time.
type Directory interface {
	// Token returns the identity of a bearer token.
	Token(token string) *api.Identity
	// Password returns the identity of a user with a password.
	Password(user, password string) *api.Identity
	// Certificate returns the identity of a client certificate that the server's
	// authorities have signed.
	Certificate(cert *x509.Certificate) *api.Identity
}

// GateOptions say who is let in.
type GateOptions struct {
	// Routes is what is behind the gate; needed.
	Routes api.Routes
	// Verifier checks signatures; signed requests are refused if it is nil.
	Verifier *aws.Verifier
	// Directory knows tokens, passwords and certificates; none is accepted if it is nil.
	Directory Directory
	// Anonymous is who those are that come without proof, or signed with a key that
	// isn't known, as the SDKs' example keys are. It is used for AnonymousPeers only.
	Anonymous *api.Identity
	// AnonymousPeers says from where Anonymous is let in; nobody if Anonymous is nil.
	AnonymousPeers Peers
	// FailureBurst is how many failed attempts an address, and each access key at it,
	// has at once; 20. One more comes back every FailureRefill; 1 s.
	FailureBurst  int
	FailureRefill time.Duration
	// Logger is told, once a minute at most, of who has used them up; slog.Default() if nil.
	Logger *slog.Logger
}

// Gate finds out who asks, turns strangers away in the words of the protocol they
// speak, and hands the others to their route. Only Public routes are served
// without identity.
type Gate struct {
	o        GateOptions
	attempts attempts
	unrouted *aws.Service

	failed, limited atomic.Uint64
}

var (
	_ api.Handler = (*Gate)(nil)
	_ api.Refuser = (*Gate)(nil)
	_ Screener    = (*Gate)(nil)
)

// NewGate returns a Gate.
func NewGate(o GateOptions) *Gate {
	g := &Gate{o: o, unrouted: aws.Unrouted()}
	if g.o.Logger == nil {
		g.o.Logger = slog.Default()
	}
	g.attempts.init(o.FailureBurst, o.FailureRefill)
	return g
}

// GateStats count requests that were not let in since the Gate was made.
type GateStats struct {
	Failed  uint64 // brought a proof of identity that does not hold
	Limited uint64 // were not looked at, because too many had failed before
}

// Stats returns what has been counted.
func (g *Gate) Stats() GateStats { return GateStats{g.failed.Load(), g.limited.Load()} }

// Serve authenticates and routes a request.
func (g *Gate) Serve(ctx context.Context, req api.Request, res api.Response) {
	route := g.find(req)
	if route != nil && route.Public {
		route.Handler.Serve(ctx, req, res)
		return
	}
	if isPreflight(req) {
		g.unrouted.Serve(ctx, req, res)
		return
	}
	id, why := g.authenticate(req, route, true)
	switch {
	case why != nil:
		g.Refuse(ctx, req, res, why)
	case route == nil:
		req.SetIdentity(id)
		g.unknown(ctx, req, res)
	default:
		req.SetIdentity(id)
		route.Handler.Serve(ctx, req, res)
	}
}

// isPreflight tells whether a browser asks if it may call a service from a page of
// somebody else's. It may: no service takes a browser's word for who it is.
func isPreflight(req api.Request) bool {
	return req.Method() == "OPTIONS" && string(req.Path()) == "/" && len(req.Header("Origin")) > 0
}

// find is Routes.Find, but a call for a service that isn't there has no route.
func (g *Gate) find(req api.Request) *api.Route {
	route := g.o.Routes.Find(req)
	if route != nil && route.Target == "" && !route.Public && aws.IsCall(req) {
		return nil
	}
	return route
}

func (g *Gate) unknown(ctx context.Context, req api.Request, res api.Response) {
	if aws.IsCall(req) || len(req.Header("X-Amz-Target")) > 0 {
		g.unrouted.Serve(ctx, req, res)
		return
	}
	api.NotFound(req, res)
}

// Refuse answers a request that is not let in, as the route's handler words it.
func (g *Gate) Refuse(ctx context.Context, req api.Request, res api.Response, why *api.Refusal) {
	route := g.find(req)
	if route == nil && (aws.IsCall(req) || len(req.Header("X-Amz-Target")) > 0) {
		g.unrouted.Refuse(ctx, req, res, why)
		return
	}
	if route != nil {
		if r, ok := route.Handler.(api.Refuser); ok {
			r.Refuse(ctx, req, res, why)
			return
		}
	}
	plain := *why
	if isAuthentication(plain.Code) {
		plain.Status = 401
	}
	api.WriteError(res, &plain)
}

func isAuthentication(code string) bool {
	switch code {
	case aws.MissingAuthenticationToken.Name, aws.IncompleteSignature.Name, aws.InvalidSignature.Name,
		aws.UnrecognizedClient.Name, aws.ExpiredToken.Name:
		return true
	}
	return false
}

// Screen turns away, before its body is read, a request that can't be let in.
func (g *Gate) Screen(req api.Request) *api.Refusal {
	route := g.find(req)
	if route != nil && route.Public {
		return nil
	}
	_, why := g.authenticate(req, route, false)
	return why
}

var (
	refuseAttempts = &api.Refusal{Status: 429, Code: "ThrottlingException", Message: "Too many failed attempts from this address. Try again later."}
	refuseSecret   = refusal(aws.UnrecognizedClient.Default())
)

func refusal(e *aws.Error) *api.Refusal {
	return &api.Refusal{Status: e.Kind.Status, Code: e.Kind.Name, Message: e.Message}
}

// authenticate returns who asks. Without whole, only what needs no body is checked,
// and no identity is returned for a signature.
func (g *Gate) authenticate(req api.Request, route *api.Route, whole bool) (*api.Identity, *api.Refusal) {
	p := g.proofOf(req)
	if p.means == 0 || p.means == api.MeansSigV4 && g.anonymous(req) != nil && !g.o.Verifier.Knows(p.name) {
		if id := g.anonymous(req); id != nil {
			return id, nil
		}
		return nil, refusal(aws.MissingAuthenticationToken.Default())
	}
	if p.means == api.MeansCertificate { // there is nothing in it to guess
		id, why := g.check(req, &p, route, whole)
		if why != nil && whole {
			g.failed.Add(1)
		}
		return id, why
	}
	addr, key := req.RemoteAddr().Addr(), ""
	if p.means == api.MeansSigV4 && g.o.Verifier.Knows(p.name) {
		key = p.name
	}
	left, may := g.attempts.may(addr, key, &p)
	if !may {
		g.limited.Add(1)
		return nil, refuseAttempts
	}
	id, why := g.check(req, &p, route, whole)
	switch {
	case why != nil && (whole || p.means != api.MeansSigV4):
		g.failed.Add(1)
		if g.attempts.failed(addr, key) {
			g.o.Logger.Warn("failed attempts to prove an identity are used up; more are refused for a while",
				"address", addr, "access_key_id", key, "last", why.Code)
		}
		if !left {
			return nil, refuseAttempts
		}
	case why == nil && whole:
		g.attempts.succeeded(addr, &p)
	}
	return id, why
}

// proof is what a request brings to show who it is from.
type proof struct {
	means  api.Means
	name   string // whose secret it claims to have; never the secret
	secret string
}

// digest stands for what the request proves its identity with, as far as that is the
// same with every request.
func (p *proof) digest() [sha256.Size]byte {
	var b [256]byte
	return sha256.Sum256(append(append(append(append(b[:0], byte(p.means)), p.name...), 0), p.secret...))
}

func (g *Gate) proofOf(req api.Request) proof {
	if g.o.Verifier != nil && aws.Signed(req) {
		return proof{means: api.MeansSigV4, name: g.o.Verifier.Claimed(req)}
	}
	scheme, rest, _ := bytes.Cut(req.Header("Authorization"), []byte(" "))
	rest = bytes.TrimSpace(rest)
	switch {
	case bytes.EqualFold(scheme, []byte("Bearer")) && len(rest) > 0:
		return proof{means: api.MeansBearer, secret: string(rest)}
	case bytes.EqualFold(scheme, []byte("Basic")) && len(rest) > 0:
		both, err := base64.StdEncoding.DecodeString(string(rest))
		user, password, ok := bytes.Cut(both, []byte(":"))
		if err != nil || !ok {
			return proof{means: api.MeansBasic}
		}
		return proof{means: api.MeansBasic, name: string(user), secret: string(password)}
	}
	if st := req.TLS(); st != nil && len(st.VerifiedChains) > 0 {
		return proof{means: api.MeansCertificate}
	}
	return proof{}
}

func (g *Gate) check(req api.Request, p *proof, route *api.Route, whole bool) (*api.Identity, *api.Refusal) {
	if p.means == api.MeansSigV4 {
		service := ""
		if route != nil {
			service = route.Service
		}
		if !whole {
			if err := g.o.Verifier.Screen(req, service); err != nil {
				return nil, refusal(err)
			}
			return nil, nil
		}
		id, err := g.o.Verifier.Verify(req, service)
		if err != nil {
			return nil, refusal(err)
		}
		return id, nil
	}
	var id *api.Identity
	if d := g.o.Directory; d != nil {
		switch p.means {
		case api.MeansBearer:
			id = d.Token(p.secret)
		case api.MeansBasic:
			id = d.Password(p.name, p.secret)
		case api.MeansCertificate:
			cert := req.TLS().PeerCertificates[0]
			if id = d.Certificate(cert); id == nil {
				return nil, refusal(aws.UnrecognizedClient.New("The client certificate of %s is signed by an accepted authority, but no identity is set for it.", cert.Subject))
			}
		}
	}
	if id == nil {
		return nil, refuseSecret
	}
	return id, nil
}

// anonymous returns who a request without proof is from, nil if it has to prove.
func (g *Gate) anonymous(req api.Request) *api.Identity {
	switch {
	case g.o.Anonymous == nil || g.o.AnonymousPeers == NoPeer:
		return nil
	case g.o.AnonymousPeers == LoopbackPeer && !req.RemoteAddr().Addr().IsLoopback():
		return nil
	}
	return g.o.Anonymous
}
