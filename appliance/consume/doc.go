// Package consume runs Wasm consumers: modules that own shards, keep state, and
// emit records to other streams.
//
// It owns, for each consumer and shard, a lease, a checkpoint, the module's
// state and its outbox, all rows of the store's tables. What a batch did (state,
// emitted records, dead letters, requests to be sent, checkpoint) is committed
// in one storage transaction that also checks the lease's fence, so it happens
// exactly once, whatever is killed when. It never runs two instances on one
// shard, never acknowledges what is not synced, and never stops a shard for a
// record that breaks the module: such a record is found by bisection and
// dead-lettered.
//
// # A shard's way
//
// A worker is one goroutine with one instance and one shard. It reads batches,
// runs them, collects what they did, and commits when enough has come together
// or nothing more waits to be read. If a batch fails, what it did is undone and
// the batches before it are kept. Guests of all consumers and transforms take
// turns on as many processors as there are (host.Options.Guests); while a worker
// waits for records or for a sync it has none.
//
// # Shadows
//
// A shadow version gets each batch, and each tick, just before the active
// version does and on the same goroutine, so both see the same state. It reads
// through to that state; what it writes, emits, fails and enqueues is compared
// with what the active version did and dropped. It takes of a
// shard's time about what the active version itself takes, and half a second to
// begin with: what is beyond passes it by and is counted, and a batch it breaks
// on is given up after 250 ms.
//
// # State through split and merge
//
// A shard created by a split or merge begins when its parents have been consumed
// to their end. Then it takes over their state, by one rule: a key goes to the
// shard whose hash range holds the MD5 of the key's part before its first zero
// byte (the whole key when there is none), just as a record with that partition
// key would. So state kept by partition key follows its records. Where both
// parents of a merge hold the same key, the value stays that comes from the
// parent whose range held the hash. A key that is not a partition key, such as a
// total, therefore lives on in one of the shards; the others begin without it.
//
// # Rows
//
//	lease       wasm/NAME 0 stream u32 shard u32               owner, fence, until
//	checkpoint  wasm/NAME 0 stream u32 shard u32               next index, commits, state size
//	module-state NAME 0 stream u32 shard u32 KEY               value
//	outbox      NAME 0 stream u32 shard u32 commit u64 n u32   request, attempts, not before
//	consumer    wasm/NAME 0 stream u32                         first start
//
// stream is the store's number of the stream, so a stream that is deleted and
// made again begins anew. What was kept for the deleted one goes, but its outbox,
// which is sent.
package consume
