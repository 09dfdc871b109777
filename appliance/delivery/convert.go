package delivery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/weirhq/weir/appliance/delivery/columnar"
)

// converter makes Parquet files of records with one schema.
type converter struct {
	schema  columnar.Schema // empty: no record can be a row
	options *columnar.Options
	reader  *columnar.Reader // nil when it was given up
}

// converters are those of a recipe's parts. Parts with the same columns, as partitions
// mostly have, share one; of the others just the columns are kept.
type converters struct {
	byPart   map[string]*converter
	byText   map[string]*converter // by the columns
	readable []*converter          // those with a reader, oldest first
}

// maxReaders bounds the readers of a recipe; what a reader knows of a column is some KB.
const maxReaders = 8

func newConverters() converters {
	return converters{byPart: map[string]*converter{}, byText: map[string]*converter{}}
}

// add notes the schema of a part.
func (c *converters) add(part string, s columnar.Schema, o *columnar.Options) *converter {
	text := fmt.Sprintf("%q", s)
	found := c.byText[text]
	if found == nil {
		found = &converter{schema: s, options: o}
		c.byText[text] = found
	}
	c.byPart[part] = found
	return found
}

// ready makes the reader of a converter, for which the oldest one may have to go.
func (c *converters) ready(v *converter) error {
	if v.reader != nil {
		return nil
	}
	r, err := columnar.NewReader(v.schema, v.options)
	if err != nil {
		return err
	}
	if len(c.readable) == maxReaders {
		c.readable[0].reader = nil
		c.readable = slices.Delete(c.readable, 0, 1)
	}
	v.reader = r
	c.readable = append(c.readable, v)
	return nil
}

// converter finds the schema of a part, once: the declared one, or the one found in the
// part's own records.
func (j *job) converter(ctx context.Context, part string, from source) (*converter, error) {
	c := j.schemas.byPart[part]
	if c == nil {
		p := j.bind.config.Parquet
		schema := p.Schema
		if len(schema) == 0 {
			infer := columnar.NewInference(&p.Options)
			err := from(ctx, func(data []byte) error {
				if !infer.Add(data) {
					return errEnough
				}
				return nil
			})
			if err != nil && !errors.Is(err, errEnough) {
				return nil, err
			}
			schema = infer.Schema()
		}
		c = j.schemas.add(part, schema, &p.Options)
	}
	n := int64(c.schema.Leaves())
	if n > j.stats.columns.Load() {
		j.stats.columns.Store(n)
	}
	if p := j.bind.config.Parquet; len(p.Schema) == 0 && n > max(j.columns, freeColumns) {
		return nil, errWider
	}
	return c, j.schemas.ready(c)
}

// errWider ends an attempt whose memory was counted for fewer columns than were met.
var errWider = &SinkError{Code: "Delivery.MoreColumns", Refused: true, Err: errors.New("the records have more columns than those before")}

var errEnough = errors.New("enough records")

// check says why a record of a part can't be a row, or nil. Parts that were not made
// yet have none that failed.
func (c *converters) check(part string, data []byte) error {
	v := c.byPart[part]
	if v == nil {
		return nil
	}
	if err := c.ready(v); err != nil {
		return err
	}
	_, err := v.reader.Row(data)
	return err
}

// render writes the records of from as a Parquet file. failed is called for
// each that can't be converted; those are left out.
func (c *converter) render(ctx context.Context, w io.Writer, from source, failed func()) (counts, error) {
	var n counts
	var out *columnar.Writer
	err := from(ctx, func(data []byte) error {
		row, err := c.reader.Row(data)
		if err != nil {
			failed()
			return nil
		}
		if out == nil {
			if out, err = columnar.NewWriter(w, c.reader, c.options, rowGroupBytes); err != nil {
				return err
			}
		}
		n.records++
		n.bytes += int64(len(data))
		return out.Write(row, len(data))
	})
	switch {
	case err != nil:
		return n, err
	case out == nil:
		return n, ErrNoRecords
	}
	return n, out.Close()
}
