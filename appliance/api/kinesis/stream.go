package kinesis

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/storage/record"
)

// streamSettings is what the service keeps of a stream beside what the store
// keeps itself.
type streamSettings struct {
	Tags         map[string]string `json:"tags,omitempty"`
	KeyID        string            `json:"keyId,omitempty"` // of StartStreamEncryption; empty = none
	Metrics      []string          `json:"metrics,omitempty"`
	Policy       string            `json:"policy,omitempty"`
	Auto         bool              `json:"auto,omitempty"` // RecordDistributionStrategy AUTO
	WarmMiBps    *int              `json:"warmMiBps,omitempty"`
	ModeChanges  []time.Time       `json:"modeChanges,omitempty"`  // of the last 24 h
	KeyStarts    []time.Time       `json:"keyStarts,omitempty"`    // of the last 24 h
	KeyStops     []time.Time       `json:"keyStops,omitempty"`     // of the last 24 h
	CountChanges []time.Time       `json:"countChanges,omitempty"` // of the last 24 h
}

// stream is an open stream with the service's own state of it.
type stream struct {
	*storage.Stream
	settings settingsRow[streamSettings]
	auto     atomic.Bool   // settings.Auto, for the hot path
	spread   atomic.Uint64 // records distributed under AUTO
	quotas   quotas
	created  atomic.Pointer[map[record.ShardNumber]int64] // of the shards, epoch seconds; never changed but replaced
	mu       struct {
		sync.Mutex
		resharding bool
		settled    time.Time // UPDATING until then
		consumers  map[string]*consumer
	}
}

// sequence is storage.Stream's Sequence without its lock: what it needs of a shard
// never changes, and PutRecords asks for each record.
func (st *stream) sequence(n record.ShardNumber, index uint64, arrival time.Time) record.SequenceNumber {
	if known := st.created.Load(); known != nil {
		if created, ok := (*known)[n]; ok {
			return record.NewSequenceNumber(created, n, index, arrival.Unix())
		}
	}
	all := make(map[record.ShardNumber]int64)
	for _, info := range st.Shards() {
		all[info.Number] = info.StartingSequenceNumber().Created()
	}
	st.created.Store(&all)
	return st.Sequence(n, index, arrival)
}

// consumer is a registered fan-out consumer.
type consumer struct {
	Name    string            `json:"name"`
	Created time.Time         `json:"created"`
	Tags    map[string]string `json:"tags,omitempty"`
	Policy  string            `json:"policy,omitempty"`
}

const (
	settingsPrefix = "kinesis/stream/"
	consumerPrefix = "kinesis/consumer/"
)

func settingsKey(id uint32) []byte { return fmt.Appendf(nil, settingsPrefix+"%08x", id) }

// consumersOf is the prefix of the rows of a stream's consumers.
func consumersOf(id uint32) []byte { return fmt.Appendf(nil, consumerPrefix+"%08x/", id) }

func consumerKey(id uint32, name string) []byte { return append(consumersOf(id), name...) }

// registry finds open streams by name. It is a cache of what the store and the
// settings table say; the store decides what exists. It has at most one entry
// for each stream that exists, and for those deleted behind its back until
// their name is asked for.
type registry struct {
	mu     sync.RWMutex
	byName map[string]*stream
}

// stream returns the stream of a name, or storage.ErrStreamNotFound. Streams that
// belong to the program itself are not there for clients.
func (s *Service) stream(name []byte) (*stream, error) {
	s.streams.mu.RLock()
	known := s.streams.byName[string(name)]
	s.streams.mu.RUnlock()
	st, err := s.store.Stream(string(name))
	switch {
	case err != nil:
		if known != nil {
			s.forget(known)
		}
		return nil, err
	case st.Config().System:
		return nil, storage.ErrStreamNotFound
	case known != nil && known.ID() == st.ID():
		return known, nil
	}
	return s.adopt(st)
}

// adopt loads the service's state of a stream that it has not seen.
func (s *Service) adopt(st *storage.Stream) (*stream, error) {
	s.streams.mu.Lock()
	defer s.streams.mu.Unlock()
	if known := s.streams.byName[st.Name()]; known != nil && known.ID() == st.ID() {
		return known, nil
	}
	n := &stream{Stream: st}
	n.settings.key = settingsKey(st.ID())
	if err := n.settings.load(s.store); err != nil {
		return nil, err
	}
	n.auto.Store(n.settings.get().Auto)
	n.mu.consumers = make(map[string]*consumer)
	var bad error
	err := s.store.Scan(storage.TableSetting, consumersOf(st.ID()), nil, consumerLimit*2, func(key, value []byte) bool {
		c := new(consumer)
		if bad = json.Unmarshal(value, c); bad != nil {
			bad = fmt.Errorf("consumer row %s: %w", key, bad)
			return false
		}
		n.mu.consumers[c.Name] = c
		return true
	})
	if err = errors.Join(err, bad); err != nil {
		return nil, err
	}
	s.streams.byName[st.Name()] = n
	return n, nil
}

// forget drops the state of a stream that is gone.
func (s *Service) forget(st *stream) {
	s.streams.mu.Lock()
	if s.streams.byName[st.Name()] == st {
		delete(s.streams.byName, st.Name())
	}
	s.streams.mu.Unlock()
}

// visible returns the streams a client may see, by name.
func (s *Service) visible() []*storage.Stream {
	all := s.store.Streams()
	out := all[:0:0]
	for _, st := range all {
		if !st.Config().System {
			out = append(out, st)
		}
	}
	return out
}

// The states of a stream. CREATING and DELETING are never seen: both are over
// when the operation answers.
const (
	statusActive   = "ACTIVE"
	statusUpdating = "UPDATING"
)

// status is ACTIVE, or UPDATING during a reshard and the settling time after it.
func (s *Service) status(st *storage.Stream) string {
	s.streams.mu.RLock()
	known := s.streams.byName[st.Name()]
	s.streams.mu.RUnlock()
	if known == nil || known.ID() != st.ID() {
		return statusActive
	}
	known.mu.Lock()
	defer known.mu.Unlock()
	if known.mu.resharding || s.now().Before(known.mu.settled) {
		return statusUpdating
	}
	return statusActive
}

// openShards counts the shards of a stream that take records.
func openShards(st *storage.Stream) int {
	n := 0
	for _, info := range st.Shards() {
		if info.Open() {
			n++
		}
	}
	return n
}

// mode is the stream's capacity mode in the words of the API.
func mode(st *storage.Stream) string {
	if st.Config().Mode == storage.OnDemand {
		return "ON_DEMAND"
	}
	return "PROVISIONED"
}

func (s *Service) streamARN(name string) string {
	return "arn:aws:kinesis:" + s.o.Region + ":" + s.o.Account + ":stream/" + name
}

func (s *Service) consumerARN(st *stream, c *consumer) string {
	return fmt.Sprintf("%s/consumer/%s:%d", s.streamARN(st.Name()), c.Name, c.Created.Unix())
}

// arn is a parsed resource name: of a stream, of a consumer of a stream if
// consumer is set, or of a channel if channel is.
type arn struct {
	account          string
	stream, consumer string
	channel          string
}

// parseARN takes an ARN that has the model's form apart. Partition and region
// may be any.
func parseARN(text string) (arn, bool) {
	parts := strings.SplitN(text, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || parts[2] != "kinesis" {
		return arn{}, false
	}
	a := arn{account: parts[4]}
	resource := parts[5]
	if name, ok := strings.CutPrefix(resource, "channel/"); ok {
		a.channel = name
		return a, name != ""
	}
	name, ok := strings.CutPrefix(resource, "stream/")
	if !ok || name == "" {
		return arn{}, false
	}
	a.stream, a.consumer, ok = strings.Cut(name, "/consumer/")
	if ok && a.consumer == "" || strings.Contains(a.stream, "/") {
		return arn{}, false
	}
	return a, true
}
