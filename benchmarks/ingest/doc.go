// Package ingest measures the front door: records a second through the one port,
// signed and synced, against an HTTP handler that only reads and answers, against
// the store without any door, and against NATS JetStream and kinesis-local.
//
// Each server runs in a process of its own, so that its CPU is counted apart from
// the load's. Requests are signed and encoded before the clock starts: what is
// measured is the server. The peers are built and installed from public packages
// at the versions pinned in testdata/. It never asserts.
package ingest
