package transform

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
)

// DeadLetter is a record that failed for good, as it is written to a
// dead-letter stream: one JSON object, with the original bytes.
type DeadLetter struct {
	Module         string `json:"module"`
	Version        string `json:"version"`
	Digest         string `json:"digest"` // hex SHA-256 of the module
	Code           uint32 `json:"code"`
	Reason         string `json:"reason"`
	Attempts       int    `json:"attempts"`
	Stream         string `json:"stream"`
	Shard          string `json:"shard"`
	SequenceNumber string `json:"sequence_number,omitempty"`
	Index          uint64 `json:"index"`
	ArrivalMS      int64  `json:"arrival_ms"`
	FailedMS       int64  `json:"failed_ms"`
	PartitionKey   string `json:"partition_key"`
	Data           []byte `json:"data"`                 // base64 in JSON
	DataBytes      int    `json:"data_bytes,omitempty"` // how long Data was before it was cut; 0: it is whole
}

// EncodeWithin returns the letter as JSON of at most limit bytes. What is too
// large for that is cut: Data at its end, which DataBytes tells, and when that
// isn't enough the reason. A letter that still doesn't fit is longer.
func (d *DeadLetter) EncodeWithin(limit int) []byte {
	const dataBytes = `,"data_bytes":12345678`
	data := d.Data
	d.Data = nil
	rest := len(d.Encode())
	if rest+len(dataBytes) > limit {
		rest -= len(d.Reason)
		d.Reason = ""
	}
	if rest+base64.StdEncoding.EncodedLen(len(data)) > limit {
		d.DataBytes = len(data)
		data = data[:min(len(data), max(0, limit-rest-len(dataBytes))/4*3)]
	}
	d.Data = data
	return d.Encode()
}

// Encode returns the letter as JSON.
func (d *DeadLetter) Encode() []byte {
	d.PartitionKey, d.Reason = strings.ToValidUTF8(d.PartitionKey, "\uFFFD"), strings.ToValidUTF8(d.Reason, "\uFFFD")
	b, err := json.Marshal(d)
	if err != nil {
		panic("BUG: dead letter: " + err.Error()) // strings and numbers always encode
	}
	return b
}

// EachPartitionKey calls fn for each name=value pair of an output's partition
// keys, in order, until it returns false. A line without = is the value of a
// key named "key".
func EachPartitionKey(keys []byte, fn func(name, value []byte) bool) {
	for len(keys) > 0 {
		line, rest, _ := bytes.Cut(keys, []byte{'\n'})
		keys = rest
		name, value, ok := bytes.Cut(line, []byte{'='})
		if !ok {
			name, value = []byte("key"), line
		}
		if len(line) > 0 && !fn(name, value) {
			return
		}
	}
}
