package plain

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"unicode/utf8"
	"unsafe"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
)

// Headers of the service.
const (
	headerKey      = "Weir-Partition-Key"
	headerRetry    = "Idempotency-Key"
	headerReplayed = "Idempotency-Replayed"
	headerNext     = "Weir-Next"
)

const maxKeyChars = 256 // of a partition key, as in the Kinesis API

// put writes the records of a body.
func (s *Service) put(ctx context.Context, req api.Request, res api.Response, name string) error {
	st, err := s.stream(req, name, actionPut)
	if err != nil {
		return err
	}
	body, err := decompress(req.Body(), string(req.Header("Content-Encoding")), s.o.MaxBodyBytes)
	if err != nil {
		return err
	}
	retry, err := s.retryKey(req, st, body)
	if err != nil {
		return err
	}
	if retry != nil {
		if done, err := s.keys.seen(s, retry); err != nil || done != nil {
			return s.replay(res, done, err)
		}
	}
	entries, err := parse(body, string(req.Header("Content-Type")), s.o.MaxRecords)
	if err != nil {
		return err
	}
	if err := setKeys(req, st, entries); err != nil {
		return err
	}
	txn, err := s.write(ctx, st, entries, retry)
	if err == nil {
		defer txn.Release()
		s.answer(res, st, txn, len(entries))
		return nil
	}
	if retry != nil && isConflict(err) {
		// The same request came twice at a time, and the other one was first.
		done, err := s.keys.seen(s, retry)
		if done == nil && err == nil {
			err = refuse(409, "Conflict", "a request with this idempotency key is in progress")
		}
		return s.replay(res, done, err)
	}
	return err
}

// setKeys gives every entry its partition key and checks the records' limits.
func setKeys(req api.Request, st *storage.Stream, entries []entry) error {
	fallback, at, err := keySource(req)
	if err != nil {
		return err
	}
	limit := st.Config().MaxRecordBytes
	for i := range entries {
		e := &entries[i]
		if len(e.key) == 0 && at != nil {
			key, err := at.find(unsafe.String(unsafe.SliceData(e.data), len(e.data)))
			if err != nil {
				return refuse(400, "BadRecord", fmt.Sprintf("record %d: no partition key at %s: %v", i+1, queryValue(req, "key_pointer"), err))
			}
			e.key = []byte(key)
		}
		if len(e.key) == 0 {
			e.key = fallback
		}
		if n := utf8.RuneCount(e.key); n > maxKeyChars || n == 0 || !utf8.Valid(e.key) {
			return refuse(400, "BadPartitionKey", fmt.Sprintf("record %d: partition key %.80q: expecting 1 to %d characters of UTF-8", i+1, e.key, maxKeyChars))
		}
		if size := len(e.key) + len(e.data); limit > 0 && size > limit {
			return refuse(413, "RecordTooLarge", fmt.Sprintf("record %d: data and partition key are %d bytes; stream %s takes %d", i+1, size, st.Name(), limit))
		}
	}
	return nil
}

// keySource returns where the partition keys of a request come from: a pointer
// into each record, or else one key for all.
func keySource(req api.Request) (fallback []byte, at pointer, err error) {
	if p := queryValue(req, "key_pointer"); p != "" {
		if at, err = parsePointer(p); err != nil {
			return nil, nil, refuse(400, "BadKeyPointer", err.Error())
		}
	}
	switch {
	case queryValue(req, "key") != "":
		fallback = []byte(queryValue(req, "key"))
	case len(req.Header(headerKey)) > 0:
		fallback = bytes.Clone(req.Header(headerKey))
	case req.Identity() != nil:
		fallback = []byte(req.Identity().Name)
	}
	return fallback, at, nil
}

// queryValue returns a parameter of the query, empty if it is absent or malformed.
func queryValue(req api.Request, name string) string {
	if len(req.RawQuery()) == 0 {
		return ""
	}
	values, err := url.ParseQuery(string(req.RawQuery()))
	if err != nil {
		return ""
	}
	return values.Get(name)
}

// write stores the entries, and the idempotency key with them, in one
// transaction. The caller releases it.
func (s *Service) write(ctx context.Context, st *storage.Stream, entries []entry, retry *retryKey) (*storage.Txn, error) {
	size := 0
	for i := range entries {
		size += len(entries[i].key) + len(entries[i].data)
	}
	var patience api.Patience
	defer patience.End()
	txn, err := s.store.Begin(patience.Begin(ctx, s.o.AdmissionWait), size)
	if err != nil {
		return nil, err
	}
	for i := range entries {
		if err := txn.Append(st, entries[i].key, nil, entries[i].data); err != nil {
			txn.Release()
			return nil, err
		}
	}
	if retry != nil {
		retry.add(txn, s.o.Clock().Add(s.o.KeyLife), len(entries))
	}
	if err := txn.Commit(ctx); err != nil {
		txn.Release()
		return nil, err
	}
	if retry != nil {
		s.keys.added(ctx, s, retry)
	}
	return txn, nil
}

// answer says where the records are.
func (s *Service) answer(res api.Response, st *storage.Stream, txn *storage.Txn, n int) {
	res.SetHeader("Content-Type", "application/json")
	b := fmt.Appendf(*res.Body(), `{"count":%d,"records":[`, n)
	for i := range n {
		if i > 0 {
			b = append(b, ',')
		}
		shard, index, arrival := txn.Result(i)
		b = append(b, `{"shard":"`...)
		b = append(b, shard.String()...)
		b = append(b, `","sequence_number":"`...)
		b = st.Sequence(shard, index, arrival).AppendTo(b)
		b = append(b, `"}`...)
	}
	*res.Body() = append(b, "]}\n"...)
}

// replay answers a request whose records are stored already.
func (s *Service) replay(res api.Response, done *doneRow, err error) error {
	if err != nil {
		return err
	}
	res.SetHeader("Content-Type", "application/json")
	res.SetHeader(headerReplayed, "true")
	*res.Body() = fmt.Appendf(*res.Body(), "{\"count\":%d,\"replayed\":true}\n", done.count)
	return nil
}

// shardOf returns the shard a query names, or the only open one.
func shardOf(req api.Request, st *storage.Stream) (record.ShardNumber, error) {
	if id := queryValue(req, "shard"); id != "" {
		n, err := record.ParseShardNumber(id)
		if err != nil {
			return 0, refuse(400, "BadShard", err.Error())
		}
		return n, nil
	}
	infos := st.Shards()
	if len(infos) == 1 {
		return infos[0].Number, nil
	}
	return 0, refuse(400, "ShardNeeded", fmt.Sprintf("stream %s has %d shards; expecting ?shard=, %s to %s", st.Name(), len(infos), infos[0].Number, infos[len(infos)-1].Number))
}
