package storage

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirhq/weir/storage/keyspace"
	"github.com/weirhq/weir/storage/record"
)

var errSurface = errors.New("storage: engine not wired yet")

type Options struct {
	FS             vfs.FS
	MemTableBytes  int64
	CacheBytes     int64
	AdmissionBytes int64
	ReserveBytes   int64
	TotalBytes     int64
	Clock          func() time.Time
	Logger         *slog.Logger
}

type Store struct{}

func Open(ctx context.Context, dir string, o Options) (*Store, error) { return nil, errSurface }
func (s *Store) Close() error                                         { return errSurface }

type Recovery struct {
	Clean bool
}

func (s *Store) Recovery() Recovery { return Recovery{} }

type State struct {
	Writable   bool
	Reason     string
	DiskFull   bool
	BytesFree  int64
	BytesTotal int64
}

func (s *Store) State() State { return State{} }

type Ledger struct{}

func (s *Store) Ledger() Ledger { return Ledger{} }

type Metrics struct{}

func (s *Store) Metrics() Metrics { return Metrics{} }

type (
	Mode   uint8
	Policy uint8
	Codec  uint8
)

const (
	Provisioned Mode = iota
	OnDemand
)

const (
	Reject Policy = iota
	DropOldest
	ThinOut
)

const (
	Zstd Codec = iota
	S2
	None
	Auto
)

type StreamConfig struct {
	Name           string
	Shards         int
	Mode           Mode
	Retention      time.Duration
	RetentionBytes int64
	WhenFull       Policy
	Codec          Codec
	MaxRecordBytes int
	System         bool
}

func (s *Store) CreateStream(ctx context.Context, c StreamConfig) (*Stream, error) {
	return nil, errSurface
}
func (s *Store) Stream(name string) (*Stream, error)                 { return nil, errSurface }
func (s *Store) Streams() []*Stream                                  { return nil }
func (s *Store) DeleteStream(ctx context.Context, name string) error { return errSurface }

type Stream struct{}

func (st *Stream) Name() string                                             { return "" }
func (st *Stream) ID() uint32                                               { return 0 }
func (st *Stream) CreatedAt() time.Time                                     { return time.Time{} }
func (st *Stream) Config() StreamConfig                                     { return StreamConfig{} }
func (st *Stream) Update(ctx context.Context, fn func(*StreamConfig)) error { return errSurface }
func (st *Stream) Shards() []ShardInfo                                      { return nil }
func (st *Stream) Shard(n record.ShardNumber) (ShardInfo, error)            { return ShardInfo{}, errSurface }
func (st *Stream) Sequence(n record.ShardNumber, index uint64, arrival time.Time) record.SequenceNumber {
	return record.SequenceNumber{}
}
func (st *Stream) Split(ctx context.Context, n record.ShardNumber, newStart record.HashKey) error {
	return errSurface
}
func (st *Stream) Merge(ctx context.Context, a, b record.ShardNumber) error { return errSurface }
func (st *Stream) UpdateShardCount(ctx context.Context, target int) error   { return errSurface }

type ShardInfo struct {
	Number                       record.ShardNumber
	Hash                         record.HashRange
	Parent, AdjacentParent       record.ShardNumber
	HasParent, HasAdjacentParent bool
	Created, Closed              time.Time
	First, Last                  uint64
	LastArrival                  time.Time
	Bytes                        int64
}

func (i ShardInfo) Open() bool                                    { return i.Closed.IsZero() }
func (i ShardInfo) StartingSequenceNumber() record.SequenceNumber { return record.SequenceNumber{} }
func (i ShardInfo) EndingSequenceNumber() record.SequenceNumber   { return record.SequenceNumber{} }

type Table = keyspace.Table

const (
	TableLease         = keyspace.TableLease
	TableCheckpoint    = keyspace.TableCheckpoint
	TableModuleState   = keyspace.TableModuleState
	TableOutbox        = keyspace.TableOutbox
	TableRecipe        = keyspace.TableRecipe
	TableManifest      = keyspace.TableManifest
	TableSetting       = keyspace.TableSetting
	TableModule        = keyspace.TableModule
	TableModuleBytes   = keyspace.TableModuleBytes
	TableDelivery      = keyspace.TableDelivery
	TableConsumer      = keyspace.TableConsumer
	TableLeaseTable    = keyspace.TableLeaseTable
	TableMetric        = keyspace.TableMetric
	TableUpdate        = keyspace.TableUpdate
	TableMQTT          = keyspace.TableMQTT
	TableSubscription  = keyspace.TableSubscription
	TableIdentity      = keyspace.TableIdentity
	TableDeduplication = keyspace.TableDeduplication
	TableThrottle      = keyspace.TableThrottle
	TableAudit         = keyspace.TableAudit
)

func (s *Store) Begin(ctx context.Context, sizeBytes int) (*Txn, error) { return nil, errSurface }

type Txn struct{}

func (t *Txn) Reserve(st *Stream, partitionKey []byte, explicit *record.HashKey, dataLen int) ([]byte, error) {
	return nil, errSurface
}
func (t *Txn) Shrink(n int) {}
func (t *Txn) Append(st *Stream, partitionKey []byte, explicit *record.HashKey, data []byte) error {
	return errSurface
}
func (t *Txn) Put(table Table, key, value []byte)      {}
func (t *Txn) Delete(table Table, key []byte)          {}
func (t *Txn) DeletePrefix(table Table, prefix []byte) {}
func (t *Txn) Expect(table Table, key, value []byte)   {}
func (t *Txn) Commit(ctx context.Context) error        { return errSurface }
func (t *Txn) Len() int                                { return 0 }
func (t *Txn) Release()                                {}
func (t *Txn) Rollback()                               {}
func (t *Txn) Result(i int) (shard record.ShardNumber, index uint64, arrival time.Time) {
	return 0, 0, time.Time{}
}

func (s *Store) Get(table Table, key []byte) ([]byte, error) { return nil, errSurface }
func (s *Store) Scan(table Table, prefix, after []byte, limit int, fn func(key, value []byte) bool) error {
	return errSurface
}

type PositionKind uint8

const (
	TrimHorizon PositionKind = iota
	Latest
	AtIndex
	AfterIndex
	AtTime
)

type Position struct {
	Kind  PositionKind
	Index uint64
	Time  time.Time
}

func (st *Stream) NewReader(n record.ShardNumber, p Position) (*Reader, error) {
	return nil, errSurface
}

type Reader struct{}

func (r *Reader) Read(maxRecords, maxBytes int, fn func(*record.Record) bool) (n int, err error) {
	return 0, errSurface
}
func (r *Reader) Frames(maxBytes int, fn func(Frame) bool) error        { return errSurface }
func (r *Reader) Wait(ctx context.Context) error                        { return errSurface }
func (r *Reader) Position() uint64                                      { return 0 }
func (r *Reader) Skipped() []Gap                                        { return nil }
func (r *Reader) Lag() (records uint64, bytes int64, age time.Duration) { return 0, 0, 0 }
func (r *Reader) Close()                                                {}

// Gap is a range of indexes that a reader passed over.
type Gap struct {
	First, Last uint64
	Records     uint64
	Reason      GapReason
}

type GapReason uint8

const (
	GapRetention GapReason = iota + 1
	GapDropped
	GapThinned
	GapDamage
)

// FrameCodec is how a stored frame is compressed.
type FrameCodec uint8

const (
	FrameRaw FrameCodec = iota
	FrameS2
	FrameZstd
)

type Frame struct {
	First, Last uint64
	Arrival     time.Time
	Codec       FrameCodec
	Data        []byte
	RawLen      int
	Count       int
	Partial     bool
	Skip        int
}

// Meta calls fn for each record of the block, in order, without its data:
// length is the length of the data in the raw frame.
func (f *Frame) Meta(fn func(r *record.Record, length int) bool) error { return errSurface }
