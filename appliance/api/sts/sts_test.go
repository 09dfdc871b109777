package sts

import (
	"net/http"
	"strings"
	"testing"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/appliance/api/apitest"
)

func call(t *testing.T, body string, who *api.Identity) (int, string) {
	t.Helper()
	got := apitest.Do(t.Context(), New("123456789012"), &apitest.Request{
		Headers: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, Payload: []byte(body), Who: who,
	})
	if got.Header.Get("Content-Type") != "text/xml" || len(got.Header.Get("X-Amzn-Requestid")) != 36 {
		t.Errorf("%s: headers %v", body, got.Header)
	}
	return got.Status, string(got.Body)
}

func TestCallerIdentity(t *testing.T) {
	status, body := call(t, "Action=GetCallerIdentity&Version=2011-06-15", &api.Identity{Name: "a<b", AccessKeyID: "WEIRKEY"})
	const want = `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>` +
		`<Arn>arn:aws:iam::123456789012:user/a&lt;b</Arn><UserId>WEIRKEY</UserId><Account>123456789012</Account></GetCallerIdentityResult>`
	if status != 200 || !strings.HasPrefix(body, want) {
		t.Errorf("%d %s\nwant 200 %s…", status, body, want)
	}
	if _, body := call(t, "Action=GetCallerIdentity", &api.Identity{Name: "anonymous"}); !strings.Contains(body, "<UserId>anonymous</UserId>") {
		t.Errorf("without a key: %s", body)
	}
}

func TestEverythingElseIsRefused(t *testing.T) {
	for body, code := range map[string]string{
		"":                   "MissingAction",
		"Version=2011-06-15": "MissingAction",
		"Action=AssumeRole":  "InvalidAction",
		"Action=GetCallerIdentity&Version=2010-05-08": "InvalidAction",
		"Action=%zz": "MalformedQueryString",
	} {
		status, got := call(t, body, &api.Identity{Name: "a"})
		if status != 400 || !strings.Contains(got, "<Error><Type>Sender</Type><Code>"+code+"</Code>") {
			t.Errorf("%q: %d %s, want 400 %s", body, status, got, code)
		}
	}
}
