package delivery

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/weirhq/weir/storage/record"
)

// Range is a run of records of one shard, both ends included. Indexes in it
// may be missing where the log skipped them.
type Range struct {
	Shard   record.ShardNumber `json:"shard"`
	First   uint64             `json:"first"`
	Last    uint64             `json:"last"`
	Records uint64             `json:"records"`
	Bytes   int64              `json:"bytes"`
}

// Lane says which part of a delivery stream's share a recipe is sent with.
type Lane string

// The lanes. A stream without a live share has only the main lane.
const (
	MainLane Lane = "main"
	LiveLane Lane = "live"
)

// Recipe is a sealed batch: what its objects are made from. It is durable
// from the seal until everything made from it is acknowledged.
type Recipe struct {
	Number  uint64    `json:"number"`  // per delivery stream, from 1, dense
	Version int       `json:"version"` // of the configuration that it is made with
	Ranges  []Range   `json:"ranges"`
	Oldest  time.Time `json:"oldest"` // arrival of the oldest record
	Newest  time.Time `json:"newest"`
	Sealed  time.Time `json:"sealed"`
	Module  string    `json:"module,omitempty"` // SHA-256 of the transform
	Lane    Lane      `json:"lane"`
	Redrive bool      `json:"redrive,omitempty"` // of records that failed in another recipe
}

// Records is how many records the recipe was sealed over.
func (r *Recipe) Records() (n uint64) {
	for _, g := range r.Ranges {
		n += g.Records
	}
	return n
}

// Bytes is how many bytes of data the recipe was sealed over.
func (r *Recipe) Bytes() (n int64) {
	for _, g := range r.Ranges {
		n += g.Bytes
	}
	return n
}

// ranges is the value of RangesKey: "0:17-940 3:1-88".
func (r *Recipe) ranges() string {
	var b strings.Builder
	for i, g := range r.Ranges {
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%d:%d-%d", g.Shard, g.First, g.Last)
	}
	return b.String()
}

// identity names one object of one recipe of one delivery stream, the world
// over. part tells the recipe's objects apart. The ranges are in it because a
// disk that lies about syncs may forget a seal whose object is stored already;
// the number is then given out again, for other records.
func (d *definition) identity(r *Recipe, part string) string {
	sum := sha256.Sum256([]byte(r.ranges()))
	return fmt.Sprintf("%s/%d-%x/%s", d.UID, r.Number, sum[:6], part)
}

// objectUUID is the unique part of an object's name, made from its identity
// alone. It is a UUID of version 8 that starts with the recipe's number, so
// that objects of the same second sort in the order of their records.
func objectUUID(number uint64, identity string) string {
	sum := sha256.Sum256([]byte(identity))
	var u [16]byte
	binary.BigEndian.PutUint64(u[:8], number<<16)
	copy(u[6:], sum[:10])
	u[6] = u[6]&0x0f | 0x80
	u[8] = u[8]&0x3f | 0x80
	h := hex.EncodeToString(u[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// randomString is the i-th !{firehose:random-string} of an object: eleven
// letters and digits that spread names, the same each time.
func randomString(identity string, i int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s#%d", identity, i))
	s := new(big.Int).SetBytes(sum[:]).Text(62)
	return s[len(s)-11:]
}

// requestID is the id of the n-th request of a recipe to a RecordSink.
func requestID(identity string) string {
	sum := sha256.Sum256([]byte(identity))
	u := sum[:16]
	u[6] = u[6]&0x0f | 0x80
	u[8] = u[8]&0x3f | 0x80
	h := hex.EncodeToString(u)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// Rows. The engine's keys in the tables, all with the stream's number in big
// endian so that a scan goes in order:
//
//	TableDelivery  'd' name                     definition, JSON
//	TableDelivery  'x' name                     definition that could not be read, as it was
//	TableDelivery  'e' name                     the buffer of a deleted stream is still to be deleted
//	TableDelivery  'v' id version               configuration of a version, JSON
//	TableDelivery  'i'                          last id given out
//	TableDelivery  'c' id                       cursor, JSON
//	TableDelivery  't' id                       totals, JSON
//	TableRecipe    id number                    Recipe, JSON
//	TableManifest  'm' id number ordinal        Manifest, JSON
//	TableManifest  'r' id shard last            number of the recipe that ends there
//	TableThrottle  "delivery" id                bytes sent this month, JSON
var idKey = []byte{'i'}

// HoldsSettings says whether the row of storage.TableDelivery with this key may hold the
// settings of sinks, and thus secrets.
func HoldsSettings(key []byte) bool { return len(key) > 0 && strings.IndexByte("dxv", key[0]) >= 0 }

func definitionKey(name string) []byte { return append([]byte{'d'}, name...) }
func asideKey(name string) []byte      { return append([]byte{'x'}, name...) }
func endedKey(name string) []byte      { return append([]byte{'e'}, name...) }
func cursorKey(id uint64) []byte       { return binary.BigEndian.AppendUint64([]byte{'c'}, id) }
func totalsKey(id uint64) []byte       { return binary.BigEndian.AppendUint64([]byte{'t'}, id) }
func budgetKey(id uint64) []byte       { return binary.BigEndian.AppendUint64([]byte("delivery"), id) }

func versionKey(id uint64, version int) []byte {
	return binary.BigEndian.AppendUint32(versionPrefix(id), uint32(version))
}

func versionPrefix(id uint64) []byte { return binary.BigEndian.AppendUint64([]byte{'v'}, id) }
func recipePrefix(id uint64) []byte  { return binary.BigEndian.AppendUint64(nil, id) }

func recipeKey(id, number uint64) []byte {
	return binary.BigEndian.AppendUint64(recipePrefix(id), number)
}

func manifestPrefix(id uint64) []byte { return binary.BigEndian.AppendUint64([]byte{'m'}, id) }

func manifestKey(id, number uint64, ordinal int) []byte {
	b := binary.BigEndian.AppendUint64(manifestPrefix(id), number)
	return binary.BigEndian.AppendUint32(b, uint32(ordinal))
}

func rangePrefix(id uint64, shard record.ShardNumber) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64([]byte{'r'}, id), uint32(shard))
}

func rangeKey(id uint64, shard record.ShardNumber, last uint64) []byte {
	return binary.BigEndian.AppendUint64(rangePrefix(id, shard), last)
}

// definition is the durable row of a delivery stream.
type definition struct {
	ID      uint64    `json:"id"`
	UID     string    `json:"uid"` // random, so that no two streams ever share object names
	Version int       `json:"version"`
	Created time.Time `json:"created"`
	Updated time.Time `json:"updated"`
	Buffer  string    `json:"buffer_stream,omitempty"` // of DirectPut
	Config  Config    `json:"config"`
}

// cursor is the durable row that says how far a delivery stream has sealed.
type cursor struct {
	Next   uint64                            `json:"next"` // number of the next recipe
	Shards map[record.ShardNumber]shardState `json:"shards"`
	// Live is the second cursor of a stream that sends new records while it
	// works off a backlog; Shards then ends at each shard's Until.
	Live map[record.ShardNumber]shardState `json:"live,omitempty"`
}

// shardState is the place in one shard.
type shardState struct {
	Next  uint64 `json:"next"`            // first index not sealed
	Until uint64 `json:"until,omitempty"` // exclusive end of a backlog lane, 0: none
	Done  bool   `json:"done,omitempty"`  // closed and sealed to its end
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("BUG: marshal %T: %v", v, err))
	}
	return b
}
