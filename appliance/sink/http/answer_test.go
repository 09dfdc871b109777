package http

import (
	"net/http"
	"testing"
)

// FuzzAnswer: no answer makes the check panic, and none but a conforming one
// is an acknowledgement.
func FuzzAnswer(f *testing.F) {
	f.Add(200, "application/json", []byte(`{"requestId":"id","timestamp":1}`))
	f.Add(200, "application/json; charset=utf-8", []byte(`{"requestId":"id","timestamp":"x","errorMessage":null}`))
	f.Add(413, "", []byte(``))
	f.Add(500, "text/plain", []byte(`{"errorMessage":"no"}`))
	f.Fuzz(func(t *testing.T, status int, kind string, raw []byte) {
		err := checkAnswer(status, http.Header{"Content-Type": {kind}}, raw, "id")
		if err == nil && status != 200 {
			t.Fatalf("HTTP %d acknowledges", status)
		}
		if err != nil && (err.Code == "" || err.Err == nil) {
			t.Fatalf("an error without code or cause: %+v", err)
		}
	})
}
