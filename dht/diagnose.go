package dht

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"golang.org/x/sync/errgroup"

	"weir/capacity"
	"weir/dht/directory"
	"weir/dht/policysync"
)

const (
	// diagnoseTime bounds a diagnosis, and contactTime one attempt to reach a
	// peer in it.
	diagnoseTime = 6 * time.Second
	contactTime  = 2500 * time.Millisecond
	// maxContacts bounds the peers of each kind that are tried: bootstrap peers,
	// listed servers, connected ones, those known.
	maxContacts = 32
	// metTime is how recently a peer must have answered for its absence to mean
	// something.
	metTime    = metMinutes * time.Minute
	metMinutes = 10
	// clockWarn and clockFail are how far a clock may be from the others'.
	// Tickets and leases last about as long as the second.
	clockWarn = 2 * time.Second
	clockFail = 10 * time.Second
	// maxNamed bounds the peers named in one finding.
	maxNamed = 4
)

// An Outcome is how one check ended.
type Outcome string

const (
	Fine    Outcome = "ok"
	Warning Outcome = "warn"
	Failure Outcome = "fail"
	Skipped Outcome = "skip" // there was nothing to check
)

// A Check is one thing that was looked at, in plain words: what was seen, and
// what to do about it if it is not fine.
type Check struct {
	Name    string  `json:"name"`
	Outcome Outcome `json:"outcome"`
	Seen    string  `json:"seen"`
	Do      string  `json:"do,omitempty"`
}

// Diagnose tells, within some seconds, why this node's network is empty, cut in
// two or wrong in another way, or that it is not. It tries to reach the peers
// that it ought to reach. Open says that the node is meant to be reached from
// other machines.
func (n *Node) Diagnose(ctx context.Context, open bool) []Check {
	ctx, cancel := context.WithTimeout(ctx, diagnoseTime)
	defer cancel()
	defer context.AfterFunc(n.ctx, cancel)()
	return n.examine(ctx, open).checks()
}

// An examination is all that a diagnosis rests on.
type examination struct {
	self      peer.ID
	name      string // of the network
	network   string // its ID
	open      bool
	client    bool
	discovery directory.Mode

	bound     []multiaddr.Multiaddr // listened on
	addrs     []multiaddr.Multiaddr // told to others
	bootstrap []contact
	servers   []contact // listed, but for this node; some of them where there are many
	untried   int       // listed besides
	listed    bool      // this node is among them
	members   []contact // connected
	strangers []contact // connected, of other networks
	gone      []contact // known, but not connected: tried just now
	table     int       // peers in the routing table
	transport quicReach
	record    recordReach
	policy    policyReach
	told      map[peer.ID]telling
	unmet     []contact // known by their records only: tried just now
	copied    *capacity.Record
	selfAt    []multiaddr.Multiaddr // of selfElsewhere
}

// A contact is one peer that ought to be reached.
type contact struct {
	ai      peer.AddrInfo
	err     error  // why it is not connected
	silent  bool   // connected, but it does not answer
	member  bool   // of this network
	network string // ID of another network that it is of
	met     bool   // it has answered lately
}

// reached reports whether it is there, and of this network.
func (c *contact) reached() bool { return c.err == nil && c.member && !c.silent }

// quicReach is whether peers are reached over UDP.
type quicReach struct {
	listens bool
	quic    int   // members connected by QUIC
	tried   int   // others dialled by QUIC just now
	reached int   // of which so many were reached
	err     error // of the last that was not
}

// recordReach is where this node's own record is.
type recordReach struct {
	published bool
	holders   []peer.ID // that ought to have it, this node left out
	have      []peer.ID
	held      []Change // all that the holders have
	err       error
	silent    int // of holders: asked in vain
}

// examine looks at everything, and tries what has to be tried at the same time.
func (n *Node) examine(ctx context.Context, open bool) *examination {
	e := &examination{
		self: n.ID(), name: n.cfg.Network, network: n.network, open: open, client: n.cfg.Client, discovery: n.cfg.Discovery,
		bound: slices.SortedFunc(slices.Values(n.host.Network().ListenAddresses()), multiaddr.Multiaddr.Compare), addrs: n.host.Addrs(),
	}
	contacts := func(peers []peer.AddrInfo) []contact {
		var list []contact
		for _, ai := range peers {
			if ai.ID != n.ID() && len(list) < maxContacts {
				list = append(list, contact{ai: ai})
			}
		}
		return list
	}
	e.bootstrap = contacts(directory.EachOnce(n.cfg.Bootstrap))
	if n.cfg.Discovery.Listed() {
		servers := slices.Clone(n.cfg.Servers())
		e.listed = slices.ContainsFunc(servers, func(ai peer.AddrInfo) bool { return ai.ID == n.ID() })
		rand.Shuffle(len(servers), func(i, j int) { servers[i], servers[j] = servers[j], servers[i] })
		e.servers = contacts(servers)
		e.untried = len(servers) - len(e.servers)
		if e.listed {
			e.untried--
		}
	}
	var connected []peer.AddrInfo
	for _, p := range n.host.Network().Peers() {
		connected = append(connected, n.host.Peerstore().PeerInfo(p))
	}
	others := contacts(connected)
	e.gone = contacts(n.acquaintances())

	var work errgroup.Group
	for _, list := range [][]contact{e.bootstrap, e.servers, others, e.gone} {
		for i := range list {
			work.Go(func() error { n.contact(ctx, &list[i]); return nil })
		}
	}
	work.Go(func() error { e.record = n.ownRecord(ctx); return nil })
	e.policy.operated = n.cfg.Operator != ""
	if version, compared := n.Policies.Compared(); !compared.IsZero() {
		e.policy.version, e.policy.heard, e.policy.age = version, true, time.Since(compared)
	} else {
		e.policy.version = version
	}
	_ = work.Wait()
	e.selfAt = selfElsewhere(n.ID(), n.cfg.Bootstrap, n.ownAddrs())
	n.noteCopies(e.record.held)
	if r, ok := n.copied(); ok {
		e.copied = &r
	}
	e.unmet = n.unmet(e.record.held)
	for i := range e.unmet {
		work.Go(func() error { n.contact(ctx, &e.unmet[i]); return nil })
	}
	e.transport = n.quicReach(ctx)
	_ = work.Wait()

	e.told = make(map[peer.ID]telling)
	for _, c := range others {
		switch {
		case c.err != nil:
			e.gone = append(e.gone, c)
		case c.member:
			e.members = append(e.members, c)
			e.told[c.ai.ID] = n.told.of(c.ai.ID)
		case c.network != "":
			e.strangers = append(e.strangers, c)
		}
	}
	// Who was reached just now is one of us again.
	for _, c := range slices.Concat(e.bootstrap, e.servers, e.gone, e.unmet) {
		if c.reached() && !slices.ContainsFunc(e.members, func(m contact) bool { return m.ai.ID == c.ai.ID }) {
			e.members = append(e.members, c)
			e.told[c.ai.ID] = n.told.of(c.ai.ID)
		}
	}
	e.table = n.kad.RoutingTable().Size()
	return e
}

// acquaintances are peers that are not connected but were, this time or, by the peer
// file, an earlier one.
func (n *Node) acquaintances() []peer.AddrInfo {
	remembered, _ := readPeerFile(n.cfg.PeerFile) // one that is damaged was told of at start
	var list []peer.AddrInfo
	seen := make(map[peer.ID]bool)
	add := func(ai peer.AddrInfo) {
		if !seen[ai.ID] && n.host.Network().Connectedness(ai.ID) != network.Connected {
			seen[ai.ID] = true
			list = append(list, ai)
		}
	}
	for _, p := range n.told.since(time.Now().Add(-metTime)) {
		ai := n.host.Peerstore().PeerInfo(p)
		for _, old := range remembered {
			if old.ID == p {
				ai.Addrs = append(ai.Addrs, old.Addrs...)
			}
		}
		add(ai)
	}
	for _, ai := range remembered {
		add(ai)
	}
	return list
}

// unmet are nodes that holders have records of and that this one has never met,
// some of them where there are many.
func (n *Node) unmet(held []Change) []contact {
	seen := map[peer.ID]bool{n.ID(): true}
	remembered, _ := readPeerFile(n.cfg.PeerFile)
	for _, ai := range remembered {
		seen[ai.ID] = true
	}
	var list []contact
	for _, c := range held {
		if c.Err != nil || seen[c.Node] || n.connected(c.Node) || !n.told.of(c.Node).at.IsZero() {
			continue
		}
		seen[c.Node] = true
		list = append(list, contact{ai: peer.AddrInfo{ID: c.Node, Addrs: c.Record.Addrs}})
	}
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list[:min(len(list), maxContacts)]
}

// contact tries to reach c and finds out who it is.
func (n *Node) contact(whole context.Context, c *contact) {
	ctx, cancel := context.WithTimeout(whole, contactTime)
	defer cancel()
	id := c.ai.ID
	c.met = time.Since(n.told.of(id).at) < metTime
	if n.host.Network().Connectedness(id) != network.Connected {
		n.clearBackoff(id)
	}
	if c.err = n.host.Connect(ctx, c.ai); c.err != nil {
		// QUIC does not notice that nobody listens; TCP does, and libp2p keeps
		// it to itself while it waits for QUIC.
		if isTimeout(c.err) && refused(whole, c.ai.Addrs) {
			c.err = syscall.ECONNREFUSED
		}
		return
	}
	c.member = n.member(id)
	if !c.member {
		c.network = n.networkOf(id)
		return
	}
	if _, err := n.fetch(ctx, id, "", 0); err != nil {
		c.silent = true
		// A process that was killed leaves a QUIC connection behind, which lasts
		// for half a minute.
		if refused(whole, slices.Concat(c.ai.Addrs, n.host.Peerstore().Addrs(id))) {
			c.silent, c.err = false, syscall.ECONNREFUSED
		}
	}
}

// refused reports whether a connection to any of addrs is refused.
func refused(ctx context.Context, addrs []multiaddr.Multiaddr) bool {
	ctx, cancel := context.WithTimeout(ctx, contactTime/4)
	defer cancel()
	var dialer net.Dialer
	for _, a := range addrs {
		proto, hostPort, err := manet.DialArgs(a)
		if err != nil || !strings.HasPrefix(proto, "tcp") {
			continue
		}
		c, err := dialer.DialContext(ctx, proto, hostPort)
		if err == nil {
			_ = c.Close()
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			return true
		}
	}
	return false
}

// networkOf is the ID of the network that p serves, "" if it serves none.
func (n *Node) networkOf(p peer.ID) string {
	protocols, err := n.host.Peerstore().GetProtocols(p)
	if err != nil {
		return ""
	}
	for _, proto := range protocols {
		rest, ok := strings.CutPrefix(string(proto), "/weir/")
		if id, is := strings.CutSuffix(rest, "/records/1"); ok && is {
			return plain(id, 2*len(n.network))
		}
	}
	return ""
}

// quicReach tries a few of the peers that are connected by TCP only over QUIC.
func (n *Node) quicReach(ctx context.Context) quicReach {
	const atMost = 4
	var r quicReach
	for _, a := range n.host.Network().ListenAddresses() {
		r.listens = r.listens || isQUIC(a)
	}
	type target struct {
		id peer.ID
		at multiaddr.Multiaddr
	}
	var targets []target
	for _, ai := range n.members() {
		conns := n.host.Network().ConnsToPeer(ai.ID)
		if slices.ContainsFunc(conns, func(c network.Conn) bool { return isQUIC(c.RemoteMultiaddr()) }) {
			r.quic++
			continue
		}
		if i := slices.IndexFunc(ai.Addrs, isQUIC); i >= 0 && len(targets) < atMost {
			targets = append(targets, target{ai.ID, ai.Addrs[i]})
		}
	}
	s, ok := n.host.Network().(*swarm.Swarm)
	if r.quic > 0 || !ok {
		return r
	}
	var mu sync.Mutex
	var work errgroup.Group
	for _, t := range targets {
		work.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, contactTime)
			defer cancel()
			// By the transport: the host would be content with the connection
			// it has.
			err := errors.New("no QUIC transport")
			if tr := s.TransportForDialing(t.at); tr != nil {
				c, dialErr := tr.Dial(ctx, t.at, t.id)
				if err = dialErr; err == nil {
					_ = c.Close()
				}
			}
			mu.Lock()
			defer mu.Unlock()
			r.tried++
			if err == nil {
				r.reached++
			} else {
				r.err = fmt.Errorf("%s: %w", t.at, err)
			}
			return nil
		})
	}
	_ = work.Wait()
	return r
}

func isQUIC(a multiaddr.Multiaddr) bool {
	_, err := a.ValueForProtocol(multiaddr.P_QUIC_V1)
	return err == nil
}

// ownRecord finds out which holders have this node's record.
func (n *Node) ownRecord(ctx context.Context) recordReach {
	var r recordReach
	if _, r.published = n.outbox.me(); !r.published || n.cfg.Discovery.Own() {
		return r
	}
	home := n.sharding.Home()
	for _, p := range n.Holders(home) {
		if p != n.ID() {
			r.holders = append(r.holders, p)
		}
	}
	changes, heard, err := n.Inspect(ctx, home)
	r.held, r.err = changes, err
	for _, s := range heard.Silent {
		if slices.Contains(r.holders, s.Node) {
			r.silent++
		}
	}
	for _, c := range changes {
		if c.Err == nil && c.Node == n.ID() && c.Holder != n.ID() && !slices.Contains(r.have, c.Holder) {
			r.have = append(r.have, c.Holder)
		}
	}
	return r
}

// checks judges what was found, in the order in which one thing rests on
// another.
func (e *examination) checks() []Check {
	var all []Check
	for _, judge := range []func() []Check{
		e.checkListening, e.checkAddrs, e.checkIdentity, e.checkBootstrap, e.checkServers, e.checkNetwork, e.checkUDP, e.checkTable,
		e.checkDiscovery, e.checkRecord, e.checkPolicy, e.checkMembers, e.checkPartition, e.checkClock,
	} {
		all = append(all, judge()...)
	}
	return all
}

func check(name string, o Outcome, do, seen string, args ...any) []Check {
	return []Check{{Name: name, Outcome: o, Seen: fmt.Sprintf(seen, args...), Do: do}}
}

func (e *examination) checkListening() []Check {
	const name = "listening"
	var tcp, quic bool
	for _, a := range e.bound {
		if isQUIC(a) {
			quic = true
		} else {
			tcp = true
		}
	}
	switch {
	case len(e.bound) == 0 && e.client:
		return check(name, Fine, "", "on nothing: this node is a client")
	case len(e.bound) == 0:
		return check(name, Failure, "give --listen, for example /ip4/0.0.0.0/tcp/4001 and /ip4/0.0.0.0/udp/4001/quic-v1", "on nothing: nobody can reach this node")
	case !quic:
		return check(name, Warning, "add --listen /ip4/…/udp/PORT/quic-v1: keepalives then go by datagram, and cost less", "on TCP, but not on QUIC (%s)", joinAddrs(e.bound))
	case !tcp:
		return check(name, Warning, "add --listen /ip4/…/tcp/PORT: some networks let no UDP through", "on QUIC, but not on TCP (%s)", joinAddrs(e.bound))
	}
	return check(name, Fine, "", "on %s", joinAddrs(e.bound))
}

func (e *examination) checkAddrs() []Check {
	const name = "addresses"
	if e.client {
		return nil
	}
	loopback := 0
	for _, a := range e.addrs {
		if manet.IsIPUnspecified(a) {
			return check(name, Failure, "listen on the addresses that others reach this machine by", "others are told %s, which leads nowhere", a)
		}
		if manet.IsIPLoopback(a) {
			loopback++
		}
	}
	far := slices.ContainsFunc(slices.Concat(e.bootstrap, e.servers), func(c contact) bool {
		return slices.ContainsFunc(c.ai.Addrs, func(a multiaddr.Multiaddr) bool { return !manet.IsIPLoopback(a) })
	})
	switch {
	case len(e.addrs) == 0:
		return check(name, Failure, "give --listen an address of this machine, and look at whether its network is up", "others are told no address of this node")
	case loopback < len(e.addrs):
		return check(name, Fine, "", "others are told %s", joinAddrs(e.addrs))
	case e.open:
		return check(name, Failure, "give --listen /ip4/0.0.0.0/tcp/PORT and /ip4/0.0.0.0/udp/PORT/quic-v1, or leave --insecure-open out",
			"others are told loopback addresses only (%s), though --insecure-open is given: no other machine can reach this node", joinAddrs(e.addrs))
	case far:
		return check(name, Failure, "give --listen an address that other machines can reach, and --insecure-open if the network around is closed",
			"others are told loopback addresses only (%s), but this node is to join others on other machines", joinAddrs(e.addrs))
	}
	return check(name, Fine, "", "loopback only (%s): the network is this machine", joinAddrs(e.addrs))
}

// checkIdentity tells of another process with this node's identity.
func (e *examination) checkIdentity() []Check {
	const name = "identity"
	const do = "give one of the two an identity of its own: start it with a --data-dir that was not copied"
	switch {
	case e.copied != nil:
		c := e.copied
		return check(name, Failure, do, "another process uses it too: holders have a record of it that this one did not publish, of the node %s (%s, %s)",
			or(c.Name, "without a name"), or(c.URL, "no URL"), joinAddrs(c.Addrs))
	case len(e.selfAt) > 0:
		return check(name, Failure, "take the address out of --bootstrap if it is an old one; else a copy of this node runs there: "+do,
			"--bootstrap names this node's own ID at %s, which is no address of its own", joinAddrs(e.selfAt))
	}
	return nil
}

// checkMembers tells of nodes that others know and this one cannot reach: one of
// the two is behind a NAT or a firewall and tells addresses that do not lead to
// it. One whose machine refuses the connection has ended.
func (e *examination) checkMembers() []Check {
	const name = "members"
	var never []contact
	for _, c := range e.unmet {
		if !c.reached() && !errors.Is(c.err, syscall.ECONNREFUSED) {
			never = append(never, c)
		}
	}
	known := len(e.unmet) + len(e.answering())
	switch {
	case known == 0:
		return nil
	case len(never) == 0:
		return check(name, Fine, "", "every node that holders have a record of, and that was tried, is reached")
	}
	seen, _ := e.explain(&never[0])
	if len(never) > 1 {
		seen += fmt.Sprintf("; and %d more", len(never)-1)
	}
	return check(name, Failure, "of a node behind a NAT, say where it is reached: --public-ip; and let TCP and UDP through to the port of its --listen",
		"of %s known, %d %s never been reached, though %s published: %s", nodes(known), len(never), verb(len(never), "has", "have"), verb(len(never), "its record is", "their records are"), seen)
}

func or(s, without string) string {
	if s == "" {
		return without
	}
	return s
}

func (e *examination) checkBootstrap() []Check {
	const name = "bootstrap"
	if len(e.bootstrap) == 0 {
		return nil
	}
	var all []Check
	reached := 0
	for i := range e.bootstrap {
		if e.bootstrap[i].reached() {
			reached++
		}
	}
	bad := Failure
	if reached > 0 || len(e.members) > 0 {
		bad = Warning // any one suffices
	}
	for _, c := range e.bootstrap {
		seen, do := e.explain(&c)
		if c.reached() {
			all = append(all, check(name, Fine, "", "%s", seen)...)
		} else {
			all = append(all, check(name, bad, do, "%s", seen)...)
		}
	}
	return all
}

// explain says what became of the attempt to reach c, and what to do.
func (e *examination) explain(c *contact) (seen, do string) {
	where := fmt.Sprintf("%s at %s", shortID(c.ai.ID), joinAddrs(c.ai.Addrs))
	if c.err != nil {
		seen, do = explainDial(c.err)
		return where + ": " + seen, do
	}
	switch {
	case c.network != "":
		return fmt.Sprintf("%s is a node of another network (ID %s; this one is %q, ID %s)", where, c.network, e.name, e.network),
			"give both nodes the same --network, or name a node of this one"
	case !c.member:
		return where + " answers, but is no weir node that serves others", "name a running weir node"
	case c.silent:
		return where + " is connected, but does not answer", "look at that node: it is stopped, or has no CPU left"
	}
	return where + " is connected", ""
}

// explainDial says why a dial failed.
func explainDial(err error) (seen, do string) {
	var mismatch sec.ErrPeerIDMismatch
	switch {
	case errors.As(err, &mismatch):
		return fmt.Sprintf("another node answers there: %s", mismatch.Actual), "correct the ID after /p2p/, if that is the node meant: it has another identity now (another --data-dir?)"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused: nothing listens there", "start that node, or correct the port: it shows its addresses at start, and in weir status"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return "no route to that machine", "look at this machine's network, and at the address"
	case errors.Is(err, swarm.ErrNoAddresses):
		return "no address of it is known", "name one, or wait until another node tells it"
	case isTimeout(err):
		return "no answer in time", "look at whether that machine is up, and whether a firewall between lets TCP and UDP through to that port"
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return fmt.Sprintf("its name %s cannot be resolved", dns.Name), "correct the name, or give an IP address"
	}
	reason := err.Error()
	if failed := (*swarm.DialError)(nil); errors.As(err, &failed) && len(failed.DialErrors) > 0 {
		reason = failed.DialErrors[0].Cause.Error()
	}
	return "not reached: " + plain(reason, 200), "look at that node, and at the address"
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

func (e *examination) checkServers() []Check {
	const name = "servers"
	if !e.discovery.Listed() {
		return nil
	}
	if len(e.servers) == 0 && !e.listed {
		return check(name, Failure, "put the servers into --server-list, or give --server for each", "none is listed: with --discovery %s nobody is found", e.discovery)
	}
	var all []Check
	switch {
	case e.listed && e.discovery.Brokers():
		all = check(name, Fine, "", "this node is a broker: it holds the records of all")
	case !e.listed && !e.discovery.Brokers() && !e.client:
		all = check(name, Warning, "add this node to the list of servers of every node", "this node is not in its own list: others that have the same one do not find it")
	}
	sample := ""
	if e.untried > 0 {
		sample = fmt.Sprintf(" (%d more are listed and were not tried)", e.untried)
	}
	var down []string
	var first *contact
	for i := range e.servers {
		if c := &e.servers[i]; !c.reached() {
			down = append(down, shortID(c.ai.ID))
			if first == nil {
				first = c
			}
		}
	}
	switch {
	case len(e.servers) == 0 && !e.discovery.Brokers():
		return append(all, check(name, Warning, "list the other servers too", "only this node is listed")...)
	case len(e.servers) == 0:
		return all
	case len(down) == 0:
		return append(all, check(name, Fine, "", "%s reached%s", verb(len(e.servers), "the other server listed is", fmt.Sprintf("all %d others listed are", len(e.servers))), sample)...)
	}
	bad := Warning
	if len(down) == len(e.servers) && !e.listed || !e.discovery.Brokers() && 2*len(down) > len(e.servers) {
		bad = Failure
	}
	seen, do := e.explain(first)
	if len(down) > 1 {
		seen += "; the others: " + named(down[1:])
	}
	return append(all, check(name, bad, do+"; take servers that are gone for good off the list", "%d of %d others listed %s not reached%s: %s", len(down), len(e.servers), verb(len(down), "is", "are"), sample, seen)...)
}

func (e *examination) checkNetwork() []Check {
	const name = "network"
	var strange []string
	for _, c := range e.strangers {
		strange = append(strange, fmt.Sprintf("%s (network ID %s)", shortID(c.ai.ID), c.network))
	}
	answering := e.answering()
	switch told := len(e.bootstrap) + len(e.servers) + len(e.gone); {
	case len(answering) == 0 && len(strange) > 0:
		return check(name, Failure, "give all nodes the same --network", "alone in network %q (ID %s): the peers connected are of others: %s", e.name, e.network, named(strange))
	case len(answering) == 0 && len(e.members) > 0:
		return check(name, Failure, "look at those nodes, and at the network between", "%s connected, but none answers", nodes(len(e.members)))
	case len(answering) == 0 && told > 0:
		return check(name, Failure, "see what is said here of the nodes that it was told of or knows; one of them suffices, and weir goes on trying by itself", "alone: no other node of network %q is reached", e.name)
	case len(answering) == 0:
		return check(name, Warning, "if others are up, give --bootstrap the address of one; others join this node by "+joinIDAddr(e.self, e.addrs),
			"alone: no other node is connected, and this one was not told of any")
	case len(strange) > 0:
		return check(name, Warning, "give those nodes the same --network, or take this one's address from them", "%s connected; but also nodes of other networks: %s", nodes(len(answering)), named(strange))
	}
	return check(name, Fine, "", "%s of network %q connected", nodes(len(answering)), e.name)
}

// answering are the members that answer.
func (e *examination) answering() []contact {
	return slices.DeleteFunc(slices.Clone(e.members), func(c contact) bool { return !c.reached() })
}

func (e *examination) checkUDP() []Check {
	const name = "udp"
	const firewall = "let UDP through the firewalls on the way, to the same port as TCP; media needs UDP anyway"
	switch r := e.transport; {
	case r.quic > 0:
		return check(name, Fine, "", "%s connected over it (QUIC)", nodes(r.quic))
	case r.reached > 0:
		return check(name, Fine, "", "%d of %d nodes tried are reached over it (QUIC)", r.reached, r.tried)
	case r.tried > 0:
		return check(name, Failure, firewall, "no node is reached over it, though over TCP they are: %v", r.err)
	case !r.listens:
		return check(name, Skipped, "", "not tried: this node does not listen on QUIC")
	}
	return check(name, Skipped, "", "not tried: no node is connected that listens on QUIC")
}

func (e *examination) checkTable() []Check {
	const name = "dht"
	if e.discovery.Listed() {
		return nil
	}
	mode := "server"
	if e.client {
		mode = "client"
	}
	if len(e.answering()) > 0 && e.table == 0 {
		return check(name, Failure, "restart this node; if that does not help, those nodes may be clients, or run an older weir",
			"%s, with nobody in the routing table though %s connected", mode, nodes(len(e.answering())))
	}
	return check(name, Fine, "", "%s, with %s in the routing table and %d connected", mode, nodes(e.table), len(e.members))
}

func (e *examination) checkDiscovery() []Check {
	const name = "discovery"
	byMode := make(map[directory.Mode][]string)
	agree := 0
	for _, c := range e.answering() {
		switch mode := e.told[c.ai.ID].mode; mode {
		case "":
		case e.discovery:
			agree++
		default:
			byMode[mode] = append(byMode[mode], shortID(c.ai.ID))
		}
	}
	var all []Check
	for _, mode := range directory.Modes() {
		ids := byMode[mode]
		if len(ids) == 0 {
			continue
		}
		bad := Warning // that node's fault, more likely
		if len(ids) >= agree {
			bad = Failure
		}
		all = append(all, check(name, bad, "give the same --discovery to every node",
			"%s %s with --discovery %s, this node with %s: they do not find each other's records", named(ids), verb(len(ids), "runs", "run"), mode, e.discovery)...)
	}
	if len(all) > 0 {
		return all
	}
	if agree == 0 {
		return check(name, Fine, "", "%s", e.discovery)
	}
	return check(name, Fine, "", "%s, as at %s asked", e.discovery, verb(agree, "the other node", fmt.Sprintf("all %d nodes", agree)))
}

func (e *examination) checkRecord() []Check {
	const name = "record"
	r := e.record
	switch {
	case e.discovery.Own():
		return check(name, Fine, "", "held by this node alone, as it is meant to be with --discovery pull")
	case !r.published:
		return check(name, Skipped, "", "this node has published none yet")
	case len(r.holders) == 0 && e.discovery.Brokers() && e.listed:
		return check(name, Fine, "", "held here: this node is the only broker that is up")
	case len(r.holders) == 0 && e.discovery.Brokers():
		return check(name, Failure, "start a broker; the rest comes by itself", "held by nobody: no broker is reached")
	case len(r.holders) == 0:
		return check(name, Skipped, "", "nobody else is known who could hold it")
	case len(r.have) == 0 && r.err == nil && r.silent == len(r.holders):
		return check(name, Failure, "try again; then look at the holders, which weir peers marks", "none of %d holders has said in time whether it has this node's record", len(r.holders))
	case len(r.have) == 0 && r.err != nil:
		return check(name, Failure, "try again; then look at the holders, which weir peers marks", "none of %d holders has said in time whether it has this node's record (%v)", len(r.holders), r.err)
	case len(r.have) == 0 && r.silent > 0:
		return check(name, Failure, "wait some seconds if the node has just started; then look at the holders, which weir peers marks",
			"%d of %d holders do not have it, and %d did not answer", len(r.holders)-r.silent, len(r.holders), r.silent)
	case len(r.have) == 0:
		return check(name, Failure, "wait some seconds if the node has just started; else look at its log with --log-level debug for why records are refused",
			"%s: nobody will choose this node", verb(len(r.holders), "its only holder does not have it", fmt.Sprintf("none of %d holders has it", len(r.holders))))
	case 2*len(r.have) < len(r.holders):
		return check(name, Warning, "wait some seconds if the node has just started; else look at the holders, which weir peers marks",
			"only %d of %d holders have it%s", len(r.have), len(r.holders), unheard(r.silent))
	}
	return check(name, Fine, "", "held by %d of %d other holders%s", min(len(r.have), len(r.holders)), len(r.holders), unheard(r.silent))
}

// policyReach is what is known of the operator's policy.
type policyReach struct {
	operated bool // there is an operator
	version  uint64
	heard    bool          // a peer has said which it holds
	age      time.Duration // since then
}

// checkPolicy says whether the policy in force is known to be the newest: that
// nobody has sent a newer one says nothing if nobody has answered.
func (e *examination) checkPolicy() []Check {
	const name = "policy"
	p := e.policy
	held := fmt.Sprintf("version %d is in force", p.version)
	if p.version == 0 {
		held = "none of the operator's has come"
	}
	switch {
	case !p.operated:
		return nil
	case len(e.members) == 0:
		return check(name, Skipped, "", "%s; there is nobody to ask for a newer one", held)
	case !p.heard:
		return check(name, Warning, "wait some seconds if the node has just started; then look at the peers", "%s; whether there is a newer one is not known: no peer has said which it holds", held)
	case p.age > 3*policysync.CompareEvery:
		return check(name, Warning, "look at the peers, by weir peers", "%s; whether there is a newer one is not known: the last peer said which it holds %v ago", held, p.age.Round(time.Second))
	}
	return check(name, Fine, "", "%s, compared with a peer %v ago", held, p.age.Round(time.Second))
}

// unheard says of how many it is not known.
func unheard(silent int) string {
	if silent == 0 {
		return ""
	}
	return fmt.Sprintf("; %d did not answer", silent)
}

// checkPartition looks for peers that ought to be there. One whose machine
// refuses the connection has ended; a cut in the network is silent.
func (e *examination) checkPartition() []Check {
	const name = "partition"
	var lost, ended, old []string
	for _, c := range e.gone {
		switch id := shortID(c.ai.ID); {
		case c.reached():
		case c.met && errors.Is(c.err, syscall.ECONNREFUSED):
			ended = append(ended, id)
		case c.met:
			lost = append(lost, id)
		case !errors.Is(c.err, syscall.ECONNREFUSED):
			old = append(old, id)
		}
	}
	for _, c := range e.members {
		if c.silent {
			lost = append(lost, shortID(c.ai.ID))
		}
	}
	here := len(e.answering())
	met := len(lost) + len(ended) + here
	const restart = "if they were not ended on purpose, look at whether the network between is cut; weir joins them again by itself once it is not"
	switch {
	case len(lost) > here:
		return check(name, Failure, restart, "of %s met in the last %d minutes, %d no longer %s: %s", nodes(met), metMinutes, len(lost), verb(len(lost), "answers", "answer"), named(lost))
	case len(lost) > 0:
		return check(name, Warning, restart, "of %s met in the last %d minutes, %d no longer %s: %s", nodes(met), metMinutes, len(lost), verb(len(lost), "answers", "answer"), named(lost))
	case len(old) > 0 && here == 0:
		return check(name, Failure, restart, "of %s remembered from before, none is reached: %s", nodes(len(old)), named(old))
	case len(old) > here:
		return check(name, Warning, restart, "of %s remembered from before, %d are not reached: %s", nodes(len(old)+here), len(old), named(old))
	case len(ended) > here:
		return check(name, Warning, "start them again if they were not ended on purpose; their logs tell", "of %s met in the last %d minutes, %d %s ended: %s", nodes(met), metMinutes, len(ended), verb(len(ended), "has", "have"), named(ended))
	case len(ended) > 0:
		return check(name, Fine, "", "of %s met in the last %d minutes, %d %s ended, and the rest answer: %s", nodes(met), metMinutes, len(ended), verb(len(ended), "has", "have"), named(ended))
	case here == 0:
		return check(name, Skipped, "", "no other node is known")
	}
	return check(name, Fine, "", "every node met in the last %d minutes answers", metMinutes)
}

func (e *examination) checkClock() []Check {
	const name = "clock"
	const set = "set the clocks by NTP: timedatectl set-ntp true, and timedatectl shows whether it works"
	type reading struct {
		id    peer.ID
		ahead time.Duration
	}
	var all []reading
	for _, c := range e.answering() {
		if t := e.told[c.ai.ID]; t.timed {
			all = append(all, reading{c.ai.ID, t.clock})
		}
	}
	if len(all) == 0 {
		return check(name, Skipped, "", "no other node's clock is known yet")
	}
	slices.SortFunc(all, func(a, b reading) int { return cmp.Compare(a.ahead, b.ahead) })
	median := all[len(all)/2].ahead
	if below := all[(len(all)-1)/2].ahead; below.Abs() < median.Abs() {
		median = below // of two in the middle, the one that accuses less
	}
	outcome := Fine
	switch {
	case median.Abs() > clockFail:
		outcome = Failure
	case median.Abs() > clockWarn:
		outcome = Warning
	}
	if outcome != Fine {
		way := "behind"
		if median < 0 {
			way = "ahead of"
		}
		if len(all) == 1 {
			return check(name, outcome, set+", on both machines", "this node's is %v %s that of the only other node known, %s; either may be wrong", median.Abs().Round(100*time.Millisecond), way, shortID(all[0].id))
		}
		return check(name, outcome, set+", on this machine", "this node's is %v %s those of the others (median of %d)", median.Abs().Round(100*time.Millisecond), way, len(all))
	}
	var off []string
	for _, r := range all {
		if r.ahead.Abs() > clockFail {
			off = append(off, fmt.Sprintf("%s (%+.1f s)", shortID(r.id), r.ahead.Seconds()))
		}
	}
	if len(off) > 0 {
		return check(name, Warning, set+", on those machines", "this node's agrees with most others, but not with %s", named(off))
	}
	return check(name, Fine, "", "within %d ms of the other nodes' (median of %d)", median.Abs().Milliseconds()+1, len(all))
}

// What follows turns values into words.

func shortID(p peer.ID) string {
	s := p.String()
	return "…" + s[max(0, len(s)-8):]
}

// named lists some of names.
func named(names []string) string {
	if len(names) > maxNamed {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:maxNamed], ", "), len(names)-maxNamed)
	}
	return strings.Join(names, ", ")
}

func nodes(n int) string { return fmt.Sprintf("%d %s", n, verb(n, "node", "nodes")) }

func verb(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

func joinAddrs(addrs []multiaddr.Multiaddr) string {
	if len(addrs) == 0 {
		return "no address"
	}
	var all []string
	for _, a := range addrs {
		all = append(all, a.String())
	}
	return named(all)
}

// joinIDAddr is what others give --bootstrap.
func joinIDAddr(id peer.ID, addrs []multiaddr.Multiaddr) string {
	if len(addrs) == 0 {
		return "/p2p/" + id.String()
	}
	return addrs[0].String() + "/p2p/" + id.String()
}
