package delivery

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

// TestPartsWithTheSameColumnsShareAReader: 500 partitions of one kind of records keep one,
// and of many kinds a handful, which is made anew when it is asked for again.
func TestPartsWithTheSameColumnsShareAReader(t *testing.T) {
	j := &job{bind: &binding{config: Config{Parquet: &Parquet{}}}, stats: &stats{}, schemas: newConverters()}
	record := func(kind int) []byte { return fmt.Appendf(nil, `{"a":1,"b":"x","kind%d":[true]}`, kind) }
	for i := range 500 {
		kind := i / 25
		c, err := j.converter(t.Context(), fmt.Sprint("p:", i), func(_ context.Context, emit func([]byte) error) error { return emit(record(kind)) })
		if err != nil || c.reader == nil {
			t.Fatal(c, err)
		}
	}
	if len(j.schemas.byText) != 20 || len(j.schemas.readable) != maxReaders || j.stats.columns.Load() != 3 {
		t.Errorf("%d schemas, %d readers, %d columns", len(j.schemas.byText), len(j.schemas.readable), j.stats.columns.Load())
	}
	for i := range 500 {
		part := fmt.Sprint("p:", i)
		if err := j.schemas.check(part, record(i/25)); err != nil {
			t.Errorf("%s: %v", part, err)
		}
		if j.schemas.check(part, []byte(`{"a":"no number"}`)) == nil {
			t.Errorf("%s takes a text for a number", part)
		}
	}
	open := 0
	for _, c := range j.schemas.byText {
		if c.reader != nil {
			open++
		}
	}
	if open != maxReaders {
		t.Errorf("%d readers are kept, the limit is %d", open, maxReaders)
	}
	if err := j.schemas.check("a part that was not made", []byte("x")); err != nil {
		t.Error(err)
	}
}

// TestWiderSchemaIsCountedAnew: columns that are met in the records end an attempt which has not
// the memory for them; the next one takes it.
func TestWiderSchemaIsCountedAnew(t *testing.T) {
	j := &job{bind: &binding{config: Config{Parquet: &Parquet{}}}, stats: &stats{}, schemas: newConverters()}
	record := []byte(`{"c0":0`)
	for i := 1; i < 100; i++ {
		record = fmt.Appendf(record, `,"c%d":1`, i)
	}
	record = append(record, '}')
	from := func(_ context.Context, emit func([]byte) error) error { return emit(record) }
	if _, err := j.converter(t.Context(), "data", from); !errors.Is(err, errWider) {
		t.Errorf("100 columns in an attempt that was counted for few: %v", err)
	}
	if j.columns = j.stats.columns.Load(); j.columns != 100 {
		t.Errorf("%d columns were met, want 100", j.columns)
	}
	if c, err := j.converter(t.Context(), "data", from); err != nil || c.reader == nil {
		t.Errorf("100 columns in an attempt that was counted for them: %v", err)
	}
}
