package storage

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/weirhq/weir/storage/commit"
	"github.com/weirhq/weir/storage/keyspace"
)

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
