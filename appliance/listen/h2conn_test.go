package listen

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/appliance/api/apitest"
)

// isParked waits until the only connection is parked.
func isParked(t *testing.T, s *Server) {
	t.Helper()
	apitest.Until(t, "the connection is parked", func() bool { return s.Stats().Parked == 1 })
}

// TestQuietHTTP2ConnectionIsServedOn lets a connection fall quiet again and again:
// windows, settings and header tables have to be as the client remembers them.
func TestQuietHTTP2ConnectionIsServedOn(t *testing.T) {
	for name, client := range clients() {
		if !strings.HasPrefix(name, "h2") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			s, addr := start(t, Options{Handler: echo, quietAfter: 20 * time.Millisecond})
			c, url := client(addr)
			defer c.CloseIdleConnections()
			for i := range 6 {
				for j := range 3 {
					want := strings.Repeat(fmt.Sprint(i, j), 1+i*j*30_000)
					req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(want))
					if err != nil {
						t.Fatal(err)
					}
					req.Header.Set("X-Echo", fmt.Sprint("said once, then by its number ", i/2))
					res, err := c.Do(req)
					if err != nil {
						t.Fatalf("request %d.%d: %v", i, j, err)
					}
					got, err := io.ReadAll(res.Body)
					_ = res.Body.Close()
					if err != nil || !strings.HasSuffix(string(got), " "+want) || res.Header.Get("X-Echo") != req.Header.Get("X-Echo") {
						t.Fatalf("request %d.%d: %d bytes, %v, headers %v", i, j, len(got), err, res.Header)
					}
				}
				isParked(t, s)
			}
			if n := s.Stats().Accepted; n != 1 {
				t.Errorf("%d connections, expecting the first to be used throughout", n)
			}
		})
	}
}

// TestConnectionsThatAreQuietForMoments has clients pause for about as long as a
// server waits before it ends, so that the two meet.
func TestConnectionsThatAreQuietForMoments(t *testing.T) {
	s, addr := start(t, Options{Handler: echo, quietAfter: time.Millisecond})
	var wg sync.WaitGroup
	for i := range 4 {
		c, url := clients()["h2 TLS ALPN"](addr)
		for j := range 2 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(i), uint64(j)))
				for range 150 {
					body := bytes.Repeat([]byte{'x'}, r.IntN(20_000))
					res, err := c.Post(url, "text/plain", bytes.NewReader(body))
					if err != nil {
						t.Error(err)
						return
					}
					got, err := io.ReadAll(res.Body)
					_ = res.Body.Close()
					if err != nil || !bytes.HasSuffix(got, body) {
						t.Errorf("%d bytes, %v", len(got), err)
						return
					}
					<-time.After(time.Duration(r.IntN(3000)) * time.Microsecond)
				}
			})
		}
	}
	wg.Wait()
	if n := s.Stats().Accepted; n != 4 {
		t.Errorf("%d connections, expecting 4", n)
	}
}

type blockWriter []byte

func (w *blockWriter) Write(p []byte) (int, error) {
	*w = append(*w, p...)
	return len(p), nil
}

// h2raw is a client that says what it is told to, and acknowledges settings.
type h2raw struct {
	t   *testing.T
	c   net.Conn
	f   *http2.Framer
	enc *hpack.Encoder
	dec *hpack.Decoder
	blk blockWriter
}

func dialHTTP2(t *testing.T, addr string) *h2raw {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, preface); err != nil {
		t.Fatal(err)
	}
	h := &h2raw{t: t, c: c, f: http2.NewFramer(c, c), dec: hpack.NewDecoder(4096, nil)}
	h.enc = hpack.NewEncoder(&h.blk)
	if err := h.f.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *h2raw) get(stream uint32) {
	h.t.Helper()
	h.blk = nil
	for _, kv := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "h"}, {":path", "/"}, {"x-echo", "again"}} {
		_ = h.enc.WriteField(hpack.HeaderField{Name: kv[0], Value: kv[1]})
	}
	if err := h.f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: h.blk, EndHeaders: true, EndStream: true}); err != nil {
		h.t.Fatal(err)
	}
}

// next reads a frame.
func (h *h2raw) next() (http2.Frame, error) {
	fr, err := h.f.ReadFrame()
	if err != nil {
		return nil, err
	}
	switch fr := fr.(type) {
	case *http2.SettingsFrame:
		if !fr.IsAck() {
			if v, ok := fr.Value(http2.SettingHeaderTableSize); ok {
				h.enc.SetMaxDynamicTableSize(v)
			}
			return fr, h.f.WriteSettingsAck()
		}
	case *http2.HeadersFrame:
		if _, err := h.dec.DecodeFull(fr.HeaderBlockFragment()); err != nil {
			return nil, err
		}
	}
	return fr, nil
}

// data reads DATA of a stream until its end, or want bytes.
func (h *h2raw) data(stream uint32, want int) (total int) {
	h.t.Helper()
	for total < want {
		fr, err := h.next()
		if err != nil {
			h.t.Fatalf("stream %d after %d bytes: %v", stream, total, err)
		}
		switch fr := fr.(type) {
		case *http2.DataFrame:
			if fr.StreamID != stream {
				h.t.Fatalf("DATA of stream %d, expecting %d", fr.StreamID, stream)
			}
			if total += len(fr.Data()); fr.StreamEnded() {
				return total
			}
		case *http2.GoAwayFrame, *http2.RSTStreamFrame:
			h.t.Fatalf("stream %d after %d bytes: %v", stream, total, fr)
		}
	}
	return total
}

// park waits until the connection is parked, and answers what that takes.
func (h *h2raw) park(s *Server) {
	h.t.Helper()
	for {
		fr, err := h.next()
		if err != nil {
			h.t.Fatal(err)
		}
		if fr, ok := fr.(*http2.SettingsFrame); ok && !fr.IsAck() {
			if v, ok := fr.Value(http2.SettingHeaderTableSize); ok && v == 0 {
				break
			}
		}
	}
	isParked(h.t, s)
}

var large = api.HandlerFunc(func(_ context.Context, _ api.Request, res api.Response) {
	*res.Body() = append(*res.Body(), make([]byte, 40_000)...)
})

// TestWindowOfAClientOutlastsAServer has a client that lets us send 65,535 bytes in
// all: of the second answer only what is left of that may come.
func TestWindowOfAClientOutlastsAServer(t *testing.T) {
	const left = 65535 - 40_000
	s, addr := start(t, Options{Handler: large, quietAfter: 20 * time.Millisecond})
	h := dialHTTP2(t, addr)
	h.get(1)
	h.data(1, 40_000)
	h.park(s)
	h.get(3)
	got := make(chan int)
	go func() { // a server that sends more than it may sends it at once
		n := h.data(3, left-16384)
		for s.Stats().Requests != 0 {
			<-time.After(time.Millisecond)
		}
		_ = h.c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		for {
			fr, err := h.next()
			if err != nil {
				break
			}
			if fr, ok := fr.(*http2.DataFrame); ok {
				n += len(fr.Data())
			}
		}
		got <- n
	}()
	n := <-got
	if n > left {
		t.Fatalf("%d bytes, and the client takes %d", n, left)
	}
	_ = h.c.SetReadDeadline(time.Now().Add(20 * time.Second))
	if err := h.f.WriteWindowUpdate(0, 65535); err != nil {
		t.Fatal(err)
	}
	if n += h.data(3, 40_000-n); n != 40_000 {
		t.Errorf("%d bytes in all, expecting 40000", n)
	}
}

// TestLateFramesOfOldStreams has a client that speaks of streams which ended before
// the connection was parked.
func TestLateFramesOfOldStreams(t *testing.T) {
	s, addr := start(t, Options{Handler: echo, quietAfter: 20 * time.Millisecond})
	h := dialHTTP2(t, addr)
	h.get(1)
	h.data(1, 1<<20)
	h.park(s)
	if err := errors.Join(h.f.WriteRSTStream(1, http2.ErrCodeCancel), h.f.WriteWindowUpdate(1, 1000), h.f.WritePriority(1, http2.PriorityParam{Weight: 3}),
		h.f.WritePing(false, [8]byte{1})); err != nil {
		t.Fatal(err)
	}
	for {
		fr, err := h.next()
		if err != nil {
			t.Fatal(err)
		}
		if fr, ok := fr.(*http2.PingFrame); ok && fr.IsAck() {
			break
		}
	}
	isParked(t, s)
	h.get(3)
	if h.data(3, 1<<20) == 0 {
		t.Error("an empty answer")
	}
}

// TestParkedHTTP2ConnectionSaysGoodbye reads GOAWAY with the last stream, then the end.
func TestParkedHTTP2ConnectionSaysGoodbye(t *testing.T) {
	for _, tc := range []struct {
		name string
		idle time.Duration
		end  func(*Server)
	}{
		{"idle for too long", 300 * time.Millisecond, func(*Server) {}},
		{"shutdown", time.Minute, func(s *Server) { _ = s.Shutdown(context.Background()) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, addr := start(t, Options{Handler: echo, quietAfter: 20 * time.Millisecond, IdleTimeout: tc.idle})
			h := dialHTTP2(t, addr)
			h.get(1)
			h.data(1, 1<<20)
			h.park(s)
			tc.end(s)
			fr, err := h.next()
			if g, ok := fr.(*http2.GoAwayFrame); !ok || g.LastStreamID != 1 || g.ErrCode != http2.ErrCodeNo {
				t.Errorf("%v %v, expecting GOAWAY after stream 1", fr, err)
			}
			if fr, err := h.next(); err == nil {
				t.Errorf("%v, expecting the end", fr)
			}
			apitest.Until(t, "it is gone", func() bool { return s.Stats().Conns == 0 })
		})
	}
}

// FuzzFrames cuts what a connection says into pieces: the frames found are the same.
func FuzzFrames(f *testing.F) {
	var b bytes.Buffer
	fr := http2.NewFramer(&b, nil)
	_ = fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
	_ = fr.WriteData(1, true, []byte("some data"))
	_ = fr.WriteWindowUpdate(0, 77)
	_ = fr.WriteRawFrame(http2.FrameWindowUpdate, 0, 1, []byte("not four"))
	f.Add(b.Bytes(), uint8(1))
	f.Add(b.Bytes(), uint8(10))
	f.Fuzz(func(t *testing.T, said []byte, size uint8) {
		list := func(size int) (found []string, between bool) {
			var s frames
			for at := 0; at < len(said); at += size {
				s.scan(said[at:min(at+size, len(said))], func(f frame, grow uint32) { found = append(found, fmt.Sprint(f, grow)) })
			}
			return found, s.between()
		}
		whole, end := list(len(said) + 1)
		cut, cutEnd := list(int(size) + 1)
		if fmt.Sprint(whole, end) != fmt.Sprint(cut, cutEnd) {
			t.Errorf("whole %v %v, in pieces %v %v", whole, end, cut, cutEnd)
		}
	})
}
