package aws

import (
	"bytes"
	"errors"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"
)

func TestEventsAreReadByTheSDK(t *testing.T) {
	stream := AppendEventBytes(nil, "initial-response", "application/x-amz-json-1.1", []byte("{}"))
	stream = AppendEvent(stream, "SubscribeToShardEvent", "application/x-amz-json-1.1", func(b []byte) []byte {
		return append(b, `{"MillisBehindLatest":0}`...)
	})
	stream = AppendException(stream, ResourceInUse.New("Another \"active\" subscription"), true)
	stream = AppendException(stream, InternalFailure.Default(), false)
	want := []struct{ kind, name, payload string }{
		{"event", "initial-response", "{}"},
		{"event", "SubscribeToShardEvent", `{"MillisBehindLatest":0}`},
		{"exception", "ResourceInUseException", `{"message":"Another \"active\" subscription"}`},
		{"error", "InternalFailure", ""},
	}
	r, d := bytes.NewReader(stream), eventstream.NewDecoder()
	rest := stream
	for _, w := range want {
		m, err := d.Decode(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		header := func(name string) string {
			if v := m.Headers.Get(name); v != nil {
				return v.String()
			}
			return ""
		}
		if name := header(":event-type") + header(":exception-type") + header(":error-code"); header(":message-type") != w.kind || name != w.name || string(m.Payload) != w.payload {
			t.Errorf("%v %s, want %v", m.Headers, m.Payload, w)
		}
		var e Event
		if e, rest, err = DecodeEvent(rest); err != nil || string(e.Payload) != w.payload || e.Headers[":message-type"] != w.kind {
			t.Errorf("own decoder: %v, %v", e, err)
		}
	}
	if r.Len() != 0 || len(rest) != 0 {
		t.Errorf("%d and %d bytes left", r.Len(), len(rest))
	}
	for i := range stream[:60] {
		if _, _, err := DecodeEvent(stream[:i]); !errors.Is(err, ErrShortEvent) {
			t.Errorf("%d bytes: %v", i, err)
		}
	}
	broken := bytes.Clone(stream)
	broken[20] ^= 1
	if _, _, err := DecodeEvent(broken); err == nil || errors.Is(err, ErrShortEvent) {
		t.Errorf("broken frame: %v", err)
	}
}

func FuzzEventStream(f *testing.F) {
	f.Add(AppendEventBytes(nil, "initial-response", "application/json", []byte("{}")))
	f.Add(AppendException(nil, ResourceInUse.Default(), true))
	f.Add([]byte("\x00\x00\x00\x10\x00\x00\x00\x00\x05\xc2\x48\xeb\x7d\x98\xc8\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, rest, err := DecodeEvent(b)
		if err != nil {
			return
		}
		m, sdkErr := eventstream.NewDecoder().Decode(bytes.NewReader(b), nil)
		if sdkErr != nil {
			return // it checks UTF-8 and duplicates of headers that nobody here reads
		}
		if !bytes.Equal(m.Payload, e.Payload) || len(rest) >= len(b) {
			t.Fatalf("payload %q, the SDK has %q", e.Payload, m.Payload)
		}
	})
}
