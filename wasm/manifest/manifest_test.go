package manifest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

func TestParse(t *testing.T) {
	datadriven.RunTest(t, "testdata/parse", func(_ *testing.T, d *datadriven.TestData) string {
		m, err := Parse([]byte(d.Input))
		if err != nil {
			return err.Error() + "\n"
		}
		return strings.ReplaceAll(fmt.Sprintf("%+v\n", *m), " Capabilities:", "\n Capabilities:")
	})
}

func TestWithinTakesTheLowerOfBoth(t *testing.T) {
	l := Default().Limits
	got := l.Within(Limits{MemoryBytes: 1 << 20, HTTPCalls: 99})
	want := l
	want.MemoryBytes = 1 << 20
	if got != want {
		t.Fatalf("Within = %+v, want %+v", got, want)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("name: a\nversion: 1.0.0\nkind: transform\n"))
	f.Add([]byte("name: a\nversion: 1.0.0\nkind: consumer\ninputs: [s]\noutputs: [o]\ncapabilities: {state: true, emit: true, http: {hosts: ['a:1'], secrets: [x]}}\nlimits: {memory: 1MiB, cpu: 5ms}\nconfig: {a: [1, 2.5, null]}\ntests: [{records: [{data: x}], expect: [{status: failed, code: 3}], emits: [], state: [{key: a, value_base64: AA==}]}]\n"))
	f.Add([]byte("a: &x [1]\nb: *x\n"))
	f.Add([]byte("name: [\n"))
	f.Add([]byte("? a\n: b\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := Parse(text)
		if err != nil {
			if len(err.(Problems)) == 0 {
				t.Fatal("an error without problems")
			}
			return
		}
		if !nameForm.MatchString(m.Name) || !versionForm.MatchString(m.Version) || m.Limits.MemoryBytes > MaxMemoryBytes {
			t.Fatalf("accepted %+v", m)
		}
	})
}
