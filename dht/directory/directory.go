package directory

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	kb "github.com/libp2p/go-libp2p-kbucket"
	"github.com/libp2p/go-libp2p/core/peer"

	"weir/dht/holder"
	"weir/dht/liveness"
)

// Mode names a Directory: which nodes hold the records of all. One protocol, one
// record and one policy serve every mode, which must be the same at every node of
// a network.
type Mode string

// A kind is what a mode is made of.
type kind struct {
	mode Mode
	make func(View) Directory
	// listed: a list of servers says who holds; else holders are elected.
	listed bool
	// brokers: those listed hold for others, which need not be on the list.
	brokers bool
	// own: each node holds its own record only.
	own bool
}

// kinds are all modes, the default one first.
var kinds = []kind{
	{mode: Kademlia, make: newKademlia},
	{mode: Broker, make: newBroker, listed: true, brokers: true},
	{mode: Pull, make: newPull, listed: true, own: true},
	{mode: Push, make: newPush, listed: true},
}

// Modes are all modes, the default one first.
func Modes() []Mode {
	list := make([]Mode, len(kinds))
	for i, k := range kinds {
		list[i] = k.mode
	}
	return list
}

// ParseMode reads a Mode; "" is Kademlia.
func ParseMode(s string) (Mode, error) {
	if s == "" {
		return kinds[0].mode, nil
	}
	names := make([]string, len(kinds))
	for i, k := range kinds {
		if k.mode == Mode(s) {
			return k.mode, nil
		}
		names[i] = string(k.mode)
	}
	last := len(names) - 1
	return "", fmt.Errorf("discovery %q: want %s or %s", s, strings.Join(names[:last], ", "), names[last])
}

// Listed reports whether the mode goes by a list of servers. In other modes the
// nodes elect holders among themselves.
func (m Mode) Listed() bool { return m.kind().listed }

// Brokers reports whether the servers listed hold for others, which need not be
// on the list.
func (m Mode) Brokers() bool { return m.kind().brokers }

// Own reports whether each node holds its own record only.
func (m Mode) Own() bool { return m.kind().own }

// kind is the zero one for what is no mode.
func (m Mode) kind() kind {
	for _, k := range kinds {
		if k.mode == m {
			return k
		}
	}
	return kind{}
}

// A View is what a Directory knows of the network. Its functions must be safe for
// concurrent use. In modes that are [Mode.Listed] only Servers is called, in the
// others all but Servers.
type View struct {
	ID        peer.ID // of this node
	Client    bool    // it holds nothing
	NetworkID string
	Live      *liveness.Detector // of other nodes

	Servers func() []peer.ID // listed, this node perhaps among them, by ID

	Cache  *Cache
	Home   func() holder.Topic       // in which this node publishes its capacity
	Near   func(key kb.ID) []peer.ID // in the routing table, nearest to key
	Member func(p peer.ID) bool      // it is a node of this network
}

// self is the node's ID as a holder, "" in a client.
func (v *View) self() peer.ID {
	if v.Client {
		return ""
	}
	return v.ID
}

// here leaves out of peers those that are unreachable.
func (v *View) here(now time.Time, peers []peer.ID) []peer.ID {
	return slices.DeleteFunc(slices.Clone(peers), func(p peer.ID) bool { return v.Live.Unreachable(now, p) })
}

// unexpired leaves out of peers those that have been silent for longer than a
// record lives: no record is valid any more that only they may have held.
func (v *View) unexpired(now time.Time, peers []peer.ID) []peer.ID {
	return slices.DeleteFunc(slices.Clone(peers), func(p peer.ID) bool { return v.Live.SilentFor(now, p, recordLife) })
}

// A Directory says which nodes hold the records of a topic, as one node sees it.
// Its methods are safe for concurrent use.
type Directory interface {
	// Holders returns the holders of topic to ask, those left out that are down,
	// and keeps what is known of them fresh. Known is false until they have been
	// looked up.
	Holders(now time.Time, topic holder.Topic) (h Holders, known bool)
	// Peek is Holders for a topic that another node named: nothing is kept of it.
	Peek(now time.Time, topic holder.Topic) Holders
	// MayHold returns the nodes that may hold a valid record of topic, whether they
	// answer or not.
	MayHold(now time.Time, topic holder.Topic) []peer.ID
	// Voters returns the nodes that have to know of topic's name, closest first,
	// and how many of them have to answer, so that any two publishers that take a
	// name have a voter in common. Answered are nodes that a voter named as closer
	// and that have answered themselves.
	Voters(now time.Time, topic holder.Topic, answered []peer.ID) (list []peer.ID, must int)

	// Each returns the nodes to be asked each for its own record where nobody holds
	// what others publish; own is false in every other mode.
	Each() (nodes []peer.ID, own bool)
	// Whole reports whether all capacity records are found with one question,
	// whatever their shards and regions.
	Whole(now time.Time) bool
	// Holds reports whether this node holds what others publish.
	Holds() bool

	// Known is what a publisher tells a holder of the holders it knows: a list as
	// Closer reads it, or nothing where nobody can know better.
	Known(holders []peer.ID) []byte
	// Closer returns the holders of topic that publisher, which knows those in
	// known, lacks.
	Closer(now time.Time, topic holder.Topic, publisher peer.ID, known []byte) []peer.ID
	// Meets reports whether p, which a holder named as closer, is to be checked
	// now. One that answers is added by [Cache.Add].
	Meets(now time.Time, p peer.ID) bool

	// Heir returns the node that becomes a holder of topic when this one leaves.
	Heir(now time.Time, topic holder.Topic) (peer.ID, bool)
	// Predecessor is nil if from may hand records of topic over to this node: it
	// was a holder of them.
	Predecessor(now time.Time, topic holder.Topic, from peer.ID) error
}

// ErrNotHolder tells a publisher that it has come to the wrong node.
var ErrNotHolder = errors.New("this node holds no records of others: both nodes need the same discovery mode, and the same list of servers")

// ErrNotPredecessor tells a node that it may not hand records over.
var ErrNotPredecessor = errors.New("handed over by a node that was no holder of the topic")

// New returns the directory of mode, as a node with view sees it. The mode is one
// that [ParseMode] returned.
func New(mode Mode, view View) Directory {
	return mode.kind().make(view)
}

// Holders are the nodes that hold one topic.
type Holders struct {
	Remote []peer.ID // closest first, without this node
	Self   bool      // this node is one of them
	All    bool      // every node is one, or this node holds everything
}

// Count is how many there are.
func (h *Holders) Count() int {
	if h.Self {
		return len(h.Remote) + 1
	}
	return len(h.Remote)
}
