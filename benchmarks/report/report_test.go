package report

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"
)

func sample() *Report {
	r := &Report{Name: "sample", Command: "go run ./benchmarks sample"}
	r.Add("append", "1 × 500", "ratio", 0.934, "records/s", 1234567)
	r.Add("append", "16 × 500", "ratio", 1.02, "records/s", 98)
	r.Add("replay", "cold", "GB/s", math.NaN())
	r.AtLeast("throughput against a segment log", 0.9, 0.934)
	r.AtMost("resident MB", 45, 51.3)
	r.AtMost("open ms", 50, math.NaN())
	return r
}

func TestJSONHasTheAgreedForm(t *testing.T) {
	data, err := json.Marshal(sample())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`{"table":"append","case":"1 × 500","ratio":0.934,"records/s":1.23457e+06}`,
		`{"table":"replay","case":"cold","GB/s":null}`,
		`{"gate":"throughput against a segment log","bar":"≥ 0.9","measured":0.934,"ok":true}`,
		`{"gate":"resident MB","bar":"≤ 45","measured":51.3,"ok":false}`,
		`{"gate":"open ms","bar":"≤ 50","measured":null,"ok":false}`,
	} {
		if !strings.Contains(string(data), want) {
			t.Errorf("no %s in %s", want, data)
		}
	}
}

func TestPrintLinesUpAndNamesMissedGates(t *testing.T) {
	var b bytes.Buffer
	sample().Print(&b)
	for _, want := range []string{
		"append    ratio  records/s\n1 × 500   0.934  1,234,567\n16 × 500   1.02         98\n",
		"replay          GB/s\ncold    not measured\n",
		"MISSED",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}
