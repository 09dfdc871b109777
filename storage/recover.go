package storage

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"

	"github.com/weirhq/weir/storage/block"
	"github.com/weirhq/weir/storage/commit"
	"github.com/weirhq/weir/storage/epoch"
	"github.com/weirhq/weir/storage/keyspace"
	"github.com/weirhq/weir/storage/record"
	"github.com/weirhq/weir/storage/shard"
	"github.com/weirhq/weir/storage/stream"
)

// Recovery is what an open found and did. Everything in it was also logged.
type Recovery struct {
	// Clean says that the last process closed the store in good order.
	Clean bool `json:"clean"`
	// Session numbers this open.
	Session uint32 `json:"session"`
	// Took is how long the open lasted.
	Took time.Duration `json:"took_ns"`
	// Jumps are the ranges of indexes passed over because the last process
	// may have used them.
	Jumps []ShardRange `json:"jumps,omitempty"`
	// Damaged are ranges of records that are known to be lost or unreadable.
	Damaged []ShardRange `json:"damaged,omitempty"`
	// SetAside are the files that could not be read and were kept aside.
	SetAside []SetAside `json:"set_aside,omitempty"`
	// Orphans are records whose stream's row is lost; an open with Options.Adopt makes
	// a stream for each of their shards, and says so in Adopted.
	Orphans []ShardRange `json:"orphans,omitempty"`
	Adopted []ShardRange `json:"adopted,omitempty"`
	// Finished are splits and merges that the last process began and this open ended.
	Finished []ShardRange `json:"finished,omitempty"`
}

// ShardRange is a range of indexes of a shard.
type ShardRange struct {
	Stream string             `json:"stream"`
	Shard  record.ShardNumber `json:"shard"`
	First  uint64             `json:"first"`
	Last   uint64             `json:"last"`
	Reason string             `json:"reason"`
}

// SetAside is a file that recovery kept but does not use.
type SetAside struct {
	Path   string `json:"path"`
	Bytes  int64  `json:"bytes"`
	Reason string `json:"reason"`
}

// Recovery returns what the open found and did.
func (s *Store) Recovery() Recovery { return s.recovery }

// found is what the metadata rows and the unfinished epochs say.
type found struct {
	store    keyspace.StoreRow
	hasStore bool
	streams  []keyspace.StreamRow
	shards   []keyspace.ShardRow
	bounds   map[uint32]uint64
	trims    map[uint32]uint64
	jumps    map[uint32][]commit.Jump
	losses   map[uint32][]shard.Loss
	sessions []keyspace.SessionRow
	epochs   []listed
	unlisted []epoch.Key            // epochs that have data but no row
	missing  []listed               // epochs that have a row but no data
	byShard  map[uint32][]epoch.Run // what runs returns, if no epoch is unlisted
	bad      []string               // rows that could not be read
}

// listed is an epoch and its directory row; several are in order of the epoch, then the lane.
type listed struct {
	epoch.Key
	keyspace.EpochRow
}

func compareKeys(a, b epoch.Key) int {
	return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Lane, b.Lane))
}

// recoverState rebuilds everything that lives in memory and starts the committer.
func (s *Store) recoverState(ctx context.Context) error {
	began := time.Now()
	f := s.found
	if f.hasStore && f.store.Format > keyspace.FormatVersion {
		return fmt.Errorf("version %d, this program reads up to %d: %w", f.store.Format, keyspace.FormatVersion, ErrNewerFormat)
	}
	for _, e := range f.missing {
		s.reportMissing(f, e)
	}
	b := s.db.NewBatch()
	defer b.Close()
	nextEpoch, lastMS, err := s.listUnlisted(ctx, f, b)
	if err != nil {
		return err
	}
	lastMS = s.beginSession(f, nextEpoch, lastMS)
	s.directory = epoch.New()
	s.env = &shard.Env{DB: s.db, Dir: s.directory, Now: s.now, Damaged: s.damaged}
	s.streamEnv = &stream.Env{Shards: s.env, NewShards: s.newShards}
	s.mu.streams = make(map[string]*stream.Stream)
	if err := s.buildStreams(f, b); err != nil {
		return err
	}
	if s.trimmed, err = f.stageForgotten(b); err != nil {
		return err
	}
	if err := s.writeSession(f, b); err != nil {
		return err
	}
	s.addEntries(f)
	if err := b.SyncWait(); err != nil {
		return err
	}
	s.committer = commit.New(s.db, s.directory, s.clock, commit.Options{
		GroupBytes: s.o.GroupBytes, AdmissionBytes: s.o.AdmissionBytes, MemTableBytes: s.o.MemTableBytes,
		EpochAge: s.epochAge, Session: s.mu.session.Session, FirstEpoch: nextEpoch, LastMS: lastMS, OnLearnt: s.learnt, Packed: &s.packed, OnRows: s.spans.wrote,
	})
	s.streamEnv.Committer = s.committer
	if p := s.failure.Load(); p != nil {
		s.committer.Fail(*p)
	}
	s.nameMissing()
	s.recovery.Took = time.Since(began)
	s.logRecovery(f)
	return nil
}

func (s *Store) logRecovery(f *found) {
	r := &s.recovery
	s.log.Info("store opened", "clean", r.Clean, "session", r.Session, "streams", len(f.streams), "took", r.Took)
	for _, b := range f.bad {
		s.log.Warn("row set aside", "row", b)
	}
	for _, d := range r.Damaged {
		s.log.Warn("records lost or unreadable", "stream", d.Stream, "shard", d.Shard.String(), "first", d.First, "last", d.Last, "reason", d.Reason)
	}
	for _, d := range r.Orphans {
		s.log.Warn("records have no stream: its row is lost; they are kept until repair adopts them", "as", d.Stream, "first", d.First, "last", d.Last)
	}
	for _, d := range r.Adopted {
		s.log.Warn("records without a stream have one again", "stream", d.Stream, "first", d.First, "last", d.Last)
	}
	for _, a := range r.SetAside {
		s.log.Warn("file set aside", "path", a.Path, "bytes", a.Bytes, "reason", a.Reason)
	}
}

// readRows reads all metadata rows that are not tables'.
func readRows(ctx context.Context, db *pebble.DB) (*found, error) {
	f := &found{
		bounds: map[uint32]uint64{}, trims: map[uint32]uint64{}, jumps: map[uint32][]commit.Jump{},
		losses: map[uint32][]shard.Loss{},
	}
	it, err := db.NewIterWithContext(ctx, &pebble.IterOptions{
		LowerBound: []byte{keyspace.MetaSpace}, UpperBound: keyspace.AppendTableKey(nil, 0, nil),
	})
	if err != nil {
		return nil, err
	}
	var room []keyspace.EpochRun
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return nil, errors.Join(err, it.Close())
		}
		k, err := keyspace.ParseMeta(it.Key())
		switch {
		case err != nil:
		case k.Kind == keyspace.KindEpoch:
			e := listed{Key: epoch.Key{Lane: k.Lane, Epoch: k.ID}}
			if e.EpochRow, room, err = keyspace.DecodeEpochTo(value, room); err == nil {
				f.epochs = append(f.epochs, e) // keys come in this order
			}
		default:
			err = f.add(k, value)
		}
		if err != nil {
			f.bad = append(f.bad, fmt.Sprintf("%x: %v", it.Key(), err))
		}
	}
	return f, it.Close()
}

// add enters one row.
func (f *found) add(k keyspace.MetaKey, v []byte) error {
	switch k.Kind {
	case keyspace.KindStore:
		f.hasStore = true
		return keyspace.DecodeJSON(v, &f.store)
	case keyspace.KindStream:
		var r keyspace.StreamRow
		if err := keyspace.DecodeJSON(v, &r); err != nil {
			return err
		}
		f.streams = append(f.streams, r)
	case keyspace.KindShard:
		var r keyspace.ShardRow
		if err := keyspace.DecodeJSON(v, &r); err != nil {
			return err
		}
		f.shards = append(f.shards, r)
	case keyspace.KindSession:
		var r keyspace.SessionRow
		if err := keyspace.DecodeJSON(v, &r); err != nil {
			return err
		}
		f.sessions = append(f.sessions, r)
	default:
		return f.addIndex(k, v)
	}
	return nil
}

// addIndex enters a row that belongs to a shard id.
func (f *found) addIndex(k keyspace.MetaKey, v []byte) error {
	switch k.Kind {
	case keyspace.KindBound, keyspace.KindTrim:
		i, err := keyspace.DecodeIndex(v)
		if err != nil {
			return err
		}
		if k.Kind == keyspace.KindBound {
			f.bounds[k.ID] = i
		} else {
			f.trims[k.ID] = i
		}
	case keyspace.KindJump:
		r, err := keyspace.DecodeJump(v)
		if err != nil {
			return err
		}
		f.jumps[k.ID] = append(f.jumps[k.ID], commit.Jump{First: k.Index, Last: r.Last})
	case keyspace.KindLoss:
		r, err := keyspace.DecodeLoss(v)
		if err != nil {
			return err
		}
		f.losses[k.ID] = append(f.losses[k.ID], shard.Loss{
			First: k.Index, Last: r.Last, Records: r.Records, Bytes: r.Bytes, Time: time.UnixMilli(r.TimeMS), Reason: r.Reason,
		})
	}
	return nil
}

// match compares the directory rows with the tables that are there: data without
// a row belongs to the epochs that were open when the last process ended.
func (f *found) match(tables []table) {
	var present []epoch.Key
	for i := range tables {
		t := &tables[i]
		for e := t.from.Epoch; t.from.Lane == t.to.Lane && e <= t.to.Epoch; e++ {
			present = append(present, epoch.Key{Lane: t.from.Lane, Epoch: e})
		}
	}
	slices.SortFunc(present, compareKeys)
	present = slices.Compact(present)
	rows := f.epochs
	for _, k := range present {
		for len(rows) > 0 && compareKeys(rows[0].Key, k) < 0 {
			f.missing = append(f.missing, rows[0])
			rows = rows[1:]
		}
		if len(rows) > 0 && rows[0].Key == k {
			rows = rows[1:]
			continue
		}
		f.unlisted = append(f.unlisted, k)
	}
	f.missing = append(f.missing, rows...)
}

// reportMissing notes that an epoch's table is gone though its row is there.
func (s *Store) reportMissing(f *found, e listed) {
	names := f.shardNames()
	for _, run := range e.Runs {
		if n, ok := names[run.Shard]; ok {
			n.First, n.Last, n.Reason = run.Last-run.Count+1, run.Last, fmt.Sprintf("the table of epoch %d is missing", e.Epoch)
			s.recovery.Damaged = append(s.recovery.Damaged, n)
		}
	}
}

// shardNames maps store-wide shard ids to what an operator knows.
func (f *found) shardNames() map[uint32]ShardRange {
	names := make(map[uint32]ShardRange, len(f.shards))
	byID := map[uint32]string{}
	for _, r := range f.streams {
		byID[r.ID] = r.Name
	}
	for _, r := range f.shards {
		names[r.ID] = ShardRange{Stream: byID[r.Stream], Shard: r.Number}
	}
	return names
}

// listUnlisted reads the epochs that have no row and makes rows for them. It
// returns the first epoch never used and the latest arrival in the store.
func (s *Store) listUnlisted(ctx context.Context, f *found, b *pebble.Batch) (next uint32, lastMS int64, err error) {
	for i := range f.epochs {
		e := &f.epochs[i]
		next, lastMS = max(next, e.Epoch+1), max(lastMS, e.EndMS)
	}
	for _, r := range f.sessions {
		next, lastMS = max(next, r.NextEpoch, r.FirstEpoch), max(lastMS, r.LastKnownMS)
	}
	if len(f.unlisted) == 0 {
		return next, lastMS, nil
	}
	top := f.newestRuns()
	for _, k := range f.unlisted {
		row, err := s.scanEpoch(ctx, f, k, top)
		if err != nil {
			return 0, 0, err
		}
		next = max(next, k.Epoch+1)
		if len(row.Runs) == 0 {
			// Without a row nothing takes it away: repair sets it aside first.
			s.unreadable = append(s.unreadable, k)
			continue
		}
		row.Session, row.EndMS = f.sessionOf(k.Epoch), max(row.EndMS, lastMS)
		lastMS = max(lastMS, row.EndMS)
		f.epochs = append(f.epochs, listed{k, row})
		if err := b.Set(keyspace.MetaEpoch(k.Epoch, k.Lane), row.Encode(), nil); err != nil {
			return 0, 0, err
		}
	}
	slices.SortFunc(f.epochs, func(a, b listed) int { return compareKeys(a.Key, b.Key) })
	return next, lastMS, nil
}

// newestRuns returns the last run of each shard that has a row.
func (f *found) newestRuns() map[uint32]keyspace.EpochRun {
	top := map[uint32]keyspace.EpochRun{}
	for i := range f.epochs {
		for _, run := range f.epochs[i].Runs {
			if run.Last > top[run.Shard].Last {
				top[run.Shard] = run
			}
		}
	}
	return top
}

func (f *found) sessionOf(e uint32) (session uint32) {
	for _, r := range f.sessions {
		if r.FirstEpoch <= e {
			session = max(session, r.Session)
		}
	}
	return session
}

// scanEpoch makes the row of an epoch from its blocks, of those that can be read.
func (s *Store) scanEpoch(ctx context.Context, f *found, k epoch.Key, top map[uint32]keyspace.EpochRun) (keyspace.EpochRow, error) {
	sc := epochScan{s: s, f: f, top: top}
	it, err := s.db.NewIterWithContext(ctx, &pebble.IterOptions{
		LowerBound: keyspace.EpochStart(k.Lane, k.Epoch), UpperBound: keyspace.AppendPrefixEnd(nil, keyspace.EpochStart(k.Lane, k.Epoch)),
	})
	if err != nil {
		return sc.row, err
	}
	var last []byte // key of the block read last
	var ends [][]byte
	for ok := it.First(); ; {
		for ; ok; ok = it.Next() {
			value, err := it.ValueAndErr()
			if err != nil {
				break
			}
			sc.block(it.Key(), value)
			last = append(last[:0], it.Key()...)
		}
		err := it.Error()
		if err == nil {
			break
		}
		if !isDamage(err) {
			return sc.row, errors.Join(err, it.Close())
		}
		if sc.broken == nil {
			s.log.Error("an epoch can't be read whole", "epoch", k.Epoch, "lane", k.Lane, "cause", firstLine(err.Error()))
			ends = s.endsIn(ctx, k)
		}
		sc.broken, sc.gap = err, true
		// Behind the block that it broke in there may be others.
		for ok = false; !ok && len(ends) > 0; ends = ends[1:] {
			if bytes.Compare(ends[0], last) > 0 {
				ok = it.SeekGE(append(bytes.Clone(ends[0]), 0))
			}
		}
		if !ok {
			break
		}
	}
	_ = it.Close() // its error was reported
	if sc.broken != nil {
		sc.end(k)
	}
	for _, r := range sc.row.Runs {
		if r.Last > top[r.Shard].Last {
			top[r.Shard] = r
		}
	}
	return sc.row, ctx.Err()
}

// endsIn returns keys at the ends of the blocks of the tables that hold an epoch.
func (s *Store) endsIn(ctx context.Context, k epoch.Key) (ends [][]byte) {
	for i := range s.tables {
		t := &s.tables[i]
		if t.from.Lane != k.Lane || t.from.Epoch > k.Epoch || t.to.Epoch < k.Epoch {
			continue
		}
		more, err := s.endsOf(ctx, t)
		if err != nil { // then nothing of it can be read
			s.log.Error("a table's index can't be read", "table", tableName(t.number), "cause", firstLine(err.Error()))
			continue
		}
		ends = append(ends, more...)
	}
	slices.SortFunc(ends, bytes.Compare)
	return ends
}

func (s *Store) endsOf(ctx context.Context, t *table) ([][]byte, error) {
	f, err := openTable(s.o.FS.Open(s.o.FS.PathJoin(s.dir, engineDir, tableName(t.number))))
	if err != nil {
		return nil, err
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	o := pebbleOptions(s.o, s.o.FS, nil, nil)
	o.EnsureDefaults()
	r, err := sstable.NewReader(ctx, readable, o.MakeReaderOptions())
	if err != nil {
		return nil, errors.Join(err, readable.Close())
	}
	ends, err := blockEnds(ctx, r)
	return ends, errors.Join(err, r.Close())
}

// epochScan gathers the row of an epoch.
type epochScan struct {
	s      *Store
	f      *found
	top    map[uint32]keyspace.EpochRun
	row    keyspace.EpochRow
	broken error // why not all of the epoch could be read
	gap    bool  // it broke behind the block read last
}

// next returns the first index that a shard's records in this epoch can have, if there
// is one at or before index.
func (sc *epochScan) next(shard uint32, index uint64) uint64 {
	n := max(sc.top[shard].Last+1, sc.f.trims[shard])
	for _, j := range sc.f.jumps[shard] {
		if n <= j.Last && j.Last < index {
			n = j.Last + 1
		}
	}
	return min(n, index)
}

// lost names records that a broken block held.
func (sc *epochScan) lost(shard uint32, first, last uint64, reason string) {
	d := sc.f.shardNames()[shard]
	d.First, d.Last, d.Reason = first, last, reason
	sc.s.recovery.Damaged = append(sc.s.recovery.Damaged, d)
}

// end enters what the tables of the epoch are known to end with.
func (sc *epochScan) end(k epoch.Key) {
	for i := range sc.s.tables {
		to, n := sc.s.tables[i].to, len(sc.row.Runs)-1
		if to.Lane != k.Lane || to.Epoch != k.Epoch || n < 0 || to.Shard < sc.row.Runs[n].Shard {
			continue
		}
		if to.Shard > sc.row.Runs[n].Shard {
			sc.endless(to.Shard)
			sc.row.Runs = append(sc.row.Runs, keyspace.EpochRun{Shard: to.Shard, Last: sc.next(to.Shard, to.Last) - 1, EndMS: sc.top[to.Shard].EndMS})
			n++
		}
		if r := &sc.row.Runs[n]; r.Last < to.Last {
			sc.lost(to.Shard, r.Last+1, to.Last, firstLine(sc.broken.Error()))
			r.Count += to.Last - r.Last
			r.Last = to.Last
		}
		sc.gap = false
	}
	if sc.gap {
		sc.endless(math.MaxUint32)
	}
}

// endless notes the shards whose last records may be in what can't be read before the
// records of shard upTo.
func (sc *epochScan) endless(upTo uint32) {
	var from uint32
	if n := len(sc.row.Runs); n > 0 {
		from = sc.row.Runs[n-1].Shard
	}
	for id := range sc.f.shardNames() {
		if from <= id && id < upTo {
			sc.s.endless[id] = firstLine(sc.broken.Error())
		}
	}
}

func (sc *epochScan) block(dataKey, value []byte) {
	key, err := keyspace.ParseDataKey(dataKey)
	if err != nil {
		return
	}
	if sc.gap {
		sc.endless(key.Shard)
		sc.gap = false
	}
	delete(sc.s.endless, key.Shard)
	row, run := &sc.row, sc.top[key.Shard]
	n := len(row.Runs)
	if n == 0 || row.Runs[n-1].Shard != key.Shard {
		row.Runs = append(row.Runs, keyspace.EpochRun{Shard: key.Shard, EndMS: run.EndMS})
		n++
	}
	r := &row.Runs[n-1]
	h, err := block.Check(value)
	if err != nil {
		// Its records are in the range, and readers report them: a block in
		// the middle must not cut off what follows.
		h = block.Header{Count: int(key.Last - max(r.Last, run.Last))}
		sc.lost(key.Shard, key.Last-uint64(h.Count)+1, key.Last, err.Error())
	}
	first := key.Last - uint64(h.Count) + 1
	if sc.broken != nil {
		if r.Count == 0 {
			r.Last = sc.next(key.Shard, first) - 1
		}
		if r.Last+1 < first {
			sc.lost(key.Shard, r.Last+1, first-1, firstLine(sc.broken.Error()))
		}
		r.Count += key.Last - r.Last
	} else if r.Count == 0 {
		r.Count = uint64(h.Count)
	} else {
		r.Count += key.Last - r.Last // what is missing in between is reported by readers
	}
	r.Last = key.Last
	r.Raw += uint64(h.DataRawBytes)
	r.Stored += uint64(len(value))
	r.EndMS = max(r.EndMS, h.ArrivalMS)
	row.EndMS = max(row.EndMS, r.EndMS)
	if row.StartMS == 0 {
		row.StartMS = h.ArrivalMS
	}
}

// beginSession starts the clock and prepares the rows of this open. It returns
// the latest time the store has seen, lastMS unless stamps were corrected.
func (s *Store) beginSession(f *found, nextEpoch uint32, lastMS int64) int64 {
	slices.SortFunc(f.sessions, func(a, b keyspace.SessionRow) int { return cmp.Compare(a.Session, b.Session) })
	if lastMS > 0 && !commit.Plausible(lastMS) {
		lastMS = s.datePast(f, nextEpoch, lastMS)
	}
	s.clock = commit.NewClock(s.o.Clock, s.o.Uptime, lastMS)
	s.recovery.Clean, s.recovery.Session = true, 1
	if n := len(f.sessions); n > 0 {
		s.recovery.Clean = f.sessions[n-1].Clean
		s.recovery.Session = f.sessions[n-1].Session + 1
	}
	now := s.now().UnixMilli()
	s.mu.session = keyspace.SessionRow{Session: s.recovery.Session, BootID: bootID(), WallMS: now, FirstEpoch: nextEpoch}
	s.mu.row = f.store
	if !f.hasStore {
		var id [16]byte
		_, _ = rand.Read(id[:]) // never fails
		s.mu.row = keyspace.StoreRow{Format: keyspace.FormatVersion, ID: hex.EncodeToString(id[:]), CreatedMS: now, NextStream: 1, NextShard: 1}
	}
	return lastMS
}

// datePast takes care of opens that never knew the time, which all went on from
// 1970. With a clock that is plausible now, their records are dated to just
// before now, the latest they can be: retention keeps them for its whole time.
// With one that isn't, the rows wait for learnt.
func (s *Store) datePast(f *found, nextEpoch uint32, lastMS int64) int64 {
	now := s.o.Clock().UnixMilli()
	for i := range f.sessions {
		row := &f.sessions[i]
		through := nextEpoch - 1
		if i+1 < len(f.sessions) {
			through = f.sessions[i+1].FirstEpoch - 1
		}
		if row.ShiftMS != 0 || row.FirstEpoch > through || nextEpoch == 0 {
			continue
		}
		row.Through = through
		if commit.Plausible(now) {
			row.ShiftMS = now - lastMS
		} else {
			s.mu.undated = append(s.mu.undated, *row)
		}
	}
	if commit.Plausible(now) {
		return now
	}
	return lastMS
}

// dropOrphaned leaves out the rows of shards whose stream has none.
func (f *found) dropOrphaned() {
	streams := map[uint32]bool{}
	for i := range f.streams {
		streams[f.streams[i].ID] = true
	}
	f.shards = slices.DeleteFunc(f.shards, func(r keyspace.ShardRow) bool {
		if !streams[r.Stream] {
			f.bad = append(f.bad, fmt.Sprintf("shard %d of stream %d: no such stream", r.Number, r.Stream))
		}
		return !streams[r.Stream]
	})
}

// adopt makes a stream for each shard that has records but no row, of a name that says
// which shard it was: what the row said is lost, the records are not. Its records are
// kept as long as may be. Without Options.Adopt it only says that they are there.
func (s *Store) adopt(f *found, runs map[uint32][]epoch.Run, b *pebble.Batch) error {
	known, names := map[uint32]bool{}, map[string]bool{}
	for i := range f.shards {
		known[f.shards[i].ID] = true
	}
	for i := range f.streams {
		names[f.streams[i].Name] = true
	}
	for _, id := range slices.Sorted(maps.Keys(runs)) {
		if known[id] || f.trims[id] == keyspace.TrimmedAll || len(runs[id]) == 0 {
			continue
		}
		r := runs[id]
		name := adoptedName(id)
		if !s.o.Adopt {
			s.recovery.Orphans = append(s.recovery.Orphans, ShardRange{name, 0, r[0].First(), r[len(r)-1].Last, "the row of its stream is lost"})
			continue
		}
		for n := 2; names[name]; n++ { // somebody's own choice
			name = fmt.Sprintf("%s.%d", adoptedName(id), n)
		}
		names[name] = true
		all := record.SplitRing(1)[0]
		st := keyspace.StreamRow{
			ID: s.mu.row.NextStream, Name: name, CreatedMS: max(r[0].EndMS, 1), RetentionMS: stream.MaxRetention.Milliseconds(),
			MaxRecordBytes: stream.DefaultMaxRecordBytes, Lane: r[len(r)-1].Lane, NextNumber: 1,
		}
		s.mu.row.NextStream++
		sh := keyspace.ShardRow{ID: id, Stream: st.ID, First: all.First.String(), Last: all.Last.String(), CreatedMS: st.CreatedMS}
		f.streams, f.shards = append(f.streams, st), append(f.shards, sh)
		if err := errors.Join(b.Set(keyspace.Meta(keyspace.KindStream, st.ID), keyspace.EncodeJSON(st), nil),
			b.Set(keyspace.Meta(keyspace.KindShard, st.ID, 0), keyspace.EncodeJSON(sh), nil)); err != nil {
			return err
		}
		s.recovery.Adopted = append(s.recovery.Adopted, ShardRange{name, 0, r[0].First(), r[len(r)-1].Last, "the row of its stream was lost"})
	}
	return nil
}

// adoptedName is the name of the stream made for a shard whose rows are lost.
func adoptedName(shardID uint32) string { return fmt.Sprintf("recovered-%d", shardID) }

// fillHoles adds an open shard for each range of a stream's hash keys that none has:
// the row of one was lost, and records that belong there have to go somewhere.
func (s *Store) fillHoles(f *found, b *pebble.Batch) error {
	open := map[uint32][]record.HashRange{}
	number := map[uint32]record.ShardNumber{}
	for i := range f.shards {
		r := &f.shards[i]
		number[r.Stream] = max(number[r.Stream], r.Number+1)
		if h, err := hashRange(*r); err == nil && r.ClosedMS == 0 && f.trims[r.ID] != keyspace.TrimmedAll {
			open[r.Stream] = append(open[r.Stream], h)
		}
	}
	for i := range f.streams {
		st := &f.streams[i]
		for _, h := range holes(open[st.ID]) {
			row := keyspace.ShardRow{
				ID: s.mu.row.NextShard, Stream: st.ID, Number: max(number[st.ID], record.ShardNumber(st.NextNumber)),
				First: h.First.String(), Last: h.Last.String(), CreatedMS: max(s.mu.session.WallMS, st.CreatedMS, 1),
			}
			s.mu.row.NextShard++
			number[st.ID] = row.Number + 1
			f.shards = append(f.shards, row)
			f.bad = append(f.bad, fmt.Sprintf("no shard of stream %q has the hash keys %s to %s: %s is made for them", st.Name, row.First, row.Last, row.Number))
			if err := b.Set(keyspace.Meta(keyspace.KindShard, st.ID, uint32(row.Number)), keyspace.EncodeJSON(row), nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// holes are the ranges of hash keys that lie in none of the given ones.
func holes(have []record.HashRange) (out []record.HashRange) {
	slices.SortFunc(have, func(a, b record.HashRange) int { return a.First.Cmp(b.First) })
	next, more := record.HashKey{}, true
	for _, h := range have {
		if last, ok := h.First.Prev(); ok && next.Cmp(last) <= 0 {
			out = append(out, record.HashRange{First: next, Last: last})
		}
		if next.Cmp(h.Last) <= 0 {
			if next, more = h.Last.Next(); !more {
				return out
			}
		}
	}
	return append(out, record.HashRange{First: next, Last: record.SplitRing(1)[0].Last})
}

// buildStreams makes streams and shards from their rows.
func (s *Store) buildStreams(f *found, b *pebble.Batch) error {
	runs := f.byShard
	if runs == nil {
		runs = f.runs()
	}
	byStream := map[uint32][]*shard.Shard{}
	s.finishReshards(f, runs)
	for _, r := range f.streams {
		s.mu.row.NextStream = max(s.mu.row.NextStream, r.ID+1)
	}
	for _, r := range f.shards { // of a stream that has lost its own row too
		s.mu.row.NextStream = max(s.mu.row.NextStream, r.Stream+1)
	}
	f.dropOrphaned()
	if err := s.adopt(f, runs, b); err != nil {
		return err
	}
	streams := map[uint32]keyspace.StreamRow{}
	for _, r := range f.streams {
		streams[r.ID] = r
	}
	for id := range runs {
		s.mu.row.NextShard = max(s.mu.row.NextShard, id+1)
	}
	for id := range f.trims {
		s.mu.row.NextShard = max(s.mu.row.NextShard, id+1)
	}
	for _, r := range f.shards {
		s.mu.row.NextShard = max(s.mu.row.NextShard, r.ID+1)
	}
	if err := s.fillHoles(f, b); err != nil {
		return err
	}
	for _, r := range f.shards {
		if f.trims[r.ID] == keyspace.TrimmedAll {
			continue // deleted: an older version of the row was saved
		}
		st, ok := streams[r.Stream]
		hash, err := hashRange(r)
		if !ok || err != nil {
			f.bad = append(f.bad, fmt.Sprintf("shard %d of stream %d: no such stream, or %v", r.Number, r.Stream, err))
			continue
		}
		state, err := s.logState(f, st.Name, r, runs[r.ID], b)
		if err != nil {
			return err
		}
		log := commit.NewLog(r.ID, r.Number, st.Lane, commit.Codec(st.Codec), state)
		for _, row := range f.sessions {
			if row.ShiftMS != 0 {
				log.ShiftRuns(row.FirstEpoch, row.Through, row.ShiftMS)
			}
		}
		byStream[r.Stream] = append(byStream[r.Stream], shard.New(s.env, log, hash, r, f.losses[r.ID]))
	}
	for _, r := range f.streams {
		shards := byStream[r.ID]
		slices.SortFunc(shards, func(a, b *shard.Shard) int { return cmp.Compare(a.Number, b.Number) })
		if n := len(shards); n > 0 {
			r.NextNumber = max(r.NextNumber, uint32(shards[n-1].Number)+1)
		}
		s.mu.streams[r.Name] = stream.New(s.streamEnv, r, shards)
	}
	return nil
}

// runs gathers each shard's runs in order, without those that were trimmed.
func (f *found) runs() map[uint32][]epoch.Run {
	type shardRuns struct {
		runs  []epoch.Run
		trim  uint64
		count int
	}
	byShard := map[uint32]*shardRuns{}
	for i := range f.epochs {
		for j := range f.epochs[i].Runs {
			id := f.epochs[i].Runs[j].Shard
			s := byShard[id]
			if s == nil {
				s = &shardRuns{trim: f.trims[id]}
				byShard[id] = s
			}
			s.count++
		}
	}
	for i := range f.epochs {
		e := &f.epochs[i]
		for j := range e.Runs {
			r := &e.Runs[j]
			s := byShard[r.Shard]
			if r.Last < s.trim {
				continue
			}
			if s.runs == nil {
				s.runs = make([]epoch.Run, 0, s.count)
			}
			s.runs = append(s.runs, epoch.Run{
				Last: r.Last, EndMS: r.EndMS, Raw: r.Raw, Stored: uint32(r.Stored), Count: uint32(r.Count),
				Epoch: e.Epoch, Lane: e.Lane, Thin: r.Thin,
			})
		}
	}
	out := make(map[uint32][]epoch.Run, len(byShard))
	for id, s := range byShard {
		if s.runs == nil {
			continue
		}
		runs := s.runs
		out[id] = runs
		slices.SortFunc(runs, func(a, b epoch.Run) int { return cmp.Compare(a.Last, b.Last) })
		var top int64
		for i := range runs {
			top = max(top, runs[i].EndMS)
			runs[i].EndMS = top
		}
	}
	return out
}

func hashRange(r keyspace.ShardRow) (h record.HashRange, err error) {
	if h.First, err = record.ParseHashKey(r.First); err != nil {
		return h, err
	}
	h.Last, err = record.ParseHashKey(r.Last)
	return h, err
}

// finishReshards ends splits and merges that had begun: their children may
// already hold acknowledged records.
func (s *Store) finishReshards(f *found, runs map[uint32][]epoch.Run) {
	type id struct {
		stream uint32
		number record.ShardNumber
	}
	at := map[id]*keyspace.ShardRow{}
	for i := range f.shards {
		at[id{f.shards[i].Stream, f.shards[i].Number}] = &f.shards[i]
	}
	names := f.shardNames()
	for i := range f.shards {
		child := &f.shards[i]
		if !child.Pending {
			continue
		}
		child.Pending = false
		for _, n := range []*record.ShardNumber{child.Parent, child.AdjacentParent} {
			if n == nil {
				continue
			}
			p := at[id{child.Stream, *n}]
			if p == nil || p.ClosedMS > 0 {
				continue
			}
			p.ClosedMS = max(child.CreatedMS, p.CreatedMS+1)
			if r := runs[p.ID]; len(r) > 0 {
				p.ClosedIndex = r[len(r)-1].Last
			}
			name := names[p.ID]
			name.Last, name.Reason = p.ClosedIndex, "split or merge finished"
			s.recovery.Finished = append(s.recovery.Finished, name)
		}
	}
}

// logState decides where a shard goes on.
func (s *Store) logState(f *found, name string, r keyspace.ShardRow, runs []epoch.Run, b *pebble.Batch) (commit.LogState, error) {
	state := commit.LogState{Runs: runs, Jumps: f.jumps[r.ID], Bound: f.bounds[r.ID], Sealed: r.ClosedMS > 0}
	if trim := f.trims[r.ID]; trim > 0 {
		state.Last = trim - 1
	}
	if n := len(runs); n > 0 {
		state.Last = max(state.Last, runs[n-1].Last)
		state.ArrivalMS = runs[n-1].EndMS
		state.First = max(runs[0].First(), f.trims[r.ID])
	} else {
		state.First = state.Last + 1
	}
	if state.Sealed {
		// What a closed shard has lost at its end will not come back.
		if r.ClosedIndex > state.Last {
			s.recovery.Damaged = append(s.recovery.Damaged, ShardRange{name, r.Number, state.Last + 1, r.ClosedIndex, "the end of a closed shard is missing"})
		}
		state.Next = state.Last + 1
		return state, nil
	}
	state.Next = state.Last + 1
	if s.recovery.Clean {
		for _, j := range state.Jumps {
			state.Next = max(state.Next, j.Last+1)
		}
	} else if state.Bound > state.Next {
		if reason, ok := s.endless[r.ID]; ok {
			s.recovery.Damaged = append(s.recovery.Damaged, ShardRange{name, r.Number, state.Next, state.Bound - 1, "there may have been records of these indexes: " + reason})
		}
		j := commit.Jump{First: state.Next, Last: state.Bound - 1}
		if n := len(state.Jumps); n > 0 && state.Jumps[n-1].First == j.First {
			state.Jumps = state.Jumps[:n-1]
		}
		state.Jumps = append(state.Jumps, j)
		state.Next = state.Bound
		s.recovery.Jumps = append(s.recovery.Jumps, ShardRange{name, r.Number, j.First, j.Last, "not closed in good order"})
		row := keyspace.JumpRow{Last: j.Last, TimeMS: s.mu.session.WallMS}
		if err := b.Set(keyspace.MetaIndex(keyspace.KindJump, r.ID, j.First), row.Encode(), nil); err != nil {
			return state, err
		}
	}
	if state.Next+commit.BoundStep/2 > state.Bound {
		state.Bound = state.Next + commit.BoundStep
		return state, b.Set(keyspace.Meta(keyspace.KindBound, r.ID), keyspace.EncodeIndex(state.Bound), nil)
	}
	return state, nil
}

// addEntries fills the epoch directory; runs of shards that are gone need
// nothing any more.
func (s *Store) addEntries(f *found) {
	live := s.shardIDs()
	entries := make([]epoch.Entry, len(f.epochs))
	for i := range f.epochs {
		row, e := &f.epochs[i], &entries[i]
		*e = epoch.Entry{Key: row.Key, Session: row.Session, StartMS: row.StartMS, EndMS: row.EndMS, Written: true}
		for j := range row.Runs {
			r := &row.Runs[j]
			e.Total += r.Stored
			switch {
			case r.Last >= f.trims[r.Shard]: // also where the rows of the shard are lost
				e.Live++
				e.Stored += r.Stored
			case !live[r.Shard]:
				e.Deleted += r.Stored
			}
		}
	}
	s.directory.Fill(entries)
	for _, r := range f.sessions {
		if r.ShiftMS != 0 {
			s.directory.SetSession(r.FirstEpoch, r.Through, r.ShiftMS)
		}
	}
}

// shardIDs are the store-wide ids of all shards.
func (s *Store) shardIDs() map[uint32]bool {
	ids := map[uint32]bool{}
	for _, st := range s.all() {
		for _, sh := range st.All() {
			ids[sh.ID] = true
		}
	}
	return ids
}

// stageForgotten removes the trims of deleted shards of which no epoch holds
// anything, and returns how many others there are.
func (f *found) stageForgotten(b *pebble.Batch) (left int, err error) {
	gone := 0
	for _, trim := range f.trims {
		if trim == keyspace.TrimmedAll {
			gone++
		}
	}
	if gone == 0 {
		return 0, nil
	}
	held := map[uint32]bool{}
	for i := range f.epochs {
		for j := range f.epochs[i].Runs {
			held[f.epochs[i].Runs[j].Shard] = true
		}
	}
	for id, trim := range f.trims {
		switch {
		case trim != keyspace.TrimmedAll:
		case held[id]:
			left++
		default:
			if err := b.Delete(keyspace.Meta(keyspace.KindTrim, id), nil); err != nil {
				return left, err
			}
		}
	}
	return left, nil
}

// keptSessions is how many rows of old opens are kept at least.
const keptSessions = 16

// writeSession writes that there was this open. It is durable when b has synced, and
// before anything else is written.
func (s *Store) writeSession(f *found, b *pebble.Batch) error {
	set := func(key []byte, row any) error { return b.Set(key, keyspace.EncodeJSON(row), nil) }
	if err := set(keyspace.Meta(keyspace.KindStore), s.mu.row); err != nil {
		return err
	}
	if err := set(keyspace.Meta(keyspace.KindSession, s.mu.session.Session), s.mu.session); err != nil {
		return err
	}
	for _, r := range f.sessions {
		if r.ShiftMS != 0 { // perhaps since this open
			if err := set(keyspace.Meta(keyspace.KindSession, r.Session), r); err != nil {
				return err
			}
		}
	}
	if len(s.recovery.Finished) > 0 {
		for _, r := range f.shards {
			if err := set(keyspace.Meta(keyspace.KindShard, r.Stream, uint32(r.Number)), r); err != nil {
				return err
			}
		}
	}
	oldest := s.mu.session.FirstEpoch
	if len(f.epochs) > 0 {
		oldest = min(oldest, f.epochs[0].Epoch)
	}
	for i := 0; i+1 < len(f.sessions)-keptSessions && f.sessions[i+1].FirstEpoch <= oldest; i++ {
		if err := b.Delete(keyspace.Meta(keyspace.KindSession, f.sessions[i].Session), nil); err != nil {
			return err
		}
	}
	ledger, err := loadLedger(s.db, s.o)
	if err != nil {
		return err
	}
	s.ledger = ledger
	return s.db.ApplyNoSyncWait(b, pebble.Sync)
}

// learnt enters what the clock learnt about its uncertain stamps: those of
// epochs up to through are off by shiftMS. The committer calls it between groups.
func (s *Store) learnt(through uint32, shiftMS int64) {
	s.mu.Lock()
	row := s.mu.session
	row.ShiftMS, row.Through = shiftMS, through
	next := keyspace.SessionRow{Session: row.Session + 1, BootID: row.BootID, WallMS: s.now().UnixMilli(), FirstEpoch: through + 1}
	s.mu.session = next
	rows := s.mu.undated // earlier opens that did not know the time either
	s.mu.undated = nil
	s.mu.Unlock()
	for i := range rows {
		rows[i].ShiftMS = shiftMS
	}
	if row.FirstEpoch > through {
		// Nothing was stamped yet.
		row.ShiftMS, row.Through = 0, 0
	}
	rows = append(rows, row)
	for _, r := range rows {
		s.directory.SetSession(r.FirstEpoch, r.Through, r.ShiftMS)
		for _, st := range s.all() {
			for _, sh := range st.All() {
				sh.ShiftRuns(r.FirstEpoch, r.Through, r.ShiftMS)
			}
		}
	}
	for _, r := range append(rows, next) {
		if err := s.db.Set(keyspace.Meta(keyspace.KindSession, r.Session), keyspace.EncodeJSON(r), pebble.NoSync); err != nil {
			s.fail(err)
			return
		}
	}
	s.log.Info("time was learnt", "shift", time.Duration(shiftMS)*time.Millisecond, "epochs", fmt.Sprint(row.FirstEpoch, "…", through))
}

// damaged enters a range that a reader could not read, once.
func (s *Store) damaged(sh *shard.Shard, first, last uint64, cause error) {
	row := sh.Row()
	known := min(last-first+1, sh.Jumped(first, last)+sh.Lost(first, last))
	loss := shard.Loss{First: first, Last: last, Records: last - first + 1 - known, Time: s.now(), Reason: keyspace.LossDamage}
	loss, ok := sh.AddLoss(loss)
	if !ok {
		return
	}
	s.log.Warn("records can't be read", "stream_id", row.Stream, "shard", row.Number.String(), "first", first, "last", last, "cause", firstLine(cause.Error()))
	if s.Failed() != nil {
		return
	}
	key := keyspace.MetaIndex(keyspace.KindLoss, sh.ID, loss.First)
	if err := s.guard(func() error { return s.db.Set(key, lossRow(loss).Encode(), pebble.NoSync) }); err != nil {
		s.log.Warn("damage could not be noted", "cause", err)
	}
}

func lossRow(l shard.Loss) keyspace.LossRow {
	return keyspace.LossRow{Last: l.Last, Records: l.Records, Bytes: l.Bytes, TimeMS: l.Time.UnixMilli(), Reason: l.Reason}
}
