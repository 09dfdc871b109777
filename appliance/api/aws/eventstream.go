package aws

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// EventStreamType is the content type of an answer made of events.
const EventStreamType = "application/vnd.amazon.eventstream"

// An event is framed as
//
//	total length u32 | headers length u32 | CRC-32 of those 8 bytes u32 |
//	headers | payload | CRC-32 of everything before u32
//
// all big endian, the checksum being IEEE's. A header is a name (u8 length), a
// value type and a value; every header here is a string (type 7, u16 length).
const (
	eventPrelude  = 12
	eventOverhead = eventPrelude + 4
	headerString  = 7
	// MaxEventBytes is the largest frame that clients take.
	MaxEventBytes = 24 << 20
)

// AppendEvent appends a frame with an event of the type (`initial-response`,
// `SubscribeToShardEvent`) to dst: payload writes the event's body, in the
// encoding that contentType names, behind what it is given. A payload that is too
// large for a frame is a bug and panics.
func AppendEvent(dst []byte, eventType, contentType string, payload func([]byte) []byte) []byte {
	return appendFrame(dst, payload, ":message-type", "event", ":event-type", eventType, ":content-type", contentType)
}

// AppendEventBytes is AppendEvent for a payload that is there already.
func AppendEventBytes(dst []byte, eventType, contentType string, payload []byte) []byte {
	return AppendEvent(dst, eventType, contentType, func(b []byte) []byte { return append(b, payload...) })
}

// AppendException appends a frame with an error. Kinds that the operation's model
// names go out as exceptions, others (modelled false) as errors; the stream has to end after it.
func AppendException(dst []byte, e *Error, modelled bool) []byte {
	if !modelled {
		return appendFrame(dst, func(b []byte) []byte { return b },
			":message-type", "error", ":error-code", e.Kind.Name, ":error-message", e.Message)
	}
	return appendFrame(dst, func(b []byte) []byte {
		b = append(b, `{"message":`...)
		return append(appendJSONString(b, e.Message), '}')
	}, ":message-type", "exception", ":exception-type", e.Kind.Name, ":content-type", "application/x-amz-json-1.1")
}

func appendFrame(dst []byte, payload func([]byte) []byte, headers ...string) []byte {
	start := len(dst)
	dst = append(dst, make([]byte, eventPrelude)...)
	for i := 0; i < len(headers); i += 2 {
		name, value := headers[i], headers[i+1]
		dst = append(dst, byte(len(name)))
		dst = append(dst, name...)
		dst = append(dst, headerString)
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(value)))
		dst = append(dst, value...)
	}
	headersLen := len(dst) - start - eventPrelude
	dst = payload(dst)
	total := len(dst) - start + 4
	if total > MaxEventBytes {
		panic(fmt.Sprintf("BUG: event of %d bytes is above %d", total, MaxEventBytes))
	}
	frame := dst[start:]
	binary.BigEndian.PutUint32(frame, uint32(total))
	binary.BigEndian.PutUint32(frame[4:], uint32(headersLen))
	binary.BigEndian.PutUint32(frame[8:], crc32.ChecksumIEEE(frame[:8]))
	return binary.BigEndian.AppendUint32(dst, crc32.ChecksumIEEE(frame))
}

// Event is a decoded frame. Its slices alias the input.
type Event struct {
	// Headers are the string headers, by name.
	Headers map[string]string
	Payload []byte
}

// ErrShortEvent means that the input ends before the frame does.
var ErrShortEvent = errors.New("event stream: the frame is not complete")

// DecodeEvent decodes the frame at the beginning of b and returns what follows it.
func DecodeEvent(b []byte) (e Event, rest []byte, err error) {
	if len(b) < eventPrelude {
		return e, b, ErrShortEvent
	}
	total, headersLen := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	if crc32.ChecksumIEEE(b[:8]) != binary.BigEndian.Uint32(b[8:]) {
		return e, b, errors.New("event stream: checksum of the prelude does not match")
	}
	if total < eventOverhead || total > MaxEventBytes || headersLen > total-eventOverhead {
		return e, b, fmt.Errorf("event stream: lengths %d and %d do not make a frame", total, headersLen)
	}
	if uint32(len(b)) < total {
		return e, b, ErrShortEvent
	}
	if crc32.ChecksumIEEE(b[:total-4]) != binary.BigEndian.Uint32(b[total-4:]) {
		return e, b, errors.New("event stream: checksum of the frame does not match")
	}
	e.Headers = map[string]string{}
	if err := decodeHeaders(e.Headers, b[eventPrelude:eventPrelude+headersLen]); err != nil {
		return e, b, err
	}
	e.Payload = b[eventPrelude+headersLen : total-4]
	return e, b[total:], nil
}

// eventValueSizes are the sizes of header values by type; strings and bytes carry theirs.
var eventValueSizes = [...]int{0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 6: -1, 7: -1, 8: 8, 9: 16}

func decodeHeaders(into map[string]string, h []byte) error {
	bad := errors.New("event stream: a header is cut off or of no known type")
	for len(h) > 0 {
		n := int(h[0])
		if len(h) < n+2 || int(h[n+1]) >= len(eventValueSizes) {
			return bad
		}
		name, kind := string(h[1:n+1]), h[n+1]
		h = h[n+2:]
		size := eventValueSizes[kind]
		if size < 0 {
			if len(h) < 2 {
				return bad
			}
			size = int(binary.BigEndian.Uint16(h))
			h = h[2:]
		}
		if len(h) < size {
			return bad
		}
		if kind == headerString {
			into[name] = string(h[:size])
		}
		h = h[size:]
	}
	return nil
}
