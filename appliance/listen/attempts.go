package listen

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// maxAddresses bounds the table of addresses, and keys at them, with failed attempts. When it is
	// full, those that have all their attempts back are forgotten, and if there is
	// none, all are.
	maxAddresses = 4096
	// maxNames bounds the names remembered per address that have succeeded.
	maxNames = 8
)

// attempts limits failed attempts per address, so that nobody can try secrets at
// speed. An access key that exists has its attempts at an address to itself: a
// device with a wrong secret locks out neither the other keys behind that address
// nor lets any key be tried faster. All other names share the address's. A name that
// has succeeded from an address since its first failure is checked always.
type attempts struct {
	burst  float64
	refill time.Duration
	now    func() time.Time

	mu     sync.RWMutex
	byAddr map[attempter]*bucket
}

// attempter is who attempts are counted for.
type attempter struct {
	network netip.Prefix
	key     string // an access key that exists, else empty
}

type bucket struct {
	left  float64
	at    time.Time
	names []string
}

func (a *attempts) init(burst int, refill time.Duration) {
	orDefault(&burst, 20)
	orDefault(&refill, time.Second)
	a.burst, a.refill, a.now = float64(burst), refill, time.Now
	a.byAddr = map[attempter]*bucket{}
}

// may tells whether an attempt by name from addr is looked at. key is the name if it
// is an access key that exists.
func (a *attempts) may(addr netip.Addr, key, name string) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	b := a.byAddr[attempter{networkOf(addr), key}]
	return b == nil || b.leftAt(a) >= 1 || name != "" && slices.Contains(b.names, name)
}

func (b *bucket) leftAt(a *attempts) float64 {
	return min(a.burst, b.left+float64(a.now().Sub(b.at))/float64(a.refill))
}

// failed takes one attempt.
func (a *attempts) failed(addr netip.Addr, key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	b := a.byAddr[attempter{networkOf(addr), key}]
	if b == nil {
		a.makeRoomLocked()
		b = &bucket{left: a.burst, at: a.now()}
		a.byAddr[attempter{networkOf(addr), strings.Clone(key)}] = b
	}
	b.left, b.at = max(0, b.leftAt(a)-1), a.now()
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

// succeeded remembers a name at an address that has failures. Without failures it
// costs a look into the table.
func (a *attempts) succeeded(addr netip.Addr, key, name string) {
	a.mu.RLock()
	b := a.byAddr[attempter{networkOf(addr), key}]
	known := b == nil || name == "" || slices.Contains(b.names, name)
	a.mu.RUnlock()
	if known {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(b.names) >= maxNames {
		b.names = b.names[1:]
	}
	b.names = append(b.names, strings.Clone(name))
}
