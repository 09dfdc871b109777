package kinesis

import (
	"context"
	"slices"
	"time"

	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
)

// ScaleOptions says when the shards of on-demand streams are split and merged.
// The zero value uses the defaults given with each field.
type ScaleOptions struct {
	// Interval is the time between two looks at the load. Default 5 s; negative
	// turns scaling off.
	Interval time.Duration
	// ShardRecordsPerSecond and ShardBytesPerSecond are what one shard is meant to
	// take in. Defaults 1,000 and 1 MiB, those of the real service.
	ShardRecordsPerSecond, ShardBytesPerSecond float64
	// SplitAfter is how long a shard takes in more than four fifths of that before
	// it is split. Default 10 s.
	SplitAfter time.Duration
	// MergeAfter is how long two neighbours together take in less than two fifths
	// of what one is meant to before they are merged. Default 15 min.
	MergeAfter time.Duration
	// MinShards is the number of open shards a stream is never merged below.
	// Default 4, that of a new on-demand stream.
	MinShards int
	// MaxShards is the number of open shards a stream is never split beyond.
	// Default 128.
	MaxShards int
}

const (
	splitAbove = 0.8
	mergeBelow = 0.4
)

func (o ScaleOptions) withDefaults() ScaleOptions {
	setDefault(&o.Interval, 5*time.Second)
	setDefault(&o.ShardRecordsPerSecond, shardRecordsPerSecond)
	setDefault(&o.ShardBytesPerSecond, shardBytesInPerSecond)
	setDefault(&o.SplitAfter, 10*time.Second)
	setDefault(&o.MergeAfter, 15*time.Minute)
	setDefault(&o.MinShards, onDemandShards)
	setDefault(&o.MaxShards, 128)
	return o
}

func setDefault[T int | float64 | time.Duration](v *T, def T) {
	if *v == 0 {
		*v = def
	}
}

// shardLoad is what one open shard has taken in since it was created, and how
// large its records are on average.
type shardLoad struct {
	number      record.ShardNumber
	hash        record.HashRange
	records     uint64
	recordBytes float64
}

// scaleStep is one reshard the scaler asks for: a split of shard at hash key
// at, or a merge of shard with its right-hand neighbour other.
type scaleStep struct {
	split        bool
	shard, other record.ShardNumber
	at           record.HashKey
}

// scaler decides when the shards of one on-demand stream are split or merged.
// It holds no clock and touches no stream: observe is told the time and the
// load, and says what to do. Between the thresholds for splitting and merging
// lies a factor of two, so that the halves of a shard just split are not put
// together again at the same load.
type scaler struct {
	o      ScaleOptions
	last   time.Time
	shards map[record.ShardNumber]*shardHistory
}

// shardHistory is what the scaler remembers of an open shard. hot and cold
// are the times since which the shard was hot, or was cold together with its
// right-hand neighbour; zero if it is not.
type shardHistory struct {
	records   uint64
	load      float64 // of what it is meant to take in
	hot, cold time.Time
}

// observe takes in the loads of the open shards at a time, in any order, and
// returns the steps to carry out, in the order of the hash ranges. floor is the
// number of open shards that must stay.
func (s *scaler) observe(now time.Time, loads []shardLoad, floor int) []scaleStep {
	elapsed := now.Sub(s.last).Seconds()
	first := s.last.IsZero() || elapsed <= 0
	s.last = now
	slices.SortFunc(loads, func(a, b shardLoad) int { return a.hash.First.Cmp(b.hash.First) })
	next := make(map[record.ShardNumber]*shardHistory, len(loads))
	for i := range loads {
		l := &loads[i]
		h, known := s.shards[l.number]
		if !known {
			h = new(shardHistory)
		} else if !first {
			rate := float64(l.records-h.records) / elapsed
			h.load = max(rate/s.o.ShardRecordsPerSecond, rate*l.recordBytes/s.o.ShardBytesPerSecond)
		}
		h.records = l.records
		next[l.number] = h
	}
	s.shards = next
	s.mark(now, loads)
	return s.steps(now, loads, max(floor, s.o.MinShards))
}

// mark notes since when shards are hot and pairs are cold.
func (s *scaler) mark(now time.Time, loads []shardLoad) {
	for i := range loads {
		h := s.shards[loads[i].number]
		since(&h.hot, h.load > splitAbove, now)
		cold := i+1 < len(loads) && h.load+s.shards[loads[i+1].number].load < mergeBelow
		since(&h.cold, cold, now)
	}
}

func since(t *time.Time, holds bool, now time.Time) {
	switch {
	case !holds:
		*t = time.Time{}
	case t.IsZero():
		*t = now
	}
}

func lasted(t, now time.Time, d time.Duration) bool { return !t.IsZero() && now.Sub(t) >= d }

// steps lists what is due. A shard takes part in at most one step, and each
// merge leaves a gap after it: its neighbours must be cold with the new shard
// for the whole time again.
func (s *scaler) steps(now time.Time, loads []shardLoad, floor int) []scaleStep {
	var out []scaleStep
	open := len(loads)
	for i := 0; i < len(loads); i++ {
		h := s.shards[loads[i].number]
		if lasted(h.hot, now, s.o.SplitAfter) && open < s.o.MaxShards {
			if at, ok := middle(loads[i].hash); ok {
				out = append(out, scaleStep{split: true, shard: loads[i].number, at: at})
				open++
			}
			continue
		}
		if lasted(h.cold, now, s.o.MergeAfter) && open > floor {
			out = append(out, scaleStep{shard: loads[i].number, other: loads[i+1].number})
			open--
			i++
		}
	}
	return out
}

// middle returns the hash key at which a range is halved, and whether it is
// wide enough for SplitShard's rule: above the first key plus one, below the last.
func middle(r record.HashRange) (record.HashKey, bool) {
	mid, ok := r.Mid()
	second, more := r.First.Next()
	return mid, ok && more && mid.Cmp(second) > 0 && mid.Cmp(r.Last) < 0
}

// Run scales on-demand streams until ctx ends. It reshards one stream at a time.
func (s *Service) Run(ctx context.Context) error {
	if s.o.Scale.Interval < 0 {
		<-ctx.Done()
		return nil
	}
	ticker := time.NewTicker(s.o.Scale.Interval)
	defer ticker.Stop()
	scalers := make(map[uint32]*scaler) // by stream; streams that are gone are dropped
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			scalers = s.scaleAll(ctx, scalers)
		}
	}
}

// scaleAll looks at every on-demand stream once and returns the scalers of
// those that exist.
func (s *Service) scaleAll(ctx context.Context, scalers map[uint32]*scaler) map[uint32]*scaler {
	next := make(map[uint32]*scaler, len(scalers))
	for _, st := range s.visible() {
		if st.Config().Mode != storage.OnDemand {
			continue
		}
		one := scalers[st.ID()]
		if one == nil {
			one = &scaler{o: s.o.Scale}
		}
		next[st.ID()] = one
		known, err := s.adopt(st)
		if err != nil {
			s.o.Logger.Error("stream not scaled", "stream", st.Name(), "error", err)
			continue
		}
		floor := 0
		if warm := known.settings.get().WarmMiBps; warm != nil {
			floor = *warm / mibPerShard
		}
		for _, step := range one.observe(s.now(), loadsOf(st), floor) {
			s.scaleStep(ctx, known, step)
		}
	}
	return next
}

func (s *Service) scaleStep(ctx context.Context, st *stream, step scaleStep) {
	s.creating.Lock()
	defer s.creating.Unlock()
	err := s.reshard(st, func() error {
		if !step.split {
			return st.Merge(ctx, step.shard, step.other)
		}
		if err := s.roomFor(1, storage.Provisioned); err != nil {
			return err
		}
		return st.Split(ctx, step.shard, step.at)
	})
	if err != nil {
		s.o.Logger.Warn("stream not scaled", "stream", st.Name(), "shard", step.shard.String(), "split", step.split, "error", err)
		return
	}
	s.o.Logger.Info("stream scaled", "stream", st.Name(), "shard", step.shard.String(), "split", step.split)
}

// loadsOf reads the load of a stream's open shards. The index of a shard's last
// record counts what it has taken in.
func loadsOf(st *storage.Stream) []shardLoad {
	var out []shardLoad
	for _, info := range st.Shards() {
		if !info.Open() {
			continue
		}
		l := shardLoad{number: info.Number, hash: info.Hash, records: info.Last}
		if info.Last >= info.First && info.First > 0 {
			l.recordBytes = float64(info.Bytes) / float64(info.Last-info.First+1)
		}
		out = append(out, l)
	}
	return out
}
