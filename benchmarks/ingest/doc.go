// Package ingest measures the front door: records a second through the one port,
// signed and synced, against an HTTP handler that only reads and answers, and
// against the store without any door.
//
// Each server runs in a process of its own, so that its CPU is counted apart from
// the load's. Requests are signed and encoded before the clock starts: what is
// measured is the server. It never asserts.
package ingest
