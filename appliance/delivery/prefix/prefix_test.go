package prefix

import (
	"bufio"
	"os"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"
)

// TestPatternsAgreeWithJava compares with what Java 17 wrote
// (testdata/Golden.java).
func TestPatternsAgreeWithJava(t *testing.T) {
	f, err := os.Open("testdata/java-golden.tsv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	n := 0
	for lines.Scan() {
		row := strings.Split(lines.Text(), "\t")
		if len(row) != 4 {
			t.Fatalf("line %d has %d columns", n+1, len(row))
		}
		p, err := ParsePattern(row[0])
		if err != nil {
			t.Fatalf("%s: %v", row[0], err)
		}
		zone, err := time.LoadLocation(row[1])
		if err != nil {
			t.Fatal(err)
		}
		at, err := time.Parse(time.RFC3339Nano, row[2])
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Format(at.In(zone)); got != row[3] {
			t.Errorf("%s of %s in %s: got %q, Java has %q", row[0], row[2], row[1], got, row[3])
		}
		n++
	}
	if n < 3000 {
		t.Fatalf("only %d golden lines", n)
	}
}

func TestEvaluate(t *testing.T) {
	values := Values{
		Instant:   time.Date(2018, 8, 27, 10, 30, 0, 0, time.UTC),
		ErrorType: "processing-failed",
		Keys:      map[string]string{"customer": "acme", "device": "d7"},
		Random:    func(i int) string { return []string{"aaaaaaaaaaa", "bbbbbbbbbbb"}[i] },
	}
	for _, c := range []struct {
		place    Place
		in, want string
	}{
		{Data, "", "2018/08/27/10/"},
		{Data, "myPrefix/", "myPrefix/2018/08/27/10/"},
		{Data, "myPrefix", "myPrefix2018/08/27/10/"},
		{Data, "a/!{timestamp:yyyy/MM/dd}", "a/2018/08/27"},
		{Data, "y=!{timestamp:yyyy}/m=!{timestamp:MM}/!{firehose:random-string}/", "y=2018/m=08/aaaaaaaaaaa/"},
		{Data, "!{firehose:random-string}/!{firehose:random-string}/!{timestamp:HH}", "aaaaaaaaaaa/bbbbbbbbbbb/10"},
		{Data, "c=!{partitionKeyFromQuery:customer}/!{timestamp:dd}/d=!{partitionKeyFromLambda:device}/", "c=acme/27/d=d7/"},
		{Data, "!{timestamp:'year='yyyy}/x", "year=2018/x"},
		{Error, "", "processing-failed/2018/08/27/10/"},
		{Error, "failed/", "failed/processing-failed/2018/08/27/10/"},
		{Error, "failed/!{firehose:error-output-type}/!{timestamp:yyyy}/", "failed/processing-failed/2018/"},
		{Error, "failed/!{firehose:error-output-type}/", "failed/processing-failed/"},
	} {
		e, err := Parse(c.in, c.place)
		if err != nil {
			t.Errorf("%s %q: %v", c.place, c.in, err)
			continue
		}
		got, err := e.Evaluate(values)
		if err != nil || got != c.want {
			t.Errorf("%s %q: got %q, %v; want %q", c.place, c.in, got, err, c.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct {
		place     Place
		in, cause string
	}{
		{Data, "a/!{timestamp:yyyy", "not closed"},
		{Data, "!{timestamp}", "namespace:value"},
		{Data, "!{stamp:yyyy}", `namespace "stamp"`},
		{Data, "!{firehose:error-output-type}/", "only stand in ErrorOutputPrefix"},
		{Data, "!{firehose:uuid}/", "random-string and error-output-type"},
		{Data, "!{timestamp:yyyy/DDDD}", "too many pattern letters"},
		{Data, "!{timestamp:GG}", "not supported"},
		{Data, "!{timestamp:'open}", "not closed"},
		{Error, "x/!{timestamp:yyyy}/", "must also have !{firehose:error-output-type}"},
		{Error, "!{partitionKeyFromQuery:a}!{firehose:error-output-type}", "only stand in Prefix"},
		{Data, strings.Repeat("a", 1025), "limit is 1024"},
		{Data, strings.Repeat("a", 500) + "!{timestamp:yyyy}" + strings.Repeat("b", 13), "has 513 characters beside its expressions; the limit is 512"},
	} {
		_, err := Parse(c.in, c.place)
		if err == nil || !strings.Contains(err.Error(), c.cause) {
			t.Errorf("%s %q: got %v, want an error with %q", c.place, c.in, err, c.cause)
		}
	}
	long, err := Parse("!{partitionKeyFromQuery:k}/!{timestamp:yyyy}", Data)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := long.Evaluate(Values{Keys: map[string]string{"k": strings.Repeat("v", 600)}}); err == nil {
		t.Error("an evaluated prefix of more than 512 characters was accepted")
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"", "a/", "!{timestamp:yyyy/MM/dd'T'HH}/", "!{firehose:random-string}", "!{partitionKeyFromQuery:k}!{timestamp:YYYY-ww}",
		"!{firehose:error-output-type}/!{timestamp:''}", "!{timestamp:[yyyy]}", "!{", "!{}", "!{a:b}!{timestamp:zzz VV}",
	} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, s string, data bool) {
		place := Error
		if data {
			place = Data
		}
		e, err := Parse(s, place)
		if err != nil {
			return
		}
		v := Values{Instant: time.Unix(1535365800, 7), ErrorType: "x", Random: func(int) string { return "abcdefghijk" }}
		a, errA := e.Evaluate(v)
		b, errB := e.Evaluate(v)
		if a != b || (errA == nil) != (errB == nil) {
			t.Fatalf("%q evaluates to %q and %q", s, a, b)
		}
		if len(a) > MaxEvaluated {
			t.Fatalf("%q evaluates to %d characters", s, len(a))
		}
	})
}
