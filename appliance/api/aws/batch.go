package aws

import (
	"reflect"
	"sync"
	"unicode/utf8"
)

// BatchSchema is the plan by which the bodies of one put operation are parsed in
// place. It is made once from the operation's input structure, so that names,
// constraints and error texts are those of the tables.
type BatchSchema[In any] struct {
	model   *Model
	top     []batchField
	record  []batchField
	records *plan // of Records; nil where the record's members are those of the input itself
}

// batchSlot is where a member of a put request is kept.
type batchSlot uint8

const (
	slotSkip batchSlot = iota
	slotStreamName
	slotStreamARN
	slotDeliveryStreamName
	slotSequenceNumberForOrdering
	slotDryRun
	slotRecords
	slotRecord
	slotPartitionKey
	slotExplicitHashKey
	slotData
)

var batchSlots = map[string]batchSlot{
	"StreamName": slotStreamName, "StreamARN": slotStreamARN, "DeliveryStreamName": slotDeliveryStreamName,
	"SequenceNumberForOrdering": slotSequenceNumberForOrdering, "DryRun": slotDryRun, "Records": slotRecords,
	"Record": slotRecord, "PartitionKey": slotPartitionKey, "ExplicitHashKey": slotExplicitHashKey, "Data": slotData,
}

type batchField struct {
	name string
	slot batchSlot
	*fieldPlan
}

// NewBatchSchema makes the schema of an operation whose input is In: one with a
// list Records, a structure Record, or a record's members at the top. Members that
// Batch has no place for (StreamId) are checked and dropped; they have to be texts.
func NewBatchSchema[In any](m *Model) *BatchSchema[In] {
	s := &BatchSchema[In]{model: m}
	p := m.planOf(reflect.TypeFor[In]())
	s.top = batchFields(p)
	for i := range s.top {
		switch f := &s.top[i]; f.slot {
		case slotRecords:
			s.records = f.plan
			s.record = batchFields(f.elem)
		case slotRecord:
			s.record = batchFields(f.plan)
		}
	}
	return s
}

func batchFields(p *plan) []batchField {
	var fs []batchField
	for i := range p.fields {
		f := &p.fields[i]
		slot := batchSlots[f.name]
		if slot == slotSkip && f.kind != planText {
			panic("BUG: a batch has no place for member " + f.name)
		}
		fs = append(fs, batchField{name: f.name, slot: slot, fieldPlan: f})
	}
	return fs
}

// Batch is a put request parsed in place: its slices alias the request body or
// memory of the Batch, and are valid until Release. Absent members are nil.
type Batch struct {
	StreamName, StreamARN, DeliveryStreamName []byte
	SequenceNumberForOrdering                 []byte
	DryRun                                    bool
	// Records has one element for the operations that put one record.
	Records []BatchRecord

	json jsonReader
	cbor cborReader
	hint int
}

// BatchRecord is one record of a Batch.
type BatchRecord struct {
	PartitionKey, ExplicitHashKey []byte
	Data                          Blob
}

// Blob is a record's data as it stands in the body.
type Blob struct {
	raw  []byte
	text bool // base64
}

// Len is the number of bytes Decode writes.
func (b Blob) Len() int {
	if b.text {
		return base64Len(b.raw)
	}
	return len(b.raw)
}

// Decode writes the data to dst, which has Len bytes. It fails with a
// SerializationException when the body's base64 is bad; dst's content is undefined then.
func (b Blob) Decode(dst []byte) error {
	if !b.text {
		copy(dst, b.raw)
		return nil
	}
	if _, err := decodeBase64(dst, b.raw); err != nil {
		return err
	}
	return nil
}

var batches = sync.Pool{New: func() any { return &Batch{Records: make([]BatchRecord, 0, 16)} }}

// maxKeptRecords bounds what a Batch in the pool keeps.
const maxKeptRecords = 1000

// Release gives the batch back; none of its slices may be used after that.
func (b *Batch) Release() {
	records := b.Records[:0]
	if cap(records) > maxKeptRecords {
		records = nil
	}
	clear(records[:cap(records)])
	arena := b.json.arena[:0]
	if cap(arena) > 64<<10 {
		arena = nil
	}
	*b = Batch{Records: records, json: jsonReader{arena: arena}}
	batches.Put(b)
}

// Parse parses body. It allocates nothing once the pool is warm. What is wrong
// with a body is found again and put into words by Model.Decode, whose error it
// returns; only bad base64 is left for Blob.Decode to find. A body that names a
// member twice is read by Model.Decode, for which the last one counts, and then
// parsed as it is without the others; the batch aliases that copy.
func (s *BatchSchema[In]) Parse(enc Encoding, body []byte) (*Batch, error) {
	b := batches.Get().(*Batch)
	if b.parse(s.top, s.record, s.records, enc, body) {
		return b, nil
	}
	b.Release()
	in := new(In)
	if err := s.model.Decode(enc, body, in); err != nil {
		return nil, err
	}
	once := Writer{Encoding: enc}
	s.model.Encode(&once, in)
	b = batches.Get().(*Batch)
	if b.parse(s.top, s.record, s.records, enc, once.Buf) {
		return b, nil
	}
	b.Release()
	return nil, InternalFailure.Wrap(syntaxError("BUG: the batch parser refuses a body that is right"))
}

func (b *Batch) parse(top, record []batchField, records *plan, enc Encoding, body []byte) bool {
	var r reader
	if enc == CBOR {
		b.cbor = cborReader{b: body}
		r = &b.cbor
	} else {
		b.json = jsonReader{b: body, arena: b.json.arena}
		r = &b.json
	}
	var one BatchRecord
	if !b.members(r, enc, top, record, &one) {
		return false
	}
	r.end()
	if r.fail() != nil {
		return false
	}
	if records == nil {
		b.Records = append(b.Records[:0], one)
	}
	return true
}

// members reads one structure, the input itself or a record of it, in which each
// member comes once at most.
func (b *Batch) members(r reader, enc Encoding, fields, record []batchField, rec *BatchRecord) bool {
	if r.next() != kindMap {
		return false
	}
	var seen, present uint32 // by slot
	n := r.enter()
	for i := 0; r.more(n, i, kindMap); i++ {
		f := b.find(fields, r.key())
		if f == nil || f.slot == slotSkip {
			if f != nil && !skipTyped(r, f.plan, enc) || f == nil && !skipOK(r) {
				return false
			}
			continue
		}
		if seen&(1<<f.slot) != 0 {
			return false
		}
		seen |= 1 << f.slot
		there, ok := b.member(r, enc, f, record, rec)
		if !ok {
			return false
		}
		if there {
			present |= 1 << f.slot
		}
	}
	for i := range fields {
		if fields[i].required && present&(1<<fields[i].slot) == 0 {
			return false
		}
	}
	return r.fail() == nil
}

func skipOK(r reader) bool {
	r.skip()
	return r.fail() == nil
}

// skipTyped skips a member that has no slot, if it is a plain text or null that satisfies its shape.
func skipTyped(r reader, p *plan, enc Encoding) bool {
	if r.next() == kindNull {
		r.null()
		return r.fail() == nil
	}
	if !p.accepts(r.next(), enc) {
		return false
	}
	s := r.text()
	return r.fail() == nil && p.shape.admits(s)
}

// find looks a member up, first where the last one leaves off: records repeat
// their members in one order.
func (b *Batch) find(fields []batchField, key []byte) *batchField {
	for range fields {
		if b.hint++; b.hint >= len(fields) {
			b.hint = 0
		}
		if f := &fields[b.hint]; f.name == string(key) {
			return f
		}
	}
	return nil
}

func (b *Batch) member(r reader, enc Encoding, f *batchField, record []batchField, rec *BatchRecord) (there, ok bool) {
	kind := r.next()
	if kind == kindNull {
		r.null()
		return false, r.fail() == nil
	}
	if !f.accepts(kind, enc) {
		return false, false
	}
	switch f.slot {
	case slotRecords:
		return true, b.list(r, enc, f.plan, record)
	case slotRecord:
		return true, b.members(r, enc, record, nil, rec)
	case slotDryRun:
		b.DryRun = r.boolean()
	case slotData:
		rec.Data = Blob{raw: r.blob(), text: enc == JSON}
		if rec.Data.text && len(rec.Data.raw)%4 != 0 || f.shape != nil && f.shape.Max.set && int64(rec.Data.Len()) > f.shape.Max.n {
			return false, false
		}
	default:
		s := r.text()
		if r.fail() != nil || !f.shape.admits(s) {
			return false, false
		}
		if s == nil {
			s = []byte{}
		}
		*b.slot(f.slot, rec) = s
	}
	return true, r.fail() == nil
}

func (b *Batch) slot(s batchSlot, rec *BatchRecord) *[]byte {
	switch s {
	case slotStreamName:
		return &b.StreamName
	case slotStreamARN:
		return &b.StreamARN
	case slotDeliveryStreamName:
		return &b.DeliveryStreamName
	case slotSequenceNumberForOrdering:
		return &b.SequenceNumberForOrdering
	case slotPartitionKey:
		return &rec.PartitionKey
	}
	return &rec.ExplicitHashKey
}

func (b *Batch) list(r reader, enc Encoding, p *plan, record []batchField) bool {
	b.Records = b.Records[:0]
	limit := maxElements
	if p.shape != nil && p.shape.Max.set {
		limit = int(p.shape.Max.n)
	}
	n := r.enter()
	for i := 0; r.more(n, i, kindList); i++ {
		if i >= limit {
			return false
		}
		b.Records = append(b.Records, BatchRecord{})
		b.hint = -1
		if !b.members(r, enc, record, nil, &b.Records[i]) {
			return false
		}
	}
	return r.fail() == nil && (p.shape == nil || !p.shape.Min.set || int64(len(b.Records)) >= p.shape.Min.n)
}

// admits tells whether a text satisfies the shape; a nil shape admits everything.
func (s *shape) admits(text []byte) bool {
	if s == nil {
		return true
	}
	if n := int64(len(text)); s.Min.set && n < s.Min.n || s.Max.set && n > s.Max.n || s.Min.set && s.Min.n > 1 {
		if n = int64(utf8.RuneCount(text)); s.Min.set && n < s.Min.n || s.Max.set && n > s.Max.n {
			return false
		}
	}
	if s.pattern != nil && !s.pattern.Match(text) {
		return false
	}
	if len(s.Enum) == 0 {
		return true
	}
	for _, e := range s.Enum {
		if e == string(text) {
			return true
		}
	}
	return false
}
