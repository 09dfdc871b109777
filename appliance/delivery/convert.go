package delivery

import (
	"context"
	"errors"
	"io"

	"github.com/weirhq/weir/appliance/delivery/columnar"
)

// converter makes Parquet files of one part of a recipe: with the declared
// schema, or with the one found in the part's own records.
type converter struct {
	schema  columnar.Schema // empty: no record can be a row
	options *columnar.Options
	reader  *columnar.Reader
}

// converter finds the schema of a part, once.
func (j *job) converter(ctx context.Context, part string, from source) (*converter, error) {
	if c := j.schemas[part]; c != nil {
		return c, nil
	}
	c := &converter{schema: j.bind.config.Parquet.Schema, options: &j.bind.config.Parquet.Options}
	if len(c.schema) == 0 {
		infer := columnar.NewInference(c.options)
		err := from(ctx, func(data []byte) error {
			if !infer.Add(data) {
				return errEnough
			}
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			return nil, err
		}
		c.schema = infer.Schema()
	}
	var err error
	if c.reader, err = columnar.NewReader(c.schema, c.options); err != nil {
		return nil, err
	}
	j.schemas[part] = c
	return c, nil
}

var errEnough = errors.New("enough records")

// check says why a record can't be a row, or nil.
func (c *converter) check(data []byte) error {
	_, err := c.reader.Row(data)
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
