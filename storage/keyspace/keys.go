package keyspace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// The first byte of every key.
const (
	// MetaSpace holds everything that is not record data.
	MetaSpace byte = 0x01
	// LaneSpace is where lane 0 begins; lane n is LaneSpace+n.
	LaneSpace byte = 0x10
	// Lanes is how many lanes there are. A lane is a retention class: its
	// records lie in tables of their own, so that they can go together.
	Lanes = 16
)

// DataKeyBytes is the length of every data key.
const DataKeyBytes = 17

// Kind is the second byte of a metadata key.
type Kind byte

// The kinds of metadata rows. Tables follow from tableBase on.
const (
	KindStore   Kind = 0x01 // the one row about the store itself
	KindStream  Kind = 0x02 // stream id → StreamRow
	KindShard   Kind = 0x03 // stream id, shard number → ShardRow
	KindBound   Kind = 0x04 // shard id → index reserved ahead
	KindJump    Kind = 0x05 // shard id, first index jumped over → JumpRow
	KindEpoch   Kind = 0x06 // epoch, lane → EpochRow
	KindSession Kind = 0x07 // session → SessionRow
	KindLoss    Kind = 0x08 // shard id, first index lost → LossRow
	KindTrim    Kind = 0x09 // shard id → first index kept
	KindLedger  Kind = 0x0a // day → LedgerRow

	tableBase Kind = 0x40
)

// ErrKey means that bytes are not a key of this format.
var ErrKey = errors.New("not a key of this format")

// DataKey names one block.
type DataKey struct {
	Lane  uint8
	Epoch uint32
	Shard uint32 // store-wide shard id
	Last  uint64 // index of the block's last record
}

// Append appends the 17 bytes of the key.
func (k DataKey) Append(b []byte) []byte {
	b = append(b, LaneSpace+k.Lane)
	b = binary.BigEndian.AppendUint32(b, k.Epoch)
	b = binary.BigEndian.AppendUint32(b, k.Shard)
	return binary.BigEndian.AppendUint64(b, k.Last)
}

// ParseDataKey reads a data key. It returns ErrKey, wrapped, for anything else.
func ParseDataKey(b []byte) (DataKey, error) {
	if len(b) != DataKeyBytes || b[0] < LaneSpace || b[0] >= LaneSpace+Lanes {
		return DataKey{}, fmt.Errorf("data key %.40x: %w", b, ErrKey)
	}
	return DataKey{
		Lane: b[0] - LaneSpace, Epoch: binary.BigEndian.Uint32(b[1:]),
		Shard: binary.BigEndian.Uint32(b[5:]), Last: binary.BigEndian.Uint64(b[9:]),
	}, nil
}

// LaneStart returns the first possible key of a lane; LaneStart(Lanes) is the end of all data.
func LaneStart(lane int) []byte { return []byte{LaneSpace + byte(lane)} }

// EpochStart returns the first possible key of an epoch in a lane.
func EpochStart(lane uint8, epoch uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{LaneSpace + lane}, epoch)
}

// ShardStart returns the first possible key of a shard in an epoch of a lane.
func ShardStart(lane uint8, epoch, shard uint32) []byte {
	return binary.BigEndian.AppendUint32(EpochStart(lane, epoch), shard)
}

// Meta returns the key of a metadata row: kind and fixed-width parts.
func Meta(kind Kind, parts ...uint32) []byte {
	b := []byte{MetaSpace, byte(kind)}
	for _, p := range parts {
		b = binary.BigEndian.AppendUint32(b, p)
	}
	return b
}

// MetaIndex returns the key of a metadata row of a shard that carries an index.
func MetaIndex(kind Kind, shard uint32, index uint64) []byte {
	return binary.BigEndian.AppendUint64(Meta(kind, shard), index)
}

// MetaEpoch returns the key of the directory row of an epoch in a lane.
func MetaEpoch(epoch uint32, lane uint8) []byte { return append(Meta(KindEpoch, epoch), lane) }

// MetaSpanEnd returns the first metadata key behind start that belongs in another
// table than start. The rows of epochs lie in tables of their own, epochsPerTable
// epochs each, but for those of the newest epoch's: they change with every flush, as
// what follows them does. What is before them does not, and the binaries of modules are large.
// newest 0 means that it is not known.
func MetaSpanEnd(start []byte, newest, epochsPerTable uint32) []byte {
	if string(start) < string(Meta(KindEpoch)) {
		return Meta(KindEpoch)
	}
	if len(start) > 1 && start[0] == MetaSpace && start[1] == byte(KindEpoch) && epochsPerTable > 0 {
		var epoch [4]byte
		copy(epoch[:], start[2:])
		next := uint64(binary.BigEndian.Uint32(epoch[:])/epochsPerTable+1) * uint64(epochsPerTable)
		if next <= uint64(newest) || newest == 0 && next <= math.MaxUint32 {
			return Meta(KindEpoch, uint32(next))
		}
	}
	for _, end := range [][]byte{AppendTableKey(nil, TableModuleBytes, nil), AppendTableKey(nil, TableModuleBytes+1, nil)} {
		if string(start) < string(end) {
			return end
		}
	}
	return LaneStart(0)
}

// MetaKey is a metadata key taken apart. Which fields are set follows from Kind.
type MetaKey struct {
	Kind  Kind
	Table Table  // rows of tables
	Rest  []byte // key within the table; part of the input
	ID    uint32 // stream, shard, epoch, session or day
	Shard uint32 // number within the stream, for KindShard
	Index uint64 // for KindJump and KindLoss
	Lane  uint8  // for KindEpoch
}

func badMeta(b []byte) error { return fmt.Errorf("metadata key %.40x: %w", b, ErrKey) }

// width returns how many bytes follow the kind in a key, of those kinds that are not tables.
func (k Kind) width() (int, bool) {
	switch k {
	case KindStore:
		return 0, true
	case KindStream, KindBound, KindSession, KindTrim, KindLedger:
		return 4, true
	case KindEpoch:
		return 5, true
	case KindShard:
		return 8, true
	case KindJump, KindLoss:
		return 12, true
	}
	return 0, false
}

// ParseMeta reads a metadata key. It returns ErrKey, wrapped, for anything else.
func ParseMeta(b []byte) (MetaKey, error) {
	if len(b) < 2 || b[0] != MetaSpace {
		return MetaKey{}, badMeta(b)
	}
	k, rest := MetaKey{Kind: Kind(b[1])}, b[2:]
	if k.Kind >= tableBase {
		k.Table, k.Rest = Table(k.Kind-tableBase), rest
		if k.Table == 0 {
			return MetaKey{}, badMeta(b)
		}
		return k, nil
	}
	if n, ok := k.Kind.width(); !ok || len(rest) != n {
		return MetaKey{}, badMeta(b)
	}
	if len(rest) >= 4 {
		k.ID = binary.BigEndian.Uint32(rest)
	}
	switch k.Kind {
	case KindShard:
		k.Shard = binary.BigEndian.Uint32(rest[4:])
	case KindJump, KindLoss:
		k.Index = binary.BigEndian.Uint64(rest[4:])
	case KindEpoch:
		k.Lane = rest[4]
	}
	return k, nil
}

// AppendTableKey appends the key of a table's row.
func AppendTableKey(b []byte, t Table, key []byte) []byte {
	return append(append(b, MetaSpace, byte(tableBase)+byte(t)), key...)
}

// AppendPrefixEnd appends the first key after all those that begin with prefix.
// The prefix must hold a byte below 0xff, which every key of this format does.
func AppendPrefixEnd(b, prefix []byte) []byte {
	n := len(prefix)
	for prefix[n-1] == 0xff {
		n--
	}
	b = append(b, prefix[:n]...)
	b[len(b)-1]++
	return b
}
