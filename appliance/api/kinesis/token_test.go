package kinesis

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"
	"time"
)

func testSealer(t testing.TB, fill byte) *sealer {
	t.Helper()
	s, err := newSealer(bytes.Repeat([]byte{fill}, tokenKeyBytes))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func testIterator() iterator {
	return iterator{streamID: 7, shard: 3, index: 1 << 40, issued: time.UnixMilli(1_800_000_000_123).UTC(), stream: "sensors"}
}

func TestIteratorOutlivesARestart(t *testing.T) {
	it := testIterator()
	token := testSealer(t, 1).appendIterator(nil, &it)
	got, err := testSealer(t, 1).openIterator(token)
	if err != nil || got != it {
		t.Fatalf("%+v, %v; want %+v", got, err, it)
	}
	quoted, err := testSealer(t, 1).openIterator([]byte(`"` + string(token) + `"`))
	if err != nil || quoted != it {
		t.Fatalf("in quotes: %+v, %v", quoted, err)
	}
}

func TestIteratorHasTheFormOfTheRealService(t *testing.T) {
	it := testIterator()
	it.stream = strings.Repeat("n", 128)
	s := testSealer(t, 1)
	a, b := s.appendIterator(nil, &it), s.appendIterator(nil, &it)
	if bytes.Equal(a, b) {
		t.Error("two iterators of one position are the same")
	}
	raw, err := base64.StdEncoding.DecodeString(string(a))
	if err != nil || !bytes.HasPrefix(raw, []byte{0, 0, 0, 0, 0, 0, 0, 1}) || len(a) > iteratorMaxChars {
		t.Errorf("%d characters, %x, %v", len(a), raw[:8], err)
	}
	if bytes.Contains(raw, []byte("nnnn")) {
		t.Error("the stream's name is readable")
	}
}

func TestTokenThatWasTamperedWithIsForeign(t *testing.T) {
	it := testIterator()
	s := testSealer(t, 1)
	token := s.appendIterator(nil, &it)
	raw, err := base64.StdEncoding.DecodeString(string(token))
	if err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		bad := bytes.Clone(raw)
		bad[i] ^= 1
		if _, err := s.openIterator([]byte(base64.StdEncoding.EncodeToString(bad))); err == nil {
			t.Fatalf("byte %d changed, and the iterator is accepted", i)
		}
	}
	if _, err := testSealer(t, 2).openIterator(token); err == nil {
		t.Error("an iterator sealed with another key is accepted")
	}
	if _, err := s.openPage(string(token)); err == nil {
		t.Error("an iterator is accepted as a pagination token")
	}
	p := page{operation: "ListStreams", after: "a", issued: it.issued}
	if _, err := s.openIterator(s.appendPage(nil, &p)); err == nil {
		t.Error("a pagination token is accepted as an iterator")
	}
}

func TestPageTokenRoundTrip(t *testing.T) {
	s := testSealer(t, 1)
	for _, p := range []page{
		{operation: "ListShards", scope: strings.Repeat("s", 300), after: "12", issued: time.UnixMilli(5).UTC()},
		{issued: time.UnixMilli(0).UTC()},
	} {
		got, err := s.openPage(string(s.appendPage(nil, &p)))
		if err != nil || got != p {
			t.Errorf("%+v, %v; want %+v", got, err, p)
		}
	}
}

func FuzzOpenIterator(f *testing.F) {
	s := testSealer(f, 1)
	it := testIterator()
	good := s.appendIterator(nil, &it)
	f.Add(good)
	f.Add(append(append([]byte(`"`), good...), '"'))
	f.Add([]byte("AAAAAAAAAAE="))
	f.Fuzz(func(t *testing.T, token []byte) {
		got, err := s.openIterator(token)
		if err == nil && got != it {
			t.Fatalf("%q opens as %+v, which nobody sealed", token, got)
		}
	})
}

// FuzzPlaintext seals what it is given, as somebody with the key of an older or
// newer version might have: the decoders behind the seal take any bytes.
func FuzzPlaintext(f *testing.F) {
	s := testSealer(f, 1)
	f.Add([]byte{tokenVersion, 0, 0, 0, 0, 0, 0, 0, 0, 1, 'a', 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, plain []byte) {
		if p, err := s.openPage(string(s.append(nil, kindPage, plain))); err == nil {
			if again, err := s.openPage(string(s.appendPage(nil, &p))); err != nil || again != p {
				t.Fatalf("%+v sealed again opens as %+v, %v", p, again, err)
			}
		}
		if it, err := s.openIterator(s.append(nil, kindIterator, plain)); err == nil {
			if again, err := s.openIterator(s.appendIterator(nil, &it)); err != nil || again != it {
				t.Fatalf("%+v sealed again opens as %+v, %v", it, again, err)
			}
		}
	})
}
