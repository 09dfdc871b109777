package columnar

import (
	"cmp"
	"fmt"
	"io"
	"slices"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress"
)

// compression is the page compression of a name.
func compression(name string) (compress.Codec, error) {
	switch name {
	case "", "SNAPPY":
		return &parquet.Snappy, nil
	case "GZIP":
		return &parquet.Gzip, nil
	case "ZSTD":
		return &parquet.Zstd, nil
	case "UNCOMPRESSED":
		return &parquet.Uncompressed, nil
	}
	return nil, fmt.Errorf("compression %q is not UNCOMPRESSED, GZIP, SNAPPY or ZSTD", name)
}

// ordered is a group whose fields keep the order of the schema.
type ordered struct {
	parquet.Group
	names []string
}

// Fields returns the fields in the order of the names.
func (o ordered) Fields() []parquet.Field {
	fields := o.Group.Fields()
	at := make(map[string]int, len(o.names))
	for i, n := range o.names {
		at[n] = i
	}
	slices.SortFunc(fields, func(a, b parquet.Field) int { return cmp.Compare(at[a.Name()], at[b.Name()]) })
	return fields
}

func parquetSchema(columns []column, o *Options) *parquet.Schema {
	root := ordered{Group: parquet.Group{}}
	for _, c := range columns {
		root.Group[c.name] = parquet.Optional(node(c.typ, o))
		root.names = append(root.names, c.name)
	}
	return parquet.NewSchema("hive_schema", root)
}

func node(t *dataType, o *Options) parquet.Node {
	var n parquet.Node
	switch t.kind {
	case kindBoolean:
		return parquet.Encoded(parquet.Leaf(parquet.BooleanType), &parquet.Plain) // which a dictionary would not shorten
	case kindInt32:
		n = parquet.Int(t.bits)
	case kindInt64:
		n = parquet.Int(64)
	case kindFloat:
		n = parquet.Leaf(parquet.FloatType)
	case kindDouble:
		n = parquet.Leaf(parquet.DoubleType)
	case kindDecimal:
		n = parquet.Decimal(t.scale, t.precision, parquet.Int64Type)
	case kindString:
		n = parquet.String()
	case kindBinary:
		n = parquet.Leaf(parquet.ByteArrayType)
	case kindDate:
		n = parquet.Date()
	case kindTimestamp:
		n = parquet.Timestamp(parquet.Microsecond)
	case kindList:
		return parquet.List(parquet.Optional(node(t.element, o)))
	case kindMap:
		return parquet.Map(parquet.String(), parquet.Optional(node(t.element, o)))
	case kindStruct:
		g := ordered{Group: parquet.Group{}}
		for _, f := range t.fields {
			g.Group[f.name] = parquet.Optional(node(f.typ, o))
			g.names = append(g.names, f.name)
		}
		return g
	}
	switch {
	case o.Dictionary:
		n = parquet.Encoded(n, &parquet.RLEDictionary)
	case o.WriterVersion != "V2":
		// A first-version writer has no delta encodings, and there are readers that don't, either.
		n = parquet.Encoded(n, &parquet.Plain)
	}
	return n
}

// Writer writes one Parquet file. It holds the row group that is being
// filled, and starts the next when that has reached its size.
type Writer struct {
	file  *parquet.GenericWriter[any]
	group int64
	held  int64
	rows  [1]parquet.Row
}

const (
	// pagesBytes is what may wait of all columns to be encoded and compressed, and pageBytes
	// what may wait of each, whatever their number: with dozens of columns, larger pages would
	// be most of what a writer holds.
	pagesBytes = 1 << 20
	pageBytes  = 64 << 10
	// chunkBytes is the unit of what is compressed and waits for the rest of its row
	// group. Each column has at least one.
	chunkBytes = 4 << 10
)

// pageBuffers lend those chunks.
var pageBuffers = parquet.NewChunkBufferPool(chunkBytes)

// NewWriter returns a Writer of rows of r. groupBytes bounds the JSON that
// goes into one row group; the options may make it less.
func NewWriter(w io.Writer, r *Reader, o *Options, groupBytes int64) (*Writer, error) {
	c, err := compression(o.Compression)
	if err != nil {
		return nil, err
	}
	if o.BlockSizeBytes > 0 {
		groupBytes = min(groupBytes, int64(o.BlockSizeBytes))
	}
	page := max(pageBytes, pagesBytes/max(len(r.schema.Columns()), 1))
	if o.PageSizeBytes > 0 {
		page = min(page, o.PageSizeBytes)
	}
	version := 1
	if o.WriterVersion == "V2" {
		version = 2
	}
	file := parquet.NewGenericWriter[any](w, r.schema, parquet.Compression(c), parquet.PageBufferSize(page), parquet.ColumnPageBuffers(pageBuffers),
		parquet.DataPageVersion(version), parquet.CreatedBy("weir", "1", ""), parquet.WriteBufferSize(64<<10))
	return &Writer{file: file, group: groupBytes}, nil
}

// Write adds a row that took size bytes as JSON.
func (w *Writer) Write(row parquet.Row, size int) error {
	w.rows[0] = row
	if _, err := w.file.WriteRows(w.rows[:]); err != nil {
		return err
	}
	if w.held += int64(size); w.held < w.group {
		return nil
	}
	w.held = 0
	return w.file.Flush()
}

// Close ends the file. It does not close what it was written to.
func (w *Writer) Close() error { return w.file.Close() }
