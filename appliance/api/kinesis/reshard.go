package kinesis

import (
	"context"
	"errors"
	"time"

	"github.com/weirhq/weir/appliance/api/aws"
	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
)

// reshard runs fn while the stream is UPDATING: nobody else reshards it, reads
// and writes go on. What fn does is on disk when reshard returns.
func (s *Service) reshard(st *stream, fn func() error) error {
	st.mu.Lock()
	if st.mu.resharding || s.now().Before(st.mu.settled) {
		st.mu.Unlock()
		return s.notActive(st)
	}
	st.mu.resharding = true
	st.mu.Unlock()
	err := fn()
	st.mu.Lock()
	st.mu.resharding = false
	if err == nil {
		st.mu.settled = s.now().Add(s.o.Settle)
	}
	st.mu.Unlock()
	return err
}

func (s *Service) notActive(st *stream) error {
	return aws.ResourceInUse.New("Stream %s under account %s not ACTIVE, instead in state %s", st.Name(), s.o.Account, statusUpdating)
}

// findProvisioned finds a stream for what only provisioned streams can do.
func (s *Service) findProvisioned(c *aws.Call, name, arn *string) (*stream, error) {
	st, err := s.find(c, name, arn)
	if err == nil && st.Config().Mode == storage.OnDemand {
		err = aws.Validation.New("Request is invalid. Stream %s under account %s is in On-Demand mode.", st.Name(), s.o.Account)
	}
	return st, err
}

// openShard returns an open shard of a stream by its id.
func (s *Service) openShard(st *stream, id string) (storage.ShardInfo, error) {
	n, err := parseShard(id)
	if err != nil {
		return storage.ShardInfo{}, s.noShard(st, id)
	}
	info, err := st.Shard(n)
	if errors.Is(err, storage.ErrShardNotFound) {
		return storage.ShardInfo{}, s.noShard(st, n.String())
	}
	if err != nil {
		return storage.ShardInfo{}, s.storeError(err, st.Name())
	}
	if !info.Open() {
		return storage.ShardInfo{}, aws.InvalidArgument.New("Shard %s in stream %s under account %s has been closed and cannot be split or merged.", n, st.Name(), s.o.Account)
	}
	return info, nil
}

func (s *Service) noShard(st *stream, id string) error {
	return aws.ResourceNotFound.New("Could not find shard %s in stream %s under account %s.", id, st.Name(), s.o.Account)
}

func (s *Service) splitShard(ctx context.Context, c *aws.Call, in *splitShardInput) (*aws.Empty, error) {
	st, err := s.findProvisioned(c, in.StreamName, in.StreamARN)
	if err != nil {
		return nil, err
	}
	s.creating.Lock()
	defer s.creating.Unlock()
	return nil, s.reshard(st, func() error {
		info, err := s.openShard(st, in.ShardToSplit)
		if err != nil {
			return err
		}
		if err := s.roomFor(1, storage.Provisioned); err != nil {
			return err
		}
		at, err := record.ParseHashKey(in.NewStartingHashKey)
		second, _ := info.Hash.First.Next()
		if err != nil || at.Cmp(second) <= 0 || at.Cmp(info.Hash.Last) >= 0 {
			return aws.InvalidArgument.New("NewStartingHashKey %s used in SplitShard() on shard %s in stream %s under account %s is not both greater than one plus the shard's StartingHashKey %s and less than the shard's EndingHashKey %s.",
				in.NewStartingHashKey, info.Number, st.Name(), s.o.Account, info.Hash.First, info.Hash.Last)
		}
		return s.shardError(st.Split(ctx, info.Number, at), st)
	})
}

func (s *Service) mergeShards(ctx context.Context, c *aws.Call, in *mergeShardsInput) (*aws.Empty, error) {
	st, err := s.findProvisioned(c, in.StreamName, in.StreamARN)
	if err != nil {
		return nil, err
	}
	return nil, s.reshard(st, func() error {
		a, err := s.openShard(st, in.ShardToMerge)
		if err != nil {
			return err
		}
		b, err := s.openShard(st, in.AdjacentShardToMerge)
		if err != nil {
			return err
		}
		if !adjacent(a.Hash, b.Hash) {
			return aws.InvalidArgument.New("Shards %s and %s in stream %s under account %s are not an adjacent pair of shards eligible for merging",
				a.Number, b.Number, st.Name(), s.o.Account)
		}
		return s.shardError(st.Merge(ctx, a.Number, b.Number), st)
	})
}

// adjacent tells whether b begins where a ends.
func adjacent(a, b record.HashRange) bool {
	next, more := a.Last.Next()
	return more && next == b.First
}

// shardError is what a client sees of an error of the store in a reshard.
func (s *Service) shardError(err error, st *stream) error {
	if errors.Is(err, storage.ErrShardClosed) {
		return aws.ResourceInUse.New("A shard of stream %s under account %s was closed by another change meanwhile.", st.Name(), s.o.Account)
	}
	return s.storeError(err, st.Name())
}

func (s *Service) updateShardCount(ctx context.Context, c *aws.Call, in *updateShardCountInput) (*updateShardCountOutput, error) {
	st, err := s.findProvisioned(c, in.StreamName, in.StreamARN)
	if err != nil {
		return nil, err
	}
	s.creating.Lock()
	defer s.creating.Unlock()
	target := in.TargetShardCount
	current := openShards(st.Stream)
	err = s.reshard(st, func() error {
		if err := s.mayScale(st, current, target); err != nil {
			return err
		}
		if err := s.countScaling(ctx, st); err != nil {
			return err
		}
		return s.shardError(st.UpdateShardCount(ctx, target), st)
	})
	if err != nil {
		return nil, err
	}
	name, streamARN := st.Name(), s.streamARN(st.Name())
	return &updateShardCountOutput{StreamName: &name, CurrentShardCount: &current, TargetShardCount: &target, StreamARN: &streamARN}, nil
}

// mayScale checks the limits of one UpdateShardCount.
func (s *Service) mayScale(st *stream, current, target int) error {
	switch {
	case target > 2*current:
		return aws.InvalidArgument.New("UpdateShardCount cannot scale up over double your current open shard count. Current open shard count: %d Target shard count: %d", current, target)
	case 2*target < current:
		return aws.InvalidArgument.New("UpdateShardCount cannot scale down below half your current open shard count. Current open shard count: %d Target shard count: %d", current, target)
	case target > streamShardLimit:
		return aws.LimitExceeded.New("Stream %s under account %s can not have more than %d shards.", st.Name(), s.o.Account, streamShardLimit)
	case target > current:
		return s.roomFor(target-current, storage.Provisioned)
	}
	return nil
}

// countScaling notes an UpdateShardCount, of which a day has only so many.
func (s *Service) countScaling(ctx context.Context, st *stream) error {
	return st.settings.update(ctx, s.store, func(v *streamSettings) error {
		recent := within(v.CountChanges, s.now(), 24*time.Hour)
		if len(recent) >= updateCountsPerDay {
			return aws.LimitExceeded.New("Stream %s under account %s has been scaled %d times in the last 24 hours, which is the limit.",
				st.Name(), s.o.Account, len(recent))
		}
		v.CountChanges = append(recent, s.now())
		return nil
	})
}
