package delivery

import "testing"

// TestRegionsGoBackToTheSystem: of what is given back no more than the heads of two is kept, and
// it is lent again before there is another one.
func TestRegionsGoBackToTheSystem(t *testing.T) {
	var r regionPool
	for round := range 3 {
		var lent [3][]byte
		kept := 0
		for i := range lent {
			b, err := r.take()
			if err != nil {
				t.Fatal(err)
			}
			lent[i] = b
			if len(b) != partBytes || i > 0 && &b[0] == &lent[i-1][0] {
				t.Fatalf("region %d of %d bytes at %p", i, len(b), b)
			}
			for at := 0; at < partBytes; at += 4096 {
				if b[at] != 0 && at >= headBytes {
					t.Fatalf("byte %d is of an earlier use", at)
				} else if b[at] != 0 {
					kept++
				}
				b[at] = 1
			}
		}
		if most := warmRegions * headBytes / 4096; kept > most || round > 0 && kept == 0 {
			t.Fatalf("%d pages were kept, want 1 to %d", kept, most)
		}
		r.give(lent[0][:100])
		r.give(lent[1])
		r.give(lent[2])
		if len(r.warm) != warmRegions || len(r.cold) != 1 {
			t.Fatalf("%d and %d regions for three in use", len(r.warm), len(r.cold))
		}
	}
}
