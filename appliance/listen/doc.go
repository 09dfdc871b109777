// Package listen is the one port: it accepts connections, finds out what they
// speak, keeps every client within its limits and hands requests to an
// api.Handler.
//
//	first byte 0x16 ──► TLS ──► ALPN h2 ─────────────► HTTP/2 (x/net)
//	       │             └────► ALPN http/1.1 ───────► HTTP/1.1 (fasthttp)
//	       │             └────► no ALPN ──► preface? ─► either
//	       └─ cleartext ──────────────────► preface? ─► either
//
// Server owns connections and limits; both protocols feed one core, which counts
// requests, admits and reads bodies, and calls the handler. Gate is the handler in
// front of all others: it finds out who asks and turns strangers away.
//
// What it never does: parse a body, know a service, read a file. It is the only
// package that sees fasthttp.
package listen
