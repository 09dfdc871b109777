package delivery

import "testing"

// TestRegionsGoBackToTheSystem: what is given back is empty when it is lent again, and
// is lent again before there is another one.
func TestRegionsGoBackToTheSystem(t *testing.T) {
	var r regionPool
	for range 3 {
		a, err := r.take()
		if err != nil {
			t.Fatal(err)
		}
		b, err := r.take()
		if err != nil {
			t.Fatal(err)
		}
		if len(a) != partBytes || len(b) != partBytes || &a[0] == &b[0] {
			t.Fatalf("regions of %d and %d bytes at %p and %p", len(a), len(b), a, b)
		}
		for i := 0; i < partBytes; i += 4096 {
			if a[i] != 0 || b[i] != 0 {
				t.Fatalf("byte %d is of an earlier use", i)
			}
			a[i], b[i] = 1, 1
		}
		r.give(a[:100])
		r.give(b)
		if len(r.idle) != 2 {
			t.Fatalf("%d regions for two in use", len(r.idle))
		}
	}
}
