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

// Mode names a Directory: the rule for which nodes hold the records of all. All
// modes share one protocol, one record and one policy. The mode must be the
// same at every node of a network.
type Mode string

// A kind is the set of a mode's properties.
type kind struct {
	mode Mode
	make func(View) Directory
	// listed: a list of servers determines the holders; else holders are
	// elected.
	listed bool
	// brokers: the listed servers hold for others, which need not be listed.
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

// Listed reports whether the mode needs a list of servers. In other modes the
// nodes elect holders among themselves.
func (m Mode) Listed() bool { return m.kind().listed }

// Brokers reports whether the listed servers hold for others, which need not be
// listed.
func (m Mode) Brokers() bool { return m.kind().brokers }

// Own reports whether each node holds its own record only.
func (m Mode) Own() bool { return m.kind().own }

// kind is the zero kind for an invalid mode.
func (m Mode) kind() kind {
	for _, k := range kinds {
		if k.mode == m {
			return k
		}
	}
	return kind{}
}

// A View is a Directory's view of the network. Its functions must be safe for
// concurrent use. In modes that are [Mode.Listed] only Servers is called, in
// the others all but Servers.
type View struct {
	ID        peer.ID // of this node
	Client    bool    // it holds nothing
	NetworkID string
	Live      *liveness.Detector // of other nodes

	Servers func() []peer.ID // listed, possibly including this node, by ID

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

// here returns peers without the unreachable ones.
func (v *View) here(now time.Time, peers []peer.ID) []peer.ID {
	return slices.DeleteFunc(slices.Clone(peers), func(p peer.ID) bool { return v.Live.Unreachable(now, p) })
}

// unexpired returns peers without those that have been silent for longer than a
// record's life: every record that only they may have held has expired.
func (v *View) unexpired(now time.Time, peers []peer.ID) []peer.ID {
	return slices.DeleteFunc(slices.Clone(peers), func(p peer.ID) bool { return v.Live.SilentFor(now, p, recordLife) })
}

// A Directory says which nodes hold the records of a topic, as one node sees it.
// Its methods are safe for concurrent use.
type Directory interface {
	// Holders returns the holders of topic to ask, without those that are down,
	// and keeps the cache for topic fresh. Known is false until they have been
	// looked up.
	Holders(now time.Time, topic holder.Topic) (h Holders, known bool)
	// Peek is Holders for a topic named by another node: nothing is cached for
	// it.
	Peek(now time.Time, topic holder.Topic) Holders
	// MayHold returns the nodes that may hold a valid record of topic, whether they
	// answer or not.
	MayHold(now time.Time, topic holder.Topic) []peer.ID
	// Voters returns the nodes that vote on topic's name, closest first, and
	// how many of them have to answer, so that any two publishers that claim a
	// name have a voter in common. Answered are nodes that a voter named as
	// closer and that have answered themselves.
	Voters(now time.Time, topic holder.Topic, answered []peer.ID) (list []peer.ID, must int)

	// Each returns the nodes to be asked for their own records, in the mode
	// where no node holds the records of others; own is false in every other
	// mode.
	Each() (nodes []peer.ID, own bool)
	// Complete reports whether one query finds all capacity records, whatever
	// their shards and regions.
	Complete(now time.Time) bool
	// Holds reports whether this node holds records of others.
	Holds() bool

	// Known encodes a publisher's known holders for a holder: a list for
	// Closer, or nothing in modes where no holder can know better.
	Known(holders []peer.ID) []byte
	// Closer returns the holders of topic that publisher, which knows those in
	// known, lacks.
	Closer(now time.Time, topic holder.Topic, publisher peer.ID, known []byte) []peer.ID
	// Meets reports whether p, which a holder named as closer, is to be checked
	// now. If it answers, [Cache.Add] adds it.
	Meets(now time.Time, p peer.ID) bool

	// Heir returns the node that becomes a holder of topic when this one leaves.
	Heir(now time.Time, topic holder.Topic) (peer.ID, bool)
	// Predecessor returns nil if from, as a former holder of topic, may hand
	// its records over to this node.
	Predecessor(now time.Time, topic holder.Topic, from peer.ID) error
}

// ErrNotHolder tells a publisher that this node is not a holder of its topic.
var ErrNotHolder = errors.New("this node holds no records of others: both nodes need the same discovery mode, and the same list of servers")

// ErrNotPredecessor tells a node that it may not hand records over.
var ErrNotPredecessor = errors.New("handed over by a node that was no holder of the topic")

// New returns the directory of mode, for a node with view. The mode is one that
// [ParseMode] returned.
func New(mode Mode, view View) Directory {
	return mode.kind().make(view)
}

// Holders are the nodes that hold one topic.
type Holders struct {
	Remote []peer.ID // closest first, without this node
	Self   bool      // this node is one of them
	All    bool      // every node is one, or this node holds everything
}

// Count is the number of holders.
func (h *Holders) Count() int {
	if h.Self {
		return len(h.Remote) + 1
	}
	return len(h.Remote)
}
