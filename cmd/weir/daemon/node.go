package daemon

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"weir/capacity"
	"weir/capacity/event"
	"weir/capacity/ledger"
	"weir/capacity/policy"
	"weir/capacity/scope"
	"weir/cmd/weir/ask"
	"weir/cmd/weir/bind"
	"weir/cmd/weir/drain"
	"weir/cmd/weir/eventlog"
	"weir/cmd/weir/hook"
	"weir/cmd/weir/httpd"
	"weir/cmd/weir/metrics"
	"weir/cmd/weir/placing"
	"weir/cmd/weir/policies"
	"weir/cmd/weir/provision"
	"weir/cmd/weir/spans"
	"weir/cmd/weir/supervise"
	"weir/cmd/weir/survey"
	"weir/cmd/weir/term"
	"weir/dht"
	"weir/dht/identity"
	"weir/dht/scale"
	"weir/sfu"
	"weir/sfu/gauge"
	"weir/sfu/proxied"
	"weir/sfu/rights"
	"weir/sfu/tree"
)

const (
	defaultLinger = 10 * time.Second
	// packetsPerCore is the default packet limit for each core, in packets/s.
	packetsPerCore = 50_000
)

type (
	limits   = ledger.Limits
	duration = time.Duration
)

// limitsOf reads the flags of the limits. --cpu-limit belongs to the gauge.
func limitsOf(c *cli.Context) (limits, error) {
	l := limits{Sessions: c.Int("session-limit"), Streams: c.Int("stream-limit"), Packets: c.Int64("packet-limit"), Share: ledger.DefaultShare()}
	for flag, v := range map[string]int64{"session-limit": int64(l.Sessions), "stream-limit": int64(l.Streams), "packet-limit": l.Packets} {
		if v < 0 {
			return l, fmt.Errorf("--%s %d: a limit below 0; give 0 for none", flag, v)
		}
	}
	if cpu := c.Float64("cpu-limit"); !(cpu >= 0 && cpu <= 1) {
		return l, fmt.Errorf("--cpu-limit %v: want a share from 0 to 1", cpu)
	}
	if delay := c.Duration("delay-limit"); delay < 0 {
		return l, fmt.Errorf("--delay-limit %v: a limit below 0; give 0 for none", delay)
	}
	if !c.IsSet("packet-limit") {
		l.Packets = int64(packetsPerCore * gauge.Cores())
	}
	if s := c.String("uplink-limit"); s != "" {
		v, err := term.ParseBitrate(s)
		if err != nil {
			return l, fmt.Errorf("--uplink-limit: %w", err)
		}
		l.Uplink = v
	} else {
		l.Uplink = gauge.DefaultUplink()
	}
	return l, nil
}

// A node is one weir node: discovery and media, joined.
type node struct {
	cfg    nodeConfig
	log    *slog.Logger
	began  time.Time
	dht    *dht.Node
	sfu    *sfu.SFU
	ledger *ledger.Ledger
	gauge  *gauge.Gauge
	policy *policies.File

	gate     *scope.Gate     // checks addresses named by others
	policies *policies.Store // signed by the operator
	events   *eventlog.Hub
	hooks    *hook.Events      // nil: no hook receives events
	handed   *hook.EventCounts // events passed to hooks
	view     *survey.Overview

	drain *drain.Drainer

	tuned     atomic.Pointer[tunable]
	reloading *reloading
	hangups   *hangups // nil: SIGHUP is not handled

	rights      *rights.Rights // nil: no client needs a right
	counters    *metrics.Counters
	spans       *spans.Queue
	outcomes    *provision.Outcomes
	placer      *placing.Placer
	provisioner *provision.Provisioner // nil: this node starts no servers
	releaser    *provision.Releaser    // nil: it does not end by itself

	ports   ports
	proxies proxies
	unlock  func() error // of the data directory
	notify  supervise.Notifier
	health  *supervise.Health
}

// newNode binds all addresses; run starts the work. Its error says which step
// failed.
func newNode(cfg nodeConfig) (_ *node, err error) {
	n := &node{cfg: cfg, log: cfg.log, policy: cfg.policy, began: time.Now(), notify: supervise.Notifier{Log: cfg.log}, events: eventlog.NewHub(cfg.log)}
	n.policy.Event = n.event
	n.proxies = proxies{trust: cfg.proxies, head: cfg.proxyHead, event: n.event, log: cfg.log}
	var opened []func() error
	defer func() {
		if err != nil {
			for _, f := range slices.Backward(opened) {
				_ = f()
			}
		}
	}()

	if cfg.devDir {
		cfg.dataDir, n.unlock, err = bind.OwnDataDir(cfg.dataDir, cfg.log)
		n.cfg.dataDir = cfg.dataDir
	} else {
		n.unlock, err = bind.DataDir(cfg.dataDir, cfg.log)
	}
	if err != nil {
		return nil, err
	}
	opened = append(opened, n.unlock)
	key, err := identity.Load(cfg.dataDir)
	if err != nil {
		return nil, err
	}
	self, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return nil, err
	}
	if n.ports.public, err = bind.TCP(cfg.log, cfg.http, "--http", cfg.given.http); err != nil {
		return nil, err
	}
	opened = append(opened, n.ports.public.Close)
	n.ports.public = n.proxies.listen(n.ports.public)
	closeTLS, err := n.secure(&cfg)
	if err != nil {
		return nil, err
	}
	opened = append(opened, closeTLS)
	if n.ports.admin, err = bind.TCP(cfg.log, cfg.admin, "--admin", cfg.given.admin); err != nil {
		return nil, err
	}
	opened = append(opened, n.ports.admin.Close)
	if cfg.metrics != "" {
		if n.ports.scrapes, err = bind.TCP(cfg.log, cfg.metrics, "--metrics", true); err != nil {
			return nil, err
		}
		opened = append(opened, n.ports.scrapes.Close)
	}
	socket, err := bind.Media(cfg.log, cfg.media, cfg.given.media)
	if err != nil {
		return nil, err
	}
	opened = append(opened, socket.Close)
	if port, err := socket.TCP(); err != nil {
		cfg.log.Warn("no media over TCP: clients whose UDP is blocked are not served", "err", err)
	} else if udp := socket.LocalAddr().(*net.UDPAddr).Port; port != udp {
		cfg.log.Warn("media over TCP has another port than over UDP, which is taken", "tcp", port, "udp", udp)
	}
	n.ports.media, n.ports.publicURL, n.ports.publicIP, n.ports.tls = socket, cfg.publicURL, cfg.publicIP, cfg.tls
	if n.ports.host, err = cfg.clientHost(n.ports.public, socket); err != nil {
		return nil, err
	}

	tracer, spans, err := spans.New(cfg.tracing, aboutNode(self, cfg), cfg.log)
	if err != nil {
		return nil, err
	}
	n.spans = spans
	n.tuned.Store(&cfg.live)
	n.ledger = ledger.New(self, cfg.live.limits)
	n.gauge = &gauge.Gauge{Socket: socket, Ledger: n.ledger, CPULimit: func() float64 { return n.tuned.Load().cpuLimit }, DelayLimit: func() time.Duration { return n.tuned.Load().delayLimit }}

	var bootstrap []peer.AddrInfo
	for _, s := range cfg.bootstrap {
		info, err := dht.ParseBootstrap(s)
		if err != nil {
			return nil, err
		}
		bootstrap = append(bootstrap, info)
	}
	n.outcomes, n.counters, n.handed = provision.NewOutcomes(), metrics.New(n.policy.Policy), hook.NewEventCounts()
	n.drain = &drain.Drainer{Ledger: n.ledger, Kick: func() { n.dht.Publisher.Kick() }, Leave: func(leave bool) { n.sfu.SetDraining(leave) }, Event: n.events.Add, Log: cfg.log}
	n.placer = &placing.Placer{Region: cfg.region, Policy: n.policy.Policy, Outcomes: n.outcomes, Event: n.events.Add, Log: cfg.log}
	n.placer.Self = func() capacity.Record { r, _ := n.sample(); return r }
	n.placer.Carried = func() []capacity.StreamInfo { return n.sfu.StreamInfos() }
	n.placer.Decided = func(d dht.Decision, err error) { n.view.Decided(d); n.counters.Decided(d, err) }
	var starts *scale.Provisioner
	if cfg.provision.Given() {
		p := provision.New(cfg.provision.Run, cfg.network, cfg.provisionRegions, cfg.log)
		p.Policy = func() policy.Provision { return n.policy.Policy().Policy().Provision }
		p.Nodes, p.Room, p.Invite, p.Event, p.Counts = n.placer.RegionRecords, n.placer.RoomFor, n.invite, n.events.Add, n.outcomes
		n.provisioner = p
		starts = &scale.Provisioner{Regions: p.Regions, Start: p.Start, Leave: p.Leave}
	} else if cfg.release.Given() {
		n.releaser = &provision.Releaser{
			Drain: n.drain, Hook: cfg.release, Log: cfg.log, Event: n.events.Add, Kick: func() { n.dht.Publisher.Kick() },
			Self:   func() hook.Input { return hook.Input{Region: cfg.region, Network: cfg.network, PeerID: self} },
			Policy: func() policy.Policy { return n.policy.Policy().Policy() }, Empty: n.empty,
			Ask: func(ctx context.Context) error { return n.dht.Provisioners.AskLeave(ctx, cfg.region) },
		}
	}
	if err := n.askForRights(); err != nil {
		return nil, err
	}
	parts := []reloadable{{"policy", n.policy.Reload}}
	if cfg.tls != nil {
		parts = append(parts, reloadable{"certificate", cfg.tls.Reload})
	}
	if n.rights != nil {
		parts = append(parts, reloadable{"keys", func() error { n.rights.Reload(); return nil }}) // it reports mistakes by events
	}
	n.reloading = &reloading{
		sources: cfg.settings, tuned: &n.tuned, ledger: n.ledger, level: cfg.level, policy: n.policy, parts: parts, notify: n.notify,
		ready: n.isReady, publish: func() { n.dht.Publisher.Kick() }, event: n.events.Add,
	}
	n.reloading.begin(cfg.loaded)
	n.gate = scope.NewGate(cfg.log, cfg.private)
	n.gate.Own(scope.Redirect, func() []scope.Kind { return []scope.Kind{scope.KindOfURL(n.ports.base())} })
	n.gate.Own(scope.Candidate, func() []scope.Kind {
		at, _ := netip.ParseAddrPort(n.ports.mediaAddr())
		return []scope.Kind{scope.KindOf(at.Addr())}
	})
	n.policies = &policies.Store{Dir: filepath.Join(cfg.dataDir, policies.Dir), Operator: cfg.operator, Policy: cfg.policy, Log: cfg.log}
	config := dht.Config{
		Operator: cfg.operator, Apply: n.policies.Apply,
		Key: key, Network: cfg.network, Bootstrap: bootstrap, Seeds: cfg.seeds, PublicIP: cfg.publicIP,
		Discovery: cfg.discovery, Servers: ask.ServersOf(cfg.servers),
		PeerFile: filepath.Join(cfg.dataDir, "peers.json"),
		Policy:   n.policy.Policy,
		Sample:   n.sample,
		Grant:    func(r capacity.Request) (capacity.Lease, error) { return n.ledger.Reserve(time.Now(), r) },
		Release:  n.ledger.Release,
		Yield:    func(stream string, same bool) bool { return n.sfu.Clients().Yield(stream, same) },

		Provisioner: starts,
		Gate:        n.gate,
		Event:       n.event,
		Log:         cfg.log,
		Tracer:      tracer,
	}
	var asked []multiaddr.Multiaddr
	if cfg.given.listen {
		asked = cfg.listen
	}
	n.dht, err = bind.Libp2p(asked, cfg.dataDir, cfg.log, func(listen []multiaddr.Multiaddr) (*dht.Node, error) {
		config.Listen = listen
		return dht.Listen(config)
	})
	if err != nil {
		return nil, err
	}
	opened = append(opened, n.dht.Close)
	n.placer.Node, n.placer.Rights = n.dht, n.rights
	n.events.Name = n.nameOf
	if cfg.operator != "" {
		if err := n.policies.Restore(n.dht.Policies.Push); err != nil {
			cfg.log.Warn("kept policy not put in force", "err", err)
		}
	}

	n.sfu, err = sfu.New(sfu.Config{
		Self: self, Key: key, Socket: socket, Ledger: n.ledger,
		Locate: n.placer.Locate, Live: n.placer.Live, Place: n.placer.Place, Claim: n.placer.Claim, Pass: n.dht.Names.Pass, Published: n.placer.Published, Dial: n.placer.Dial, Handover: n.placer.Handover,
		Addrs:   n.placer.Addrs,
		Changed: n.dht.Publisher.Kick, Patience: policy.MaxWaitTimeout,
		Delivered: n.dht.Shortfalls.Delivered,
		Event:     n.event, Measured: n.counters.Times.Measured,
		Gate:     n.gate,
		Rights:   n.rights,
		Overflow: func() sfu.Overflow { return n.tuned.Load().overflow }, PublicURL: cfg.publicURL, Origins: cfg.origins, AddressSessions: func() int { return n.tuned.Load().perClient }, PublicIP: cfg.publicIP, Fanout: n.fanout, Depth: n.depth,
		Grace:  func() time.Duration { return cmp.Or(n.policy.Policy().Policy().Grace, tree.DefaultGrace) },
		Linger: func() time.Duration { return n.tuned.Load().linger }, Log: cfg.log, Tracer: tracer,
	})
	if err != nil {
		return nil, err
	}
	n.dht.Overlay.Handle(placing.CascadeProtocol, func(s network.Stream) {
		from := s.Conn().RemotePeer()
		n.dht.Overlay.Protect(from)
		defer n.dht.Overlay.Unprotect(from)
		n.sfu.Links().Accept(from, s)
	})
	n.dht.Overlay.Handle(sfu.OverflowProtocol, func(s network.Stream) { n.sfu.Clients().TakeOver(s.Conn().RemotePeer(), s, n.ports.base()) })
	n.view = survey.NewOverview(self, cfg.network, n.dht.Reader, n.dht.Prober, cfg.log)
	if cfg.events.Given() {
		origin := hook.Origin{Node: self, Name: cfg.name, URL: n.ports.base(), Network: cfg.network}
		n.hooks = hook.NewEvents(cfg.events, cfg.eventKinds, cfg.eventKeys, origin, n.handed, n.events)
	}
	alive := supervise.NewLiveness(
		supervise.Part{Name: "media", Touch: func() { n.sfu.Counts() }},
		supervise.Part{Name: "admission", Touch: func() { n.ledger.Totals(time.Now()) }},
		supervise.Part{Name: "discovery", Touch: func() { n.dht.Overlay.Peers.Alone() }},
		supervise.Part{Name: "policy", Touch: func() { n.policy.Policy() }},
	)
	n.health = &supervise.Health{Alive: alive, Ready: n.dht.Ready(), Draining: func() bool { return n.ledger.Totals(time.Now()).State == capacity.Draining }}
	return n, nil
}

// fanout is the limit on cascade pulls of one stream from this node: that of
// the policy in force, and at most --fanout if that is given.
func (n *node) fanout() int {
	most := n.policy.Policy().Policy().Fanout
	if own := n.tuned.Load().fanout; own > 0 && (most == 0 || own < most) {
		return own
	}
	return most
}

// depth is the limit on cascade links from the origin to a viewer, of the
// policy in force.
func (n *node) depth() int {
	return cmp.Or(n.policy.Policy().Policy().Depth, capacity.MaxDepth)
}

// run serves until ctx is done or a part fails. All parts run as long as the
// process.
func (n *node) run(ctx context.Context) error {
	public := httpd.New(n.cfg.tls.Handler(n.publicHandler()), n.log)
	public.ConnContext = proxied.ConnContext
	admin := httpd.New(n.adminHandler(), n.log)

	var hooks sync.WaitGroup // ends shortly after n.events has closed
	if n.hooks != nil {
		hooks.Go(n.hooks.Run)
	}
	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error { return n.dht.Run(ctx) })
	if n.cfg.servers != nil {
		work.Go(func() error { return n.cfg.servers.Run(ctx, n.dht.Overlay.Wake) })
	}
	work.Go(func() error { return n.sfu.Run(ctx) })
	work.Go(func() error { return n.gauge.Run(ctx) })
	work.Go(func() error { return n.policy.Run(ctx) })
	work.Go(func() error { return n.view.Run(ctx) })
	work.Go(func() error { return httpd.Serve(ctx, public, n.cfg.tls.Listener(n.ports.public)) })
	for _, f := range n.serveTLS() {
		work.Go(func() error { return f(ctx) })
	}
	work.Go(func() error { return httpd.Serve(ctx, admin, n.ports.admin) })
	if n.ports.scrapes != nil {
		metrics := httpd.New(metricsHandler(n), n.log)
		work.Go(func() error { return httpd.Serve(ctx, metrics, n.ports.scrapes) })
	}
	work.Go(func() error { return n.announce(ctx) })
	work.Go(func() error { return n.events.Run(ctx) })
	work.Go(func() error { return n.watchState(ctx) })
	work.Go(func() error { return n.spans.Run(ctx) })
	work.Go(func() error { return n.drain.Run(ctx) })
	work.Go(func() error { return n.notify.Run(ctx, n.inWords) })
	if n.rights != nil {
		work.Go(func() error { return n.rights.Run(ctx) })
	}
	work.Go(func() error { return supervise.NewWatchdog(n.notify, n.health.Alive).Run(ctx) })
	work.Go(func() error { return n.hangups.watch(ctx, n.log, func() { _, _ = n.reloading.reload() }) })
	if n.provisioner != nil {
		work.Go(func() error { return n.provisioner.Run(ctx) })
	}
	if n.releaser != nil {
		work.Go(func() error { return n.releaser.Run(ctx) })
	}

	err := work.Wait()
	if e := n.sfu.Close(); e != nil {
		n.log.Warn("media did not close cleanly", "err", e)
	}
	n.events.Close() // the last sessions have ended
	hooks.Wait()
	if e := n.dht.Close(); e != nil {
		n.log.Warn("libp2p did not close cleanly", "err", e)
	}
	n.spans.Close() // exports the spans of the last sessions too
	if n.cfg.readyFile != "" {
		_ = os.Remove(n.cfg.readyFile) // stale from now on
	}
	_ = n.unlock()
	return err
}

// announce reports that the node is ready, once it is.
func (n *node) announce(ctx context.Context) error {
	select {
	case <-n.dht.Ready():
	case <-ctx.Done():
		return ctx.Err()
	}
	info := n.ready()
	ready := event.Event{Kind: event.NodeReady}
	say, msg := n.log.Info, "node is ready"
	if len(n.cfg.bootstrap)+len(n.cfg.seeds) > 0 && n.dht.Overlay.Peers.Alone() {
		ready.Reason = "alone"
		say, msg = n.log.Warn, "node is ready, but alone: no bootstrap peer or seed of its network is reached (weir doctor says why; it is tried for ever)"
	}
	n.events.Add(ready)
	say(msg, "name", info.Name, "peer", info.PeerID, "console", info.HTTP, "admin", info.Admin, "media", info.Media, "network", info.Network)
	for _, a := range info.P2P {
		n.log.Info("others join by", "bootstrap", a)
	}
	n.notify.Ready()
	if n.cfg.readyFile != "" {
		return writeReady(n.cfg.readyFile, info)
	}
	return nil
}

// event handles the SFU's events.
func (n *node) event(e sfu.Event) {
	n.counters.Event(e)
	n.events.Add(e)
}
