package delivery

import (
	"fmt"
	"testing"
)

// TestPlanOfMoreRecordsThanItRemembers: of a batch of any number of records the
// plan holds a bounded list, and every later pass finds each record's object.
func TestPlanOfMoreRecordsThanItRemembers(t *testing.T) {
	const records = maxAssigned + 300_000
	c := &Config{Partition: &Partition{MaxActive: 5}, Buffer: Buffer{SizeBytes: 200_000}}
	p := newPlan(c, &Recipe{Ranges: []Range{{Records: records}}})
	names := make([][]string, 7)
	for i := range names {
		names[i] = []string{fmt.Sprintf("site-%d", i)}
	}
	data := make([]byte, 40)
	of := func(i int) *item {
		it := &item{values: names[i%len(names)], data: data}
		if i%1000 == 999 {
			it.fail = &failure{kind: processingFailed}
		}
		return it
	}
	first := make([]uint16, 0, records)
	for i := range records {
		first = append(first, p.take(of(i)))
	}
	if p.assigned.len() != maxAssigned || cap(p.assigned.high) > maxAssigned || p.items != records {
		t.Errorf("%d of %d items are remembered, in room for %d", p.assigned.len(), p.items, cap(p.assigned.high))
	}
	counted := make([]int64, len(p.partitions))
	for i, want := range first {
		got := p.at(i, of(i))
		if got != want {
			t.Fatalf("item %d is in object %d, then in %d", i, want, got)
		}
		if got != unassigned {
			counted[got]++
			if p.partitions[got].values[0] != names[i%len(names)][0] {
				t.Fatalf("item %d of %s is in the object of %s", i, names[i%len(names)][0], p.partitions[got].values[0])
			}
		} else if i%len(names) < 5 && i%1000 != 999 {
			t.Fatalf("item %d has no object", i)
		}
	}
	for n, q := range p.partitions {
		if counted[n] != q.records || q.bytes != q.records*40 {
			t.Errorf("object %d: %d records were counted, %d are found", n, q.records, counted[n])
		}
		if q.bytes > 200_040 && n < len(p.partitions)-5 {
			t.Errorf("object %d is full at %d bytes", n, q.bytes)
		}
	}
	if len(p.index) != 5 {
		t.Errorf("%d partitions are active", len(p.index))
	}
}
