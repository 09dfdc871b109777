package record

import "math/bits"

// appendDecimal192 appends the number hi·2^128 + mid·2^64 + lo in decimal.
func appendDecimal192(b []byte, hi, mid, lo uint64) []byte {
	const chunk = 1e19 // the largest power of ten in a word
	var parts [4]uint64
	n := 0
	for {
		var r uint64
		hi, r = bits.Div64(0, hi, chunk)
		mid, r = bits.Div64(r, mid, chunk)
		lo, r = bits.Div64(r, lo, chunk)
		parts[n] = r
		n++
		if hi|mid|lo == 0 {
			break
		}
	}
	var digits [20]byte
	for i := n - 1; i >= 0; i-- {
		v := parts[i]
		pos := len(digits)
		for v > 0 || (i < n-1 && pos > len(digits)-19) || pos == len(digits) {
			pos--
			digits[pos] = byte('0' + v%10)
			v /= 10
		}
		b = append(b, digits[pos:]...)
	}
	return b
}
