package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/weirhq/weir/storage/block"
	"github.com/weirhq/weir/storage/epoch"
	"github.com/weirhq/weir/storage/keyspace"
	"github.com/weirhq/weir/storage/record"
)

// VerifyReport is what Verify found.
type VerifyReport struct {
	// Format is the version of the directory.
	Format int `json:"format"`
	// Records, Blocks, BytesData and BytesStored were read and are whole.
	Records     uint64 `json:"records"`
	Blocks      uint64 `json:"blocks"`
	BytesData   uint64 `json:"bytes_data"`
	BytesStored uint64 `json:"bytes_stored"`
	// Shards describes each shard.
	Shards []VerifiedShard `json:"shards"`
	// Problems are what should not be: empty for a sound store.
	Problems []Problem `json:"problems"`
}

// OK says that nothing was found that should not be.
func (r *VerifyReport) OK() bool { return len(r.Problems) == 0 }

// VerifiedShard is one shard's part of a VerifyReport.
type VerifiedShard struct {
	Stream  string             `json:"stream"`
	Shard   record.ShardNumber `json:"shard"`
	First   uint64             `json:"first"`
	Last    uint64             `json:"last"`
	Records uint64             `json:"records"`
	// Jumped counts indexes passed over after unclean ends, Lost records
	// recorded as gone before their time; both are accounted for.
	Jumped uint64 `json:"jumped"`
	Lost   uint64 `json:"lost"`
}

// Problem is something that should not be.
type Problem struct {
	Stream string             `json:"stream,omitempty"`
	Shard  record.ShardNumber `json:"shard"`
	First  uint64             `json:"first,omitempty"`
	Last   uint64             `json:"last,omitempty"`
	What   string             `json:"what"`
	// Key is that of the block or row, when there is one.
	Key []byte `json:"key,omitempty"`
}

// problemMissing is the problem of records that are not there.
const problemMissing = "records are missing"

// Verify reads every row and block of a stopped data directory, checks every
// checksum, and proves that each shard's index is dense but for recorded
// jumps, retention and recorded losses. It changes nothing. progress, which
// may be nil, is called now and then with the blocks read so far. The error
// says that the directory could not be read at all; what is wrong inside is
// in the report.
func Verify(ctx context.Context, dir string, o Options, progress func(blocks uint64)) (*VerifyReport, error) {
	d, err := openOffline(dir, o)
	if err != nil {
		return nil, err
	}
	r, err := verifyDB(ctx, d.db, progress)
	if err := errors.Join(err, d.Close()); err != nil {
		return nil, fmt.Errorf("verify %s: %w", dir, err)
	}
	return r, nil
}

// Verify checks an open store as the function Verify does, up to the
// records committed when it began.
func (s *Store) Verify(ctx context.Context, progress func(blocks uint64)) (*VerifyReport, error) {
	if err := s.env.Enter(); err != nil {
		return nil, err
	}
	defer s.env.Leave()
	s.maintaining.Lock()
	defer s.maintaining.Unlock()
	return verifyDB(ctx, s.db, progress)
}

// verifier checks one database.
type verifier struct {
	report   VerifyReport
	f        *found
	names    map[uint32]ShardRange
	segments map[uint32][]segment // by shard id
	runs     map[runKey]keyspace.EpochRun
	orphans  map[uint32]bool   // shards with records and without a stream
	ends     map[uint32]uint64 // index of the last record that a directory row says there is, by shard id
}

type segment struct{ first, last uint64 }

type runKey struct {
	epoch.Key
	shard uint32
}

func newVerifier(f *found, segments map[uint32][]segment) *verifier {
	v := &verifier{f: f, names: f.shardNames(), segments: segments, runs: map[runKey]keyspace.EpochRun{}, orphans: map[uint32]bool{}, ends: map[uint32]uint64{}}
	for i := range f.epochs {
		for j := range f.epochs[i].Runs {
			r := &f.epochs[i].Runs[j]
			v.ends[r.Shard] = max(v.ends[r.Shard], r.Last)
		}
	}
	return v
}

func verifyDB(ctx context.Context, db *pebble.DB, progress func(uint64)) (*VerifyReport, error) {
	f, err := readRows(ctx, db)
	if err != nil {
		return nil, err
	}
	if err := f.newer(); err != nil {
		return nil, err
	}
	v := newVerifier(f, map[uint32][]segment{})
	v.report.Format, v.report.Shards, v.report.Problems = f.store.Format, []VerifiedShard{}, []Problem{}
	for _, b := range f.bad {
		v.report.Problems = append(v.report.Problems, Problem{What: "row can't be read: " + b})
	}
	if err := v.scan(ctx, db, progress); err != nil {
		return nil, err
	}
	for _, row := range f.shards {
		v.checkShard(row)
	}
	v.checkEpochs()
	v.checkRings()
	return &v.report, nil
}

// scan reads all blocks.
func (v *verifier) scan(ctx context.Context, db *pebble.DB, progress func(uint64)) error {
	it, err := db.NewIterWithContext(ctx, &pebble.IterOptions{LowerBound: keyspace.LaneStart(0), UpperBound: keyspace.LaneStart(keyspace.Lanes)})
	if err != nil {
		return err
	}
	var d block.Decoded
	var last []byte
	for ok := it.First(); ok || it.Error() != nil; {
		if !ok {
			// A table's block is broken: go on behind it.
			v.unreadable(last, it.Error())
			var from []byte
			if from, it, err = passDamage(ctx, db, it, last); err != nil || it == nil {
				return err
			}
			last, ok = from, it.SeekGE(from)
			continue
		}
		last = append(last[:0], it.Key()...)
		v.block(it.Key(), it.Value(), &d)
		if v.report.Blocks%1000 == 0 {
			if err := ctx.Err(); err != nil {
				return errors.Join(err, it.Close())
			}
			if progress != nil {
				progress(v.report.Blocks)
			}
		}
		ok = it.Next()
	}
	return it.Close()
}

// passDamage closes an iterator that failed after key last and returns one
// with the first key to try behind the damage; nil at the end. It goes shard
// by shard and epoch by epoch: what lies between is reported as missing.
func passDamage(ctx context.Context, db *pebble.DB, it *pebble.Iterator, last []byte) ([]byte, *pebble.Iterator, error) {
	_ = it.Close() // its error was reported
	k := keyspace.DataKey{}
	if parsed, err := keyspace.ParseDataKey(last); err == nil {
		k = parsed
	}
	tables, err := db.SSTables()
	if err != nil {
		return nil, nil, err
	}
	// The next table begins behind whatever is broken in this one.
	var next []byte
	for _, level := range tables {
		for _, t := range level {
			if from := t.Smallest.UserKey; cmp.Compare(string(from), string(k.Append(nil))) > 0 && (next == nil || string(from) < string(next)) && from[0] >= keyspace.LaneSpace {
				next = slices.Clone(from)
			}
		}
	}
	if next == nil {
		return nil, nil, nil
	}
	it, err = db.NewIterWithContext(ctx, &pebble.IterOptions{LowerBound: keyspace.LaneStart(0), UpperBound: keyspace.LaneStart(keyspace.Lanes)})
	return next, it, err
}

// unreadable notes that a table can't be read, once however often it is met.
func (v *verifier) unreadable(key []byte, err error) {
	what := "a table can't be read: " + firstLine(err.Error())
	if n := len(v.report.Problems); n > 0 && v.report.Problems[n-1].What == what {
		return
	}
	v.problem(0, 0, 0, key, what)
}

// firstLine leaves out the details that Pebble's errors carry on lines of their own.
func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

func (v *verifier) problem(shardID uint32, first, last uint64, key []byte, what string) {
	n := v.names[shardID]
	v.report.Problems = append(v.report.Problems, Problem{Stream: n.Stream, Shard: n.Shard, First: first, Last: last, What: what, Key: slices.Clone(key)})
}

// block checks one block.
func (v *verifier) block(key, value []byte, d *block.Decoded) {
	k, err := keyspace.ParseDataKey(key)
	if err != nil {
		v.problem(0, 0, 0, key, err.Error())
		return
	}
	v.report.Blocks++
	v.report.BytesStored += uint64(len(value))
	if err := d.Decode(value); err != nil {
		v.problem(k.Shard, k.Last, k.Last, key, err.Error())
		return
	}
	first := k.Last - uint64(d.Count) + 1
	if n, ok := v.names[k.Shard]; !ok || n.Stream == "" {
		if v.f.trims[k.Shard] != keyspace.TrimmedAll && !v.orphans[k.Shard] { // or of a deleted stream, waiting to be taken out
			v.orphans[k.Shard] = true
			v.problem(k.Shard, first, k.Last, key, fmt.Sprintf("records of shard %d have no stream: its row is lost; repair can adopt them", k.Shard))
		}
		return
	}
	v.report.Records += uint64(d.Count)
	v.report.BytesData += uint64(d.DataRawBytes)
	rk := runKey{epoch.Key{Lane: k.Lane, Epoch: k.Epoch}, k.Shard}
	run := v.runs[rk]
	run.Last, run.Count = k.Last, run.Count+uint64(d.Count)
	run.Stored += uint64(len(value))
	run.Raw += uint64(d.DataRawBytes)
	v.runs[rk] = run
	v.segments[k.Shard] = join(v.segments[k.Shard], segment{first, k.Last})
}

// join adds a segment to those of a shard, to the last one where it follows that.
func join(segs []segment, s segment) []segment {
	if n := len(segs); n > 0 && segs[n-1].last+1 == s.first {
		segs[n-1].last = s.last
		return segs
	}
	return append(segs, s)
}

// checkShard proves the shard's index dense.
func (v *verifier) checkShard(row keyspace.ShardRow) {
	name := v.names[row.ID]
	out := VerifiedShard{Stream: name.Stream, Shard: row.Number}
	segs := v.segments[row.ID]
	slices.SortFunc(segs, func(a, b segment) int { return cmp.Compare(a.first, b.first) })
	next := max(v.f.trims[row.ID], 1)
	for _, s := range segs {
		if s.last < next {
			continue // trimmed, its epoch is not gone yet
		}
		if s.first < next && out.Records > 0 {
			v.problem(row.ID, s.first, min(s.last, next-1), nil, "an index is used twice")
		}
		if s.first > next {
			v.account(&out, row.ID, next, s.first-1)
		}
		if out.Records == 0 {
			out.First = max(s.first, next)
		}
		out.Records += s.last - max(s.first, next) + 1
		out.Last, next = s.last, s.last+1
	}
	for _, l := range v.f.losses[row.ID] {
		if l.Last >= next { // nothing is left behind it
			v.account(&out, row.ID, next, l.Last)
			next = l.Last + 1
		}
	}
	if end := max(v.ends[row.ID], row.ClosedIndex); end >= next && (row.ClosedMS > 0 || v.ends[row.ID] >= next) {
		v.account(&out, row.ID, next, end)
	}
	v.report.Shards = append(v.report.Shards, out)
}

// account explains why the indexes first … last are missing.
func (v *verifier) account(out *VerifiedShard, id uint32, first, last uint64) {
	for next := first; next <= last; {
		end, jumped, ok := v.explain(id, next)
		if !ok {
			upTo := v.nextExplained(id, next, last)
			if end, ok := v.thinned(id, next, upTo); ok {
				out.Lost += end - next + 1
				next = end + 1
				continue
			}
			v.problem(id, next, upTo, nil, problemMissing)
			next = upTo + 1
			continue
		}
		end = min(end, last)
		if jumped {
			out.Jumped += end - next + 1
		} else {
			out.Lost += end - next + 1
		}
		next = end + 1
	}
}

// explain finds the recorded jump or loss that holds an index.
func (v *verifier) explain(id uint32, index uint64) (end uint64, jumped, ok bool) {
	for _, j := range v.f.jumps[id] {
		if j.First <= index && index <= j.Last {
			return j.Last, true, true
		}
	}
	for _, l := range v.f.losses[id] {
		if l.First <= index && index <= l.Last {
			return l.Last, false, true
		}
	}
	return 0, false, false
}

// thinned says up to where, at most last, records are missing because their run was
// thinned out so far that the ranges are not kept each.
func (v *verifier) thinned(id uint32, index, last uint64) (end uint64, ok bool) {
	for _, e := range v.f.epochs {
		for _, r := range e.Runs {
			if r.Shard == id && r.Thin > 0 && r.Last-r.Count+1 <= index && index <= r.Last {
				return min(last, r.Last), true
			}
		}
	}
	return 0, false
}

func (v *verifier) nextExplained(id uint32, index, last uint64) uint64 {
	for _, j := range v.f.jumps[id] {
		if j.First > index {
			last = min(last, j.First-1)
		}
	}
	for _, l := range v.f.losses[id] {
		if l.First > index {
			last = min(last, l.First-1)
		}
	}
	return last
}

// checkEpochs compares the directory rows with what was read.
func (v *verifier) checkEpochs() {
	for _, e := range v.f.epochs {
		k := e.Key
		for _, want := range e.Runs {
			if _, ok := v.names[want.Shard]; !ok || want.Last < v.f.trims[want.Shard] || want.Thin > 0 {
				continue
			}
			got := v.runs[runKey{k, want.Shard}]
			if got.Last != want.Last && !v.lost(want) || got.Count > want.Count {
				v.problem(want.Shard, want.Last-want.Count+1, want.Last, nil,
					fmt.Sprintf("epoch %d in lane %d ends at %d with %d records, its row says %d with %d", k.Epoch, k.Lane, got.Last, got.Count, want.Last, want.Count))
			}
		}
	}
}

// lost says whether the end of a run is a recorded loss.
func (v *verifier) lost(r keyspace.EpochRun) bool {
	_, jumped, ok := v.explain(r.Shard, r.Last)
	return ok && !jumped
}

// checkRings proves that each stream's open shards cover every hash key once.
func (v *verifier) checkRings() {
	open := map[uint32][]record.HashRange{}
	for _, row := range v.f.shards {
		h, err := hashRange(row)
		if err != nil {
			v.problem(row.ID, 0, 0, nil, err.Error())
			continue
		}
		if row.ClosedMS == 0 && !row.Pending {
			open[row.Stream] = append(open[row.Stream], h)
		}
	}
	for _, st := range v.f.streams {
		ranges := open[st.ID]
		slices.SortFunc(ranges, func(a, b record.HashRange) int { return a.First.Cmp(b.First) })
		var next record.HashKey
		whole := len(ranges) > 0
		for i, r := range ranges {
			whole = whole && r.First == next
			var more bool
			next, more = r.Last.Next()
			whole = whole && more == (i < len(ranges)-1)
		}
		if !whole {
			v.report.Problems = append(v.report.Problems, Problem{Stream: st.Name, What: "the open shards don't cover every hash key once"})
		}
	}
}
