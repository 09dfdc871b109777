package plain

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/parquet-go/jsonlite"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
)

const (
	readLimit    = 10000
	readDefault  = 100
	readMaxBytes = 4 << 20
)

// positionOf reads where a query wants to begin.
func positionOf(req api.Request, from string) (storage.Position, error) {
	if after := queryValue(req, "after"); after != "" {
		n, err := record.ParseSequenceNumber(after)
		if err != nil {
			return storage.Position{}, refuse(400, "BadPosition", err.Error())
		}
		return storage.Position{Kind: storage.AfterIndex, Index: n.Index()}, nil
	}
	if f := queryValue(req, "from"); f != "" {
		from = f
	}
	switch from {
	case "oldest":
		return storage.Position{Kind: storage.TrimHorizon}, nil
	case "latest":
		return storage.Position{Kind: storage.Latest}, nil
	}
	if ms, err := strconv.ParseInt(from, 10, 64); err == nil {
		return storage.Position{Kind: storage.AtTime, Time: time.UnixMilli(ms)}, nil
	}
	t, err := time.Parse(time.RFC3339, from)
	if err != nil {
		return storage.Position{}, refuse(400, "BadPosition", fmt.Sprintf("from %.60q: expecting oldest, latest, a time as in RFC 3339 or Unix milliseconds", from))
	}
	return storage.Position{Kind: storage.AtTime, Time: t}, nil
}

// read answers with the records of one shard from a position on.
func (s *Service) read(ctx context.Context, req api.Request, res api.Response, name string) error {
	st, err := s.stream(req, name, actionGet)
	if err != nil {
		return err
	}
	n, err := shardOf(req, st)
	if err != nil {
		return err
	}
	limit := readDefault
	if text := queryValue(req, "limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > readLimit {
			return refuse(400, "BadLimit", fmt.Sprintf("limit %.20q: expecting 1 to %d", text, readLimit))
		}
	}
	p, err := positionOf(req, "oldest")
	if err != nil {
		return err
	}
	info, err := st.Shard(n)
	if err != nil {
		return err
	}
	r, err := st.NewReader(n, p)
	if err != nil {
		return err
	}
	defer r.Close()
	return s.answerRead(ctx, req, res, st, &info, r, limit)
}

func (s *Service) answerRead(ctx context.Context, req api.Request, res api.Response, st *storage.Stream, info *storage.ShardInfo, r *storage.Reader, limit int) error {
	lines := strings.Contains(string(req.Header("Accept")), typeNDJSON)
	var b []byte
	for least, want := roomFor(r, limit, readMaxBytes); ; {
		room := res.Reserve(ctx, least, want)
		if room == 0 {
			return refuse(429, "Busy", "this server has no memory for the records now")
		}
		b = *res.Body()
		if !lines {
			b = append(b, `{"records":[`...)
		}
		count, lacks := 0, 0
		_, err := r.Read(limit, readMaxBytes, func(rec *record.Record) bool {
			if size := len(b) + sizeOf(rec); size > room-answerRest {
				if count == 0 {
					lacks = size
				}
				return false
			}
			if !lines && count > 0 {
				b = append(b, ',')
			}
			b = appendRecord(b, st, info.Number, rec)
			if lines {
				b = append(b, '\n')
			}
			count++
			return true
		})
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if lacks == 0 {
			break
		}
		least, want = lacks+answerRest, 0
	}
	ended := !info.Open() && r.Position() > info.Last
	next := ""
	if !ended {
		next = st.Sequence(info.Number, max(r.Position(), 1)-1, s.o.Clock()).String()
	}
	_, _, age := r.Lag()
	if lines {
		res.SetHeader("Content-Type", typeNDJSON)
		if !ended {
			res.SetHeader(headerNext, next)
		}
		*res.Body() = b
		return nil
	}
	res.SetHeader("Content-Type", "application/json")
	b = append(b, ']')
	if ended {
		b = appendChildren(b, st, info.Number)
	} else {
		b = fmt.Appendf(b, `,"next":"%s"`, next)
	}
	*res.Body() = fmt.Appendf(b, ",\"millis_behind_latest\":%d}\n", age.Milliseconds())
	return nil
}

const (
	// answerRest is what an answer has besides its records.
	answerRest = 2 << 10
	// recordRest is what a record has at most besides its data and key.
	recordRest = 256
)

// roomFor is how much room an answer with what there is to read takes.
func roomFor(r *storage.Reader, maxRecords, maxBytes int) (least, want int) {
	records, size, _ := r.Lag()
	return api.RoomForRecords(records, size, maxRecords, maxBytes, recordRest, answerRest)
}

// sizeOf is the most that a record's JSON takes.
func sizeOf(r *record.Record) int {
	return base64.StdEncoding.EncodedLen(len(r.Data)) + 6*len(r.PartitionKey) + recordRest
}

// appendRecord appends a record's JSON.
func appendRecord(b []byte, st *storage.Stream, n record.ShardNumber, r *record.Record) []byte {
	b = append(b, `{"sequence_number":"`...)
	b = st.Sequence(n, r.Index, r.Arrival).AppendTo(b)
	b = append(b, `","shard":"`...)
	b = append(b, n.String()...)
	b = append(b, `","partition_key":`...)
	b = jsonlite.AppendQuote(b, string(r.PartitionKey))
	b = append(b, `,"arrival":"`...)
	b = r.Arrival.UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z07:00")
	b = append(b, `","data":"`...)
	b = base64.StdEncoding.AppendEncode(b, r.Data)
	return append(b, `"}`...)
}

// appendChildren appends the shards that a closed shard was split or merged into.
func appendChildren(b []byte, st *storage.Stream, n record.ShardNumber) []byte {
	b = append(b, `,"children":[`...)
	for i, c := range childrenOf(st, n) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = append(b, c.Number.String()...)
		b = append(b, '"')
	}
	return append(b, ']')
}

// childrenOf are the shards that a closed shard was split or merged into.
func childrenOf(st *storage.Stream, n record.ShardNumber) []storage.ShardInfo {
	return slices.DeleteFunc(st.Shards(), func(info storage.ShardInfo) bool { return !slices.Contains(parentsOf(info), n) })
}

// parentsOf are the shards that a shard came of, whether they are still there or not.
func parentsOf(info storage.ShardInfo) (out []record.ShardNumber) {
	if info.HasParent {
		out = append(out, info.Parent)
	}
	if info.HasAdjacentParent {
		out = append(out, info.AdjacentParent)
	}
	return out
}
