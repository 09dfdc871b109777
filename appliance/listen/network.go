package listen

import (
	"context"
	"net/netip"
	"sync/atomic"
)

// network is what counts as one address, and what it has here of that which all share.
// It never has all of it, so that a client that takes what it can get is not the only one.
type network struct {
	prefix   netip.Prefix
	conns    int          // under the Server's mu
	requests atomic.Int64 // in flight
	streams  atomic.Int64 // in flight
	bodies   *lanes
	answers  *allowance
}

// connections are those that are open; none of a network that has nothing here.
func (n *network) connections() int64 {
	if n == nil {
		return 0
	}
	return int64(n.conns)
}

// networkOf is what counts as one address: a single IPv4 address, an IPv6 /64, and
// this machine, whichever of its addresses it uses to speak to itself.
func networkOf(a netip.Addr) netip.Prefix {
	if a.IsLoopback() {
		a = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits)
	return p
}

func (s *Server) newNetwork(prefix netip.Prefix) *network {
	bodies, answers := s.o.MaxBodyMemory, s.o.MaxAnswerMemory
	n := &network{
		prefix:  prefix,
		bodies:  newLanes(max(bodies-bodies/16, s.o.MaxBodyBytes+1), s.o.MaxBodyBytes+1, s.o.QueueTimeout),
		answers: newAllowance(max(answers-answers/16, leastAnswerMemory), s.o.QueueTimeout),
	}
	n.answers.reserve = answers / 16
	return n
}

// shares are how much of what is counted one address may have.
type shares struct{ conns, requests, streams int64 }

// sharesOf returns the shares of a network. This machine's is larger: what runs there is
// often a forwarder or a proxy, which speaks for many.
func (s *Server) sharesOf(n netip.Prefix) shares {
	if n.Addr().IsLoopback() {
		return shares{allButAnEighth(s.o.MaxConns), allButAnEighth(s.o.MaxRequests), allButAnEighth(s.o.MaxStreams)}
	}
	return shares{int64(s.o.MaxConnsPerAddress), int64(max(1, s.o.MaxRequests/2)), int64(max(1, s.o.MaxStreams/2))}
}

// allButAnEighth leaves one at least, unless there are fewer than four.
func allButAnEighth(n int) int64 {
	if n < 4 {
		return int64(n)
	}
	return int64(n - max(1, n/8))
}

// takeBodies takes n bytes for a body of the network's, of its own share first: who
// waits for that keeps nobody else waiting.
func (s *Server) takeBodies(ctx context.Context, from *network, h *holding, n int) bool {
	before := h.own
	if !from.bodies.take(ctx, &h.own, n) {
		return false
	}
	if s.bodies.take(ctx, &h.all, n) {
		return true
	}
	after := h.own
	from.bodies.give(bytesHeld{after.n - before.n, after.medium - before.medium, after.large - before.large})
	h.own = before
	return false
}

func (s *Server) giveBodies(from *network, h *holding) {
	s.bodies.give(h.all)
	from.bodies.give(h.own)
}

// takeAnswer takes memory for an answer to the network, as allowance.take does.
func (s *Server) takeAnswer(ctx context.Context, to *network, least, want int) int {
	own := to.answers.take(ctx, least, want)
	if own == 0 {
		return 0
	}
	n := s.answers.take(ctx, least, own)
	to.answers.give(own - n)
	return n
}

func (s *Server) giveAnswer(to *network, n int) {
	s.answers.give(n)
	to.answers.give(n)
}
