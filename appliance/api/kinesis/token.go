package kinesis

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/weirhq/weir/storage/record"
)

// Tokens are what a client carries from one call to the next: shard iterators
// and pagination tokens. Both are base64 of
//
//	tag      8 bytes   00 00 00 00 00 00 00 | kind (1 iterator, 2 page)
//	nonce   12 bytes   6 random bytes of this start, then a 48-bit counter
//	sealed   n bytes   AES-256-GCM of the plaintext, the tag is its additional data
//	mac     16 bytes
//
// The first eight bytes of an iterator are those of the real service. The
// plaintext begins with its own version byte, so that a later layout can be
// told apart after decryption.
const (
	tokenKeyBytes    = 32
	tokenTagBytes    = 8
	tokenNonceBytes  = 12
	tokenMACBytes    = 16
	tokenOverhead    = tokenTagBytes + tokenNonceBytes + tokenMACBytes
	tokenVersion     = 1
	iteratorMaxChars = 512

	kindIterator = 1
	kindPage     = 2
)

var (
	errTokenForeign = errors.New("token is not one of ours")
	tokenEncoding   = base64.StdEncoding.Strict()
)

// sealer encrypts and opens tokens. It is safe for concurrent use.
type sealer struct {
	aead  cipher.AEAD
	start [6]byte
	next  atomic.Uint64
}

// newSealer returns a sealer for a key of tokenKeyBytes bytes. A nonce is
// never used twice within a start: a counter makes up its lower half; the six
// random bytes keep two starts with the same key apart.
func newSealer(key []byte) (*sealer, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("token key: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("token key: %w", err)
	}
	s := &sealer{aead: aead}
	if _, err := rand.Read(s.start[:]); err != nil {
		return nil, fmt.Errorf("token nonce: %w", err)
	}
	return s, nil
}

// unique returns 24 hexadecimal digits that no other call returns.
func (s *sealer) unique() string {
	var b [12]byte
	s.nonce(b[:])
	return hex.EncodeToString(b[:])
}

// nonce writes tokenNonceBytes bytes that it never writes again.
func (s *sealer) nonce(dst []byte) {
	var count [8]byte
	binary.BigEndian.PutUint64(count[:], s.next.Add(1))
	copy(dst, s.start[:])
	copy(dst[len(s.start):], count[2:])
}

// append seals plain as a token of the kind and appends its base64 to dst.
func (s *sealer) append(dst []byte, kind byte, plain []byte) []byte {
	var raw [tokenOverhead + 256]byte
	b := raw[:tokenTagBytes+tokenNonceBytes]
	b[tokenTagBytes-1] = kind
	nonce := b[tokenTagBytes:]
	s.nonce(nonce)
	b = s.aead.Seal(b, nonce, plain, b[:tokenTagBytes])
	return tokenEncoding.AppendEncode(dst, b)
}

// open returns the plaintext of a token of the kind, or errTokenForeign.
func (s *sealer) open(kind byte, token []byte) ([]byte, error) {
	b, err := tokenEncoding.AppendDecode(nil, token)
	if err != nil || len(b) < tokenOverhead {
		return nil, errTokenForeign
	}
	tag := b[:tokenTagBytes]
	if binary.BigEndian.Uint64(tag) != uint64(kind) {
		return nil, errTokenForeign
	}
	nonce := b[tokenTagBytes : tokenTagBytes+tokenNonceBytes]
	plain, err := s.aead.Open(nil, nonce, b[tokenTagBytes+tokenNonceBytes:], tag)
	if err != nil {
		return nil, errTokenForeign
	}
	return plain, nil
}

// iterator is a read position in a shard of one incarnation of a stream.
// Every iterator type is resolved to an index when it is made: LATEST is the
// index after the last record of that moment, so that nothing written between
// the two calls is missed, and TRIM_HORIZON is 0, which a reader moves up to
// the oldest record kept.
type iterator struct {
	streamID uint32
	shard    record.ShardNumber
	index    uint64
	issued   time.Time // millisecond precision
	stream   string    // for messages only; streamID identifies
}

// appendIterator seals it and appends the token to dst.
func (s *sealer) appendIterator(dst []byte, it *iterator) []byte {
	var raw [25 + 128]byte
	b := append(raw[:0], tokenVersion)
	b = binary.BigEndian.AppendUint32(b, it.streamID)
	b = binary.BigEndian.AppendUint32(b, uint32(it.shard))
	b = binary.BigEndian.AppendUint64(b, it.index)
	b = binary.BigEndian.AppendUint64(b, uint64(it.issued.UnixMilli()))
	b = append(b, it.stream...)
	return s.append(dst, kindIterator, b)
}

// openIterator decodes a token made by appendIterator. Double quotes around
// it are ignored, as the real service does: shell users leave them there. It
// does not check the age.
func (s *sealer) openIterator(token []byte) (iterator, error) {
	if n := len(token); n >= 2 && token[0] == '"' && token[n-1] == '"' {
		token = token[1 : n-1]
	}
	if len(token) > iteratorMaxChars {
		return iterator{}, errTokenForeign
	}
	b, err := s.open(kindIterator, token)
	if err != nil {
		return iterator{}, err
	}
	if len(b) < 25 || b[0] != tokenVersion {
		return iterator{}, errTokenForeign
	}
	return iterator{
		streamID: binary.BigEndian.Uint32(b[1:]),
		shard:    record.ShardNumber(binary.BigEndian.Uint32(b[5:])),
		index:    binary.BigEndian.Uint64(b[9:]),
		issued:   time.UnixMilli(int64(binary.BigEndian.Uint64(b[17:]))).UTC(),
		stream:   string(b[25:]),
	}, nil
}

// page is the position of a paginated list.
type page struct {
	operation string // the operation the token belongs to
	scope     string // what is listed: a stream's name and filter; empty = everything
	after     string // the last item given
	issued    time.Time
}

// appendPage seals p and appends the token to dst.
func (s *sealer) appendPage(dst []byte, p *page) []byte {
	b := append(make([]byte, 0, 64+len(p.scope)+len(p.after)), tokenVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(p.issued.UnixMilli()))
	for _, s := range []string{p.operation, p.scope, p.after} {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	return s.append(dst, kindPage, b)
}

// openPage decodes a token made by appendPage. It does not check the age.
func (s *sealer) openPage(token string) (page, error) {
	b, err := s.open(kindPage, []byte(token))
	if err != nil {
		return page{}, err
	}
	if len(b) < 9 || b[0] != tokenVersion {
		return page{}, errTokenForeign
	}
	p := page{issued: time.UnixMilli(int64(binary.BigEndian.Uint64(b[1:]))).UTC()}
	b = b[9:]
	for _, dst := range []*string{&p.operation, &p.scope, &p.after} {
		n, w := binary.Uvarint(b)
		if w <= 0 || n > uint64(len(b)-w) {
			return page{}, errTokenForeign
		}
		*dst, b = string(b[w:w+int(n)]), b[w+int(n):]
	}
	return p, nil
}
