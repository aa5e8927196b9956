package inspect

import (
	"context"
	"errors"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/multiformats/go-multiaddr"

	"weir/capacity"
	"weir/dht/directory"
)

func TestEachFinding(t *testing.T) {
	const ms = time.Millisecond
	at := func(s string) []multiaddr.Multiaddr { return []multiaddr.Multiaddr{multiaddr.StringCast(s)} }
	loopback, public := at("/ip4/127.0.0.1/tcp/1"), at("/ip4/192.0.2.1/tcp/1")
	quic := multiaddr.StringCast("/ip4/127.0.0.1/udp/1/quic-v1")
	who := func(id string) peer.AddrInfo { return peer.AddrInfo{ID: peer.ID(id), Addrs: loopback} }
	up := func(ids ...string) (list []Contact) {
		for _, id := range ids {
			list = append(list, Contact{Peer: who(id), Member: true, Met: true})
		}
		return list
	}
	down := func(err error, ids ...string) (list []Contact) {
		for _, id := range ids {
			list = append(list, Contact{Peer: who(id), Err: err})
		}
		return list
	}
	met := func(list []Contact) []Contact {
		for i := range list {
			list[i].Met = true
		}
		return list
	}
	clocks := func(ahead ...time.Duration) (e Report) {
		e.Said = map[peer.ID]SelfReport{}
		for i, d := range ahead {
			id := string(rune('a' + i))
			e.Members = append(e.Members, up(id)...)
			e.Said[peer.ID(id)] = SelfReport{Ahead: d, Timed: true}
		}
		return e
	}
	modes := func(own directory.Mode, others ...directory.Mode) (e Report) {
		e.Mode, e.Said = own, map[peer.ID]SelfReport{}
		for i, m := range others {
			id := string(rune('a' + i))
			e.Members = append(e.Members, up(id)...)
			e.Said[peer.ID(id)] = SelfReport{Mode: m}
		}
		return e
	}
	refused := &swarm.DialError{DialErrors: []swarm.TransportError{{Address: loopback[0], Cause: &net.OpError{Err: syscall.ECONNREFUSED}}}}
	stopped := Contact{Peer: who("s"), Member: true, Silent: true, Met: true}
	stranger := Contact{Peer: who("x"), Network: "abcd"}

	for _, c := range []struct {
		what string
		e    Report
		name string
		o    Outcome
		code Code
	}{
		{"both transports", Report{Bound: append(loopback, quic)}, "listening", Fine, Listens},
		{"no QUIC", Report{Bound: loopback}, "listening", Warning, NoQUIC},
		{"no TCP", Report{Bound: []multiaddr.Multiaddr{quic}}, "listening", Warning, NoTCP},
		{"nothing is listened on", Report{}, "listening", Failure, ListensNowhere},
		{"a client listens on nothing", Report{Client: true}, "listening", Fine, ClientOnly},

		{"no address", Report{}, "addresses", Failure, AddressNone},
		{"loopback among itself", Report{Addrs: loopback}, "addresses", Fine, AddressLoopback},
		{"loopback, though open", Report{Addrs: loopback, Open: true}, "addresses", Failure, AddressLoopbackOpen},
		{"loopback, with peers elsewhere", Report{Addrs: loopback, Bootstrap: []Contact{{Peer: peer.AddrInfo{ID: "p", Addrs: public}}}}, "addresses", Failure, AddressLoopbackFar},
		{"a public address", Report{Addrs: append(loopback, public...), Open: true}, "addresses", Fine, AddressAnnounced},
		{"an unspecified address", Report{Addrs: at("/ip4/0.0.0.0/tcp/1")}, "addresses", Failure, AddressUnspecified},

		{"bootstrap refused", Report{Bootstrap: down(refused, "p")}, "bootstrap", Failure, BootstrapUnreached},
		{"one bootstrap peer of two", Report{Bootstrap: append(down(refused, "p"), up("q")...)}, "bootstrap", Warning, BootstrapUnreached},
		{"bootstrap peers down, network there", Report{Bootstrap: down(refused, "p"), Members: up("q")}, "bootstrap", Warning, BootstrapUnreached},
		{"no answer", Report{Bootstrap: down(context.DeadlineExceeded, "p")}, "bootstrap", Failure, BootstrapUnreached},
		{"wrong ID", Report{Bootstrap: down(sec.ErrPeerIDMismatch{Actual: "other"}, "p")}, "bootstrap", Failure, BootstrapUnreached},
		{"no route", Report{Bootstrap: down(syscall.ENETUNREACH, "p")}, "bootstrap", Failure, BootstrapUnreached},
		{"a name that is none", Report{Bootstrap: down(&net.DNSError{Name: "b.example", IsNotFound: true}, "p")}, "bootstrap", Failure, BootstrapUnreached},
		{"something else", Report{Bootstrap: down(errors.New("odd\x1b[31m"), "p")}, "bootstrap", Failure, BootstrapUnreached},
		{"another network", Report{Network: Network{Name: "ours", ID: "1234"}, Bootstrap: []Contact{stranger}}, "bootstrap", Failure, BootstrapUnreached},
		{"no weir at all", Report{Bootstrap: []Contact{{Peer: who("p")}}}, "bootstrap", Failure, BootstrapUnreached},
		{"stopped", Report{Bootstrap: []Contact{stopped}}, "bootstrap", Failure, BootstrapUnreached},

		{"a copy of this node", Report{Copy: &capacity.Record{Name: "twin", URL: "http://192.0.2.1:8080", Addrs: public}}, "identity", Failure, IdentityCopied},
		{"a copy among the bootstrap peers", Report{SelfAt: public}, "identity", Failure, IdentityElsewhere},

		{"a member behind a NAT", Report{Unmet: down(context.DeadlineExceeded, "p"), Members: up("q")}, "members", Failure, MembersUnreached},
		{"members never met are reached", Report{Unmet: up("p"), Members: up("q")}, "members", Fine, MembersReached},
		{"a member that has just ended", Report{Unmet: down(refused, "p"), Members: up("q")}, "members", Fine, MembersReached},

		{"an empty list", Report{Mode: directory.Pull}, "servers", Failure, ServersUnlisted},
		{"the only broker", Report{Mode: directory.Broker, Listed: true}, "servers", Fine, ServersBroker},
		{"all brokers up", Report{Mode: directory.Broker, Servers: up("b")}, "servers", Fine, ServersReached},
		{"all brokers down", Report{Mode: directory.Broker, Servers: down(refused, "b", "c")}, "servers", Failure, ServersUnreached},
		{"one broker of two down", Report{Mode: directory.Broker, Servers: append(down(refused, "b"), up("c")...)}, "servers", Warning, ServersUnreached},
		{"most servers down", Report{Mode: directory.Push, Listed: true, Servers: append(down(refused, "b", "c"), up("d")...)}, "servers", Failure, ServersUnreached},
		{"a long list", Report{Mode: directory.Pull, Listed: true, Servers: up("b", "c"), Untried: 98}, "servers", Fine, ServersReached},
		{"not in its own list", Report{Mode: directory.Push, Servers: up("b")}, "servers", Warning, ServersSelfAbsent},
		{"only itself listed", Report{Mode: directory.Pull, Listed: true}, "servers", Warning, ServersSelfOnly},

		{"members", Report{Members: up("a", "b")}, "network", Fine, NetworkJoined},
		{"alone and told of nobody", Report{Addrs: loopback}, "network", Warning, NetworkNoBootstrap},
		{"alone, though told of others", Report{Bootstrap: down(refused, "p")}, "network", Failure, NetworkAlone},
		{"alone, though others were known", Report{Gone: down(refused, "p")}, "network", Failure, NetworkAlone},
		{"among strangers", Report{Foreign: []Contact{stranger}}, "network", Failure, NetworkForeign},
		{"strangers besides", Report{Members: up("a"), Foreign: []Contact{stranger}}, "network", Warning, NetworkForeignBeside},
		{"members that are stopped", Report{Members: []Contact{stopped}}, "network", Failure, NetworkUnresponsive},

		{"QUIC in use", Report{QUIC: QUIC{Connected: 1}}, "udp", Fine, UDPInUse},
		{"QUIC would work", Report{QUIC: QUIC{Tried: 2, Reached: 1}}, "udp", Fine, UDPReaches},
		{"no UDP", Report{QUIC: QUIC{Tried: 2, Err: context.DeadlineExceeded}}, "udp", Failure, UDPBlocked},
		{"nobody to try UDP with", Report{QUIC: QUIC{Listens: true}}, "udp", Skipped, UDPUntried},

		{"an empty table", Report{Members: up("a")}, "dht", Failure, TableEmpty},
		{"a table", Report{Members: up("a"), Table: 1, Client: true}, "dht", Fine, Table},

		{"the same mode", modes(directory.Kademlia, directory.Kademlia, directory.Kademlia, ""), "discovery", Fine, ModeAgrees},
		{"another mode than all", modes(directory.Broker, directory.Kademlia, directory.Kademlia), "discovery", Failure, ModeDiffers},
		{"one that has another mode", modes(directory.Kademlia, directory.Kademlia, directory.Kademlia, directory.Push), "discovery", Warning, ModeDiffers},

		{"no holder has it", Report{Record: OwnRecord{Published: true, Holders: []peer.ID{"a", "b"}}}, "record", Failure, RecordAbsent},
		{"a policy that nobody has been asked about", Report{Policy: Policy{Operated: true, Version: 3}, Members: up("a")}, "policy", Warning, PolicyUnknown},
		{"a policy compared long ago", Report{Policy: Policy{Operated: true, Version: 3, Heard: true, Age: time.Hour}, Members: up("a")}, "policy", Warning, PolicyStale},
		{"a policy compared just now", Report{Policy: Policy{Operated: true, Version: 3, Heard: true, Age: time.Second, Every: time.Minute}, Members: up("a")}, "policy", Fine, PolicyCompared},
		{"no holder says whether it has it", Report{Record: OwnRecord{Published: true, Holders: []peer.ID{"a", "b"}, Silent: 2}}, "record", Failure, RecordUnknown},
		{"one holder lacks it, one is silent", Report{Record: OwnRecord{Published: true, Holders: []peer.ID{"a", "b"}, Silent: 1}}, "record", Failure, RecordAbsent},
		{"one holder has it, one is silent", Report{Record: OwnRecord{Published: true, Holders: []peer.ID{"a", "b"}, Have: []peer.ID{"a"}, Silent: 1}}, "record", Fine, RecordHeld},
		{"few have it", Report{Record: OwnRecord{Published: true, Holders: []peer.ID{"a", "b", "c"}, Have: []peer.ID{"a"}}}, "record", Warning, RecordThin},
		{"all have it", Report{Record: OwnRecord{Published: true, Holders: []peer.ID{"a"}, Have: []peer.ID{"a"}}}, "record", Fine, RecordHeld},
		{"no broker to hold it", Report{Mode: directory.Broker, Servers: down(refused, "b"), Record: OwnRecord{Published: true}}, "record", Failure, RecordNoBroker},
		{"nobody to hold it", Report{Record: OwnRecord{Published: true}}, "record", Skipped, RecordNoHolder},
		{"nobody is to hold it", Report{Mode: directory.Pull}, "record", Fine, RecordUnheld},

		{"nobody is gone", Report{Members: up("a")}, "partition", Fine, PeersAllAnswer},
		{"most are gone", Report{Members: up("a"), Gone: met(down(context.DeadlineExceeded, "b", "c"))}, "partition", Failure, PeersLost},
		{"most are stopped", Report{Members: append(up("a"), stopped, stopped)}, "partition", Failure, PeersLost},
		{"one is gone", Report{Members: up("a", "b"), Gone: met(down(syscall.EHOSTUNREACH, "c"))}, "partition", Warning, PeersLost},
		{"most have ended", Report{Members: up("a"), Gone: met(down(refused, "b", "c"))}, "partition", Warning, PeersEnded},
		{"one has ended", Report{Members: up("a"), Gone: met(down(refused, "b"))}, "partition", Fine, PeersEndedSome},
		{"old ones are gone", Report{Members: up("a"), Gone: down(context.DeadlineExceeded, "b", "c")}, "partition", Warning, PeersForgotten},
		{"all old ones are gone", Report{Gone: down(context.DeadlineExceeded, "b")}, "partition", Failure, PeersForgotten},
		{"old ones have ended", Report{Members: up("a"), Gone: down(refused, "b", "c")}, "partition", Fine, PeersAllAnswer},
		{"a known one was reached again", Report{Members: up("a", "b"), Gone: up("b")}, "partition", Fine, PeersAllAnswer},
		{"many are gone", Report{Gone: met(down(context.DeadlineExceeded, "a", "b", "c", "d", "e", "f"))}, "partition", Failure, PeersLost},

		{"clocks agree", clocks(3*ms, -5*ms, 100*ms), "clock", Fine, ClockAgrees},
		{"behind", clocks(12_000*ms, 11_000*ms, 12_000*ms), "clock", Failure, ClockOff},
		{"ahead", clocks(-3_000*ms, -3_000*ms), "clock", Warning, ClockOff},
		{"one other, either wrong", clocks(60_000 * ms), "clock", Failure, ClockOffOne},
		{"one that is wrong", clocks(0, 60_000*ms, 1*ms), "clock", Warning, ClockOffOthers},
		{"two that contradict", clocks(0, 60_000*ms), "clock", Warning, ClockOffOthers},
		{"no clock", Report{Members: up("a")}, "clock", Skipped, ClockUnknown},
	} {
		e := c.e
		if e.Mode == "" {
			e.Mode = directory.Kademlia
		}
		if !slices.ContainsFunc(e.Findings(), func(f Finding) bool { return f.Check == c.name && f.Outcome == c.o && f.Code == c.code }) {
			t.Errorf("%s: %s is not %s by %s; all: %+v", c.what, c.name, c.o, c.code, e.Findings())
		}
	}
}
