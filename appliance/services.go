package appliance

import (
	"context"
	"errors"
	"net"

	"github.com/weirhq/weir/appliance/admin"
	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/appliance/api/aws"
	"github.com/weirhq/weir/appliance/api/firehose"
	"github.com/weirhq/weir/appliance/api/kinesis"
	"github.com/weirhq/weir/appliance/api/kinesis/channel"
	"github.com/weirhq/weir/appliance/api/plain"
	"github.com/weirhq/weir/appliance/api/sts"
	"github.com/weirhq/weir/appliance/config"
	"github.com/weirhq/weir/appliance/listen"
)

// openServices makes the services and the one table that says which of them
// serves what.
func (b *box) openServices(ctx context.Context, c *config.Loaded) error {
	streams, err := kinesis.New(ctx, b.store, kinesis.Options{
		Account: c.Kinesis.Account, Region: c.Kinesis.Region, Quotas: c.Kinesis.Quotas, Logger: b.log,
		Channels: &channel.Deliveries{Engine: b.deliveries, Bucket: b.sinks.Bucket},
		Readers:  b.deliveries.Readers,
	})
	if err != nil {
		return err
	}
	b.kinesis = streams
	records, err := plain.New(b.store, plain.Options{MaxBodyBytes: int(c.Listen.MaxBodyBytes), Logger: b.log})
	if err != nil {
		return err
	}
	b.plain = records
	deliveries := firehose.New(b.store, b.deliveries, firehose.Options{
		Account: c.Kinesis.Account, Region: c.Kinesis.Region, Bucket: b.sinks.Bucket, Logger: b.log,
		Module: func(name string) bool {
			_, err := b.modules.Describe(name)
			return err == nil
		},
	})
	deliveries.Renew(ctx)
	manager := ""
	if b.Manager.Socket != "" {
		manager = "systemd"
	}
	control := admin.New(admin.Options{
		Store: b.store, Modules: b.modules, Consumers: b.consumers, Deliveries: b.deliveries, ShowSink: b.sinks.Show,
		Version: b.Version, Started: b.started, Manager: manager, Reload: b.reload,
	})

	faults := aws.Faults{
		Throttle: c.Faults.Throttle, Fail: c.Faults.Fail, ExpireIterators: c.Faults.ExpireIterators,
		Delay: c.Faults.Delay, DelayBy: c.Faults.DelayBy, Operations: c.Faults.Operations,
	}
	if err := faults.Validate(); err != nil {
		return err
	}
	if faults.Any() {
		b.log.Warn("calls fail on purpose: the configuration asks for faults")
	}
	routes := api.Routes{
		{Target: "Kinesis_20131202", Service: "kinesis", Handler: aws.InjectFaults(faults, streams)},
		{Target: "Firehose_20150804", Service: "firehose", Handler: aws.InjectFaults(faults, deliveries)},
		{Query: true, Handler: sts.New(c.Kinesis.Account)},
		{Path: "/v1/", Handler: records},
		{Path: admin.Prefix, Handler: control},
		{Path: "/metrics", Handler: api.HandlerFunc(b.metrics)},
		{Path: "/healthz", Public: true, Handler: api.HandlerFunc(b.health.healthz)},
		{Path: "/readyz", Public: true, Handler: api.HandlerFunc(b.health.readyz)},
	}
	if c.Telemetry.PProf {
		routes = append(routes, api.Route{Path: "/debug/pprof/", Handler: api.HandlerFunc(profile)})
	}
	return b.makeServer(c, routes)
}

func (b *box) makeServer(c *config.Loaded, routes api.Routes) error {
	authorities, err := clientAuthorities(&c.Listen)
	if err != nil {
		return err
	}
	gate := listen.GateOptions{
		Routes: routes, Directory: &b.access,
		Verifier: aws.NewVerifier(aws.VerifierOptions{Keyring: &b.access, ClockTolerance: c.Auth.ClockTolerance}),
		Logger:   b.log,
	}
	if c.Auth.Anonymous != "never" {
		gate.Anonymous = &api.Identity{Name: "anonymous", Means: api.MeansOpen, Policy: api.FullAccess}
		gate.AnonymousPeers = peers(c.Auth.Anonymous)
	}
	b.gate = listen.NewGate(gate)
	l := &c.Listen
	b.server = listen.New(listen.Options{
		Handler: b.gate, Certificate: b.cert.get, ClientCAs: authorities, Cleartext: peers(l.Cleartext),
		MaxConns: l.MaxConnections, MaxConnsPerAddress: l.PerAddress, MaxHeaderBytes: int(l.MaxHeaderBytes),
		MaxBodyBytes: int(l.MaxBodyBytes), MaxBodyMemory: int(l.BodyMemory), MaxAnswerMemory: int(l.AnswerMemory), MaxRequests: l.MaxRequests,
		HeaderTimeout: l.HeaderTimeout, BodyTimeout: l.BodyTimeout, IdleTimeout: l.IdleTimeout, MinRate: int(l.MinRate),
		DrainTimeout: c.Shutdown.Drain, Logger: b.log,
	})
	return nil
}

// peers reads the words of the configuration.
func peers(word string) listen.Peers {
	switch word {
	case "always":
		return listen.AnyPeer
	case "loopback":
		return listen.LoopbackPeer
	}
	return listen.NoPeer
}

// accept serves the port until the drain.
func (b *box) accept(context.Context) error {
	if err := b.server.Serve(b.listener); err != nil && !errors.Is(err, listen.ErrClosed) && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
