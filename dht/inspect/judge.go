package inspect

import (
	"cmp"
	"slices"
	"time"

	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"weir/dht/directory"
)

// Findings evaluates a report, each check after those it depends on.
func (r *Report) Findings() []Finding {
	var all []Finding
	for _, judge := range []func() []Finding{
		r.listening, r.addresses, r.identity, r.bootstrap, r.servers, r.network, r.udp, r.table,
		r.discovery, r.record, r.policy, r.members, r.partition, r.clock,
	} {
		all = append(all, judge()...)
	}
	return all
}

// answering are the members that answer.
func (r *Report) answering() []Contact {
	return slices.DeleteFunc(slices.Clone(r.Members), func(c Contact) bool { return !c.Reached() })
}

func (r *Report) listening() []Finding {
	const check = "listening"
	var tcp, quic bool
	for _, a := range r.Bound {
		if isQUIC(a) {
			quic = true
		} else {
			tcp = true
		}
	}
	facts := Facts{Addrs: r.Bound}
	switch {
	case len(r.Bound) == 0 && r.Client:
		return found(check, Fine, ClientOnly, facts)
	case len(r.Bound) == 0:
		return found(check, Failure, ListensNowhere, facts)
	case !quic:
		return found(check, Warning, NoQUIC, facts)
	case !tcp:
		return found(check, Warning, NoTCP, facts)
	}
	return found(check, Fine, Listens, facts)
}

func (r *Report) addresses() []Finding {
	const check = "addresses"
	if r.Client {
		return nil
	}
	loopback := 0
	for _, a := range r.Addrs {
		if manet.IsIPUnspecified(a) {
			return found(check, Failure, AddressUnspecified, Facts{Addrs: []multiaddr.Multiaddr{a}})
		}
		if manet.IsIPLoopback(a) {
			loopback++
		}
	}
	far := slices.ContainsFunc(slices.Concat(r.Bootstrap, r.Servers), func(c Contact) bool {
		return slices.ContainsFunc(c.Peer.Addrs, func(a multiaddr.Multiaddr) bool { return !manet.IsIPLoopback(a) })
	})
	facts := Facts{Addrs: r.Addrs}
	switch {
	case len(r.Addrs) == 0:
		return found(check, Failure, AddressNone, facts)
	case loopback < len(r.Addrs):
		return found(check, Fine, AddressAnnounced, facts)
	case r.Open:
		return found(check, Failure, AddressLoopbackOpen, facts)
	case far:
		return found(check, Failure, AddressLoopbackFar, facts)
	}
	return found(check, Fine, AddressLoopback, facts)
}

// identity checks for another process with this node's identity.
func (r *Report) identity() []Finding {
	const check = "identity"
	switch {
	case r.Copy != nil:
		return found(check, Failure, IdentityCopied, Facts{Record: r.Copy})
	case len(r.SelfAt) > 0:
		return found(check, Failure, IdentityElsewhere, Facts{Addrs: r.SelfAt})
	}
	return nil
}

func (r *Report) bootstrap() []Finding {
	const check = "bootstrap"
	bad := Failure
	if len(r.Members) > 0 || slices.ContainsFunc(r.Bootstrap, func(c Contact) bool { return c.Reached() }) {
		bad = Warning // any one suffices
	}
	var all []Finding
	for i := range r.Bootstrap {
		c := &r.Bootstrap[i]
		outcome, code := bad, BootstrapUnreached
		if c.Reached() {
			outcome, code = Fine, BootstrapReached
		}
		all = append(all, found(check, outcome, code, Facts{Contact: c.Peer, Fault: c.Fault(), Network: r.Network})...)
	}
	return all
}

func (r *Report) servers() []Finding {
	const check = "servers"
	if !r.Mode.Listed() {
		return nil
	}
	if len(r.Servers) == 0 && !r.Listed {
		return found(check, Failure, ServersUnlisted, Facts{Mode: r.Mode})
	}
	var all []Finding
	switch {
	case r.Listed && r.Mode.Brokers():
		all = found(check, Fine, ServersBroker, Facts{})
	case !r.Listed && !r.Mode.Brokers() && !r.Client:
		all = found(check, Warning, ServersSelfAbsent, Facts{})
	}
	var down []Peer
	facts := Facts{Of: len(r.Servers), Untried: r.Untried, Network: r.Network}
	for i := range r.Servers {
		c := &r.Servers[i]
		switch {
		case c.Reached():
		case facts.Count == 0:
			facts.Count, facts.Contact, facts.Fault = 1, c.Peer, c.Fault()
		default:
			facts.Count++
			down = append(down, Peer{ID: c.Peer.ID})
		}
	}
	facts.Peers = down
	bad := Warning
	if facts.Count == facts.Of && !r.Listed || !r.Mode.Brokers() && 2*facts.Count > facts.Of {
		bad = Failure
	}
	switch {
	case facts.Of == 0 && !r.Mode.Brokers():
		return append(all, found(check, Warning, ServersSelfOnly, Facts{})...)
	case facts.Of == 0:
		return all
	case facts.Count == 0:
		return append(all, found(check, Fine, ServersReached, facts)...)
	}
	return append(all, found(check, bad, ServersUnreached, facts)...)
}

func (r *Report) network() []Finding {
	const check = "network"
	answering := r.answering()
	facts := Facts{Network: r.Network, Count: len(answering)}
	for _, c := range r.Foreign {
		facts.Peers = append(facts.Peers, Peer{ID: c.Peer.ID, Network: c.Network})
	}
	switch told := len(r.Bootstrap) + len(r.Servers) + len(r.Gone); {
	case len(answering) == 0 && len(r.Foreign) > 0:
		return found(check, Failure, NetworkForeign, facts)
	case len(answering) == 0 && len(r.Members) > 0:
		facts.Count = len(r.Members)
		return found(check, Failure, NetworkUnresponsive, facts)
	case len(answering) == 0 && told > 0:
		return found(check, Failure, NetworkAlone, facts)
	case len(answering) == 0:
		facts.Contact.ID, facts.Addrs = r.Self, r.Addrs
		return found(check, Warning, NetworkNoBootstrap, facts)
	case len(r.Foreign) > 0:
		return found(check, Warning, NetworkForeignBeside, facts)
	}
	return found(check, Fine, NetworkJoined, facts)
}

func (r *Report) udp() []Finding {
	const check = "udp"
	switch q := r.QUIC; {
	case q.Connected > 0:
		return found(check, Fine, UDPInUse, Facts{Count: q.Connected})
	case q.Reached > 0:
		return found(check, Fine, UDPReaches, Facts{Count: q.Reached, Of: q.Tried})
	case q.Tried > 0:
		return found(check, Failure, UDPBlocked, Facts{Of: q.Tried, Err: q.Err})
	case !q.Listens:
		return found(check, Skipped, UDPUnlistened, Facts{})
	}
	return found(check, Skipped, UDPUntried, Facts{})
}

func (r *Report) table() []Finding {
	const check = "dht"
	if r.Mode.Listed() {
		return nil
	}
	if answering := len(r.answering()); answering > 0 && r.Table == 0 {
		return found(check, Failure, TableEmpty, Facts{Client: r.Client, Count: answering})
	}
	return found(check, Fine, Table, Facts{Client: r.Client, Of: r.Table, Count: len(r.Members)})
}

func (r *Report) discovery() []Finding {
	const check = "discovery"
	byMode := make(map[directory.Mode][]Peer)
	agree := 0
	for _, c := range r.answering() {
		switch mode := r.Said[c.Peer.ID].Mode; mode {
		case "":
		case r.Mode:
			agree++
		default:
			byMode[mode] = append(byMode[mode], Peer{ID: c.Peer.ID})
		}
	}
	var all []Finding
	for _, mode := range directory.Modes() {
		if len(byMode[mode]) == 0 {
			continue
		}
		bad := Warning // more likely that node's fault
		if len(byMode[mode]) >= agree {
			bad = Failure
		}
		all = append(all, found(check, bad, ModeDiffers, Facts{Peers: byMode[mode], Mode: mode, OwnMode: r.Mode})...)
	}
	if len(all) > 0 {
		return all
	}
	return found(check, Fine, ModeAgrees, Facts{OwnMode: r.Mode, Count: agree})
}

func (r *Report) record() []Finding {
	const check = "record"
	own := r.Record
	facts := Facts{Count: min(len(own.Have), len(own.Holders)), Of: len(own.Holders), Silent: own.Silent}
	switch {
	case r.Mode.Own():
		return found(check, Fine, RecordUnheld, Facts{Mode: r.Mode})
	case !own.Published:
		return found(check, Skipped, RecordNone, facts)
	case len(own.Holders) == 0 && r.Mode.Brokers() && r.Listed:
		return found(check, Fine, RecordOnlyBroker, facts)
	case len(own.Holders) == 0 && r.Mode.Brokers():
		return found(check, Failure, RecordNoBroker, facts)
	case len(own.Holders) == 0:
		return found(check, Skipped, RecordNoHolder, facts)
	case len(own.Have) == 0 && (own.Err != nil || own.Silent == len(own.Holders)):
		facts.Err = own.Err
		return found(check, Failure, RecordUnknown, facts)
	case len(own.Have) == 0:
		facts.Count = len(own.Holders) - own.Silent
		return found(check, Failure, RecordAbsent, facts)
	case 2*len(own.Have) < len(own.Holders):
		return found(check, Warning, RecordThin, facts)
	}
	return found(check, Fine, RecordHeld, facts)
}

// policy checks whether the policy in force is known to be the newest: the
// absence of a newer one proves nothing if no peer has answered.
func (r *Report) policy() []Finding {
	const check = "policy"
	facts := Facts{Version: r.Policy.Version, Age: r.Policy.Age}
	switch p := r.Policy; {
	case !p.Operated:
		return nil
	case len(r.Members) == 0:
		return found(check, Skipped, PolicyUnasked, facts)
	case !p.Heard:
		return found(check, Warning, PolicyUnknown, facts)
	case p.Age > 3*p.Every:
		return found(check, Warning, PolicyStale, facts)
	}
	return found(check, Fine, PolicyCompared, facts)
}

// members looks for nodes that others know and this one cannot reach: one of
// the two is behind a NAT or a firewall and announces addresses that do not
// lead to it. A node whose machine refuses the connection has ended.
func (r *Report) members() []Finding {
	const check = "members"
	facts := Facts{Of: len(r.Unmet) + len(r.answering()), Network: r.Network}
	for i := range r.Unmet {
		c := &r.Unmet[i]
		if c.Reached() || c.refused() {
			continue
		}
		if facts.Count++; facts.Count == 1 {
			facts.Contact, facts.Fault = c.Peer, c.Fault()
		}
	}
	switch {
	case facts.Of == 0:
		return nil
	case facts.Count == 0:
		return found(check, Fine, MembersReached, facts)
	}
	return found(check, Failure, MembersUnreached, facts)
}

// partition looks for missing peers. A peer whose machine refuses the
// connection has ended; a cut in the network is silent.
func (r *Report) partition() []Finding {
	const check = "partition"
	var lost, ended, forgotten []Peer
	for i := range r.Gone {
		switch c := &r.Gone[i]; {
		case c.Reached():
		case c.Met && c.refused():
			ended = append(ended, Peer{ID: c.Peer.ID})
		case c.Met:
			lost = append(lost, Peer{ID: c.Peer.ID})
		case !c.refused():
			forgotten = append(forgotten, Peer{ID: c.Peer.ID})
		}
	}
	for _, c := range r.Members {
		if c.Silent {
			lost = append(lost, Peer{ID: c.Peer.ID})
		}
	}
	here := len(r.answering())
	of := func(gone []Peer, all int) Facts { return Facts{Peers: gone, Count: len(gone), Of: all} }
	met := len(lost) + len(ended) + here
	switch {
	case len(lost) > here:
		return found(check, Failure, PeersLost, of(lost, met))
	case len(lost) > 0:
		return found(check, Warning, PeersLost, of(lost, met))
	case len(forgotten) > 0 && here == 0:
		return found(check, Failure, PeersForgotten, of(forgotten, len(forgotten)))
	case len(forgotten) > here:
		return found(check, Warning, PeersForgotten, of(forgotten, len(forgotten)+here))
	case len(ended) > here:
		return found(check, Warning, PeersEnded, of(ended, met))
	case len(ended) > 0:
		return found(check, Fine, PeersEndedSome, of(ended, met))
	case here == 0:
		return found(check, Skipped, PeersUnknown, Facts{})
	}
	return found(check, Fine, PeersAllAnswer, Facts{Count: here})
}

func (r *Report) clock() []Finding {
	const check = "clock"
	var all []Peer
	for _, c := range r.answering() {
		if said := r.Said[c.Peer.ID]; said.Timed {
			all = append(all, Peer{ID: c.Peer.ID, Ahead: said.Ahead})
		}
	}
	if len(all) == 0 {
		return found(check, Skipped, ClockUnknown, Facts{})
	}
	slices.SortFunc(all, func(a, b Peer) int { return cmp.Compare(a.Ahead, b.Ahead) })
	facts := Facts{Ahead: medianAhead(all), Count: len(all)}
	outcome := Fine
	switch off := facts.Ahead.Abs(); {
	case off > clockFail:
		outcome = Failure
	case off > clockWarn:
		outcome = Warning
	}
	switch {
	case outcome != Fine && len(all) == 1:
		facts.Peers = all
		return found(check, outcome, ClockOffOne, facts)
	case outcome != Fine:
		return found(check, outcome, ClockOff, facts)
	}
	off := slices.DeleteFunc(all, func(p Peer) bool { return p.Ahead.Abs() <= clockFail })
	if len(off) > 0 {
		facts.Peers = off
		return found(check, Warning, ClockOffOthers, facts)
	}
	return found(check, Fine, ClockAgrees, facts)
}

// medianAhead is the median of sorted peers: of two in the middle, the smaller
// deviation.
func medianAhead(sorted []Peer) time.Duration {
	upper, lower := sorted[len(sorted)/2].Ahead, sorted[(len(sorted)-1)/2].Ahead
	if lower.Abs() < upper.Abs() {
		return lower
	}
	return upper
}
