package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/urfave/cli/v2"
	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"golang.org/x/sync/errgroup"

	"weir/capacity"
	"weir/capacity/event"
	"weir/capacity/ledger"
	"weir/capacity/policy"
	"weir/capacity/scope"
	"weir/capacity/tracing"
	"weir/cmd/weir/api"
	"weir/cmd/weir/build"
	"weir/cmd/weir/cmdline"
	"weir/cmd/weir/eventlog"
	"weir/cmd/weir/hook"
	"weir/cmd/weir/spans"
	"weir/dht"
	"weir/dht/identity"
	"weir/dht/naming"
	"weir/dht/scale"
	"weir/sfu"
	"weir/sfu/gauge"
	"weir/sfu/meter"
	"weir/sfu/proxied"
	"weir/sfu/rights"
	"weir/sfu/udp"
)

// cascadeProtocol is the name of the cascade links' signalling, below
// /weir/<network-id>/.
const cascadeProtocol = "cascade/1"

const (
	defaultLinger = 10 * time.Second
	// packetsPerCore is assumed where --packet-limit is not given.
	packetsPerCore = 50_000
	// httpShutdown is how long requests may take to end at exit.
	httpShutdown = 3 * time.Second
	// placeTime bounds a search for a helper.
	placeTime = 8 * time.Second
	// liveTime bounds a look for a stream that is waited for.
	liveTime = 2 * time.Second
)

type (
	limits   = ledger.Limits
	duration = time.Duration
)

// limitsOf reads the limits' flags. cpu-limit is the gauge's.
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
	if !c.IsSet("packet-limit") {
		l.Packets = int64(packetsPerCore * gauge.Cores())
	}
	if s := c.String("uplink-limit"); s != "" {
		v, err := bitrate(s)
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
	policy *policyFile

	gate     *scope.Gate  // of addresses that others name
	policies *policyStore // of the operator
	events   *eventlog.Hub
	hooks    *hook.Events      // nil: nobody is told of events
	handed   *hook.EventCounts // to hooks
	view     *overview

	alternatives *alternatives
	drain        drain

	tuned     atomic.Pointer[tunable]
	reloading reloading
	// reloadable are the parts that have files of their own.
	reloadable []reloadable
	hangups    *hangups // nil: nobody listens for SIGHUP

	rights      *rights.Rights // nil: nobody is asked for one
	counters    *counters
	spans       *spans.Queue
	outcomes    *outcomes
	waiters     waitingRoom
	provisioner *provisioner // nil: this node starts no servers
	releaser    *releaser    // nil: it does not end by itself

	public, admin net.Listener
	scrapes       net.Listener // nil without --metrics
	// host is what clients are told where --http or --media-port binds all
	// addresses.
	host   netip.Addr
	unlock func() error // the data directory
	notify notifier
	alive  *liveness
}

// newNode binds everything and starts nothing that needs run. Its error says
// what is in the way.
func newNode(cfg nodeConfig) (_ *node, err error) {
	n := &node{cfg: cfg, log: cfg.log, policy: cfg.policy, began: time.Now(), notify: notifier{cfg.log}, events: eventlog.NewHub(cfg.log)}
	n.policy.event = n.event
	var opened []func() error
	defer func() {
		if err != nil {
			for _, f := range slices.Backward(opened) {
				_ = f()
			}
		}
	}()

	if cfg.devDir {
		cfg.dataDir, n.unlock, err = lockOwnDir(cfg.dataDir, cfg.log)
		n.cfg.dataDir = cfg.dataDir
	} else {
		n.unlock, err = lockDataDir(cfg.dataDir, cfg.log)
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
	if n.public, err = listenTCP(cfg.log, cfg.http, "--http", cfg.given.http); err != nil {
		return nil, err
	}
	opened = append(opened, n.public.Close)
	n.public = n.behindProxies(n.public)
	closeTLS, err := n.secure(&cfg)
	if err != nil {
		return nil, err
	}
	opened = append(opened, closeTLS)
	if n.admin, err = listenTCP(cfg.log, cfg.admin, "--admin", cfg.given.admin); err != nil {
		return nil, err
	}
	opened = append(opened, n.admin.Close)
	if cfg.metrics != "" {
		if n.scrapes, err = listenTCP(cfg.log, cfg.metrics, "--metrics", true); err != nil {
			return nil, err
		}
		opened = append(opened, n.scrapes.Close)
	}
	socket, err := listenMedia(cfg.log, cfg.media, cfg.given.media)
	if err != nil {
		return nil, err
	}
	opened = append(opened, socket.Close)
	if port, err := socket.TCP(); err != nil {
		cfg.log.Warn("no media over TCP: clients whose UDP is blocked are not served", "err", err)
	} else if udp := socket.LocalAddr().(*net.UDPAddr).Port; port != udp {
		cfg.log.Warn("media over TCP has another port than over UDP, which is taken", "tcp", port, "udp", udp)
	}
	if n.host, err = cfg.clientHost(n.public, socket); err != nil {
		return nil, err
	}

	tracer, spans, err := spans.New(cfg.tracing, aboutNode(self, cfg), cfg.log)
	if err != nil {
		return nil, err
	}
	n.spans = spans
	n.tuned.Store(&cfg.live)
	n.reloading.begin(cfg.loaded)
	n.ledger = ledger.New(self, cfg.live.limits)
	n.gauge = &gauge.Gauge{Socket: socket, Ledger: n.ledger, CPULimit: func() float64 { return n.tuned.Load().cpuLimit }}

	var bootstrap []peer.AddrInfo
	for _, s := range cfg.bootstrap {
		info, err := dht.ParseBootstrap(s)
		if err != nil {
			return nil, err
		}
		bootstrap = append(bootstrap, info)
	}
	n.outcomes, n.counters, n.handed = newOutcomes(), newCounters(n.policy.Policy), hook.NewEventCounts()
	var starts *scale.Provisioner
	if cfg.provision.Given() {
		p := newProvisioner(cfg.provision.Run, cfg.network, cfg.provisionRegions, cfg.log)
		p.policy = func() policy.Provision { return n.policy.Policy().Policy().Provision }
		p.nodes, p.room, p.invite, p.event, p.counts = n.regionRecords, n.roomFor, n.invite, n.events.Add, n.outcomes
		n.provisioner = p
		starts = &scale.Provisioner{Regions: p.regions, Start: p.start, Leave: p.leave}
	} else if cfg.release.Given() {
		n.releaser = newReleaser(n, cfg.release)
	}
	if err := n.askForRights(); err != nil {
		return nil, err
	}
	n.reloadable = n.parts()
	n.gate = scope.NewGate(cfg.log, cfg.private)
	n.gate.Own(scope.Redirect, func() []scope.Kind { return []scope.Kind{scope.KindOfURL(n.publicURL())} })
	n.gate.Own(scope.Candidate, func() []scope.Kind {
		at, _ := netip.ParseAddrPort(n.media())
		return []scope.Kind{scope.KindOf(at.Addr())}
	})
	n.policies = &policyStore{dir: filepath.Join(cfg.dataDir, policyDir), operator: cfg.operator, policy: cfg.policy, log: cfg.log}
	config := dht.Config{
		Operator: cfg.operator, Apply: n.policies.apply,
		Key: key, Network: cfg.network, Bootstrap: bootstrap, Seeds: cfg.seeds, PublicIP: cfg.publicIP,
		Discovery: cfg.discovery, Servers: serversOf(cfg.servers),
		PeerFile: filepath.Join(cfg.dataDir, "peers.json"),
		Policy:   n.policy.Policy,
		Sample:   n.sample,
		Grant:    func(r capacity.Request) (capacity.Lease, error) { return n.ledger.Reserve(time.Now(), r) },
		Release:  n.ledger.Release,

		Provisioner: starts,
		Gate:        n.gate,
		Event:       n.event,
		Log:         cfg.log,
		Tracer:      tracer,
	}
	n.dht, err = listenFree(cfg, func(listen []multiaddr.Multiaddr) (*dht.Node, error) {
		config.Listen = listen
		return dht.Listen(config)
	})
	if err != nil {
		return nil, err
	}
	opened = append(opened, n.dht.Close)
	n.events.Name = n.nameOf
	if cfg.operator != "" {
		if err := n.policies.restore(n.dht); err != nil {
			cfg.log.Warn("kept policy not put in force", "err", err)
		}
	}

	n.sfu, err = sfu.New(sfu.Config{
		Self: self, Key: key, Socket: socket, Ledger: n.ledger,
		Locate: n.locate, Live: n.live, Place: n.place, Claim: n.claim, Published: n.published, Dial: n.dial, Handover: n.handover,
		Addrs:   n.addrs,
		Changed: n.dht.Kick, Patience: policy.MaxWaitTimeout,
		Delivered: n.dht.Delivered,
		Event:     n.event, Measured: n.counters.times.measured,
		Gate:     n.gate,
		Rights:   n.rights,
		Overflow: func() sfu.Overflow { return n.tuned.Load().overflow }, PublicURL: cfg.publicURL, Origins: cfg.origins, AddressSessions: func() int { return n.tuned.Load().perClient }, PublicIP: cfg.publicIP, Fanout: n.fanout, Depth: n.depth,
		Linger: func() time.Duration { return n.tuned.Load().linger }, Log: cfg.log, Tracer: tracer,
	})
	if err != nil {
		return nil, err
	}
	n.dht.Overlay().Handle(cascadeProtocol, func(s network.Stream) {
		from := s.Conn().RemotePeer()
		n.dht.Overlay().Protect(from)
		defer n.dht.Overlay().Unprotect(from)
		n.sfu.Links().Accept(from, s)
	})
	n.dht.Overlay().Handle(sfu.OverflowProtocol, func(s network.Stream) { n.sfu.Clients().TakeOver(s.Conn().RemotePeer(), s, n.publicURL()) })
	n.view = newOverview(n)
	if cfg.events.Given() {
		origin := hook.Origin{Node: self, Name: cfg.name, URL: n.publicURL(), Network: cfg.network}
		n.hooks = hook.NewEvents(cfg.events, cfg.eventKinds, cfg.eventKeys, origin, n.handed, n.events)
	}
	n.alive = newLiveness(n.vitals()...)
	n.alternatives = newAlternatives(n.findAlternatives)
	return n, nil
}

// fanout is how many cascade pulls of one stream there may be here: as many as
// the policy in force says, and no more than --fanout where that is given.
func (n *node) fanout() int {
	most := n.policy.Policy().Policy().Fanout
	if own := n.tuned.Load().fanout; own > 0 && (most == 0 || own < most) {
		return own
	}
	return most
}

// depth is how many cascade links there may be from the origin to a viewer by
// the policy in force.
func (n *node) depth() int {
	return cmp.Or(n.policy.Policy().Policy().Depth, capacity.MaxDepth)
}

func listenMedia(log *slog.Logger, addr string, asked bool) (*udp.Socket, error) {
	socket, err := bindFree(log, "--media-port", addr, asked, udp.Listen)
	if err != nil {
		return nil, fmt.Errorf("--media-port: %w", err)
	}
	return socket, nil
}

func listenTCP(log *slog.Logger, addr, flag string, asked bool) (net.Listener, error) {
	return bindFree(log, flag, addr, asked, func(addr string) (net.Listener, error) {
		l, err := net.Listen("tcp", addr)
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("%s %s is in use by another process (%w): choose another, or port 0 for any free one", flag, addr, syscall.EADDRINUSE)
		}
		if errors.Is(err, syscall.EACCES) {
			return nil, fmt.Errorf("%s %s: %w: ports below 1024 need root or CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE), or take a port above", flag, addr, err)
		}
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", flag, addr, err)
		}
		return l, nil
	})
}

// clientHost is the address that clients are told where --http or --media-port
// binds all of this machine; the zero one where neither does. The error says
// what to give where there is no such address.
func (c nodeConfig) clientHost(public net.Listener, media *udp.Socket) (netip.Addr, error) {
	http := public.Addr().(*net.TCPAddr)
	anyHTTP := http.IP.IsUnspecified() && c.publicURL == ""
	anyMedia := media.LocalAddr().(*net.UDPAddr).IP.IsUnspecified()
	if c.publicIP.IsValid() || !anyHTTP && !anyMedia {
		return c.publicIP, nil
	}
	addrs, err := machineAddrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("addresses of this machine: %w", err)
	}
	host, err := onlyAddr(addrs)
	switch {
	case err == nil:
		c.log.Info("clients are told the only address of this machine", "address", host)
	case anyHTTP:
		return host, cmdline.BadInput(fmt.Errorf("--http %s: clients cannot be told a wildcard, and %w: give --public-url http://HOST:%d with the one that they reach", c.http, err, http.Port))
	case len(addrs) > 0: // ICE offers them all; the record has room for one
		host = addrs[0]
	}
	return host, nil
}

// run serves until ctx is done or a part fails. All work as long as the
// process is here.
func (n *node) run(ctx context.Context) error {
	public := newServer(n.cfg.tls.handler(n.publicHandler()), n.log)
	public.ConnContext = proxied.ConnContext
	admin := newServer(n.adminHandler(), n.log)

	var hooks sync.WaitGroup // ends when n.events has closed, a little later at most
	if n.hooks != nil {
		hooks.Go(n.hooks.Run)
	}
	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error { return n.dht.Run(ctx) })
	if n.cfg.servers != nil {
		work.Go(func() error { return n.cfg.servers.Run(ctx, n.dht.Overlay().Wake) })
	}
	work.Go(func() error { return n.sfu.Run(ctx) })
	work.Go(func() error { return n.gauge.Run(ctx) })
	work.Go(func() error { return n.policy.run(ctx) })
	work.Go(func() error { return n.view.run(ctx) })
	work.Go(func() error { return serve(ctx, public, n.cfg.tls.listener(n.public)) })
	for _, f := range n.serveTLS() {
		work.Go(func() error { return f(ctx) })
	}
	work.Go(func() error { return serve(ctx, admin, n.admin) })
	if n.scrapes != nil {
		metrics := newServer(n.metricsHandler(), n.log)
		work.Go(func() error { return serve(ctx, metrics, n.scrapes) })
	}
	work.Go(func() error { return n.announce(ctx) })
	work.Go(func() error { return n.events.Run(ctx) })
	work.Go(func() error { return n.watchState(ctx) })
	work.Go(func() error { return n.spans.Run(ctx) })
	work.Go(func() error { return n.watchDrain(ctx) })
	work.Go(func() error { return n.notifyManager(ctx) })
	if n.rights != nil {
		work.Go(func() error { return n.rights.Run(ctx) })
	}
	work.Go(func() error { return n.newWatchdog().run(ctx) })
	work.Go(func() error { return n.watchHangups(ctx) })
	if n.provisioner != nil {
		work.Go(func() error { return n.provisioner.run(ctx) })
	}
	if n.releaser != nil {
		work.Go(func() error { return n.releaser.run(ctx) })
	}

	err := work.Wait()
	if e := n.sfu.Close(); e != nil {
		n.log.Warn("media did not close cleanly", "err", e)
	}
	n.events.Close() // the last sessions are over
	hooks.Wait()
	if e := n.dht.Close(); e != nil {
		n.log.Warn("libp2p did not close cleanly", "err", e)
	}
	n.spans.Close() // those of the last sessions too
	if n.cfg.readyFile != "" {
		_ = os.Remove(n.cfg.readyFile) // stale from now on
	}
	_ = n.unlock()
	return err
}

// announce says that the node is ready, once it is.
func (n *node) announce(ctx context.Context) error {
	select {
	case <-n.dht.Ready():
	case <-ctx.Done():
		return ctx.Err()
	}
	info := n.ready()
	ready := event.Event{Kind: event.NodeReady}
	say, msg := n.log.Info, "node is ready"
	if len(n.cfg.bootstrap)+len(n.cfg.seeds) > 0 && n.dht.Overlay().Peers.Alone() {
		ready.Reason = "alone"
		say, msg = n.log.Warn, "node is ready, but alone: no bootstrap peer or seed of its network is reached (weir doctor says why; it is tried for ever)"
	}
	n.events.Add(ready)
	say(msg, "name", info.Name, "peer", info.PeerID, "console", info.HTTP, "admin", info.Admin, "media", info.Media, "network", info.Network)
	for _, a := range info.P2P {
		n.log.Info("others join by", "bootstrap", a)
	}
	n.notify.send(daemon.SdNotifyReady)
	if n.cfg.readyFile != "" {
		return writeReady(n.cfg.readyFile, info)
	}
	return nil
}

func (n *node) ready() api.Ready {
	info := api.Ready{
		PeerID: n.dht.ID().String(), Name: n.cfg.name, HTTP: n.localURL(), Admin: "http://" + n.adminAddr(),
		Media: n.media(), PID: os.Getpid(), Network: n.cfg.network, DataDir: n.cfg.dataDir,
	}
	if n.scrapes != nil {
		info.Metrics = "http://" + n.scrapes.Addr().String()
	}
	for _, a := range n.dht.Overlay().Addrs() {
		info.P2P = append(info.P2P, a.String())
	}
	return info
}

func (n *node) publicURL() string {
	if n.cfg.publicURL != "" {
		return n.cfg.publicURL
	}
	return n.localURL()
}

// adminAddr is where the admin API is reached from this machine.
func (n *node) adminAddr() string {
	at := n.admin.Addr().(*net.TCPAddr).AddrPort()
	if at.Addr().IsUnspecified() {
		at = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Port())
	}
	return at.String()
}

// localURL is where --http is reached without what --public-url says.
func (n *node) localURL() string {
	at := n.public.Addr().(*net.TCPAddr).AddrPort()
	if at.Addr().IsUnspecified() {
		host := n.host
		if !host.IsValid() {
			host = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
		at = netip.AddrPortFrom(host, at.Port())
	}
	return n.cfg.tls.url(at, n.cfg.publicURL)
}

// media is where others reach the port of all media.
func (n *node) media() string {
	at := n.gauge.Socket.LocalAddr().(*net.UDPAddr).AddrPort()
	if n.cfg.publicIP.IsValid() {
		at = netip.AddrPortFrom(n.cfg.publicIP, at.Port())
	} else if at.Addr().IsUnspecified() && n.host.IsValid() {
		at = netip.AddrPortFrom(n.host, at.Port())
	}
	return at.String()
}

func newServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// serve runs s on l until ctx is done.
func serve(ctx context.Context, s *http.Server, l net.Listener) error {
	s.BaseContext = func(net.Listener) context.Context { return ctx } // ends event streams
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), httpShutdown)
		defer cancel()
		if s.Shutdown(grace) != nil {
			_ = s.Close()
		}
	})
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return ctx.Err()
}

// sample is what the node claims about itself now.
func (n *node) sample() (capacity.Record, []capacity.Carriage) {
	r := capacity.Record{
		Name: n.cfg.name, URL: n.publicURL(), Media: n.media(), Region: n.cfg.region, Zone: n.cfg.zone,
		Release: build.Release(), Features: n.features(), Policy: n.policy.Policy().Policy().Version,
	}
	n.ledger.Totals(time.Now()).Fill(&r)
	reading := n.gauge.Read()
	r.Cores, r.Downlink.Used = reading.Cores, reading.Downlink
	return r, n.sfu.Carriages()
}

func (n *node) features() []string {
	list := append([]string{"whip", "whep", "cascade/1"}, n.rights.Features(n.dht.ID())...)
	if n.provisioner != nil {
		list = append(list, dht.ProvisionFeature)
	}
	if n.releaser != nil && n.releaser.releasable() {
		list = append(list, releasableFeature)
	}
	return list
}

// addrs are this node's libp2p addresses, as many as a ticket takes.
func (n *node) addrs() []multiaddr.Multiaddr {
	all := n.dht.Overlay().Host.Addrs()
	return all[:min(len(all), capacity.MaxAddrs)]
}

// dial opens the signalling of a cascade link, and keeps the connection below
// it for as long.
func (n *node) dial(ctx context.Context, id peer.ID, addrs []multiaddr.Multiaddr) (sfu.Signal, error) {
	s, err := n.dht.Overlay().OpenStream(ctx, id, addrs, cascadeProtocol)
	if err != nil {
		return nil, err
	}
	n.dht.Overlay().Protect(id)
	return s, nil
}

// handover opens a stream on which a client's request is handed to id.
func (n *node) handover(ctx context.Context, id peer.ID, addrs []multiaddr.Multiaddr) (sfu.Signal, error) {
	s, err := n.dht.Overlay().OpenStream(ctx, id, addrs, sfu.OverflowProtocol)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// locate finds a carrier of the stream and reserves a pull on it.
func (n *node) locate(ctx context.Context, need capacity.Need, exclude []peer.ID) (sfu.Carrier, error) {
	placed, d, err := n.dht.Place(ctx, dht.StreamTopic(need.Stream), need, exclude)
	n.decided(ctx, d, err)
	if err != nil {
		return sfu.Carrier{}, notLive(d, err)
	}
	return sfu.Carrier{Node: placed.Candidate.Record.Node, Addrs: placed.Candidate.Record.Addrs, Lease: placed.Lease.ID}, nil
}

// live reports whether another node carries the stream, as far as those who
// hold its records say now.
func (n *node) live(ctx context.Context, stream string) bool {
	ctx, cancel := context.WithTimeout(ctx, liveTime)
	defer cancel()
	answer, err := n.dht.Find(ctx, dht.StreamTopic(stream), meter.DefaultNeed(capacity.View, stream), []peer.ID{n.dht.ID()})
	if err != nil {
		n.log.Debug("stream looked for in vain", "stream", stream, "err", err)
	}
	return len(answer.Candidates) > 0 || len(answer.Rejected) > 0
}

// decided keeps and counts a placement that ended with err.
func (n *node) decided(ctx context.Context, d dht.Decision, err error) {
	n.view.decided(d)
	e := placementEvent(d, err)
	e.Trace = tracing.ID(ctx)
	n.events.Add(e)
	n.counters.decided(d, err)
}

// event takes what happens to media.
func (n *node) event(e sfu.Event) {
	if e.Kind == event.Refused {
		n.counters.refused(e.Reason)
	}
	n.counters.tallies.add(e, n.counters.times)
	n.events.Add(e)
}

// claim takes the name of a stream for a publisher here.
func (n *node) claim(ctx context.Context, stream string) (release func(), err error) {
	release, err = n.dht.Claim(ctx, stream)
	var taken *naming.Taken
	if errors.As(err, &taken) {
		return nil, &sfu.TakenError{Node: taken.At, Now: taken.Now}
	}
	return release, unanswered(err)
}

// published tells where else the stream is published.
func (n *node) published(ctx context.Context, stream string) ([]peer.ID, error) {
	nodes, err := n.dht.Publishers(ctx, stream)
	return nodes, unanswered(err)
}

// unanswered is err, as an [*sfu.UnansweredError] if it means that nothing is
// known.
func unanswered(err error) error {
	var silent *dht.Unanswered
	if !errors.As(err, &silent) {
		return err
	}
	return &sfu.UnansweredError{Why: silent.Words()}
}

// notLive is [sfu.ErrNotLive] if the placement failed since nobody carries the
// stream, as those who have to know have said, and err otherwise.
func notLive(d dht.Decision, err error) error {
	var refusal *capacity.Refusal
	if errors.As(err, &refusal) && refusal.Reason == dht.NoCandidates && d.Held == 0 {
		return sfu.ErrNotLive
	}
	return unanswered(err)
}

// place finds a helper for a client that this node cannot take, if need be a
// server that is started for it.
func (n *node) place(ctx context.Context, need capacity.Need, exclude []peer.ID) (sfu.Helper, error) {
	finding, cancel := context.WithTimeout(ctx, placeTime)
	defer cancel()
	helper, err := n.placeOnce(finding, need, exclude)
	var refused *capacity.Refusal
	if errors.As(err, &refused) && refused.Reason == dht.Unreachable {
		// Nobody who may have room has said that there is none.
		return helper, &sfu.UnansweredError{Why: "this node is full, and those that may have room do not answer: " + refused.Detail, RetryAfter: placeRetryAfter}
	}
	if refused != nil && ctx.Err() == nil {
		return n.awaitServer(ctx, need, exclude, refused)
	}
	return helper, err
}

// placeAny finds a helper among the nodes that there are, and returns what its
// record says that it can. For a viewer a node that carries the stream already is
// best: it needs no new pull.
func (n *node) placeAny(ctx context.Context, need capacity.Need, exclude []peer.ID) (sfu.Helper, []string, error) {
	if need.Purpose == capacity.View {
		placed, d, err := n.dht.Place(ctx, dht.StreamTopic(need.Stream), need, exclude)
		n.decided(ctx, d, err)
		if err == nil {
			return helper(placed, d, "carries it already"), placed.Candidate.Record.Features, nil
		}
		if errors.Is(notLive(d, err), sfu.ErrNotLive) && !n.carries(need.Stream) {
			return sfu.Helper{}, nil, sfu.ErrNotLive
		}
	}
	placed, d, err := n.dht.Place(ctx, dht.CapacityTopic(), need, exclude)
	n.decided(ctx, d, err)
	if silent := new(dht.Unanswered); errors.As(err, &silent) {
		return sfu.Helper{}, nil, &sfu.UnansweredError{Why: "this node is full, and who has room cannot be found out: " + silent.Words(), RetryAfter: placeRetryAfter}
	}
	if err != nil {
		return sfu.Helper{}, nil, err
	}
	return helper(placed, d, "will pull it"), placed.Candidate.Record.Features, nil
}

func (n *node) carries(stream string) bool {
	return slices.ContainsFunc(n.sfu.Carriages(), func(c capacity.Carriage) bool { return c.Stream == stream })
}

func helper(p dht.Placed, d dht.Decision, how string) sfu.Helper {
	r := p.Candidate.Record
	score := 0.0
	passed := 0
	for _, v := range d.Verdicts {
		if v.Rule == "" {
			passed++
		}
		if v.Node == r.Node {
			score = v.Score
		}
	}
	return sfu.Helper{
		Node: r.Node, Addrs: r.Addrs, URL: r.URL, Lease: p.Lease,
		Why: fmt.Sprintf("chosen with score %.2f at stress %.2f, of %d that passed (%d records held); %s; found in %.1f ms, reserved in %.1f ms",
			score, r.Stress(), passed, d.Held, how, d.FindMillis, d.ReserveMillis),
	}
}

func (n *node) status() api.Status {
	info := n.ready()
	record, _ := n.sample()
	record.Node, record.Addrs, record.Coordinate = n.dht.ID(), n.dht.Overlay().Host.Addrs(), n.dht.Overlay().Coords.Here()
	record.TTL, record.Issued = capacity.DefaultTTL, time.Now()
	totals := n.ledger.Totals(time.Now())
	counts := n.sfu.Counts()
	s := api.Status{
		PeerID: n.dht.ID(), Name: n.cfg.name, Release: build.Release(), Network: n.cfg.network, Discovery: n.cfg.discovery, Region: n.cfg.region,
		State: totals.State, Stress: totals.Stress, Uptime: time.Since(n.began).Milliseconds(),
		P2P: info.P2P, HTTP: info.HTTP, TLS: n.cfg.tls.status(), Admin: info.Admin, Media: info.Media, Policy: n.policy.Policy().Policy().Version,
		Overflow: n.tuned.Load().overflow, Publishers: counts.Publishers, Viewers: counts.Viewers, Streams: counts.Streams,
		Links: counts.Links, Leases: totals.Leases, Peers: len(n.dht.Overlay().Host.Network().Peers()),
		NotForwarded: n.sfu.NotForwarded(), Goroutines: runtime.NumGoroutine(), Drain: n.drainStatus(), Waiting: int64(n.waiters.count()),
		Provision: n.provisioner.status(), Requests: api.Requests{SettingUp: counts.Setups, Waiting: counts.Waiting}, Releasable: n.releaser != nil && n.releaser.releasable(), Record: record, Traffic: n.dht.Overlay().Traffic.List(),
	}
	if n.cfg.servers != nil {
		s.Servers = len(n.cfg.servers.Servers())
	}
	for _, t := range n.dht.Held() {
		s.Holds += len(t.Records)
	}
	return s
}

// shortID is a peer ID for people.
func shortID(id peer.ID) string {
	s := id.String()
	if len(s) > 8 {
		return "…" + s[len(s)-8:]
	}
	return s
}

// aboutNode are the attributes of everything that a node exports.
func aboutNode(self peer.ID, cfg nodeConfig) []attribute.KeyValue {
	about := []attribute.KeyValue{
		semconv.ServiceInstanceID(self.String()), semconv.ServiceNamespace(cfg.network), attribute.String("weir.node.name", cfg.name),
	}
	if cfg.region != "" {
		about = append(about, semconv.CloudRegion(cfg.region))
	}
	if cfg.zone != "" {
		about = append(about, semconv.CloudAvailabilityZone(cfg.zone))
	}
	return about
}
