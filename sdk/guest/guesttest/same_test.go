package guesttest

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
)

// TestLanguagesAnswerAlike hands documents that nobody wrote a vector for, most of
// them broken, to the same example in every language. All languages must answer
// alike: a module can be rewritten in another language without a reader noticing.
func TestLanguagesAnswerAlike(t *testing.T) {
	records := brokenRecords(2000)
	engines(t, func(t *testing.T, h *Host) {
		for _, example := range []string{"filter", "rename", "router"} {
			m := readManifest(t, example)
			var first []Outcome
			for _, language := range languages {
				g, err := h.Instantiate(t.Context(), dist(t, language, example), string(m.Config))
				if err != nil {
					t.Fatal(err)
				}
				got, err := g.Process(t.Context(), 1, records, m.Streams())
				if err != nil {
					t.Fatalf("%s/%s: %v", language, example, err)
				}
				if first == nil {
					first = got
				}
				for i := range got {
					if !reflect.DeepEqual(got[i], first[i]) {
						t.Errorf("%s: %q: %s answers %+v, %s %+v", example, records[i].Data, language, got[i], languages[0], first[i])
					}
				}
				if err := g.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// brokenRecords makes documents out of the pieces that a scanner has to tell apart.
func brokenRecords(n int) []Record {
	rnd := rand.New(rand.NewPCG(1, 2))
	pieces := []string{
		`"temp"`, `"temp_f"`, `"site"`, `"severity"`, `"alarm"`, `"north"`, `"a longer string than 16"`, `""`, `"\""`, `"\\"`,
		`"te\u006dp"`, ":", ":", ":", ",", ",", ",", "{", "}", "[", "]", "1", "25.5", "-0", "1e3", "1.", "true", "null", " ", "\n",
		"\\", `"`, "\x00", "\xff", "x", "999999999999999999999", "1e-400", "0.1234567890123456789",
		"12.5", "-7.25", "1234.567", "99999.994", "12345678", "-0.004", "123456789.5", "4294967295", `"tem"`, `"temperature":12.5`,
	}
	valid := `{"device":"d1","site":"north","nested":{"temp":1,"list":[1,2,{"a":"}"}]},"temp":25.25,"temp_f":71.5,"severity":"alarm"}`
	records := make([]Record, n)
	for i := range records {
		b := []byte(valid)
		if i%2 == 0 {
			b = []byte("{")
			for range rnd.IntN(24) {
				b = append(b, pieces[rnd.IntN(len(pieces))]...)
			}
		}
		for range rnd.IntN(3) {
			at := rnd.IntN(len(b))
			piece := pieces[rnd.IntN(len(pieces))]
			b = append(b[:at:at], append([]byte(piece), b[min(len(b), at+rnd.IntN(4)):]...)...)
		}
		records[i] = Record{Key: fmt.Sprintf("k%d", i), Data: string(b)}
	}
	return records
}
