package kinesis

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weirhq/weir/appliance/api/aws"
	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
)

const listPageShards = 1000

// parseShard reads a shard id: anything up to a '-' and a number, or a number.
func parseShard(id string) (record.ShardNumber, error) { return record.ParseShardNumber(id) }

// shardOutputs is the shards as DescribeStream and ListShards show them.
func shardOutputs(infos []storage.ShardInfo) []shardOutput {
	out := make([]shardOutput, 0, len(infos))
	for i := range infos {
		out = append(out, shardOutputOf(&infos[i]))
	}
	return out
}

func shardOutputOf(i *storage.ShardInfo) shardOutput {
	o := shardOutput{
		ShardId:             i.Number.String(),
		HashKeyRange:        hashKeyRangeOf(i.Hash),
		SequenceNumberRange: sequenceNumberRange{StartingSequenceNumber: i.StartingSequenceNumber().String()},
	}
	if i.HasParent {
		id := i.Parent.String()
		o.ParentShardId = &id
	}
	if i.HasAdjacentParent {
		id := i.AdjacentParent.String()
		o.AdjacentParentShardId = &id
	}
	if !i.Open() {
		end := i.EndingSequenceNumber().String()
		o.SequenceNumberRange.EndingSequenceNumber = &end
	}
	return o
}

func hashKeyRangeOf(r record.HashRange) hashKeyRange {
	return hashKeyRange{StartingHashKey: r.First.String(), EndingHashKey: r.Last.String()}
}

// childrenOf returns the shards that a closed shard was split or merged into.
func childrenOf(infos []storage.ShardInfo, n record.ShardNumber) []childShard {
	var out []childShard
	for i := range infos {
		c := &infos[i]
		if !(c.HasParent && c.Parent == n || c.HasAdjacentParent && c.AdjacentParent == n) {
			continue
		}
		child := childShard{ShardId: c.Number.String(), HashKeyRange: hashKeyRangeOf(c.Hash)}
		if c.HasParent {
			child.ParentShards = append(child.ParentShards, c.Parent.String())
		}
		if c.HasAdjacentParent {
			child.ParentShards = append(child.ParentShards, c.AdjacentParent.String())
		}
		out = append(out, child)
	}
	return out
}

// lifetime is when a shard took records: from opened, to but not including
// closed. The zero times mean "ever since" and "still".
type lifetime struct{ opened, closed time.Time }

func (l lifetime) at(t time.Time) bool {
	return !t.Before(l.opened) && (l.closed.IsZero() || t.Before(l.closed))
}

// lifetimes derives the shards' lifetimes from their lineage: a shard opens at
// the instant its parents close, and closes no earlier than it opened, whatever a
// clock that was set back has written. So at any instant the open shards tile the
// hash range: each closing one makes room for its children. A shard whose parents
// are no longer listed has been there ever since.
func lifetimes(infos []storage.ShardInfo) []lifetime {
	at := make(map[record.ShardNumber]int, len(infos))
	out := make([]lifetime, len(infos))
	for i := range infos { // parents have lower numbers, so they come first
		info := &infos[i]
		parents := parentsOf(info, at)
		for _, j := range parents {
			if out[j].closed.After(out[i].opened) {
				out[i].opened = out[j].closed
			}
		}
		for _, j := range parents { // two merged at one instant
			out[j].closed = out[i].opened
		}
		if !info.Open() {
			out[i].closed = info.Closed
			if info.Closed.Before(out[i].opened) {
				out[i].closed = out[i].opened
			}
		}
		at[info.Number] = i
	}
	return out
}

// parentsOf returns the places of a shard's parents that are listed.
func parentsOf(info *storage.ShardInfo, at map[record.ShardNumber]int) []int {
	var out []int
	if j, listed := at[info.Parent]; info.HasParent && listed {
		out = append(out, j)
	}
	if j, listed := at[info.AdjacentParent]; info.HasAdjacentParent && listed {
		out = append(out, j)
	}
	return out
}

// latest returns an instant at which the shards that are open now are open: now,
// or the last reshard if that was stamped by a clock that was ahead.
func latest(infos []storage.ShardInfo, now time.Time) time.Time {
	for i := range infos {
		if infos[i].Closed.After(now) {
			now = infos[i].Closed
		}
	}
	return now
}

// openAt returns the shards that took records at an instant.
func openAt(infos []storage.ShardInfo, lives []lifetime, t time.Time) []storage.ShardInfo {
	var out []storage.ShardInfo
	for i := range infos {
		if lives[i].at(t) {
			out = append(out, infos[i])
		}
	}
	return out
}

// trimHorizon returns the earliest instant, not before floor, at which the
// shards still listed tile the hash range. It is floor unless a parent of a
// merged shard went before the other one did.
func trimHorizon(infos []storage.ShardInfo, lives []lifetime, floor time.Time) time.Time {
	instants := []time.Time{floor}
	for _, l := range lives {
		if l.closed.After(floor) {
			instants = append(instants, l.closed)
		}
	}
	slices.SortFunc(instants, time.Time.Compare)
	for _, t := range instants {
		if tiles(openAt(infos, lives, t)) {
			return t
		}
	}
	return floor
}

// tiles tells whether shards cover the whole hash range exactly once.
func tiles(infos []storage.ShardInfo) bool {
	ranges := make([]record.HashRange, len(infos))
	for i := range infos {
		ranges[i] = infos[i].Hash
	}
	slices.SortFunc(ranges, func(a, b record.HashRange) int { return a.First.Cmp(b.First) })
	next, more := record.HashKey{}, true
	for _, r := range ranges {
		if !more || r.First != next {
			return false
		}
		next, more = r.Last.Next()
	}
	return !more
}

// shardQuery is a ListShards call as its token carries it: the filter with its
// instant fixed at the first page, so that all pages tell of the same shards.
type shardQuery struct {
	stream string
	id     uint32
	filter string
	at     time.Time
	shard  record.ShardNumber
}

func (q *shardQuery) scope() string {
	return fmt.Sprintf("%s/%08x/%s/%d/%d", q.stream, q.id, q.filter, q.at.UnixNano(), q.shard)
}

func parseShardQuery(scope string) (q shardQuery, ok bool) {
	f := strings.Split(scope, "/")
	if len(f) != 5 {
		return q, false
	}
	id, err1 := strconv.ParseUint(f[1], 16, 32)
	at, err2 := strconv.ParseInt(f[3], 10, 64)
	n, err3 := strconv.ParseUint(f[4], 10, 32)
	q = shardQuery{stream: f[0], id: uint32(id), filter: f[2], at: time.Unix(0, at), shard: record.ShardNumber(n)}
	return q, err1 == nil && err2 == nil && err3 == nil
}

func (s *Service) listShards(_ context.Context, c *aws.Call, in *listShardsInput) (*listShardsOutput, error) {
	st, q, after, err := s.shardQuery(c, in)
	if err != nil {
		return nil, err
	}
	infos := s.selectShards(st, &q)
	infos = slices.DeleteFunc(infos, func(i storage.ShardInfo) bool { return int64(i.Number) <= after })
	limit := listPageShards
	if in.MaxResults != nil {
		limit = min(limit, *in.MaxResults)
	}
	out := &listShardsOutput{}
	if len(infos) > limit {
		infos = infos[:limit]
		out.NextToken = s.nextPage("ListShards", q.scope(), strconv.Itoa(int(infos[limit-1].Number)))
	}
	out.Shards = shardOutputs(infos)
	return out, nil
}

// shardQuery reads what a ListShards call asks for, from its members or from
// its token, and the number of the shard after which its page begins, -1 for
// the first one.
func (s *Service) shardQuery(c *aws.Call, in *listShardsInput) (*stream, shardQuery, int64, error) {
	named := in.StreamName != nil || in.StreamARN != nil
	switch {
	case in.NextToken == nil && !named:
		return nil, shardQuery{}, 0, aws.InvalidArgument.New("Either NextToken or StreamName should be provided.")
	case in.NextToken != nil && named:
		return nil, shardQuery{}, 0, aws.InvalidArgument.New("NextToken and StreamName cannot be provided together.")
	case in.NextToken != nil && in.ExclusiveStartShardId != nil:
		return nil, shardQuery{}, 0, aws.InvalidArgument.New("NextToken and ExclusiveStartShardId cannot be provided together.")
	case in.NextToken != nil && (in.ShardFilter != nil || in.StreamCreationTimestamp != nil):
		return nil, shardQuery{}, 0, aws.InvalidArgument.New("NextToken cannot be provided together with ShardFilter or StreamCreationTimestamp.")
	case in.NextToken != nil:
		return s.nextShards(c, *in.NextToken)
	}
	st, err := s.find(c, in.StreamName, in.StreamARN)
	if err != nil {
		return nil, shardQuery{}, 0, err
	}
	if err := s.sameCreation(st, in.StreamCreationTimestamp); err != nil {
		return nil, shardQuery{}, 0, err
	}
	q := shardQuery{stream: st.Name(), id: st.ID(), filter: "FROM_TRIM_HORIZON", at: latest(st.Shards(), s.now())}
	if in.ShardFilter != nil {
		if err := q.setFilter(in.ShardFilter, s.now()); err != nil {
			return nil, q, 0, err
		}
	}
	after := int64(-1)
	if in.ExclusiveStartShardId != nil {
		n, err := parseShard(*in.ExclusiveStartShardId)
		if err != nil {
			return nil, q, 0, aws.InvalidArgument.New("Invalid ExclusiveStartShardId: %s.", *in.ExclusiveStartShardId)
		}
		after = int64(n)
	}
	return st, q, after, nil
}

// nextShards resumes a ListShards call from its token.
func (s *Service) nextShards(c *aws.Call, token string) (*stream, shardQuery, int64, error) {
	p, err := s.turn(token, "ListShards")
	if err != nil {
		return nil, shardQuery{}, 0, err
	}
	q, ok := parseShardQuery(p.scope)
	after, err := strconv.ParseInt(p.after, 10, 64)
	if !ok || err != nil {
		return nil, q, 0, aws.InvalidArgument.New("Invalid NextToken.")
	}
	st, err := s.open(c, q.stream)
	if err != nil {
		return nil, q, 0, err
	}
	if st.ID() != q.id {
		return nil, q, 0, aws.InvalidArgument.New("Invalid NextToken: stream %s has been deleted and created again since.", q.stream)
	}
	return st, q, after, nil
}

// sameCreation tells whether a stream was created at a time that a caller
// remembers. Clients send whole seconds.
func (s *Service) sameCreation(st *stream, at *time.Time) error {
	if at == nil || at.Unix() == st.CreatedAt().Unix() {
		return nil
	}
	return aws.ResourceNotFound.New("Stream %s under account %s created at %s not found.", st.Name(), s.o.Account, amazonDate(*at))
}

func (q *shardQuery) setFilter(f *shardFilter, now time.Time) error {
	q.filter = f.Type
	switch f.Type {
	case "AFTER_SHARD_ID":
		if f.ShardId == nil {
			return aws.InvalidArgument.New("ShardId must be provided with the ShardFilter type %s.", f.Type)
		}
		n, err := parseShard(*f.ShardId)
		if err != nil {
			return aws.InvalidArgument.New("Invalid ShardId in ShardFilter: %s.", *f.ShardId)
		}
		q.shard = n
	case "AT_TIMESTAMP", "FROM_TIMESTAMP":
		if f.Timestamp == nil {
			return aws.InvalidArgument.New("Timestamp must be provided with the ShardFilter type %s.", f.Type)
		}
		if f.Timestamp.After(now) {
			return aws.InvalidArgument.New("The timestamp of the ShardFilter cannot be in the future. timestampInMillis: %d, currentTimestampInMillis: %d",
				f.Timestamp.UnixMilli(), now.UnixMilli())
		}
		q.at = *f.Timestamp
	}
	return nil
}

// selectShards returns the shards a query asks for, by number.
func (s *Service) selectShards(st *stream, q *shardQuery) []storage.ShardInfo {
	infos := st.Shards()
	lives := lifetimes(infos)
	switch q.filter {
	case "AFTER_SHARD_ID":
		return slices.DeleteFunc(infos, func(i storage.ShardInfo) bool { return i.Number <= q.shard })
	case "AT_LATEST":
		return openAt(infos, lives, q.at)
	}
	horizon := trimHorizon(infos, lives, s.now().Add(-st.Config().Retention))
	from := q.at
	if horizon.After(from) {
		from = horizon
	}
	switch q.filter {
	case "AT_TRIM_HORIZON":
		return openAt(infos, lives, horizon)
	case "AT_TIMESTAMP":
		return openAt(infos, lives, from)
	case "FROM_TIMESTAMP":
		var out []storage.ShardInfo
		for i := range infos {
			if lives[i].closed.IsZero() || lives[i].closed.After(from) {
				out = append(out, infos[i])
			}
		}
		return out
	}
	return infos
}
