package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/weirhq/weir/storage/keyspace"
)

// maxEditBytes is the longest record of a manifest that is taken apart: one that names
// some 60,000 tables. Of a store with more, Pebble is asked what tables there are.
const maxEditBytes = 4 << 20

// manifestTables are the tables that the edits of a manifest leave, as far as Pebble
// reads it. It takes apart what Pebble writes for this store, and no more.
type manifestTables struct {
	tables []manifestTable // those with number 0 were deleted
	at     map[uint64]int  // where a number is in tables; nil as long as nothing was deleted
	edit   manifestEdit    // its arrays are used again
}

// manifestTable is a table as a manifest names it.
type manifestTable struct {
	table
	name     uint64 // its own number: several may be parts of the one file that table.number is
	records  bool   // it holds records, from … to; else metadata:
	smallest []byte // its first key,
	largest  []byte // its last,
	firstSeq uint64 // its lowest sequence number
	lastSeq  uint64 // and its highest
}

// manifestEdit is one record of a manifest: these tables went, and then those came.
type manifestEdit struct {
	deleted []uint64
	added   []manifestTable
}

// The tags of a version edit, and within a table those of what is not always there. See
// internal/manifest/version_edit.go of Pebble, which has the format from LevelDB.
const (
	tagComparator     = 1
	tagLogNumber      = 2
	tagNextFileNumber = 3
	tagLastSequence   = 4
	tagDeletedTable   = 6
	tagPrevLogNumber  = 9
	tagNewTable2      = 100
	tagNewTable4      = 103
	tagCreatedBacking = 105
	tagRemovedBacking = 106

	customTerminate       = 1
	customNeedsCompaction = 2
	customCreationTime    = 6
	customVirtual         = 66
)

// errEdit means that a record of a manifest holds what Pebble does not write for this
// store, or is no such record.
var errEdit = errors.New("not an edit of this store's manifest")

// add applies an edit. After an error nothing is known of the tables any more.
func (m *manifestTables) add(b []byte) error {
	e := &m.edit
	if err := e.decode(b); err != nil {
		return err
	}
	if len(e.deleted) > 0 && m.at == nil {
		m.at = make(map[uint64]int, len(m.tables))
		for i := range m.tables {
			m.at[m.tables[i].name] = i
		}
	}
	for _, name := range e.deleted {
		i, ok := m.at[name]
		if !ok {
			return fmt.Errorf("%w: table %d is deleted and was not there", errEdit, name)
		}
		delete(m.at, name)
		m.tables[i] = manifestTable{}
	}
	if m.tables == nil {
		m.tables = make([]manifestTable, 0, len(e.added)+len(e.added)/8)
	}
	for i := range e.added {
		if m.at != nil {
			if _, ok := m.at[e.added[i].name]; ok {
				return fmt.Errorf("%w: table %d is added and was there", errEdit, e.added[i].name)
			}
			m.at[e.added[i].name] = len(m.tables)
		}
		m.tables = append(m.tables, e.added[i])
	}
	return nil
}

// end drops what was deleted, and says whether the file of every table is in a listing
// of the directory.
func (m *manifestTables) end(listing []string) bool {
	m.tables = slices.DeleteFunc(m.tables, func(t manifestTable) bool { return t.name == 0 })
	m.at, m.edit = nil, manifestEdit{}
	there := make([]uint64, 0, len(listing))
	for _, name := range listing {
		if digits, ok := strings.CutSuffix(name, ".sst"); ok {
			if n, err := strconv.ParseUint(digits, 10, 64); err == nil && tableName(n) == name {
				there = append(there, n)
			}
		}
	}
	slices.Sort(there)
	for i := range m.tables {
		if _, ok := slices.BinarySearch(there, m.tables[i].number); !ok {
			return false
		}
	}
	return true
}

// decode takes a record apart.
func (e *manifestEdit) decode(b []byte) error {
	e.deleted, e.added = e.deleted[:0], e.added[:0]
	d := editBytes{b: b}
	for len(d.b) > 0 && !d.bad {
		switch tag := d.uvarint(); tag {
		case tagComparator:
			d.bytes()
		case tagLogNumber, tagNextFileNumber, tagLastSequence, tagPrevLogNumber, tagRemovedBacking:
			d.uvarint()
		case tagCreatedBacking:
			d.uvarint()
			d.uvarint()
		case tagDeletedTable:
			d.uvarint() // the level
			e.deleted = append(e.deleted, d.uvarint())
		case tagNewTable2, tagNewTable4:
			e.added = append(e.added, d.table(tag == tagNewTable4))
		default:
			return fmt.Errorf("%w: tag %d", errEdit, tag)
		}
	}
	if d.bad {
		return errEdit
	}
	return nil
}

// editBytes are the bytes of an edit that were not read yet; bad is set when it does not
// go on as it must, and stays.
type editBytes struct {
	b   []byte
	bad bool
}

func (d *editBytes) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

// bytes returns the next field of a length and so many bytes; they are part of the input.
func (d *editBytes) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.bad, d.b = true, nil
		return nil
	}
	field := d.b[:n]
	d.b = d.b[n:]
	return field
}

// userKey returns the next internal key without the eight bytes that Pebble adds.
func (d *editBytes) userKey() []byte {
	const trailer = 8
	key := d.bytes()
	if len(key) < trailer {
		d.bad = true
		return nil
	}
	return key[:len(key)-trailer]
}

// table reads what follows the tag of a new table.
func (d *editBytes) table(custom bool) (t manifestTable) {
	d.uvarint() // the level
	t.name = d.uvarint()
	size := d.uvarint()
	smallest, largest := d.userKey(), d.userKey()
	t.firstSeq, t.lastSeq = d.uvarint(), d.uvarint()
	t.number = t.name
	virtual := false
	for more := custom; more && !d.bad; {
		switch d.uvarint() {
		case customTerminate:
			more = false
		case customCreationTime, customNeedsCompaction:
			d.bytes()
		case customVirtual:
			t.number, virtual = d.uvarint(), true
		default:
			d.bad = true
		}
	}
	if t.name == 0 || t.number == 0 || size > math.MaxInt64 {
		d.bad = true
	}
	t.describe(size, virtual, smallest, largest)
	return t
}

// flushed returns a table that a flush has made.
func flushed(info *pebble.TableInfo) manifestTable {
	t := manifestTable{name: uint64(info.FileNum), firstSeq: uint64(info.SmallestSeqNum), lastSeq: uint64(info.LargestSeqNum)}
	t.number = t.name
	t.describe(info.Size, false, info.Smallest.UserKey, info.Largest.UserKey)
	return t
}

func (t *manifestTable) describe(size uint64, virtual bool, smallest, largest []byte) {
	if t.records = t.table.describe(size, virtual, smallest, largest); !t.records {
		t.smallest, t.largest = bytes.Clone(smallest), bytes.Clone(largest)
	}
}

// describe enters how long a table's file must be and which records it holds, and says
// whether it does hold records.
func (t *table) describe(size uint64, virtual bool, smallest, largest []byte) bool {
	if !virtual { // the size of a part says nothing about the file's
		t.bytes = int64(size)
	}
	if len(smallest) != keyspace.DataKeyBytes || len(largest) != keyspace.DataKeyBytes {
		return false // and no error is made for it
	}
	var err1, err2 error
	t.from, err1 = keyspace.ParseDataKey(smallest)
	t.to, err2 = keyspace.ParseDataKey(largest)
	return err1 == nil && err2 == nil
}
