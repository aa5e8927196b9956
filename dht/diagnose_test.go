package dht

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/multiformats/go-multiaddr"

	"weir/dht/directory"
	"weir/dht/pb"

	"weir/capacity"
)

// findings are the checks of that name.
func findings(all []Check, name string) (found []Check) {
	for _, c := range all {
		if c.Name == name {
			found = append(found, c)
		}
	}
	return found
}

// diagnosed returns why the check of that name did not end so, with all of words
// in what was seen or in what to do.
func diagnosed(all []Check, name string, o Outcome, words ...string) error {
	var said string
	for _, c := range findings(all, name) {
		said = c.Seen + " → " + c.Do
		missing := c.Outcome != o
		for _, w := range words {
			missing = missing || !strings.Contains(said, w)
		}
		if !missing {
			return nil
		}
	}
	return fmt.Errorf("%s is not %s with %q; all: %+v", name, o, words, all)
}

func TestEachFinding(t *testing.T) {
	const ms = time.Millisecond
	at := func(s string) []multiaddr.Multiaddr { return []multiaddr.Multiaddr{addr(t, s)} }
	loopback, public := at("/ip4/127.0.0.1/tcp/1"), at("/ip4/192.0.2.1/tcp/1")
	quic := addr(t, "/ip4/127.0.0.1/udp/1/quic-v1")
	who := func(id string) peer.AddrInfo { return peer.AddrInfo{ID: peer.ID(id), Addrs: loopback} }
	up := func(ids ...string) (list []contact) {
		for _, id := range ids {
			list = append(list, contact{ai: who(id), member: true, met: true})
		}
		return list
	}
	down := func(err error, ids ...string) (list []contact) {
		for _, id := range ids {
			list = append(list, contact{ai: who(id), err: err})
		}
		return list
	}
	met := func(list []contact) []contact {
		for i := range list {
			list[i].met = true
		}
		return list
	}
	clocks := func(ahead ...time.Duration) (e examination) {
		e.told = map[peer.ID]telling{}
		for i, d := range ahead {
			id := string(rune('a' + i))
			e.members = append(e.members, up(id)...)
			e.told[peer.ID(id)] = telling{clock: d, timed: true}
		}
		return e
	}
	modes := func(own directory.Mode, others ...directory.Mode) (e examination) {
		e.discovery, e.told = own, map[peer.ID]telling{}
		for i, m := range others {
			id := string(rune('a' + i))
			e.members = append(e.members, up(id)...)
			e.told[peer.ID(id)] = telling{mode: m}
		}
		return e
	}
	refused := &swarm.DialError{DialErrors: []swarm.TransportError{{Address: loopback[0], Cause: &net.OpError{Err: syscall.ECONNREFUSED}}}}
	stopped := contact{ai: who("s"), member: true, silent: true, met: true}
	stranger := contact{ai: who("x"), network: "abcd"}

	for _, c := range []struct {
		what  string
		e     examination
		name  string
		o     Outcome
		words []string
	}{
		{"both transports", examination{bound: append(loopback, quic)}, "listening", Fine, nil},
		{"no QUIC", examination{bound: loopback}, "listening", Warning, []string{"not on QUIC", "quic-v1"}},
		{"no TCP", examination{bound: []multiaddr.Multiaddr{quic}}, "listening", Warning, []string{"not on TCP"}},
		{"nothing is listened on", examination{}, "listening", Failure, []string{"--listen"}},
		{"a client listens on nothing", examination{client: true}, "listening", Fine, nil},

		{"no address", examination{}, "addresses", Failure, []string{"no address"}},
		{"loopback among itself", examination{addrs: loopback}, "addresses", Fine, []string{"this machine"}},
		{"loopback, though open", examination{addrs: loopback, open: true}, "addresses", Failure, []string{"--insecure-open"}},
		{"loopback, with peers elsewhere", examination{addrs: loopback, bootstrap: []contact{{ai: peer.AddrInfo{ID: "p", Addrs: public}}}}, "addresses", Failure, []string{"other machines"}},
		{"a public address", examination{addrs: append(loopback, public...), open: true}, "addresses", Fine, []string{"192.0.2.1"}},
		{"an unspecified address", examination{addrs: at("/ip4/0.0.0.0/tcp/1")}, "addresses", Failure, []string{"0.0.0.0"}},

		{"bootstrap refused", examination{bootstrap: down(refused, "p")}, "bootstrap", Failure, []string{"refused", "/ip4/127.0.0.1/tcp/1", "start that node"}},
		{"one bootstrap peer of two", examination{bootstrap: append(down(refused, "p"), up("q")...)}, "bootstrap", Warning, []string{"refused"}},
		{"bootstrap peers down, network there", examination{bootstrap: down(refused, "p"), members: up("q")}, "bootstrap", Warning, nil},
		{"no answer", examination{bootstrap: down(context.DeadlineExceeded, "p")}, "bootstrap", Failure, []string{"no answer", "firewall"}},
		{"wrong ID", examination{bootstrap: down(sec.ErrPeerIDMismatch{Actual: "other"}, "p")}, "bootstrap", Failure, []string{"another node answers", "/p2p/"}},
		{"no route", examination{bootstrap: down(syscall.ENETUNREACH, "p")}, "bootstrap", Failure, []string{"no route"}},
		{"a name that is none", examination{bootstrap: down(&net.DNSError{Name: "b.example", IsNotFound: true}, "p")}, "bootstrap", Failure, []string{"b.example", "resolved"}},
		{"something else", examination{bootstrap: down(errors.New("odd\x1b[31m"), "p")}, "bootstrap", Failure, []string{"not reached: odd?[31m"}},
		{"another network", examination{name: "ours", network: "1234", bootstrap: []contact{stranger}}, "bootstrap", Failure, []string{"abcd", `"ours"`, "1234", "--network"}},
		{"no weir at all", examination{bootstrap: []contact{{ai: who("p")}}}, "bootstrap", Failure, []string{"no weir node"}},
		{"stopped", examination{bootstrap: []contact{stopped}}, "bootstrap", Failure, []string{"does not answer"}},

		{"a copy of this node", examination{copied: &capacity.Record{Name: "twin", URL: "http://192.0.2.1:8080", Addrs: public}}, "identity", Failure, []string{"another process", "twin", "http://192.0.2.1:8080", "--data-dir"}},
		{"a copy among the bootstrap peers", examination{selfAt: public}, "identity", Failure, []string{"own ID", "192.0.2.1", "copy"}},

		{"a member behind a NAT", examination{unmet: down(context.DeadlineExceeded, "p"), members: up("q")}, "members", Failure, []string{"2 nodes known, 1 has never been reached", "no answer", "--public-ip"}},
		{"members never met are reached", examination{unmet: up("p"), members: up("q")}, "members", Fine, []string{"every node"}},
		{"a member that has just ended", examination{unmet: down(refused, "p"), members: up("q")}, "members", Fine, nil},

		{"an empty list", examination{discovery: directory.Pull}, "servers", Failure, []string{"--server-list"}},
		{"the only broker", examination{discovery: directory.Broker, listed: true}, "servers", Fine, []string{"broker"}},
		{"all brokers up", examination{discovery: directory.Broker, servers: up("b")}, "servers", Fine, nil},
		{"all brokers down", examination{discovery: directory.Broker, servers: down(refused, "b", "c")}, "servers", Failure, []string{"2 of 2", "refused"}},
		{"one broker of two down", examination{discovery: directory.Broker, servers: append(down(refused, "b"), up("c")...)}, "servers", Warning, []string{"1 of 2"}},
		{"most servers down", examination{discovery: directory.Push, listed: true, servers: append(down(refused, "b", "c"), up("d")...)}, "servers", Failure, []string{"2 of 3"}},
		{"a long list", examination{discovery: directory.Pull, listed: true, servers: up("b", "c"), untried: 98}, "servers", Fine, []string{"all 2", "98 more"}},
		{"not in its own list", examination{discovery: directory.Push, servers: up("b")}, "servers", Warning, []string{"not in its own list"}},
		{"only itself listed", examination{discovery: directory.Pull, listed: true}, "servers", Warning, []string{"only this node"}},

		{"members", examination{members: up("a", "b")}, "network", Fine, []string{"2 nodes"}},
		{"alone and told of nobody", examination{addrs: loopback}, "network", Warning, []string{"--bootstrap", "/p2p/"}},
		{"alone, though told of others", examination{bootstrap: down(refused, "p")}, "network", Failure, []string{"alone"}},
		{"alone, though others were known", examination{gone: down(refused, "p")}, "network", Failure, []string{"alone"}},
		{"among strangers", examination{strangers: []contact{stranger}}, "network", Failure, []string{"abcd", "--network"}},
		{"strangers besides", examination{members: up("a"), strangers: []contact{stranger}}, "network", Warning, []string{"abcd"}},
		{"members that are stopped", examination{members: []contact{stopped}}, "network", Failure, []string{"none answers"}},

		{"QUIC in use", examination{transport: quicReach{quic: 1}}, "udp", Fine, nil},
		{"QUIC would work", examination{transport: quicReach{tried: 2, reached: 1}}, "udp", Fine, []string{"1 of 2"}},
		{"no UDP", examination{transport: quicReach{tried: 2, err: context.DeadlineExceeded}}, "udp", Failure, []string{"firewall"}},
		{"nobody to try UDP with", examination{transport: quicReach{listens: true}}, "udp", Skipped, nil},

		{"an empty table", examination{members: up("a")}, "dht", Failure, []string{"routing table"}},
		{"a table", examination{members: up("a"), table: 1, client: true}, "dht", Fine, []string{"client"}},

		{"the same mode", modes(directory.Kademlia, directory.Kademlia, directory.Kademlia, ""), "discovery", Fine, []string{"all 2 nodes"}},
		{"another mode than all", modes(directory.Broker, directory.Kademlia, directory.Kademlia), "discovery", Failure, []string{"--discovery kademlia", "with broker"}},
		{"one that has another mode", modes(directory.Kademlia, directory.Kademlia, directory.Kademlia, directory.Push), "discovery", Warning, []string{"--discovery push"}},

		{"no holder has it", examination{record: recordReach{published: true, holders: []peer.ID{"a", "b"}}}, "record", Failure, []string{"none of 2"}},
		{"a policy that nobody has been asked about", examination{policy: policyReach{operated: true, version: 3}, members: up("a")}, "policy", Warning, []string{"version 3", "not known"}},
		{"a policy compared long ago", examination{policy: policyReach{operated: true, version: 3, heard: true, age: time.Hour}, members: up("a")}, "policy", Warning, []string{"not known", "1h0m0s ago"}},
		{"a policy compared just now", examination{policy: policyReach{operated: true, version: 3, heard: true, age: time.Second}, members: up("a")}, "policy", Fine, []string{"version 3"}},
		{"no holder says whether it has it", examination{record: recordReach{published: true, holders: []peer.ID{"a", "b"}, silent: 2}}, "record", Failure, []string{"none of 2 holders has said in time"}},
		{"one holder lacks it, one is silent", examination{record: recordReach{published: true, holders: []peer.ID{"a", "b"}, silent: 1}}, "record", Failure, []string{"1 of 2 holders do not have it, and 1 did not answer"}},
		{"one holder has it, one is silent", examination{record: recordReach{published: true, holders: []peer.ID{"a", "b"}, have: []peer.ID{"a"}, silent: 1}}, "record", Fine, []string{"1 of 2", "1 did not answer"}},
		{"few have it", examination{record: recordReach{published: true, holders: []peer.ID{"a", "b", "c"}, have: []peer.ID{"a"}}}, "record", Warning, []string{"1 of 3"}},
		{"all have it", examination{record: recordReach{published: true, holders: []peer.ID{"a"}, have: []peer.ID{"a"}}}, "record", Fine, []string{"1 of 1"}},
		{"no broker to hold it", examination{discovery: directory.Broker, servers: down(refused, "b"), record: recordReach{published: true}}, "record", Failure, []string{"no broker"}},
		{"nobody to hold it", examination{record: recordReach{published: true}}, "record", Skipped, nil},
		{"nobody is to hold it", examination{discovery: directory.Pull}, "record", Fine, nil},

		{"nobody is gone", examination{members: up("a")}, "partition", Fine, nil},
		{"most are gone", examination{members: up("a"), gone: met(down(context.DeadlineExceeded, "b", "c"))}, "partition", Failure, []string{"of 3 nodes", "2 no longer answer", "cut"}},
		{"most are stopped", examination{members: append(up("a"), stopped, stopped)}, "partition", Failure, []string{"2 no longer answer"}},
		{"one is gone", examination{members: up("a", "b"), gone: met(down(syscall.EHOSTUNREACH, "c"))}, "partition", Warning, []string{"1 no longer answers"}},
		{"most have ended", examination{members: up("a"), gone: met(down(refused, "b", "c"))}, "partition", Warning, []string{"2 have ended", "logs"}},
		{"one has ended", examination{members: up("a"), gone: met(down(refused, "b"))}, "partition", Fine, []string{"1 has ended"}},
		{"old ones are gone", examination{members: up("a"), gone: down(context.DeadlineExceeded, "b", "c")}, "partition", Warning, []string{"remembered"}},
		{"all old ones are gone", examination{gone: down(context.DeadlineExceeded, "b")}, "partition", Failure, []string{"remembered"}},
		{"old ones have ended", examination{members: up("a"), gone: down(refused, "b", "c")}, "partition", Fine, nil},
		{"a known one was reached again", examination{members: up("a", "b"), gone: up("b")}, "partition", Fine, nil},
		{"many are gone", examination{gone: met(down(context.DeadlineExceeded, "a", "b", "c", "d", "e", "f"))}, "partition", Failure, []string{"and 2 more"}},

		{"clocks agree", clocks(3*ms, -5*ms, 100*ms), "clock", Fine, []string{"median of 3"}},
		{"behind", clocks(12_000*ms, 11_000*ms, 12_000*ms), "clock", Failure, []string{"12s behind", "timedatectl", "this machine"}},
		{"ahead", clocks(-3_000*ms, -3_000*ms), "clock", Warning, []string{"3s ahead of"}},
		{"one other, either wrong", clocks(60_000 * ms), "clock", Failure, []string{"either may be wrong"}},
		{"one that is wrong", clocks(0, 60_000*ms, 1*ms), "clock", Warning, []string{"+60.0 s", "those machines"}},
		{"two that contradict", clocks(0, 60_000*ms), "clock", Warning, []string{"+60.0 s"}},
		{"no clock", examination{members: up("a")}, "clock", Skipped, nil},
	} {
		e := c.e
		if e.discovery == "" {
			e.discovery = directory.Kademlia
		}
		if err := diagnosed(e.checks(), c.name, c.o, c.words...); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		for _, k := range e.checks() {
			if k.Seen == "" || strings.Contains(k.Seen, "%!") || k.Do == "" && (k.Outcome == Warning || k.Outcome == Failure) {
				t.Errorf("%s: %+v does not say what was seen, or what to do", c.what, k)
			}
		}
	}
}

func TestHealthyNetworkIsDiagnosedSo(t *testing.T) {
	nodes := newTestNetwork(t, 3)
	for _, n := range nodes {
		eventually(t, func() error {
			for _, c := range n.Diagnose(t.Context(), false) {
				if c.Outcome != Fine {
					return fmt.Errorf("%+v", c)
				}
			}
			return nil
		})
	}
}

// A lone node names the bootstrap peer that is dead, that is another node than
// was meant, and that is of another network.
func TestLoneNodeIsToldWhy(t *testing.T) {
	other := newTestNode(t, func(c *Config) { c.Network = "other" })
	other.run(t)
	dead := newTestNode(t, nil)
	deadInfo := dead.info()
	dead.stop()
	impostor := peer.AddrInfo{ID: idOf(t, newKey(t)), Addrs: other.Host().Addrs()[:1]}
	n := newTestNode(t, func(c *Config) { c.Bootstrap = []peer.AddrInfo{deadInfo, other.info(), impostor} })
	n.run(t)
	n.awaitReady(t)
	start := time.Now()
	all := n.Diagnose(t.Context(), false)
	if took := time.Since(start); took > diagnoseTime+time.Second {
		t.Errorf("took %v", took)
	}
	for _, err := range []error{
		diagnosed(all, "bootstrap", Failure, deadInfo.Addrs[0].String(), deadInfo.ID.String()[44:], "refused"),
		diagnosed(all, "bootstrap", Failure, other.Host().Addrs()[0].String(), NetworkID("other"), "--network"),
		diagnosed(all, "bootstrap", Failure, "another node answers there", other.ID().String()),
		diagnosed(all, "network", Failure, NetworkID("other")),
		diagnosed(all, "dht", Fine),
	} {
		if err != nil {
			t.Error(err)
		}
	}
}

// A node whose clock is off by more than anyone's is told so, by the peers' word.
func TestSkewedClockIsDiagnosed(t *testing.T) {
	n := newTestNode(t, nil)
	n.run(t)
	n.awaitReady(t)
	for range 3 {
		f := newFake(t, n.info(), map[protocol.ID]network.StreamHandler{
			testRecords: answer(func(_ peer.ID, req *pb.Request) *pb.Response {
				if req.GetFetch() == nil {
					return errorReply(errors.New("a fake"))
				}
				return &pb.Response{Op: &pb.Response_Fetch{Fetch: &pb.FetchReply{NowMs: time.Now().Add(time.Minute).UnixMilli(), Mode: string(directory.Push)}}}
			}),
		})
		eventually(t, func() error {
			if !n.member(f.host.ID()) {
				return errors.New("not a member yet")
			}
			return nil
		})
	}
	eventually(t, func() error {
		all := n.Diagnose(t.Context(), false)
		return errors.Join(
			diagnosed(all, "clock", Failure, "1m0s behind", "timedatectl"),
			diagnosed(all, "discovery", Failure, "--discovery push"),
			diagnosed(all, "record", Failure, "none of"),
		)
	})
}

// Peers that are connected by TCP only are tried over QUIC, whose port may be
// closed.
func TestUDPIsTried(t *testing.T) {
	tcpOnly := func(ai peer.AddrInfo) peer.AddrInfo {
		var addrs []multiaddr.Multiaddr
		for _, a := range ai.Addrs {
			if !isQUIC(a) {
				addrs = append(addrs, a)
			}
		}
		return peer.AddrInfo{ID: ai.ID, Addrs: addrs}
	}
	for name, c := range map[string]struct {
		lies bool // about its QUIC address
		want Outcome
	}{"reached": {false, Fine}, "not reached": {true, Failure}} {
		t.Run(name, func(t *testing.T) {
			first := newTestNode(t, nil)
			first.run(t)
			n := newTestNode(t, func(c *Config) {
				c.Bootstrap = []peer.AddrInfo{tcpOnly(first.info())}
				c.Listen = []multiaddr.Multiaddr{addr(t, "/ip4/127.0.0.1/tcp/0")}
			})
			n.run(t)
			n.awaitReady(t)
			eventually(t, func() error {
				if len(n.members()) == 0 {
					return errors.New("not connected")
				}
				return nil
			})
			if c.lies {
				closed, err := net.ListenPacket("udp4", "127.0.0.1:0") // nobody reads from it
				if err != nil {
					t.Fatal(err)
				}
				defer closed.Close()
				ps := n.Host().Peerstore()
				ps.ClearAddrs(first.ID())
				port := closed.LocalAddr().(*net.UDPAddr).Port
				ps.AddAddrs(first.ID(), []multiaddr.Multiaddr{addr(t, fmt.Sprintf("/ip4/127.0.0.1/udp/%d/quic-v1", port))}, time.Hour)
			}
			if err := diagnosed(n.Diagnose(t.Context(), false), "udp", c.want); err != nil {
				t.Error(err)
			}
		})
	}
}

// Peers that have ended are told apart from those that only do not answer.
func TestLossOfPeersIsDiagnosed(t *testing.T) {
	nodes := newTestNetwork(t, 4)
	n := nodes[3]
	eventually(t, func() error {
		for _, p := range n.Peers() {
			if p.Told.IsZero() {
				return fmt.Errorf("%s has not said anything", p.ID)
			}
		}
		return nil
	})
	for _, gone := range nodes[1:3] {
		gone.stop()
	}
	eventually(t, func() error {
		return diagnosed(n.Diagnose(t.Context(), false), "partition", Warning, "2 have ended", nodes[1].ID().String()[44:])
	})
	nodes[0].host.RemoveStreamHandler(n.records) // connected, and mute
	nodes[0].host.SetStreamHandler(n.records, hang)
	all := n.Diagnose(t.Context(), false)
	for _, err := range []error{
		diagnosed(all, "partition", Failure, "1 no longer answers", nodes[0].ID().String()[44:]),
		diagnosed(all, "bootstrap", Warning, "does not answer"),
		diagnosed(all, "network", Failure, "none answers"),
	} {
		if err != nil {
			t.Error(err)
		}
	}
}
