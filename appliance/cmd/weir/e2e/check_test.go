package e2e

import (
	"slices"
	"strings"
	"testing"
)

// TestCheckTriesEverySinkAndShowsNoSecret has one sink that works and two whose
// other end is not there.
func TestCheckTriesEverySinkAndShowsNoSecret(t *testing.T) {
	const secret = "this-is-never-shown"
	folder := t.TempDir()
	path := configured(t, `
auth:
  keys: [{access_key_id: AKIDAKIDAKIDAKID, secret_access_key: `+secret+`}]
  tokens: [{name: device, token: `+secret+`}]
sinks:
  - {name: folder, kind: file, settings: {dir: `+folder+`}}
  - {name: store, kind: s3, settings: {endpoint: "http://127.0.0.1:1", bucket: bucket, access_key_id: AKID, secret_access_key: `+secret+`}}
  - {name: hook, kind: http, settings: {url: "http://127.0.0.1:1/", access_key: `+secret+`}}
wasm:
  secrets: [{name: api, value: `+secret+`}]
`)
	dir := t.TempDir()
	args := func(verb ...string) []string {
		if slices.Contains([]string{"check", "config", "doctor"}, verb[0]) {
			verb = append(verb, "--config", path)
		}
		return append([]string{"--dir", dir}, verb...)
	}
	r := weir(t, nil, args("check")...)
	if r.code != 3 {
		t.Errorf("exit code %d, want 3", r.code)
	}
	wants(t, r.out, "ok     configuration ", "ok     sink folder ", "reached, written, read and removed; guarantees exactly-once", "ERROR  sink store ", "ERROR  sink hook ", "connection refused")
	wants(t, r.errout, "check: 2 failures")
	b := serve(t, dir, "WEIR_CONFIG="+path)
	must(t, "--dir", dir, "stream", "create", "s")
	must(t, args("delivery", "create", "out", "--stream", "s", "--to", "sink:store")...)
	for _, verb := range [][]string{
		{"check"},
		{"check", "--json"},
		{"config", "explain"},
		{"config", "explain", "--json"},
		{"doctor", "--json"},
		{"top", "-n", "1", "--json"},
		{"delivery", "describe", "out"},
		{"delivery", "describe", "out", "--json"},
		{"reload", "--json"},
	} {
		r := weir(t, nil, args(verb...)...)
		if len(r.out) == 0 || strings.Contains(r.out+r.errout, secret) {
			t.Errorf("weir %v shows a secret, or nothing:\n%s%s", verb, r.out, r.errout)
		}
	}
	wants(t, must(t, args("config", "explain", "auth")...), "auth.keys[0].secret_access_key: ***", "auth.tokens[0].token: ***")
	b.stop(t)
	if strings.Contains(b.log.String(), secret) {
		t.Errorf("a secret is logged:\n%s", b.log)
	}
}
