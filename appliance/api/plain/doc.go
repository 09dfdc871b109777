// Package plain serves records over plain HTTP, for devices without an AWS
// client: a few lines of curl or of C write a record and read it back.
//
//	POST /v1/streams/{name}/records    write records
//	GET  /v1/streams/{name}/records    read records back
//	GET  /v1/streams/{name}/tail       server-sent events, as records arrive
//
// It owns these three requests, their formats and the idempotency keys. It never
// parses HTTP, never decides who a caller is, and creates no streams.
//
// # Writing
//
// The Content-Type says what the body is:
//
//	application/x-ndjson         a record a line; empty lines are passed over
//	application/vnd.weir.batch   a binary batch, below
//	anything else                the whole body is one record
//
// Content-Encoding may be gzip or zstd. All records of a request are written in
// one transaction, in order, or none is; the answer comes after their fsync:
//
//	{"count":2,"records":[{"shard":"shardId-000000000000","sequence_number":"49…"}, …]}
//
// The partition key of a record is, in this order: its key in a binary batch; the
// text or number that ?key_pointer=/device/id (RFC 6901) finds in the record's
// JSON; ?key=…; the header Weir-Partition-Key; the name of the caller's identity.
//
// # Retries
//
// A request with the header Idempotency-Key, 1 to 128 bytes chosen by the device,
// writes its records once, however often it is sent within Options.KeyLife: the
// key is stored in the transaction that stores the records. A repeat is answered
// with {"count":2,"replayed":true} and the header Idempotency-Replayed. A key
// belongs to its caller and stream. The same key with another body is refused
// with 422.
//
// # Binary batch
//
// Four bytes "WRB" 0x01, then records end to end, integers little endian:
//
//	key length u16 | data length u32 | key | data
//
// A key of length 0 means: as if the batch had no key for this record.
//
// # Reading
//
// GET …/records takes ?shard= (needed when the stream has more than one), ?limit=
// (1 to 10,000, default 100) and one of ?from=oldest|latest|<RFC 3339 or Unix
// milliseconds> (default oldest) and ?after=<sequence number>:
//
//	{"records":[{"sequence_number":"49…","shard":"shardId-…","partition_key":"a",
//	  "arrival":"2026-01-02T03:04:05.678Z","data":"<base64>"}, …],
//	 "next":"49…","millis_behind_latest":0}
//
// next is the ?after= of the next request. At the end of a shard that was split or
// merged there is no next, and children names the shards that go on. With Accept:
// application/x-ndjson the records come one a line and next as the header
// Weir-Next.
//
// GET …/tail sends each record as an event of the same JSON; the id of an event,
// sent back as Last-Event-ID, resumes all shards where they were. ?from= is as
// above, default latest; ?shard= limits it to one.
//
// # Errors
//
// {"error":{"code":"…","message":"…"}} with 400 for what is wrong in the request,
// an unknown parameter of the query included,
// 403, 404, 413 for a body or record over its limit, 415 for an unknown
// Content-Encoding, 422 above, 429 with Retry-After while the box takes nothing
// (full disk, read-only, too much in flight) and 500.
package plain
