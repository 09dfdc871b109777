package storage

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirhq/weir/storage/keyspace"
)

// compacted returns the bytes of tables that compactions wrote, once none is left to do.
func compacted(t testing.TB, s *Store) (n uint64) {
	t.Helper()
	waitFor(t, func() bool { return s.Metrics().UnderWay == 0 })
	m := s.db.Metrics()
	for i := range m.Levels {
		n += m.Levels[i].TableBytesCompacted
	}
	return n
}

// TestRowsOfOldEpochsAreNotRewritten closes many epochs: what compaction writes for each
// must not grow with how many there are already, nor the number of tables that hold rows, and
// what is large and does not change, the binary of a module, must not be written anew.
func TestRowsOfOldEpochsAreNotRewritten(t *testing.T) {
	const binaryBytes = 400 << 10
	binary := make([]byte, binaryBytes)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(binary)
	for _, c := range []struct{ shards, epochs, tables, eachBytes int }{{4, 600, 12, 32 << 10}, {32, 400, 16, 32 << 10}, {1024, 48, 20, 48 << 10}} {
		t.Run(fmt.Sprintf("%d shards", c.shards), func(t *testing.T) {
			s := mustOpen(t, Options{FS: vfs.NewMem(), ReserveBytes: -1})
			st := mustCreate(t, s, StreamConfig{Name: "s", Shards: c.shards})
			row := func(table Table, value []byte) {
				t.Helper()
				tx, err := s.Begin(ctx, len(value))
				if err != nil {
					t.Fatal(err)
				}
				defer tx.Release()
				tx.Put(table, []byte("key"), value)
				if err := tx.Commit(ctx); err != nil {
					t.Fatal(err)
				}
			}
			row(keyspace.TableModuleBytes, binary)
			var each []uint64
			before := compacted(t, s)
			for range 4 {
				for i := range c.epochs / 4 {
					put(t, s, st, 4*c.shards, func(i int) (string, string) { return fmt.Sprint(i), "x" })
					if i%2 == 0 {
						row(TableCheckpoint, []byte("far"))
						row(keyspace.TableDelivery, []byte("done"))
					}
					settle(t, s)
				}
				now := compacted(t, s)
				each = append(each, (now-before)/uint64(c.epochs/4))
				before = now
			}
			tables := -c.epochs // those of records
			for _, l := range s.db.Metrics().Levels {
				tables += int(l.TablesCount)
			}
			t.Logf("rewritten an epoch, by quarters: %d bytes; %d tables of metadata for %d epochs", each, tables, c.epochs)
			if each[3] > uint64(c.eachBytes) || tables > c.tables {
				t.Errorf("want at most %d bytes an epoch at the end, and %d tables", c.eachBytes, c.tables)
			}
		})
	}
}
