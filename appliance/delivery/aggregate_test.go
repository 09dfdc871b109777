package delivery

import (
	"bytes"
	"crypto/md5"
	"testing"

	"github.com/weirhq/weir/storage/record"
)

// FuzzAggregate: whatever bytes come, taking them apart ends, and what is
// emitted lies within them.
func FuzzAggregate(f *testing.F) {
	for _, body := range [][]byte{
		{0x0a, 1, 'k', 0x1a, 5, 0x08, 0, 0x1a, 1, 'd'}, {0x1a, 0x80}, {0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f}, {0x12, 1, '7', 0x1a, 4, 0x08, 9, 0x10, 9},
	} {
		sum := md5.Sum(body)
		f.Add(append(append([]byte{0xf3, 0x89, 0x9a, 0xc2}, body...), sum[:]...))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, whole := range [][]byte{data, framed(data)} {
			if !isAggregate(whole) {
				continue
			}
			total := 0
			_ = walkAggregate(whole, func(_ []byte, _ record.HashKey, _ bool, sub []byte) error {
				if total += len(sub); !bytes.Contains(whole, sub) || total > len(whole) {
					t.Fatalf("%q has no %q", whole, sub)
				}
				return nil
			})
		}
	})
}

// framed is a body with the magic and the sum that it needs to be looked at.
func framed(body []byte) []byte {
	sum := md5.Sum(body)
	return append(append([]byte{0xf3, 0x89, 0x9a, 0xc2}, body...), sum[:]...)
}
