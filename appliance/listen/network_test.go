package listen

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/appliance/api/apitest"
)

// fromAddresses runs a server and returns what dials it from an address.
func fromAddresses(t *testing.T, o Options) (s *Server, from func(ip string) *raw) {
	ip := make(chan string, 1)
	s, addr := startFar(t, o, func() net.Addr { return &net.TCPAddr{IP: net.ParseIP(<-ip), Port: 9} })
	return s, func(a string) *raw {
		ip <- a
		return dial(t, addr)
	}
}

// one and another are addresses of which the first takes all it can get.
var oneAndAnother = []struct{ one, again, another string }{
	{"127.0.0.1", "::1", "192.0.2.1"},
	{"127.0.0.1", "127.0.0.9", "2001:db8::1"},
	{"2001:db8::1", "2001:db8::2", "127.0.0.1"},
	{"192.0.2.1", "192.0.2.1", "192.0.2.2"},
}

func TestOneAddressLeavesConnectionsToOthers(t *testing.T) {
	for _, tc := range oneAndAnother {
		s, from := fromAddresses(t, Options{Handler: echo, MaxConns: 16, MaxConnsPerAddress: 14})
		ask := func(ip string) int {
			c := from(ip)
			c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
			res, _ := c.answer()
			return res.StatusCode
		}
		for i := range 14 {
			if got := ask(tc.one); got != 200 {
				t.Errorf("%s: connection %d gets %d", tc.one, i, got)
			}
		}
		if a, b := ask(tc.again), ask(tc.another); a != 503 || b != 200 {
			t.Errorf("%s gets %d, %s gets %d", tc.again, a, tc.another, b)
		}
		if got := s.Stats().TurnedAway; got != (TurnedAway{Address: 1}) {
			t.Errorf("%+v turned away", got)
		}
	}
}

func TestOneAddressLeavesRequestsToOthers(t *testing.T) {
	for _, path := range []string{"/", "/stream"} {
		for _, tc := range oneAndAnother {
			h, entered, leave := gateKeeper()
			_, from := fromAddresses(t, Options{Handler: h, MaxRequests: 16, MaxStreams: 16})
			share := 8
			if tc.one == "127.0.0.1" {
				share = 14
			}
			ask := func(ip string) *raw {
				c := from(ip)
				c.send("GET " + path + " HTTP/1.1\r\nHost: h\r\n\r\n")
				return c
			}
			var held []*raw
			for range share {
				held = append(held, ask(tc.one))
				<-entered
			}
			if res, got := ask(tc.again).answer(); res.StatusCode != 503 || !strings.Contains(got, "ServiceUnavailable") {
				t.Errorf("%s %s: %d %s", tc.again, path, res.StatusCode, got)
			}
			held = append(held, ask(tc.another))
			<-entered
			for range held {
				leave <- struct{}{}
			}
			for _, c := range held {
				if res, got := c.answer(); res.StatusCode != 200 {
					t.Errorf("%d %s", res.StatusCode, got)
				}
			}
			again := ask(tc.again)
			leave <- struct{}{}
			if res, _ := again.answer(); res.StatusCode != 200 {
				t.Errorf("%s: %d when the others have left", tc.again, res.StatusCode)
			}
		}
	}
}

// TestOneAddressLeavesBodyMemoryToOthers has one send as many halves of small bodies as
// it can, which no rule about large ones bounds.
func TestOneAddressLeavesBodyMemoryToOthers(t *testing.T) {
	const size, memory = 32 << 10, 1 << 20
	for _, tc := range oneAndAnother {
		s, from := fromAddresses(t, Options{Handler: echo, MaxBodyBytes: 64 << 10, MaxBodyMemory: memory, QueueTimeout: 50 * time.Millisecond})
		half := fmt.Sprintf("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("x", size/2))
		for range memory/size - 2 {
			from(tc.one).send(half)
		}
		apitest.Until(t, "they are being read", func() bool { return s.Stats().BodyBytes == memory-2*size })
		for ip, want := range map[string]int{tc.again: 503, tc.another: 200} {
			c := from(ip)
			c.send(half + strings.Repeat("x", size/2))
			if res, _ := c.answer(); res.StatusCode != want {
				t.Errorf("%s beside %s: %d, want %d", ip, tc.one, res.StatusCode, want)
			}
		}
	}
}

// TestOneAddressLeavesAnswerMemoryToOthers has one ask for answers until there is no room
// for another, and take none.
func TestOneAddressLeavesAnswerMemoryToOthers(t *testing.T) {
	const memory = 32 << 20
	for _, tc := range oneAndAnother {
		lent := make(chan int)
		s, from := fromAddresses(t, Options{MaxAnswerMemory: memory, QueueTimeout: 50 * time.Millisecond, Handler: api.HandlerFunc(
			func(_ context.Context, _ api.Request, res api.Response) {
				res.Stream(func(ctx context.Context, w api.StreamWriter) error {
					lent <- cap(w.Lend(ctx, smallestBuffer, memory))
					<-ctx.Done()
					return ctx.Err()
				})
			})})
		ask := func(ip string) int {
			from(ip).send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
			return <-lent
		}
		for ask(tc.one) > 0 {
		}
		if used := s.Stats().AnswerBytes; used > memory-memory/16 {
			t.Errorf("%s has %d bytes of %d", tc.one, used, memory)
		}
		if a, b := ask(tc.again), ask(tc.another); a > 0 || b == 0 {
			t.Errorf("%s gets %d, %s gets %d", tc.again, a, tc.another, b)
		}
	}
}
