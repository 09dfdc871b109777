package plain

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/storage"
)

// Idempotency keys are rows of storage.TableDeduplication, two for each key:
//
//	"plain/k/" hash 16 bytes                  → expiry ms u64 | body hash 16 bytes | records u32
//	"plain/t/" expiry ms u64 | hash 16 bytes  → nothing
//
// in big endian. The hash is of the caller's name, the stream's id and the key; the
// second row finds what is old.
const (
	keyRowPrefix  = "plain/k/"
	timeRowPrefix = "plain/t/"
	hashBytes     = 16
	doneRowBytes  = 8 + hashBytes + 4
	maxRetryKey   = 128
	sweepRows     = 1000 // rows looked at in one transaction of a sweep
)

// keys keeps the number of the stored keys.
type keys struct {
	stored   atomic.Int64
	sweeping sync.Mutex // one sweep at a time: another would forget, and count, the same rows
}

// retryKey is the idempotency key of a request.
type retryKey struct {
	hash, body [hashBytes]byte
	old        []byte // the row that was found, nil if there is none
}

// doneRow is what is stored under a key.
type doneRow struct {
	expires time.Time
	body    [hashBytes]byte
	count   uint32
}

func (s *Service) retryKey(req api.Request, st *storage.Stream, body []byte) (*retryKey, error) {
	key := req.Header(headerRetry)
	if key == nil {
		return nil, nil
	}
	if len(key) == 0 || len(key) > maxRetryKey {
		return nil, refuse(400, "BadIdempotencyKey", fmt.Sprintf("%s of %d bytes; expecting 1 to %d", headerRetry, len(key), maxRetryKey))
	}
	who := ""
	if id := req.Identity(); id != nil {
		who = id.Name
	}
	h := sha256.New()
	fmt.Fprintf(h, "%d:%s%d:", len(who), who, st.ID())
	h.Write(key)
	r := new(retryKey)
	copy(r.hash[:], h.Sum(nil))
	sum := sha256.Sum256(body)
	copy(r.body[:], sum[:])
	return r, nil
}

func (r *retryKey) row() []byte { return append([]byte(keyRowPrefix), r.hash[:]...) }

func timeRow(expires time.Time, hash []byte) []byte {
	b := binary.BigEndian.AppendUint64([]byte(timeRowPrefix), uint64(expires.UnixMilli()))
	return append(b, hash...)
}

func (d *doneRow) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(d.expires.UnixMilli()))
	b = append(b, d.body[:]...)
	return binary.BigEndian.AppendUint32(b, d.count)
}

func decodeDoneRow(b []byte) (*doneRow, error) {
	if len(b) != doneRowBytes {
		return nil, fmt.Errorf("idempotency row of %d bytes: expecting %d", len(b), doneRowBytes)
	}
	d := &doneRow{expires: time.UnixMilli(int64(binary.BigEndian.Uint64(b))), count: binary.BigEndian.Uint32(b[8+hashBytes:])}
	copy(d.body[:], b[8:])
	return d, nil
}

// seen returns what is stored under a key, nil if it is new or too old.
func (k *keys) seen(s *Service, r *retryKey) (*doneRow, error) {
	raw, err := s.store.Get(storage.TableDeduplication, r.row())
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r.old = raw
	d, err := decodeDoneRow(raw)
	if err != nil || !s.o.Clock().Before(d.expires) {
		return nil, err
	}
	if d.body != r.body {
		return nil, refuse(422, "IdempotencyKeyReused", "this idempotency key was used with another body")
	}
	return d, nil
}

// add puts a key into the transaction of its records. The row that was there when
// the key was looked up, too old to count, is replaced; one that came since then
// makes the commit fail.
func (r *retryKey) add(txn *storage.Txn, expires time.Time, count int) {
	d := doneRow{expires: expires, body: r.body, count: uint32(count)}
	txn.Expect(storage.TableDeduplication, r.row(), r.old)
	if gone, err := decodeDoneRow(r.old); err == nil {
		txn.Delete(storage.TableDeduplication, timeRow(gone.expires, r.hash[:]))
	}
	txn.Put(storage.TableDeduplication, r.row(), d.encode())
	txn.Put(storage.TableDeduplication, timeRow(d.expires, r.hash[:]), nil)
}

func isConflict(err error) bool { return errors.Is(err, storage.ErrConflict) }

// open counts the keys that are stored.
func (k *keys) open(s *Service) error {
	n := int64(0)
	err := s.store.Scan(storage.TableDeduplication, []byte(timeRowPrefix), nil, 0, func(_, _ []byte) bool { n++; return true })
	k.stored.Store(n)
	return err
}

// added counts a key that was stored, and makes room when there are too many.
func (k *keys) added(ctx context.Context, s *Service, r *retryKey) {
	if r.old != nil || k.stored.Add(1) <= int64(s.o.MaxKeys) || !k.sweeping.TryLock() {
		return // there is room, or it is being made: the next key sees to what is left
	}
	defer k.sweeping.Unlock()
	if _, err := k.sweepLocked(ctx, s, sweepRows/10); err != nil {
		s.o.Logger.Warn("idempotency keys not forgotten", "error", err)
	}
}

// sweep forgets keys that are too old, and the oldest ones as long as there are
// too many, at most limit of them. It returns how many.
func (k *keys) sweep(ctx context.Context, s *Service, limit int) (int, error) {
	k.sweeping.Lock()
	defer k.sweeping.Unlock()
	return k.sweepLocked(ctx, s, limit)
}

func (k *keys) sweepLocked(ctx context.Context, s *Service, limit int) (int, error) {
	over := k.stored.Load() - int64(s.o.MaxKeys)
	now := s.o.Clock()
	var rows [][]byte
	err := s.store.Scan(storage.TableDeduplication, []byte(timeRowPrefix), nil, limit, func(key, _ []byte) bool {
		if len(key) != len(timeRowPrefix)+8+hashBytes {
			return true
		}
		expires := time.UnixMilli(int64(binary.BigEndian.Uint64(key[len(timeRowPrefix):])))
		if now.Before(expires) && int64(len(rows)) >= over {
			return false
		}
		rows = append(rows, append([]byte(nil), key...))
		return true
	})
	if err != nil || len(rows) == 0 {
		return 0, err
	}
	txn, err := s.store.Begin(ctx, 0)
	if err != nil {
		return 0, err
	}
	for _, row := range rows {
		txn.Delete(storage.TableDeduplication, row)
		txn.Delete(storage.TableDeduplication, append([]byte(keyRowPrefix), row[len(timeRowPrefix)+8:]...))
	}
	err = txn.Commit(ctx)
	txn.Release()
	if err != nil {
		return 0, err
	}
	k.stored.Add(-int64(len(rows)))
	return len(rows), nil
}

// sweepInterval is the time between two looks for old keys.
const sweepInterval = time.Minute

// Run forgets idempotency keys that are too old until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		for {
			n, err := s.keys.sweep(ctx, s, sweepRows)
			if err != nil && ctx.Err() == nil {
				s.o.Logger.Warn("idempotency keys not forgotten", "error", err)
			}
			if n < sweepRows || err != nil {
				break
			}
		}
	}
}
