package doctor

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/multiformats/go-multiaddr"

	"weir/capacity"
	"weir/dht/directory"
	"weir/dht/inspect"
)

// diagnosed returns why the check of that name did not have outcome o with all
// of words in its sentences, or nil if it had.
func diagnosed(all []Check, name string, o inspect.Outcome, words ...string) error {
	for _, c := range all {
		said := c.Seen + " → " + c.Do
		missing := func(w string) bool { return !strings.Contains(said, w) }
		if c.Name == name && c.Outcome == o && !slices.ContainsFunc(words, missing) {
			return nil
		}
	}
	return fmt.Errorf("%s is not %s with %q; all: %+v", name, o, words, all)
}

func TestEachFinding(t *testing.T) {
	const ms = time.Millisecond
	at := func(s string) []multiaddr.Multiaddr { return []multiaddr.Multiaddr{multiaddr.StringCast(s)} }
	loopback, public := at("/ip4/127.0.0.1/tcp/1"), at("/ip4/192.0.2.1/tcp/1")
	quic := multiaddr.StringCast("/ip4/127.0.0.1/udp/1/quic-v1")
	who := func(id string) peer.AddrInfo { return peer.AddrInfo{ID: peer.ID(id), Addrs: loopback} }
	up := func(ids ...string) (list []inspect.Contact) {
		for _, id := range ids {
			list = append(list, inspect.Contact{Peer: who(id), Member: true, Met: true})
		}
		return list
	}
	down := func(err error, ids ...string) (list []inspect.Contact) {
		for _, id := range ids {
			list = append(list, inspect.Contact{Peer: who(id), Err: err})
		}
		return list
	}
	met := func(list []inspect.Contact) []inspect.Contact {
		for i := range list {
			list[i].Met = true
		}
		return list
	}
	clocks := func(ahead ...time.Duration) (e inspect.Report) {
		e.Said = map[peer.ID]inspect.SelfReport{}
		for i, d := range ahead {
			id := string(rune('a' + i))
			e.Members = append(e.Members, up(id)...)
			e.Said[peer.ID(id)] = inspect.SelfReport{Ahead: d, Timed: true}
		}
		return e
	}
	modes := func(own directory.Mode, others ...directory.Mode) (e inspect.Report) {
		e.Mode, e.Said = own, map[peer.ID]inspect.SelfReport{}
		for i, m := range others {
			id := string(rune('a' + i))
			e.Members = append(e.Members, up(id)...)
			e.Said[peer.ID(id)] = inspect.SelfReport{Mode: m}
		}
		return e
	}
	refused := &swarm.DialError{DialErrors: []swarm.TransportError{{Address: loopback[0], Cause: &net.OpError{Err: syscall.ECONNREFUSED}}}}
	stopped := inspect.Contact{Peer: who("s"), Member: true, Silent: true, Met: true}
	stranger := inspect.Contact{Peer: who("x"), Network: "abcd"}

	for _, c := range []struct {
		what  string
		e     inspect.Report
		name  string
		o     inspect.Outcome
		words []string
	}{
		{"both transports", inspect.Report{Bound: append(loopback, quic)}, "listening", inspect.Fine, nil},
		{"no QUIC", inspect.Report{Bound: loopback}, "listening", inspect.Warning, []string{"not on QUIC", "quic-v1"}},
		{"no TCP", inspect.Report{Bound: []multiaddr.Multiaddr{quic}}, "listening", inspect.Warning, []string{"not on TCP"}},
		{"nothing is listened on", inspect.Report{}, "listening", inspect.Failure, []string{"--listen"}},
		{"a client listens on nothing", inspect.Report{Client: true}, "listening", inspect.Fine, nil},

		{"no address", inspect.Report{}, "addresses", inspect.Failure, []string{"no address"}},
		{"loopback among itself", inspect.Report{Addrs: loopback}, "addresses", inspect.Fine, []string{"this machine"}},
		{"loopback, though open", inspect.Report{Addrs: loopback, Open: true}, "addresses", inspect.Failure, []string{"--insecure-open"}},
		{"loopback, with peers elsewhere", inspect.Report{Addrs: loopback, Bootstrap: []inspect.Contact{{Peer: peer.AddrInfo{ID: "p", Addrs: public}}}}, "addresses", inspect.Failure, []string{"other machines"}},
		{"a public address", inspect.Report{Addrs: append(loopback, public...), Open: true}, "addresses", inspect.Fine, []string{"192.0.2.1"}},
		{"an unspecified address", inspect.Report{Addrs: at("/ip4/0.0.0.0/tcp/1")}, "addresses", inspect.Failure, []string{"0.0.0.0"}},

		{"bootstrap refused", inspect.Report{Bootstrap: down(refused, "p")}, "bootstrap", inspect.Failure, []string{"refused", "/ip4/127.0.0.1/tcp/1", "start that node"}},
		{"one bootstrap peer of two", inspect.Report{Bootstrap: append(down(refused, "p"), up("q")...)}, "bootstrap", inspect.Warning, []string{"refused"}},
		{"bootstrap peers down, network there", inspect.Report{Bootstrap: down(refused, "p"), Members: up("q")}, "bootstrap", inspect.Warning, nil},
		{"no answer", inspect.Report{Bootstrap: down(context.DeadlineExceeded, "p")}, "bootstrap", inspect.Failure, []string{"no answer", "firewall"}},
		{"wrong ID", inspect.Report{Bootstrap: down(sec.ErrPeerIDMismatch{Actual: "other"}, "p")}, "bootstrap", inspect.Failure, []string{"another node answers", "/p2p/"}},
		{"no route", inspect.Report{Bootstrap: down(syscall.ENETUNREACH, "p")}, "bootstrap", inspect.Failure, []string{"no route"}},
		{"a name that is none", inspect.Report{Bootstrap: down(&net.DNSError{Name: "b.example", IsNotFound: true}, "p")}, "bootstrap", inspect.Failure, []string{"b.example", "resolved"}},
		{"something else", inspect.Report{Bootstrap: down(errors.New("odd\x1b[31m"), "p")}, "bootstrap", inspect.Failure, []string{"not reached: odd?[31m"}},
		{"another network", inspect.Report{Network: inspect.Network{Name: "ours", ID: "1234"}, Bootstrap: []inspect.Contact{stranger}}, "bootstrap", inspect.Failure, []string{"abcd", `"ours"`, "1234", "--network"}},
		{"no weir at all", inspect.Report{Bootstrap: []inspect.Contact{{Peer: who("p")}}}, "bootstrap", inspect.Failure, []string{"no weir node"}},
		{"stopped", inspect.Report{Bootstrap: []inspect.Contact{stopped}}, "bootstrap", inspect.Failure, []string{"does not answer"}},

		{"a copy of this node", inspect.Report{Copy: &capacity.Record{Name: "twin", URL: "http://192.0.2.1:8080", Addrs: public}}, "identity", inspect.Failure, []string{"another process", "twin", "http://192.0.2.1:8080", "--data-dir"}},
		{"a copy among the bootstrap peers", inspect.Report{SelfAt: public}, "identity", inspect.Failure, []string{"own ID", "192.0.2.1", "copy"}},

		{"a member behind a NAT", inspect.Report{Unmet: down(context.DeadlineExceeded, "p"), Members: up("q")}, "members", inspect.Failure, []string{"2 nodes known, 1 has never been reached", "no answer", "--public-ip"}},
		{"members never met are reached", inspect.Report{Unmet: up("p"), Members: up("q")}, "members", inspect.Fine, []string{"every node"}},
		{"a member that has just ended", inspect.Report{Unmet: down(refused, "p"), Members: up("q")}, "members", inspect.Fine, nil},

		{"an empty list", inspect.Report{Mode: directory.Pull}, "servers", inspect.Failure, []string{"--server-list"}},
		{"the only broker", inspect.Report{Mode: directory.Broker, Listed: true}, "servers", inspect.Fine, []string{"broker"}},
		{"all brokers up", inspect.Report{Mode: directory.Broker, Servers: up("b")}, "servers", inspect.Fine, nil},
		{"all brokers down", inspect.Report{Mode: directory.Broker, Servers: down(refused, "b", "c")}, "servers", inspect.Failure, []string{"2 of 2", "refused"}},
		{"one broker of two down", inspect.Report{Mode: directory.Broker, Servers: append(down(refused, "b"), up("c")...)}, "servers", inspect.Warning, []string{"1 of 2"}},
		{"most servers down", inspect.Report{Mode: directory.Push, Listed: true, Servers: append(down(refused, "b", "c"), up("d")...)}, "servers", inspect.Failure, []string{"2 of 3"}},
		{"a long list", inspect.Report{Mode: directory.Pull, Listed: true, Servers: up("b", "c"), Untried: 98}, "servers", inspect.Fine, []string{"all 2", "98 more"}},
		{"not in its own list", inspect.Report{Mode: directory.Push, Servers: up("b")}, "servers", inspect.Warning, []string{"not in its own list"}},
		{"only itself listed", inspect.Report{Mode: directory.Pull, Listed: true}, "servers", inspect.Warning, []string{"only this node"}},

		{"members", inspect.Report{Members: up("a", "b")}, "network", inspect.Fine, []string{"2 nodes"}},
		{"alone and told of nobody", inspect.Report{Addrs: loopback}, "network", inspect.Warning, []string{"--bootstrap", "/p2p/"}},
		{"alone, though told of others", inspect.Report{Bootstrap: down(refused, "p")}, "network", inspect.Failure, []string{"alone"}},
		{"alone, though others were known", inspect.Report{Gone: down(refused, "p")}, "network", inspect.Failure, []string{"alone"}},
		{"among strangers", inspect.Report{Foreign: []inspect.Contact{stranger}}, "network", inspect.Failure, []string{"abcd", "--network"}},
		{"strangers besides", inspect.Report{Members: up("a"), Foreign: []inspect.Contact{stranger}}, "network", inspect.Warning, []string{"abcd"}},
		{"members that are stopped", inspect.Report{Members: []inspect.Contact{stopped}}, "network", inspect.Failure, []string{"none answers"}},

		{"QUIC in use", inspect.Report{QUIC: inspect.QUIC{Connected: 1}}, "udp", inspect.Fine, nil},
		{"QUIC would work", inspect.Report{QUIC: inspect.QUIC{Tried: 2, Reached: 1}}, "udp", inspect.Fine, []string{"1 of 2"}},
		{"no UDP", inspect.Report{QUIC: inspect.QUIC{Tried: 2, Err: context.DeadlineExceeded}}, "udp", inspect.Failure, []string{"firewall"}},
		{"nobody to try UDP with", inspect.Report{QUIC: inspect.QUIC{Listens: true}}, "udp", inspect.Skipped, nil},

		{"an empty table", inspect.Report{Members: up("a")}, "dht", inspect.Failure, []string{"routing table"}},
		{"a table", inspect.Report{Members: up("a"), Table: 1, Client: true}, "dht", inspect.Fine, []string{"client"}},

		{"the same mode", modes(directory.Kademlia, directory.Kademlia, directory.Kademlia, ""), "discovery", inspect.Fine, []string{"all 2 nodes"}},
		{"another mode than all", modes(directory.Broker, directory.Kademlia, directory.Kademlia), "discovery", inspect.Failure, []string{"--discovery kademlia", "with broker"}},
		{"one that has another mode", modes(directory.Kademlia, directory.Kademlia, directory.Kademlia, directory.Push), "discovery", inspect.Warning, []string{"--discovery push"}},

		{"no holder has it", inspect.Report{Record: inspect.OwnRecord{Published: true, Holders: []peer.ID{"a", "b"}}}, "record", inspect.Failure, []string{"none of 2"}},
		{"a policy that nobody has been asked about", inspect.Report{Policy: inspect.Policy{Operated: true, Version: 3}, Members: up("a")}, "policy", inspect.Warning, []string{"version 3", "not known"}},
		{"a policy compared long ago", inspect.Report{Policy: inspect.Policy{Operated: true, Version: 3, Heard: true, Age: time.Hour}, Members: up("a")}, "policy", inspect.Warning, []string{"not known", "1h0m0s ago"}},
		{"a policy compared just now", inspect.Report{Policy: inspect.Policy{Operated: true, Version: 3, Heard: true, Age: time.Second, Every: time.Minute}, Members: up("a")}, "policy", inspect.Fine, []string{"version 3"}},
		{"no holder says whether it has it", inspect.Report{Record: inspect.OwnRecord{Published: true, Holders: []peer.ID{"a", "b"}, Silent: 2}}, "record", inspect.Failure, []string{"none of 2 holders has said in time"}},
		{"one holder lacks it, one is silent", inspect.Report{Record: inspect.OwnRecord{Published: true, Holders: []peer.ID{"a", "b"}, Silent: 1}}, "record", inspect.Failure, []string{"1 of 2 holders do not have it, and 1 did not answer"}},
		{"one holder has it, one is silent", inspect.Report{Record: inspect.OwnRecord{Published: true, Holders: []peer.ID{"a", "b"}, Have: []peer.ID{"a"}, Silent: 1}}, "record", inspect.Fine, []string{"1 of 2", "1 did not answer"}},
		{"few have it", inspect.Report{Record: inspect.OwnRecord{Published: true, Holders: []peer.ID{"a", "b", "c"}, Have: []peer.ID{"a"}}}, "record", inspect.Warning, []string{"1 of 3"}},
		{"all have it", inspect.Report{Record: inspect.OwnRecord{Published: true, Holders: []peer.ID{"a"}, Have: []peer.ID{"a"}}}, "record", inspect.Fine, []string{"1 of 1"}},
		{"no broker to hold it", inspect.Report{Mode: directory.Broker, Servers: down(refused, "b"), Record: inspect.OwnRecord{Published: true}}, "record", inspect.Failure, []string{"no broker"}},
		{"nobody to hold it", inspect.Report{Record: inspect.OwnRecord{Published: true}}, "record", inspect.Skipped, nil},
		{"nobody is to hold it", inspect.Report{Mode: directory.Pull}, "record", inspect.Fine, nil},

		{"nobody is gone", inspect.Report{Members: up("a")}, "partition", inspect.Fine, nil},
		{"most are gone", inspect.Report{Members: up("a"), Gone: met(down(context.DeadlineExceeded, "b", "c"))}, "partition", inspect.Failure, []string{"of 3 nodes", "2 no longer answer", "cut"}},
		{"most are stopped", inspect.Report{Members: append(up("a"), stopped, stopped)}, "partition", inspect.Failure, []string{"2 no longer answer"}},
		{"one is gone", inspect.Report{Members: up("a", "b"), Gone: met(down(syscall.EHOSTUNREACH, "c"))}, "partition", inspect.Warning, []string{"1 no longer answers"}},
		{"most have ended", inspect.Report{Members: up("a"), Gone: met(down(refused, "b", "c"))}, "partition", inspect.Warning, []string{"2 have ended", "logs"}},
		{"one has ended", inspect.Report{Members: up("a"), Gone: met(down(refused, "b"))}, "partition", inspect.Fine, []string{"1 has ended"}},
		{"old ones are gone", inspect.Report{Members: up("a"), Gone: down(context.DeadlineExceeded, "b", "c")}, "partition", inspect.Warning, []string{"remembered"}},
		{"all old ones are gone", inspect.Report{Gone: down(context.DeadlineExceeded, "b")}, "partition", inspect.Failure, []string{"remembered"}},
		{"old ones have ended", inspect.Report{Members: up("a"), Gone: down(refused, "b", "c")}, "partition", inspect.Fine, nil},
		{"a known one was reached again", inspect.Report{Members: up("a", "b"), Gone: up("b")}, "partition", inspect.Fine, nil},
		{"many are gone", inspect.Report{Gone: met(down(context.DeadlineExceeded, "a", "b", "c", "d", "e", "f"))}, "partition", inspect.Failure, []string{"and 2 more"}},

		{"clocks agree", clocks(3*ms, -5*ms, 100*ms), "clock", inspect.Fine, []string{"median of 3"}},
		{"behind", clocks(12_000*ms, 11_000*ms, 12_000*ms), "clock", inspect.Failure, []string{"12s behind", "timedatectl", "this machine"}},
		{"ahead", clocks(-3_000*ms, -3_000*ms), "clock", inspect.Warning, []string{"3s ahead of"}},
		{"one other, either wrong", clocks(60_000 * ms), "clock", inspect.Failure, []string{"either may be wrong"}},
		{"one that is wrong", clocks(0, 60_000*ms, 1*ms), "clock", inspect.Warning, []string{"+60.0 s", "those machines"}},
		{"two that contradict", clocks(0, 60_000*ms), "clock", inspect.Warning, []string{"+60.0 s"}},
		{"no clock", inspect.Report{Members: up("a")}, "clock", inspect.Skipped, nil},
	} {
		e := c.e
		if e.Mode == "" {
			e.Mode = directory.Kademlia
		}
		all := WordAll(e.Findings())
		if err := diagnosed(all, c.name, c.o, c.words...); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		for _, k := range all {
			if k.Seen == "" || strings.Contains(k.Seen, "%!") || k.Do == "" && (k.Outcome == inspect.Warning || k.Outcome == inspect.Failure) {
				t.Errorf("%s: %+v does not say what was seen, or what to do", c.what, k)
			}
		}
	}
}

// Every code has a sentence, and a code without one is shown as it is.
func TestEachCodeHasWords(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "../../../dht/inspect/finding.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	codes := 0
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		if kind, ok := spec.Type.(*ast.Ident); ok && kind.Name == "Code" {
			codes++
			code := inspect.Code(strings.Trim(spec.Values[0].(*ast.BasicLit).Value, `"`))
			if words[code] == nil {
				t.Errorf("%s has no words", code)
			}
		}
		return true
	})
	if codes != len(words) {
		t.Errorf("%d codes, %d have words", codes, len(words))
	}
	for _, o := range []inspect.Outcome{inspect.Fine, inspect.Warning, inspect.Failure, inspect.Skipped} {
		c := Word(inspect.Finding{Check: "moon", Outcome: o, Code: "moon-gone"})
		if c.Name != "moon" || c.Outcome != o || !strings.Contains(c.Seen, "moon-gone") || (c.Do == "") != (o == inspect.Fine || o == inspect.Skipped) {
			t.Errorf("an unknown code: %+v", c)
		}
	}
}
