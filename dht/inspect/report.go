package inspect

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/multiformats/go-multiaddr"

	"weir/capacity"
	"weir/dht/directory"
)

const (
	// MetTime is how recently a peer must have answered for its absence to
	// count.
	MetTime = 10 * time.Minute
	// clockWarn and clockFail are how far a clock may be from the others'.
	// Tickets and leases last about as long as the second.
	clockWarn = 2 * time.Second
	clockFail = 10 * time.Second
)

// A Network identifies a network by its ID and name.
type Network struct {
	Name string // "" if only the ID is known
	ID   string
}

// A Report is the complete input of a diagnosis.
type Report struct {
	Self    peer.ID
	Network Network
	Open    bool // the node is meant to be reached from other machines
	Client  bool // it holds nothing and serves nothing
	Mode    directory.Mode

	Bound     []multiaddr.Multiaddr // listened on
	Addrs     []multiaddr.Multiaddr // announced to others
	Bootstrap []Contact
	Servers   []Contact // listed, without this node; a selection if there are many
	Untried   int       // further listed servers
	Listed    bool      // this node is among them
	Members   []Contact // connected, of this network
	Foreign   []Contact // connected, of other networks
	Gone      []Contact // known, but not connected: dialled just now
	Unmet     []Contact // known by their records only: dialled just now
	Table     int       // peers in the routing table
	QUIC      QUIC
	Record    OwnRecord
	Policy    Policy
	Said      map[peer.ID]SelfReport // by member
	Copy      *capacity.Record       // of another process with this node's identity
	SelfAt    []multiaddr.Multiaddr  // bootstrap addresses with this node's ID that are not its own
}

// SelfReport is a peer's report about itself.
type SelfReport struct {
	Mode  directory.Mode // "": not told
	Timed bool           // Ahead is known
	Ahead time.Duration  // how far its clock is ahead of this node's
}

// A Contact is one peer that should be reachable.
type Contact struct {
	Peer    peer.AddrInfo
	Err     error  // why it is not connected
	Silent  bool   // connected, but not answering
	Member  bool   // of this network
	Network string // ID of another network that it is of
	Met     bool   // it has answered within MetTime
}

// Reached reports whether it is connected, and of this network.
func (c *Contact) Reached() bool { return c.Err == nil && c.Member && !c.Silent }

// refused reports whether its machine refuses the connection: the process has
// ended, while a cut in the network is silent.
func (c *Contact) refused() bool { return errors.Is(c.Err, syscall.ECONNREFUSED) }

// QUIC is the result of reaching peers over UDP.
type QUIC struct {
	Listens   bool
	Connected int   // members
	Tried     int   // other members, dialled just now
	Reached   int   // of those
	Err       error // of the last that was not
}

// OwnRecord is which holders have this node's own record.
type OwnRecord struct {
	Published bool
	Holders   []peer.ID // that should have it, without this node
	Have      []peer.ID
	Silent    int // of Holders: asked without an answer
	Err       error
}

// Policy is the state of the operator's policy.
type Policy struct {
	Operated bool // there is an operator
	Version  uint64
	Heard    bool          // a peer has reported its version
	Age      time.Duration // since then
	Every    time.Duration // how often peers are compared with
}

// A Cause is why a peer is not reached.
type Cause string

const (
	NoCause      Cause = ""              // it is reached
	WrongID      Cause = "wrong-id"      // Fault.Peer answers there
	PortClosed   Cause = "port-closed"   // the machine refuses the connection
	NoRoute      Cause = "no-route"      //
	NoAddress    Cause = "no-address"    // none of it is known
	TimedOut     Cause = "timed-out"     //
	NameUnknown  Cause = "name-unknown"  // Fault.Text cannot be resolved
	DialFailed   Cause = "dial-failed"   // for the reason in Fault.Text
	OtherNetwork Cause = "other-network" // the one whose ID is Fault.Text
	NotWeir      Cause = "not-weir"      // it serves no network's protocol at all
	Unresponsive Cause = "unresponsive"  // it is connected, and does not answer
)

// A Fault is why a peer is not reached, with the details.
type Fault struct {
	Cause Cause
	Peer  peer.ID
	Text  string // a peer may have chosen it: at most 200 bytes, printable
}

// Fault returns why c is not reached.
func (c *Contact) Fault() Fault {
	switch {
	case c.Err != nil:
		return dialFault(c.Err)
	case c.Network != "":
		return Fault{Cause: OtherNetwork, Text: c.Network}
	case !c.Member:
		return Fault{Cause: NotWeir}
	case c.Silent:
		return Fault{Cause: Unresponsive}
	}
	return Fault{}
}

func dialFault(err error) Fault {
	var mismatch sec.ErrPeerIDMismatch
	var dns *net.DNSError
	switch {
	case errors.As(err, &mismatch):
		return Fault{Cause: WrongID, Peer: mismatch.Actual}
	case errors.Is(err, syscall.ECONNREFUSED):
		return Fault{Cause: PortClosed}
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return Fault{Cause: NoRoute}
	case errors.Is(err, swarm.ErrNoAddresses):
		return Fault{Cause: NoAddress}
	case isTimeout(err):
		return Fault{Cause: TimedOut}
	case errors.As(err, &dns):
		return Fault{Cause: NameUnknown, Text: dns.Name}
	}
	reason := err.Error()
	if failed := (*swarm.DialError)(nil); errors.As(err, &failed) && len(failed.DialErrors) > 0 {
		reason = failed.DialErrors[0].Cause.Error()
	}
	return Fault{Cause: DialFailed, Text: capacity.Printable(reason, 200)}
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

func isQUIC(a multiaddr.Multiaddr) bool {
	_, err := a.ValueForProtocol(multiaddr.P_QUIC_V1)
	return err == nil
}
