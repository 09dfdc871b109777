package aws

import (
	"encoding/base64"
	"encoding/binary"
	"strings"
)

// blobError says what is wrong with text that should be base64.
func blobError(s []byte) *Error {
	shown := string(s)
	if len(shown) > maxShownBytes {
		shown = strings.ToValidUTF8(shown[:maxShownBytes], "") + "..."
	}
	prefix := "'" + shown + "' can not be converted to a Blob: "
	if len(s)%4 != 0 {
		return Serialization.New("%sBase64 encoded length is expected a multiple of 4 bytes but found: %d", prefix, len(s))
	}
	for i, c := range s {
		if c != '=' && base64Tables[0][c] == notBase64 || c == '=' && i+1 < len(s) && s[i+1] != '=' {
			return Serialization.New("%sInvalid Base64 character: '%c'", prefix, c)
		}
	}
	return Serialization.New("%sInvalid last non-pad Base64 character dectected", prefix)
}

// decodeBase64 decodes strictly: no line breaks, no left-over bits.
func decodeBase64(dst, src []byte) (int, *Error) {
	if len(src) == 0 {
		return 0, nil
	}
	if len(src)%4 != 0 { // the decoder reads over line breaks, AWS doesn't
		return 0, blobError(src)
	}
	done := decodeQuanta(dst, src)
	n, err := strictBase64.Decode(dst[done/4*3:], src[done:])
	if err != nil || done/4*3+n != base64Len(src) {
		return 0, blobError(src)
	}
	return done/4*3 + n, nil
}

// notBase64 marks, in base64Tables, bytes outside of the alphabet. It is above
// every 24-bit value.
const notBase64 = 1 << 31

// base64Tables has the value of each character at each of the four places of a
// quantum, shifted to where it belongs in the quantum's 24 bits.
var base64Tables = func() (t [4][256]uint32) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	for place := range t {
		for c := range t[place] {
			t[place][c] = notBase64
		}
		for value, c := range []byte(alphabet) {
			t[place][c] = uint32(value) << (6 * (3 - place))
		}
	}
	return t
}()

// decodeQuanta decodes eight characters at a time as long as they are plain and
// there is room to write eight bytes, of which six count. It returns how many
// characters it has decoded; padding, errors and the rest are for the caller. It is
// about twice as fast as encoding/base64, and most of the front door's work on a record.
func decodeQuanta(dst, src []byte) int {
	t := &base64Tables
	done := 0
	for len(src) >= 8 && len(dst) >= 8 {
		s := src[:8]
		hi := t[0][s[0]] | t[1][s[1]] | t[2][s[2]] | t[3][s[3]]
		lo := t[0][s[4]] | t[1][s[5]] | t[2][s[6]] | t[3][s[7]]
		if hi|lo >= notBase64 {
			break
		}
		binary.BigEndian.PutUint64(dst[:8], uint64(hi)<<40|uint64(lo)<<16)
		src, dst, done = src[8:], dst[6:], done+8
	}
	return done
}

var strictBase64 = base64.StdEncoding.Strict()

// base64Len is the decoded length of well-formed base64.
func base64Len(src []byte) int {
	n := len(src) / 4 * 3
	if len(src) >= 4 && len(src)%4 == 0 {
		if src[len(src)-1] == '=' {
			n--
		}
		if src[len(src)-2] == '=' {
			n--
		}
	}
	return n
}
