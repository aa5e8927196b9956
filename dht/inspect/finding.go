package inspect

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"weir/capacity"
	"weir/dht/directory"
)

// An Outcome is the result of one check.
type Outcome string

const (
	Fine    Outcome = "ok"
	Warning Outcome = "warn"
	Failure Outcome = "fail"
	Skipped Outcome = "skip" // there was nothing to check
)

// A Code is the result of a check in detail. Each belongs to one check; the
// comments name the facts that come with it.
type Code string

const (
	ListensNowhere Code = "listens-nowhere"
	ClientOnly     Code = "client-only" // it does not listen, as it should
	NoQUIC         Code = "no-quic"     // Addrs
	NoTCP          Code = "no-tcp"      // Addrs
	Listens        Code = "listens"     // Addrs

	AddressUnspecified  Code = "address-unspecified" // Addrs: one
	AddressNone         Code = "address-none"
	AddressLoopbackOpen Code = "address-loopback-open" // Addrs; though others should reach it
	AddressLoopbackFar  Code = "address-loopback-far"  // Addrs; though its peers are on other machines
	AddressLoopback     Code = "address-loopback"      // Addrs
	AddressAnnounced    Code = "address-announced"     // Addrs

	IdentityCopied    Code = "identity-copied"    // Record
	IdentityElsewhere Code = "identity-elsewhere" // Addrs: bootstrap peers with this node's own ID

	BootstrapReached   Code = "bootstrap-reached"   // Contact
	BootstrapUnreached Code = "bootstrap-unreached" // Contact, Fault, Network

	ServersUnlisted   Code = "servers-unlisted"    // Mode
	ServersBroker     Code = "servers-broker"      // this node is one
	ServersSelfAbsent Code = "servers-self-absent" // from its own list
	ServersSelfOnly   Code = "servers-self-only"
	ServersReached    Code = "servers-reached"   // Of, Untried
	ServersUnreached  Code = "servers-unreached" // Count, Of, Untried; Contact and Fault of the first, Network; Peers: the others

	NetworkForeign       Code = "network-foreign"        // Network, Peers: alone among nodes of other networks
	NetworkUnresponsive  Code = "network-unresponsive"   // Count: connected, none answers
	NetworkAlone         Code = "network-alone"          // Network; though it has addresses of others
	NetworkNoBootstrap   Code = "network-no-bootstrap"   // Addrs: its own
	NetworkForeignBeside Code = "network-foreign-beside" // Count, Peers
	NetworkJoined        Code = "network-joined"         // Count, Network

	UDPInUse      Code = "udp-in-use"  // Count
	UDPReaches    Code = "udp-reaches" // Count, Of
	UDPBlocked    Code = "udp-blocked" // Err
	UDPUnlistened Code = "udp-unlistened"
	UDPUntried    Code = "udp-untried"

	TableEmpty Code = "table-empty" // Client, Count: nodes connected
	Table      Code = "table"       // Client, Of: peers in it, Count: members connected

	ModeDiffers Code = "mode-differs" // Peers, Mode: theirs, OwnMode
	ModeAgrees  Code = "mode-agrees"  // OwnMode, Count: nodes asked

	RecordUnheld     Code = "record-unheld" // held by this node alone, as it should be
	RecordNone       Code = "record-none"   // none was published yet
	RecordOnlyBroker Code = "record-only-broker"
	RecordNoBroker   Code = "record-no-broker"
	RecordNoHolder   Code = "record-no-holder" // no other node could hold it
	RecordUnknown    Code = "record-unknown"   // Of, Err: no holder has answered
	RecordAbsent     Code = "record-absent"    // Count of Of do not have it, Silent
	RecordThin       Code = "record-thin"      // Count of Of have it, Silent
	RecordHeld       Code = "record-held"      // Count of Of have it, Silent

	PolicyUnasked  Code = "policy-unasked"  // Version: there is no peer to ask
	PolicyUnknown  Code = "policy-unknown"  // Version: no peer has answered
	PolicyStale    Code = "policy-stale"    // Version, Age
	PolicyCompared Code = "policy-compared" // Version, Age

	MembersUnreached Code = "members-unreached" // Count of Of; Contact and Fault of the first, Network
	MembersReached   Code = "members-reached"

	PeersLost      Code = "peers-lost"       // Count of Of, Peers: no longer answer
	PeersEnded     Code = "peers-ended"      // Count of Of, Peers: more than are left
	PeersEndedSome Code = "peers-ended-some" // Count of Of, Peers
	PeersForgotten Code = "peers-forgotten"  // Count of Of, Peers: remembered, and not reached
	PeersUnknown   Code = "peers-unknown"    // none is known
	PeersAllAnswer Code = "peers-all-answer"

	ClockUnknown   Code = "clock-unknown"    // no other is
	ClockOffOne    Code = "clock-off-one"    // Ahead, Peers: the only other one
	ClockOff       Code = "clock-off"        // Ahead: median, Count
	ClockOffOthers Code = "clock-off-others" // Peers
	ClockAgrees    Code = "clock-agrees"     // Ahead: median, Count
)

// A Finding is the result of one check, and its reason.
type Finding struct {
	Check   string // "bootstrap", "clock", …: several findings may share one
	Outcome Outcome
	Code    Code
	Facts
}

// Facts are the details that a code rests on; the code's comment names the
// fields that are set.
type Facts struct {
	Addrs   []multiaddr.Multiaddr
	Peers   []Peer
	Contact peer.AddrInfo
	Fault   Fault
	Network Network // this node's
	Mode    directory.Mode
	OwnMode directory.Mode
	Client  bool
	Record  *capacity.Record

	Count, Of int
	Silent    int // of Of: did not answer
	Untried   int // besides Of

	Version uint64
	Age     time.Duration
	Ahead   time.Duration // how far the others' clock is ahead of this node's
	Err     error
}

// A Peer is a peer that a finding names.
type Peer struct {
	ID      peer.ID
	Network string        // ID of another network that it is of
	Ahead   time.Duration // its clock, of this node's
}

func found(check string, o Outcome, code Code, f Facts) []Finding {
	return []Finding{{Check: check, Outcome: o, Code: code, Facts: f}}
}
