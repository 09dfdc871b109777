package listen

import (
	"crypto/sha256"
	"net/netip"
	"strings"
	"sync"
	"time"
)

const (
	// maxAddresses bounds the table of addresses, and keys at them, with failed attempts. When it is
	// full, those that have all their attempts back are forgotten, and if there is
	// none, all are.
	maxAddresses = 4096
	// maxProven bounds the table of proofs that have succeeded. When it is full, all are
	// forgotten, and come back with their next success.
	maxProven = 4096
	// reportEvery is how often an attempter that has used up its attempts is reported.
	reportEvery = time.Minute
)

// attempts limits failed attempts per address, so that nobody can try secrets at
// speed. An access key that exists has its attempts at an address to itself: a
// device with a wrong secret locks out neither the other keys behind that address
// nor lets any key be tried faster. All other proofs share the address's. A proof that
// has succeeded from an address before is looked at always.
type attempts struct {
	burst  float64
	refill time.Duration
	now    func() time.Time

	mu     sync.RWMutex
	byAddr map[attempter]*bucket
	proven map[provenAt]struct{}
}

// attempter is who attempts are counted for.
type attempter struct {
	network netip.Prefix
	key     string // an access key that exists, else empty
}

// provenAt is a proof that has succeeded, and where. The digest is of what proved it, so
// that another guess at the same password or token is another proof; a signature's is
// of the access key alone.
type provenAt struct {
	network netip.Prefix
	proof   [sha256.Size]byte
}

type bucket struct {
	left     float64
	at       time.Time
	reported time.Time
}

func (a *attempts) init(burst int, refill time.Duration) {
	orDefault(&burst, 20)
	orDefault(&refill, time.Second)
	a.burst, a.refill, a.now = float64(burst), refill, time.Now
	a.byAddr = map[attempter]*bucket{}
	a.proven = map[provenAt]struct{}{}
}

// may tells whether a proof that comes from addr is looked at, and whether there are
// attempts left; without, only what has succeeded before is looked at. key is the access
// key that the proof claims, if there is one of that id.
func (a *attempts) may(addr netip.Addr, key string, p *proof) (left, may bool) {
	network := networkOf(addr)
	a.mu.RLock()
	defer a.mu.RUnlock()
	b := a.byAddr[attempter{network, key}]
	if b == nil || b.leftAt(a) >= 1 {
		return true, true
	}
	_, before := a.proven[provenAt{network, p.digest()}]
	return false, before
}

func (b *bucket) leftAt(a *attempts) float64 {
	return min(a.burst, b.left+float64(a.now().Sub(b.at))/float64(a.refill))
}

// failed takes one attempt. It tells whether that was the last one and should be
// reported, which is so once in a while only.
func (a *attempts) failed(addr netip.Addr, key string) (report bool) {
	who := attempter{networkOf(addr), key}
	a.mu.Lock()
	defer a.mu.Unlock()
	b := a.byAddr[who]
	if b == nil {
		a.makeRoomLocked()
		b = &bucket{left: a.burst, at: a.now()}
		who.key = strings.Clone(key)
		a.byAddr[who] = b
	}
	now := a.now()
	b.left, b.at = max(0, b.leftAt(a)-1), now
	if b.left >= 1 || !b.reported.IsZero() && now.Sub(b.reported) < reportEvery {
		return false
	}
	b.reported = now
	return true
}

func (a *attempts) makeRoomLocked() {
	if len(a.byAddr) < maxAddresses {
		return
	}
	for addr, b := range a.byAddr {
		if b.leftAt(a) >= a.burst {
			delete(a.byAddr, addr)
		}
	}
	if len(a.byAddr) >= maxAddresses {
		clear(a.byAddr)
	}
}

// succeeded remembers a proof and where it came from.
func (a *attempts) succeeded(addr netip.Addr, p *proof) {
	at := provenAt{networkOf(addr), p.digest()}
	a.mu.RLock()
	_, known := a.proven[at]
	a.mu.RUnlock()
	if known {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.proven) >= maxProven {
		clear(a.proven)
	}
	a.proven[at] = struct{}{}
}
