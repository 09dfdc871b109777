package kinesis

import (
	"slices"
	"testing"
)

// FuzzAnswer: whatever a service answers, only entries that were sent are sent
// again, in order, each once.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"FailedRecordCount":1,"Records":[{"SequenceNumber":"1","ShardId":"s"},{"ErrorCode":"InternalFailure","ErrorMessage":"no"},{}]}`), 3)
	f.Add([]byte(`{"FailedRecordCount":0,"Records":[]}`), 1)
	f.Add([]byte(`{"Records":[{"ErrorCode":7}]}`), 1)
	f.Add([]byte(`<html>`), 500)
	f.Fuzz(func(t *testing.T, raw []byte, n int) {
		left := make([]int, max(min(n, maxRecords), 0))
		for i := range left {
			left[i] = 3 * i
		}
		got, err := parseAnswer(raw, left)
		if err != nil {
			if len(got.entries) > 0 {
				t.Errorf("%v, and yet %d entries", err, len(got.entries))
			}
			return
		}
		for i, e := range got.entries {
			if !slices.Contains(left, e) || i > 0 && got.entries[i-1] >= e {
				t.Fatalf("entries %v of %v", got.entries, left)
			}
		}
		if (len(got.entries) > 0) != (got.code != "") {
			t.Errorf("%d entries with the code %q", len(got.entries), got.code)
		}
	})
}

// TestAnEntryThatSaysNothingIsSentAgain: only a sequence number says that a record was taken.
func TestAnEntryThatSaysNothingIsSentAgain(t *testing.T) {
	got, err := parseAnswer([]byte(`{"FailedRecordCount":0,"Records":[{"SequenceNumber":"1","ShardId":"s"},{},{"ErrorCode":"","ErrorMessage":""}]}`), []int{2, 5, 7})
	if err != nil || !slices.Equal(got.entries, []int{5, 7}) || got.code != "InvalidResponse" {
		t.Fatalf("%+v, %v", got, err)
	}
}
