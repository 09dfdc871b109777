package kinesis

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/weirhq/weir/appliance/api/aws"
	"github.com/weirhq/weir/storage"
)

// Options says how the service behaves. The zero value is usable.
type Options struct {
	// Account is the 12-digit account of every ARN. Default "000000000000".
	Account string
	// Region is the region of the ARNs that the service makes; those it is given
	// may name any. Default "us-east-1".
	Region string
	// Quotas turns the real service's per-shard throughput limits on: 1,000 records
	// and 1 MiB a second in, 5 reads and 2 MiB a second out.
	Quotas bool
	// ShardLimit bounds the open shards of all streams together. Default 10,000.
	ShardLimit int
	// OnDemandStreamLimit bounds the on-demand streams. Default 50.
	OnDemandStreamLimit int
	// AdmissionWait is how long a write waits for its turn before it is refused
	// with ProvisionedThroughputExceededException. It has to be below the 6 s after
	// which a KPL gives up on a request and sends it again. Default 4 s.
	AdmissionWait time.Duration
	// Heartbeat is the time after which an idle subscription sends an empty event.
	// Default 4 s; clients give up after 10.
	Heartbeat time.Duration
	// SubscriptionLife is the time after which a subscription ends, to be renewed by
	// its client. Default 4 min 50 s.
	SubscriptionLife time.Duration
	// SubscriptionLimit bounds the subscriptions open at a time. Default 1,024.
	SubscriptionLimit int
	// Settle is how long a stream is shown as UPDATING after a reshard. Default 0.
	Settle time.Duration
	// Scale says how on-demand streams are scaled.
	Scale ScaleOptions
	// Channels carries out the channel operations. Without it they are refused.
	Channels Channels
	// Readers returns the names of the delivery streams that read a stream, which
	// can't be deleted while there is one. Without it nothing reads a stream.
	Readers func(stream string) []string
	// Clock tells the time. Default time.Now.
	Clock func() time.Time
	// Logger gets what an operator should know. Default: nothing is logged.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.Account == "" {
		o.Account = "000000000000"
	}
	if o.Region == "" {
		o.Region = "us-east-1"
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	setDefault(&o.ShardLimit, 10000)
	setDefault(&o.OnDemandStreamLimit, 50)
	setDefault(&o.AdmissionWait, 4*time.Second)
	setDefault(&o.Heartbeat, 4*time.Second)
	setDefault(&o.SubscriptionLife, 290*time.Second)
	setDefault(&o.SubscriptionLimit, 1024)
	o.Scale = o.Scale.withDefaults()
	return o
}

// Service serves the API. It is an api.Handler.
type Service struct {
	store *storage.Store
	o     Options
	*sealer
	streams       registry
	subscriptions subscriptions
	account       settingsRow[accountSettings]
	channels      channelRows
	creating      sync.Mutex // one CreateStream at a time, so that limits hold
	*aws.Service             // the front: encodings, validation, errors
}

// tokenKeyRow is the row of the key that seals iterators and tokens.
var tokenKeyRow = []byte("kinesis/token-key")

// HoldsSecret says whether the row of storage.TableSetting with this key holds a secret.
func HoldsSecret(key []byte) bool { return bytes.Equal(key, tokenKeyRow) }

// New returns the service over store. It reads and, at the very first start,
// writes the key of the tokens.
func New(ctx context.Context, store *storage.Store, o Options) (*Service, error) {
	s := &Service{store: store, o: o.withDefaults()}
	key, err := tokenKey(ctx, store)
	if err != nil {
		return nil, fmt.Errorf("kinesis: %w", err)
	}
	if s.sealer, err = newSealer(key); err != nil {
		return nil, fmt.Errorf("kinesis: %w", err)
	}
	s.streams.byName = make(map[string]*stream)
	s.subscriptions.active = make(map[subscriptionKey]*subscription)
	s.account.key = []byte("kinesis/account")
	if err := s.account.load(store); err != nil {
		return nil, fmt.Errorf("kinesis: %w", err)
	}
	if err := s.channels.load(store); err != nil {
		return nil, fmt.Errorf("kinesis: %w", err)
	}
	if err := dropOrphans(ctx, store); err != nil {
		return nil, fmt.Errorf("kinesis: %w", err)
	}
	s.Service = s.operations()
	return s, nil
}

// tokenKey reads the key of the tokens, or makes and stores it.
func tokenKey(ctx context.Context, store *storage.Store) ([]byte, error) {
	key, err := store.Get(storage.TableSetting, tokenKeyRow)
	if err == nil || !errors.Is(err, storage.ErrNotFound) {
		return key, err
	}
	key = make([]byte, tokenKeyBytes)
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("token key: %w", err)
	}
	txn, err := store.Begin(ctx, tokenKeyBytes)
	if err != nil {
		return nil, fmt.Errorf("store token key: %w", err)
	}
	txn.Expect(storage.TableSetting, tokenKeyRow, nil)
	txn.Put(storage.TableSetting, tokenKeyRow, key)
	if err := commit(ctx, txn); err != nil {
		return nil, fmt.Errorf("store token key: %w", err)
	}
	return key, nil
}

// dropOrphans removes the rows of streams that are gone: deleted by somebody else,
// or by a DeleteStream that did not get to its end.
func dropOrphans(ctx context.Context, store *storage.Store) error {
	ids := make(map[string]bool)
	for _, st := range store.Streams() {
		ids[fmt.Sprintf("%08x", st.ID())] = true
	}
	var orphans [][]byte
	for _, prefix := range []string{settingsPrefix, consumerPrefix} {
		err := store.Scan(storage.TableSetting, []byte(prefix), nil, 0, func(key, _ []byte) bool {
			if id, _, _ := strings.Cut(string(key[len(prefix):]), "/"); !ids[id] {
				orphans = append(orphans, bytes.Clone(key))
			}
			return true
		})
		if err != nil {
			return err
		}
	}
	if len(orphans) == 0 {
		return nil
	}
	txn, err := store.Begin(ctx, 0)
	if err != nil {
		return err
	}
	for _, key := range orphans {
		txn.Delete(storage.TableSetting, key)
	}
	return commit(ctx, txn)
}

// commit ends a transaction whose results nobody reads. It awaits the outcome also when
// ctx ends, that is when a client goes away: what is kept in memory follows it.
func commit(ctx context.Context, txn *storage.Txn) error {
	err := txn.Commit(context.WithoutCancel(ctx))
	txn.Release()
	return err
}

// now is the service's time.
func (s *Service) now() time.Time { return s.o.Clock() }
