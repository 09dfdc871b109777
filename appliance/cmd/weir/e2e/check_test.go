package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
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

// check refuses the files that serve would refuse, and a certificate that has ended; doctor
// looks at the certificate that clients see.
func TestCheckReadsTheFilesAsAStartDoes(t *testing.T) {
	dir := t.TempDir()
	cert, key := selfSigned(t, time.Now().Add(60*24*time.Hour))
	ended, endedKey := selfSigned(t, time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC))
	nothing := configured(t, "neither a certificate nor a key\n")
	listen := func(cert, key, more string) string {
		return configured(t, "listen: {tls_cert: "+cert+", tls_key: "+key+more+"}\nwasm: {trusted_keys: ["+nothing+"]}\n")
	}
	for _, c := range []struct{ config, says string }{
		{listen(cert, endedKey, ""), "ERROR  listen.tls_cert              " + cert + ": not a certificate with its key in " + endedKey + ": "},
		{listen(ended, endedKey, ""), "ERROR  listen.tls_cert              " + ended + ": the certificate ended on 2026-02-03"},
		{listen(cert, key, ""), "ok     listen.tls_cert              " + cert + ", valid until "},
		{listen(cert, key, ", client_ca: "+nothing), "ERROR  listen.client_ca             " + nothing + ": expecting a PEM file with certificates"},
		{listen(cert, key, ", client_ca: /nonexistent"), "/nonexistent: expecting a PEM file with certificates: no such file or directory\n"},
		{listen(cert, key, ""), "ERROR  wasm.trusted_keys[0]         " + nothing + ": expecting a public key: "},
	} {
		r := weir(t, nil, "check", "--dir", dir, "--config", c.config)
		if r.code != 3 || !strings.Contains(r.out, c.says) {
			t.Errorf("exit code %d, no %q in\n%s%s", r.code, c.says, r.out, r.errout)
		}
	}
	path := filepath.Join(dir, "weir.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	look := func() string { return weir(t, nil, "doctor", "--dir", dir, "--only", "certificate,names").out }
	b := serve(t, dir)
	wants(t, look(), "ok       certificate    valid until 20", "ok       names          localhost")
	write("listen: {tls_cert: " + ended + ", tls_key: " + endedKey + "}\n")
	wants(t, look(), "ok       certificate    valid until 20") // of what is shown still
	b.stop(t)
	wants(t, look(), "ERROR    certificate    ended on 2026-02-03", "Try: another one in listen.tls_cert, and weir reload")
	write("listen: {tls_cert: " + cert + ", tls_key: " + key + "}\n")
	b = serve(t, dir)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	wants(t, look(), "ok       certificate    valid until "+time.Now().Add(60*24*time.Hour).UTC().Format(time.DateOnly), "ok       names          localhost\n")
	b.stop(t)
}
