package listen

import (
	"crypto/tls"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/weirhq/weir/appliance/api/apitest"
)

// memoryInUse is what the process needs for objects and stacks after a collection.
func memoryInUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// TestIdleConnectionsAreCheap opens connections, makes one request on each, and
// waits until they are idle. Both ends live in this process, so the figure for TLS
// holds the clients' state as well.
func TestIdleConnectionsAreCheap(t *testing.T) {
	const conns = 500
	const bound = 40 << 20 / 2000 // bytes each: 2,000 of them in 40 MiB
	one := func(c net.Conn) {
		t.Helper()
		if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"); err != nil {
			t.Fatal(err)
		}
		var b [512]byte
		if _, err := c.Read(b[:]); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name  string
		bound int64
		use   func(addr string) net.Conn
	}{
		{"HTTP/1.1", bound, func(addr string) net.Conn {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			one(c)
			return c
		}},
		{"HTTP/1.1 over TLS, both ends", 2 * bound, func(addr string) net.Conn {
			c, err := tls.Dial("tcp", addr, clientTLS())
			if err != nil {
				t.Fatal(err)
			}
			one(c)
			return c
		}},
		{"HTTP/2", bound, func(addr string) net.Conn {
			h := dialHTTP2(t, addr)
			h.get(1)
			h.data(1, 1<<20)
			go func() { // acknowledges what it is told from here on
				for err := error(nil); err == nil; _, err = h.next() {
				}
			}()
			return h.c
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, addr := start(t, Options{Handler: echo, quietAfter: 50 * time.Millisecond})
			_ = tc.use(addr).Close()
			apitest.Until(t, "the first is gone", func() bool { return s.Stats().Conns == 0 })
			before := memoryInUse()
			held := make([]net.Conn, conns)
			for i := range held {
				held[i] = tc.use(addr)
			}
			apitest.Until(t, "all are idle", func() bool {
				st := s.Stats()
				return st.Conns == conns && st.Requests == 0 && st.Parked == conns
			})
			each := (memoryInUse() - before) / conns
			t.Logf("%d bytes per idle connection", each)
			if each > tc.bound {
				t.Errorf("%d bytes per idle connection, expecting up to %d", each, tc.bound)
			}
			for _, c := range held {
				_ = c.Close()
			}
		})
	}
}
