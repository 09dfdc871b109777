package main

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"github.com/weirhq/weir/appliance/fault"
)

type putCmd struct {
	Stream   string   `arg:"" help:"Stream to write to."`
	Records  []string `arg:"" optional:"" help:"One record each; - or none at all is standard input, a record per line. Empty lines are left out."`
	File     []string `help:"File to read, a record per line." placeholder:"FILE"`
	Whole    bool     `help:"Each file, or standard input, is one record."`
	Key      *string  `help:"Partition key of every record; a random one each if not given." xor:"key"`
	KeyField string   `help:"Member of each JSON record that is its partition key." placeholder:"NAME" xor:"key"`
}

// The limits of one PutRecords request.
const (
	putRecords = 500
	putBytes   = 5 << 20
)

// maxLine bounds a record read from a line or a file: the largest a stream may allow.
const maxLine = 10 << 20

// putter gathers records into requests and counts what came of them.
type putter struct {
	a       *app
	client  *kinesis.Client
	explain func(error) error
	cmd     *putCmd
	batch   []types.PutRecordsRequestEntry
	size    int
	line    int // being read
	first   int // line of the batch's first record, -1 when it has records from elsewhere
	last    int // line of its last one
	bar     *progress
	Stream  string         `json:"stream"`
	Records int64          `json:"records"`
	Bytes   int64          `json:"bytes"`
	Shards  map[string]int `json:"shards"` // records by shard
	Last    string         `json:"last_sequence_number"`
}

func (c *putCmd) Run(a *app) error {
	if c.Key != nil && *c.Key == "" {
		return &fault.Error{Class: fault.Usage, Subject: "--key", Expect: "empty; expecting 1 to 256 characters, or no --key for random ones"}
	}
	b, err := a.box()
	if err != nil {
		return err
	}
	p := &putter{a: a, client: b.Kinesis(), explain: b.Explain, cmd: c, Stream: c.Stream, Shards: map[string]int{}, bar: a.progress("put " + c.Stream)}
	defer p.bar.done()
	if err := p.all(); err != nil {
		if p.Records > 0 {
			return fmt.Errorf("%s written before: %w", plural(int(p.Records), "record"), err)
		}
		return err
	}
	p.bar.done()
	return a.emit(p, func(w io.Writer) {
		fmt.Fprintf(w, "%s, %s, in %s; all on disk.\n", plural(int(p.Records), "record"), size(p.Bytes), plural(len(p.Shards), "shard"))
	})
}

// all reads every source in the order given.
func (p *putter) all() error {
	for _, r := range p.cmd.Records {
		if r == "-" {
			if err := p.stdin(); err != nil {
				return err
			}
			continue
		}
		if err := p.add([]byte(r)); err != nil {
			return err
		}
	}
	for _, name := range p.cmd.File {
		f, err := openFile(name, "")
		if err != nil {
			return err
		}
		err = p.read(f)
		f.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if len(p.cmd.Records) == 0 && len(p.cmd.File) == 0 {
		if err := p.stdin(); err != nil {
			return err
		}
	}
	return p.flush()
}

func (p *putter) stdin() error {
	if err := p.read(p.a.in); err != nil {
		return fmt.Errorf("standard input: %w", err)
	}
	return nil
}

func (p *putter) read(r io.Reader) error {
	if p.cmd.Whole {
		data, err := io.ReadAll(io.LimitReader(r, maxLine+1))
		if err != nil || len(data) == 0 {
			return err
		}
		return p.add(data)
	}
	if len(p.batch) > 0 {
		p.first = -1
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), maxLine)
	for n := 1; lines.Scan(); n++ {
		if len(lines.Bytes()) == 0 {
			continue
		}
		p.line = n
		if err := p.add(append([]byte(nil), lines.Bytes()...)); err != nil {
			return err
		}
	}
	p.line = 0
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return &fault.Error{Class: fault.Usage, Expect: fmt.Sprintf("a line is longer than %s", size(maxLine))}
	}
	return lines.Err()
}

func (p *putter) add(data []byte) error {
	key, err := p.key(data)
	if err != nil && p.line > 0 {
		err = fmt.Errorf("line %d: %w", p.line, err)
	}
	if err != nil {
		return err
	}
	if len(p.batch) == putRecords || p.size+len(data)+len(key) > putBytes {
		if err := p.flush(); err != nil {
			return err
		}
	}
	if p.first == 0 {
		p.first = p.line
	}
	p.last = p.line
	p.batch = append(p.batch, types.PutRecordsRequestEntry{Data: data, PartitionKey: &key})
	p.size += len(data) + len(key)
	return nil
}

func (p *putter) key(data []byte) (string, error) {
	if p.cmd.Key != nil {
		return *p.cmd.Key, nil
	}
	if p.cmd.KeyField == "" {
		return rand.Text(), nil
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(data, &members); err != nil {
		return "", &fault.Error{Class: fault.Usage, Value: fmt.Sprintf("%.60q", data), Expect: "not a JSON object; --key-field needs one"}
	}
	raw, ok := members[p.cmd.KeyField]
	if !ok {
		return "", &fault.Error{Class: fault.Usage, Value: fmt.Sprintf("%.60q", data), Expect: "has no member " + p.cmd.KeyField}
	}
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text, nil
	}
	return string(raw), nil
}

// flush sends the batch. The SDK retries a request; what single records are
// refused for (a shard over its quota, a full disk) is not retried here.
func (p *putter) flush() error {
	if len(p.batch) == 0 {
		return nil
	}
	out, err := p.client.PutRecords(p.a.ctx, &kinesis.PutRecordsInput{StreamName: &p.cmd.Stream, Records: p.batch})
	if err != nil {
		return p.place(p.explain(err))
	}
	var refused error
	for i, r := range out.Records {
		if r.ErrorCode != nil {
			if refused == nil {
				refused = &fault.Error{Class: fault.Runtime, Subject: *r.ErrorCode, Expect: deref(r.ErrorMessage), Try: "the same command again, with what is left"}
			}
			continue
		}
		p.Records++
		p.Bytes += int64(len(p.batch[i].Data))
		p.Shards[deref(r.ShardId)]++
		p.Last = deref(r.SequenceNumber)
	}
	if refused != nil {
		refused = p.place(refused)
	}
	p.batch, p.size, p.first = p.batch[:0], 0, 0
	p.bar.step(p.Records, 0, "records")
	return refused
}

// place says which lines the batch held that an error is about.
func (p *putter) place(err error) error {
	switch {
	case p.first > 0 && p.first < p.last:
		return fmt.Errorf("lines %d to %d: %w", p.first, p.last, err)
	case p.first > 0:
		return fmt.Errorf("line %d: %w", p.first, err)
	}
	return err
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
