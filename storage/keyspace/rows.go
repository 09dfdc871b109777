package keyspace

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"github.com/weirhq/weir/storage/record"
)

// FormatVersion is the version of everything below this package: keys, rows
// and blocks. A directory with a higher one is refused.
const FormatVersion = 1

// ErrRow means that bytes are not the row that their key announces.
var ErrRow = errors.New("not a row of this format")

// StoreRow is the one row about the store. JSON.
type StoreRow struct {
	Format     int    `json:"format"`
	ID         string `json:"id"` // random, 32 hex digits: names the store in exports
	CreatedMS  int64  `json:"created_ms"`
	NextStream uint32 `json:"next_stream"` // ids are never used again
	NextShard  uint32 `json:"next_shard"`
}

// StreamRow is a stream. JSON.
type StreamRow struct {
	ID             uint32 `json:"id"`
	Name           string `json:"name"`
	CreatedMS      int64  `json:"created_ms"`
	Mode           uint8  `json:"mode"`
	RetentionMS    int64  `json:"retention_ms"`
	RetentionBytes int64  `json:"retention_bytes"`
	WhenFull       uint8  `json:"when_full"`
	Codec          uint8  `json:"codec"`
	MaxRecordBytes int    `json:"max_record_bytes"`
	System         bool   `json:"system,omitempty"`
	Lane           uint8  `json:"lane"`
	NextNumber     uint32 `json:"next_number"` // the next shard's number
}

// ShardRow is a shard. JSON.
type ShardRow struct {
	ID             uint32              `json:"id"` // store-wide, never used again
	Stream         uint32              `json:"stream"`
	Number         record.ShardNumber  `json:"number"`
	First          string              `json:"first"` // hash keys, decimal
	Last           string              `json:"last"`
	Parent         *record.ShardNumber `json:"parent,omitempty"`
	AdjacentParent *record.ShardNumber `json:"adjacent_parent,omitempty"`
	CreatedMS      int64               `json:"created_ms"`
	ClosedMS       int64               `json:"closed_ms,omitempty"`
	ClosedIndex    uint64              `json:"closed_index,omitempty"` // the last record's index, when closed
	Pending        bool                `json:"pending,omitempty"`      // a split or merge into it has begun: recovery finishes it
}

// SessionRow is an open of the store, or the part of one that follows a
// correction of the clock. JSON.
type SessionRow struct {
	Session     uint32 `json:"session"`
	BootID      string `json:"boot_id,omitempty"` // of the operating system
	WallMS      int64  `json:"wall_ms"`           // wall clock at the open
	FirstEpoch  uint32 `json:"first_epoch"`
	Clean       bool   `json:"clean"`              // closed in good order
	ShiftMS     int64  `json:"shift_ms,omitempty"` // to add to uncertain stamps …
	Through     uint32 `json:"through,omitempty"`  // … of epochs first_epoch … through
	LastKnownMS int64  `json:"last_known_ms,omitempty"`
	NextEpoch   uint32 `json:"next_epoch,omitempty"` // set by a clean close
}

// EncodeJSON encodes the rows that are JSON.
func EncodeJSON(row any) []byte {
	b, err := json.Marshal(row)
	if err != nil {
		panic("BUG: row does not encode: " + err.Error())
	}
	return b
}

// DecodeJSON decodes a JSON row. Fields it does not know are left out: they
// come from a newer minor version.
func DecodeJSON(b []byte, row any) error {
	if err := json.Unmarshal(b, row); err != nil {
		return fmt.Errorf("%w: %v", ErrRow, err)
	}
	return nil
}

// TrimmedAll is the trim of a shard that was deleted: none of its records is
// kept. The row goes when no epoch holds any of them.
const TrimmedAll uint64 = math.MaxUint64

// EncodeIndex encodes the value of bound and trim rows.
func EncodeIndex(i uint64) []byte { return binary.LittleEndian.AppendUint64(nil, i) }

// DecodeIndex is the inverse of EncodeIndex.
func DecodeIndex(b []byte) (uint64, error) {
	if len(b) != 8 {
		return 0, fmt.Errorf("%w: index of %d bytes", ErrRow, len(b))
	}
	return binary.LittleEndian.Uint64(b), nil
}

// JumpRow says that the indexes from its key's index to Last were never
// given to an acknowledged record.
type JumpRow struct {
	Last   uint64
	TimeMS int64
}

// Encode returns the row, 16 bytes.
func (r JumpRow) Encode() []byte {
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, r.Last), uint64(r.TimeMS))
}

// DecodeJump is the inverse of JumpRow.Encode.
func DecodeJump(b []byte) (JumpRow, error) {
	if len(b) != 16 {
		return JumpRow{}, fmt.Errorf("%w: jump of %d bytes", ErrRow, len(b))
	}
	return JumpRow{binary.LittleEndian.Uint64(b), int64(binary.LittleEndian.Uint64(b[8:]))}, nil
}

// LossReason is why records are gone before their retention was over. The numbers are on disk.
type LossReason uint8

// The reasons.
const (
	LossDropped LossReason = 1 // the disk was full, policy drop oldest
	LossThinned LossReason = 2 // the disk was full, policy thin out
	LossDamage  LossReason = 3 // could not be read, set aside
)

// String returns the reason as it is reported.
func (r LossReason) String() string {
	switch r {
	case LossDropped:
		return "dropped"
	case LossThinned:
		return "thinned"
	case LossDamage:
		return "damage"
	}
	return fmt.Sprintf("loss-%d", uint8(r))
}

// LossRow says that Records of the records from its key's index to Last are gone.
type LossRow struct {
	Last    uint64
	Records uint64
	Bytes   uint64
	TimeMS  int64
	Reason  LossReason
}

// Encode returns the row, 33 bytes.
func (r LossRow) Encode() []byte {
	b := binary.LittleEndian.AppendUint64(nil, r.Last)
	b = binary.LittleEndian.AppendUint64(b, r.Records)
	b = binary.LittleEndian.AppendUint64(b, r.Bytes)
	b = binary.LittleEndian.AppendUint64(b, uint64(r.TimeMS))
	return append(b, byte(r.Reason))
}

// DecodeLoss is the inverse of LossRow.Encode.
func DecodeLoss(b []byte) (LossRow, error) {
	if len(b) != 33 {
		return LossRow{}, fmt.Errorf("%w: loss of %d bytes", ErrRow, len(b))
	}
	u := binary.LittleEndian.Uint64
	return LossRow{u(b), u(b[8:]), u(b[16:]), int64(u(b[24:])), LossReason(b[32])}, nil
}

// EpochRun is one shard's part of an epoch in a lane.
type EpochRun struct {
	Shard  uint32
	Last   uint64 // index of the last record
	Count  uint64 // records; their indexes are dense up to Last
	Raw    uint64 // bytes of data before compression
	Stored uint64 // bytes of blocks
	EndMS  int64  // highest arrival so far in the shard
	Thin   uint8  // one block in 2^Thin was kept
}

// EpochRow is the directory row of a closed epoch in a lane.
type EpochRow struct {
	Session uint32
	StartMS int64
	EndMS   int64 // highest arrival so far in the store
	Runs    []EpochRun
}

// Encode returns the row: version, then uvarints in the order of the fields.
func (r EpochRow) Encode() []byte {
	b := append(make([]byte, 0, 16+24*len(r.Runs)), FormatVersion)
	for _, v := range [...]uint64{uint64(r.Session), uint64(max(r.StartMS, 0)), uint64(max(r.EndMS, 0)), uint64(len(r.Runs))} {
		b = binary.AppendUvarint(b, v)
	}
	for _, run := range r.Runs {
		for _, v := range [...]uint64{uint64(run.Shard), run.Last, run.Count, run.Raw, run.Stored, uint64(max(run.EndMS, 0)), uint64(run.Thin)} {
			b = binary.AppendUvarint(b, v)
		}
	}
	return b
}

// DecodeEpoch is the inverse of EpochRow.Encode.
func DecodeEpoch(b []byte) (EpochRow, error) {
	r, _, err := DecodeEpochTo(b, nil)
	return r, err
}

// epochRunsAtOnce is how many runs DecodeEpochTo makes room for.
const epochRunsAtOnce = 1024

// DecodeEpochTo is DecodeEpoch for many rows: the runs of several share an
// array. room is what the call before returned as left, nil at first.
func DecodeEpochTo(b []byte, room []EpochRun) (r EpochRow, left []EpochRun, err error) {
	n, runs, err := r.decodeHead(b)
	if err != nil {
		return EpochRow{}, room, err
	}
	if uint64(len(room)) < n {
		room = make([]EpochRun, max(n, epochRunsAtOnce))
	}
	r.Runs, left = room[:n:n], room[n:]
	if err := r.decodeRuns(runs); err != nil {
		return EpochRow{}, left, err
	}
	return r, left, nil
}

// decodeHead reads what stands before the runs, and returns their number and bytes.
func (r *EpochRow) decodeHead(b []byte) (n uint64, runs []byte, err error) {
	if len(b) == 0 || b[0] != FormatVersion {
		return 0, nil, fmt.Errorf("%w: epoch row without version %d", ErrRow, FormatVersion)
	}
	d := uvarints{b: b[1:]}
	r.Session, r.StartMS, r.EndMS = uint32(d.next()), int64(d.next()), int64(d.next())
	n = d.next()
	if n > uint64(len(d.b))/7 {
		return 0, nil, fmt.Errorf("%w: %d runs in %d bytes", ErrRow, n, len(d.b))
	}
	if d.bad {
		return 0, nil, errEpochRow
	}
	return n, d.b, nil
}

func (r *EpochRow) decodeRuns(b []byte) error {
	d := uvarints{b: b}
	for i := range r.Runs {
		r.Runs[i] = EpochRun{uint32(d.next()), d.next(), d.next(), d.next(), d.next(), int64(d.next()), uint8(d.next())}
	}
	if d.bad || len(d.b) != 0 {
		return errEpochRow
	}
	return nil
}

var errEpochRow = fmt.Errorf("%w: epoch row ends early or late", ErrRow)

// uvarints reads numbers one after another; bad is set when one can't be read.
type uvarints struct {
	b   []byte
	bad bool
}

func (d *uvarints) next() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

// LedgerRow counts one day's bytes.
type LedgerRow struct {
	Records    uint64 // accepted
	Ingested   uint64 // data and partition keys of accepted records
	Device     uint64 // handed to the device by this store: log, tables, manifest
	Compaction uint64 // of these, rewritten by compactions
	Commits    uint64 // syncs
}

// Encode returns the row, 40 bytes.
func (r LedgerRow) Encode() []byte {
	var b []byte
	for _, v := range [...]uint64{r.Records, r.Ingested, r.Device, r.Compaction, r.Commits} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

// DecodeLedger is the inverse of LedgerRow.Encode.
func DecodeLedger(b []byte) (LedgerRow, error) {
	if len(b) != 40 {
		return LedgerRow{}, fmt.Errorf("%w: ledger of %d bytes", ErrRow, len(b))
	}
	u := binary.LittleEndian.Uint64
	return LedgerRow{u(b), u(b[8:]), u(b[16:]), u(b[24:]), u(b[32:])}, nil
}
