package doctor

import (
	"fmt"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"weir/cmd/weir/term"
	"weir/dht/inspect"
)

// maxNamed bounds the peers and addresses named in one sentence.
const maxNamed = 4

// A sentence says what was seen, and what to do about it; do is "" if nothing
// is wrong.
type sentence struct{ seen, do string }

// words has a sentence for each code.
var words = map[inspect.Code]func(*inspect.Finding) sentence{
	inspect.ClientOnly:     says("on nothing: this node is a client"),
	inspect.ListensNowhere: says("on nothing: no other node can reach this one", "give --listen, for example /ip4/0.0.0.0/tcp/4001 and /ip4/0.0.0.0/udp/4001/quic-v1"),
	inspect.NoQUIC: func(f *inspect.Finding) sentence {
		return sentence{fmt.Sprintf("on TCP, but not on QUIC (%s)", addrs(f.Addrs)), "add --listen /ip4/…/udp/PORT/quic-v1: keepalives then go by datagram, and cost less"}
	},
	inspect.NoTCP: func(f *inspect.Finding) sentence {
		return sentence{fmt.Sprintf("on QUIC, but not on TCP (%s)", addrs(f.Addrs)), "add --listen /ip4/…/tcp/PORT: some networks let no UDP through"}
	},
	inspect.Listens: func(f *inspect.Finding) sentence { return sentence{seen: "on " + addrs(f.Addrs)} },

	inspect.AddressUnspecified: func(f *inspect.Finding) sentence {
		return sentence{fmt.Sprintf("%s is announced, which is the address of no machine", addrs(f.Addrs)), "listen on the addresses that others reach this machine by"}
	},
	inspect.AddressNone:      says("this node announces no address", "give --listen an address of this machine, and look at whether its network is up"),
	inspect.AddressAnnounced: func(f *inspect.Finding) sentence { return sentence{seen: "announced: " + addrs(f.Addrs)} },
	inspect.AddressLoopbackOpen: func(f *inspect.Finding) sentence {
		return sentence{fmt.Sprintf("only loopback addresses are announced (%s), though --insecure-open is given: no other machine can reach this node", addrs(f.Addrs)),
			"give --listen /ip4/0.0.0.0/tcp/PORT and /ip4/0.0.0.0/udp/PORT/quic-v1, or leave --insecure-open out"}
	},
	inspect.AddressLoopbackFar: func(f *inspect.Finding) sentence {
		return sentence{fmt.Sprintf("only loopback addresses are announced (%s), but this node is to join others on other machines", addrs(f.Addrs)),
			"give --listen an address that other machines can reach, and --insecure-open if the network around is closed"}
	},
	inspect.AddressLoopback: func(f *inspect.Finding) sentence {
		return sentence{seen: fmt.Sprintf("loopback only (%s): the network is this machine", addrs(f.Addrs))}
	},

	inspect.IdentityCopied: func(f *inspect.Finding) sentence {
		return sentence{fmt.Sprintf("another process uses it too: holders have a record of it that this one did not publish, of the node %s (%s, %s)",
			or(f.Record.Name, "without a name"), or(f.Record.URL, "no URL"), addrs(f.Record.Addrs)), ownIdentity}
	},
	inspect.IdentityElsewhere: func(f *inspect.Finding) sentence {
		return sentence{fmt.Sprintf("--bootstrap names this node's own ID at %s, which is no address of its own", addrs(f.Addrs)),
			"take the address out of --bootstrap if it is an old one; else a copy of this node runs there: " + ownIdentity}
	},

	inspect.BootstrapReached:   contact,
	inspect.BootstrapUnreached: contact,

	inspect.ServersUnlisted: func(f *inspect.Finding) sentence {
		return sentence{fmt.Sprintf("none is listed: with --discovery %s no other node is found", f.Mode), "put the servers into --server-list, or give --server for each"}
	},
	inspect.ServersBroker:     says("this node is a broker: it holds the records of all"),
	inspect.ServersSelfAbsent: says("this node is not in its own list: others that have the same one do not find it", "add this node to the list of servers of every node"),
	inspect.ServersSelfOnly:   says("only this node is listed", "list the other servers too"),
	inspect.ServersReached: func(f *inspect.Finding) sentence {
		return sentence{seen: number(f.Of, "the other server listed is", fmt.Sprintf("all %d others listed are", f.Of)) + " reached" + untried(f)}
	},
	inspect.ServersUnreached: func(f *inspect.Finding) sentence {
		s := contact(f)
		if len(f.Peers) > 0 {
			s.seen += "; the others: " + peers(f.Peers)
		}
		return sentence{fmt.Sprintf("%d of %d others listed %s not reached%s: %s", f.Count, f.Of, number(f.Count, "is", "are"), untried(f), s.seen),
			s.do + "; take servers that are gone for good off the list"}
	},

	inspect.NetworkForeign: func(f *inspect.Finding) sentence {
		return sentence{fmt.Sprintf("alone in network %q (ID %s): the peers connected are of others: %s", f.Network.Name, f.Network.ID, peers(f.Peers)), "give all nodes the same --network"}
	},
	inspect.NetworkUnresponsive: func(f *inspect.Finding) sentence {
		return sentence{nodes(f.Count) + " connected, but none answers", "look at those nodes, and at the network between"}
	},
	inspect.NetworkAlone: func(f *inspect.Finding) sentence {
		return sentence{fmt.Sprintf("alone: no other node of network %q is reached", f.Network.Name),
			"see the other lines about the nodes that it should reach or knows; one of them suffices, and weir keeps trying"}
	},
	inspect.NetworkNoBootstrap: func(f *inspect.Finding) sentence {
		return sentence{"alone: no other node is connected, and this one has no address to join by",
			"if others are up, give --bootstrap the address of one; others join this node by " + bootstrapAddr(f.Contact.ID, f.Addrs)}
	},
	inspect.NetworkForeignBeside: func(f *inspect.Finding) sentence {
		return sentence{fmt.Sprintf("%s connected; but also nodes of other networks: %s", nodes(f.Count), peers(f.Peers)),
			"give those nodes the same --network, or take this one's address from them"}
	},
	inspect.NetworkJoined: func(f *inspect.Finding) sentence {
		return sentence{seen: fmt.Sprintf("%s of network %q connected", nodes(f.Count), f.Network.Name)}
	},

	inspect.UDPInUse: func(f *inspect.Finding) sentence { return sentence{seen: nodes(f.Count) + " connected over it (QUIC)"} },
	inspect.UDPReaches: func(f *inspect.Finding) sentence {
		return sentence{seen: fmt.Sprintf("%d of %d nodes tried are reached over it (QUIC)", f.Count, f.Of)}
	},
	inspect.UDPBlocked: func(f *inspect.Finding) sentence {
		return sentence{fmt.Sprintf("no node is reached over it, though over TCP they are: %v", f.Err),
			"let UDP through the firewalls on the way, to the same port as TCP; media needs UDP anyway"}
	},
	inspect.UDPUnlistened: says("not tried: this node does not listen on QUIC"),
	inspect.UDPUntried:    says("not tried: no node is connected that listens on QUIC"),

	inspect.TableEmpty: func(f *inspect.Finding) sentence {
		return sentence{fmt.Sprintf("%s, with an empty routing table though %s connected", role(f), nodes(f.Count)),
			"restart this node; if that does not help, those nodes may be clients, or run an older weir"}
	},
	inspect.Table: func(f *inspect.Finding) sentence {
		return sentence{seen: fmt.Sprintf("%s, with %s in the routing table and %d connected", role(f), nodes(f.Of), f.Count)}
	},

	inspect.ModeDiffers: func(f *inspect.Finding) sentence {
		return sentence{fmt.Sprintf("%s %s with --discovery %s, this node with %s: they do not find each other's records", peers(f.Peers), number(len(f.Peers), "runs", "run"), f.Mode, f.OwnMode),
			"give the same --discovery to every node"}
	},
	inspect.ModeAgrees: func(f *inspect.Finding) sentence {
		if f.Count == 0 {
			return sentence{seen: string(f.OwnMode)}
		}
		return sentence{seen: fmt.Sprintf("%s, as at %s asked", f.OwnMode, number(f.Count, "the other node", fmt.Sprintf("all %d nodes", f.Count)))}
	},

	inspect.RecordUnheld: func(f *inspect.Finding) sentence {
		return sentence{seen: "held by this node alone, as it is meant to be with --discovery " + string(f.Mode)}
	},
	inspect.RecordNone:       says("this node has published none yet"),
	inspect.RecordOnlyBroker: says("held here: this node is the only broker that is up"),
	inspect.RecordNoBroker:   says("held by no node: no broker is reached", "start a broker; the node then publishes by itself"),
	inspect.RecordNoHolder:   says("no other node is known that could hold it"),
	inspect.RecordUnknown: func(f *inspect.Finding) sentence {
		seen := fmt.Sprintf("none of %d holders has said in time whether it has this node's record", f.Of)
		if f.Err != nil {
			seen += fmt.Sprintf(" (%v)", f.Err)
		}
		return sentence{seen, "try again; then look at the holders, which weir peers marks"}
	},
	inspect.RecordAbsent: func(f *inspect.Finding) sentence {
		if f.Silent > 0 {
			return sentence{fmt.Sprintf("%d of %d holders do not have it, and %d did not answer", f.Count, f.Of, f.Silent), patience + "then look at the holders, which weir peers marks"}
		}
		return sentence{number(f.Of, "its only holder does not have it", fmt.Sprintf("none of %d holders has it", f.Of)) + ": no node will choose this one",
			patience + "else look at its log with --log-level debug for why records are refused"}
	},
	inspect.RecordThin: func(f *inspect.Finding) sentence {
		return sentence{fmt.Sprintf("only %d of %d holders have it%s", f.Count, f.Of, silent(f)), patience + "else look at the holders, which weir peers marks"}
	},
	inspect.RecordHeld: func(f *inspect.Finding) sentence {
		return sentence{seen: fmt.Sprintf("held by %d of %d other holders%s", f.Count, f.Of, silent(f))}
	},

	inspect.PolicyUnasked: func(f *inspect.Finding) sentence {
		return sentence{seen: version(f) + "; there is no peer to ask for a newer one"}
	},
	inspect.PolicyUnknown: func(f *inspect.Finding) sentence {
		return sentence{version(f) + "; whether there is a newer one is not known: no peer has said which it holds", patience + "then look at the peers"}
	},
	inspect.PolicyStale: func(f *inspect.Finding) sentence {
		return sentence{fmt.Sprintf("%s; whether there is a newer one is not known: the last peer said which it holds %v ago", version(f), f.Age.Round(time.Second)), "look at the peers, by weir peers"}
	},
	inspect.PolicyCompared: func(f *inspect.Finding) sentence {
		return sentence{seen: fmt.Sprintf("%s, compared with a peer %v ago", version(f), f.Age.Round(time.Second))}
	},

	inspect.MembersReached: says("every node that holders have a record of, and that was tried, is reached"),
	inspect.MembersUnreached: func(f *inspect.Finding) sentence {
		seen := contact(f).seen
		if f.Count > 1 {
			seen += fmt.Sprintf("; and %d more", f.Count-1)
		}
		return sentence{
			fmt.Sprintf("of %s known, %d %s never been reached, though %s published: %s", nodes(f.Of), f.Count, number(f.Count, "has", "have"), number(f.Count, "its record is", "their records are"), seen),
			"of a node behind a NAT, say where it is reached: --public-ip; and let TCP and UDP through to the port of its --listen",
		}
	},

	inspect.PeersLost: func(f *inspect.Finding) sentence {
		return sentence{fmt.Sprintf("of %s met in the last %d minutes, %d no longer %s: %s", nodes(f.Of), metMinutes, f.Count, number(f.Count, "answers", "answer"), peers(f.Peers)), cut}
	},
	inspect.PeersForgotten: func(f *inspect.Finding) sentence {
		if f.Count == f.Of {
			return sentence{fmt.Sprintf("of %s remembered from before, none is reached: %s", nodes(f.Of), peers(f.Peers)), cut}
		}
		return sentence{fmt.Sprintf("of %s remembered from before, %d are not reached: %s", nodes(f.Of), f.Count, peers(f.Peers)), cut}
	},
	inspect.PeersEnded: func(f *inspect.Finding) sentence {
		return sentence{fmt.Sprintf("of %s met in the last %d minutes, %d %s ended: %s", nodes(f.Of), metMinutes, f.Count, number(f.Count, "has", "have"), peers(f.Peers)),
			"start them again if they were not ended on purpose; their logs say why they ended"}
	},
	inspect.PeersEndedSome: func(f *inspect.Finding) sentence {
		return sentence{seen: fmt.Sprintf("of %s met in the last %d minutes, %d %s ended, and the rest answer: %s", nodes(f.Of), metMinutes, f.Count, number(f.Count, "has", "have"), peers(f.Peers))}
	},
	inspect.PeersUnknown: says("no other node is known"),
	inspect.PeersAllAnswer: func(*inspect.Finding) sentence {
		return sentence{seen: fmt.Sprintf("every node met in the last %d minutes answers", metMinutes)}
	},

	inspect.ClockUnknown: says("no other node's clock is known yet"),
	inspect.ClockOffOne: func(f *inspect.Finding) sentence {
		return sentence{fmt.Sprintf("this node's is %s that of the only other node known, %s; either may be wrong", offset(f), peerID(f.Peers[0].ID)), setClocks + ", on both machines"}
	},
	inspect.ClockOff: func(f *inspect.Finding) sentence {
		return sentence{fmt.Sprintf("this node's is %s those of the others (median of %d)", offset(f), f.Count), setClocks + ", on this machine"}
	},
	inspect.ClockOffOthers: func(f *inspect.Finding) sentence {
		return sentence{"this node's agrees with most others, but not with " + peers(f.Peers), setClocks + ", on those machines"}
	},
	inspect.ClockAgrees: func(f *inspect.Finding) sentence {
		return sentence{seen: fmt.Sprintf("within %d ms of the other nodes' (median of %d)", f.Ahead.Abs().Milliseconds()+1, f.Count)}
	},
}

const (
	metMinutes  = int(inspect.MetTime / time.Minute)
	ownIdentity = "give one of the two an identity of its own: start it with a --data-dir that was not copied"
	patience    = "wait some seconds if the node has just started; "
	cut         = "if they were not ended on purpose, look at whether the network between is cut; weir joins them again by itself once it is not"
	setClocks   = "set the clocks by NTP: timedatectl set-ntp true, and timedatectl shows whether it works"
)

// says returns a sentence that uses no facts of the finding.
func says(seen string, do ...string) func(*inspect.Finding) sentence {
	s := sentence{seen: seen, do: strings.Join(do, "")}
	return func(*inspect.Finding) sentence { return s }
}

// contact describes the outcome of the attempt to reach f.Contact.
func contact(f *inspect.Finding) sentence {
	where := fmt.Sprintf("%s at %s", peerID(f.Contact.ID), addrs(f.Contact.Addrs))
	switch fault := f.Fault; fault.Cause {
	case inspect.NoCause:
		return sentence{seen: where + " is connected"}
	case inspect.OtherNetwork:
		return sentence{fmt.Sprintf("%s is a node of another network (ID %s; this one is %q, ID %s)", where, fault.Text, f.Network.Name, f.Network.ID),
			"give both nodes the same --network, or name a node of this one"}
	case inspect.NotWeir:
		return sentence{where + " answers, but is no weir node that serves others", "name a running weir node"}
	case inspect.Unresponsive:
		return sentence{where + " is connected, but does not answer", "look at that node: it is stopped, or has no CPU left"}
	case inspect.WrongID:
		return sentence{fmt.Sprintf("%s: another node answers there: %s", where, fault.Peer), "correct the ID after /p2p/, if that is the node meant: it has another identity now (another --data-dir?)"}
	case inspect.PortClosed:
		return sentence{where + ": connection refused: nothing listens there", "start that node, or correct the port: it prints its addresses at start, and weir status shows them"}
	case inspect.NoRoute:
		return sentence{where + ": no route to that machine", "look at this machine's network, and at the address"}
	case inspect.NoAddress:
		return sentence{where + ": no address of it is known", "name one, or wait until another node reports it"}
	case inspect.TimedOut:
		return sentence{where + ": no answer in time", "look at whether that machine is up, and whether a firewall between lets TCP and UDP through to that port"}
	case inspect.NameUnknown:
		return sentence{fmt.Sprintf("%s: its name %s cannot be resolved", where, fault.Text), "correct the name, or give an IP address"}
	default:
		return sentence{where + ": not reached: " + or(fault.Text, string(fault.Cause)), "look at that node, and at the address"}
	}
}

func peerID(p peer.ID) string {
	s := p.String()
	return "…" + s[max(0, len(s)-8):]
}

// peers names some of list, each with its fault.
func peers(list []inspect.Peer) string {
	var names []string
	for _, p := range list {
		name := peerID(p.ID)
		switch {
		case p.Network != "":
			name += fmt.Sprintf(" (network ID %s)", p.Network)
		case p.Ahead != 0:
			name += fmt.Sprintf(" (%+.1f s)", p.Ahead.Seconds())
		}
		names = append(names, name)
	}
	return some(names)
}

func addrs(list []multiaddr.Multiaddr) string {
	if len(list) == 0 {
		return "no address"
	}
	var names []string
	for _, a := range list {
		names = append(names, a.String())
	}
	return some(names)
}

func some(names []string) string {
	if len(names) > maxNamed {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:maxNamed], ", "), len(names)-maxNamed)
	}
	return strings.Join(names, ", ")
}

// bootstrapAddr is the --bootstrap value for other nodes.
func bootstrapAddr(id peer.ID, addrs []multiaddr.Multiaddr) string {
	if len(addrs) == 0 {
		return "/p2p/" + id.String()
	}
	return addrs[0].String() + "/p2p/" + id.String()
}

func role(f *inspect.Finding) string {
	if f.Client {
		return "client"
	}
	return "server"
}

func version(f *inspect.Finding) string {
	if f.Version == 0 {
		return "none of the operator's has arrived"
	}
	return fmt.Sprintf("version %d is in force", f.Version)
}

func silent(f *inspect.Finding) string {
	if f.Silent == 0 {
		return ""
	}
	return fmt.Sprintf("; %d did not answer", f.Silent)
}

func untried(f *inspect.Finding) string {
	if f.Untried == 0 {
		return ""
	}
	return fmt.Sprintf(" (%d more are listed and were not tried)", f.Untried)
}

// offset describes the difference between this node's clock and others'.
func offset(f *inspect.Finding) string {
	way := "behind"
	if f.Ahead < 0 {
		way = "ahead of"
	}
	return fmt.Sprintf("%v %s", f.Ahead.Abs().Round(100*time.Millisecond), way)
}

func nodes(n int) string { return term.Count(n, "node", "nodes") }

func number(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

func or(s, instead string) string {
	if s == "" {
		return instead
	}
	return s
}
