package directory

import (
	"slices"
	"time"

	kb "github.com/libp2p/go-libp2p-kbucket"
	"github.com/libp2p/go-libp2p/core/peer"

	"weir/dht/holder"
)

// Kademlia mode: the nodes closest to a topic's key hold it.
const Kademlia Mode = "kademlia"

// rememberHeard is how long a node that has answered, and has not left, may be
// asked for the names of streams, even if kad-dht has dropped it.
const rememberHeard = time.Minute

// kademlia elects holders among the nodes found by look-ups, those named by
// other holders, and those in the routing table.
type kademlia struct{ View }

func newKademlia(v View) Directory { return &kademlia{v} }

func (k *kademlia) key(topic holder.Topic) kb.ID { return kb.ConvertKey(topic.Key(k.NetworkID)) }

// Holders are elected. For the topic of all capacity, they are those of the
// node's own shard.
func (k *kademlia) Holders(now time.Time, topic holder.Topic) (h Holders, known bool) {
	if topic == holder.CapacityTopic() {
		topic = k.Home()
	}
	cached, known := k.Cache.Use(now, topic)
	return k.elect(now, topic, cached), known
}

func (k *kademlia) Peek(now time.Time, topic holder.Topic) Holders {
	return k.elect(now, topic, k.Cache.Peek(topic))
}

func (k *kademlia) elect(now time.Time, topic holder.Topic, cached []peer.ID) Holders {
	return Elect(k.key(topic), k.self(), k.candidates(now, topic, cached))
}

// candidates are the nodes that may hold topic, of those cached for it and
// those in the routing table, in no order. Nodes that are down are left out.
func (k *kademlia) candidates(now time.Time, topic holder.Topic, cached []peer.ID) []peer.ID {
	known := slices.Concat(cached, k.Near(k.key(topic)))
	return slices.DeleteFunc(known, func(p peer.ID) bool { return k.Live.Down(now, p) })
}

// acquainted are the known nodes that may hold topic, whether they answer or
// not: kad-dht forgets nodes that were slow once.
func (k *kademlia) acquainted(now time.Time, topic holder.Topic) []peer.ID {
	cached, _ := k.Cache.Use(now, topic)
	heard := slices.DeleteFunc(k.Live.HeardSince(now.Add(-rememberHeard)), func(p peer.ID) bool { return !k.Member(p) })
	return slices.Concat(cached, k.Near(k.key(topic)), heard)
}

// MayHold are the closest known nodes, one more than hold a topic. Silent ones
// are not replaced by others, which know less, before their records have
// expired.
func (k *kademlia) MayHold(now time.Time, topic holder.Topic) []peer.ID {
	list := k.unexpired(now, k.acquainted(now, topic))
	return k.nearest(topic, list)
}

// Voters are the holders and the next closest node, of the nodes not known to
// be unreachable. Most of them have to answer, so half of the holders may be
// silent.
//
// Unlike the holders asked for records, they are not chosen by how fast they
// answer: a slow node has to be heard like any other.
func (k *kademlia) Voters(now time.Time, topic holder.Topic, answered []peer.ID) (list []peer.ID, must int) {
	known := append(k.acquainted(now, topic), answered...)
	list = k.unexpired(now, known)
	if Elect(k.key(topic), k.self(), list).All {
		list = k.here(now, known)
	}
	list = k.nearest(topic, list)
	return list, Majority(len(list))
}

// nearest are the nodes of peers and this node that hold topic, and one more.
func (k *kademlia) nearest(topic holder.Topic, peers []peer.ID) []peer.ID {
	if self := k.self(); self != "" {
		peers = append(peers, self)
	}
	peers = Closest(k.key(topic), peers)
	return peers[:min(len(peers), Everyone)]
}

func (k *kademlia) Each() ([]peer.ID, bool) { return nil, false }

// Complete reports whether every known node is a holder of everything.
func (k *kademlia) Complete(now time.Time) bool { return k.Peek(now, k.Home()).All }

func (k *kademlia) Holds() bool { return true }

func (k *kademlia) Known(holders []peer.ID) []byte { return knownList(holders) }

func (k *kademlia) Closer(now time.Time, topic holder.Topic, publisher peer.ID, known []byte) []peer.ID {
	view := slices.DeleteFunc(k.Peek(now, topic).Remote, func(p peer.ID) bool { return p == publisher })
	return missing(k.key(topic), view, known)
}

func (k *kademlia) Meets(now time.Time, p peer.ID) bool { return k.Cache.Meets(now, p) }

// near returns topic's holders and the nodes known near its key, closest first,
// without this one.
func (k *kademlia) near(now time.Time, topic holder.Topic) (Holders, []peer.ID) {
	key := k.key(topic)
	known := slices.DeleteFunc(k.candidates(now, topic, k.Cache.Peek(topic)), func(p peer.ID) bool { return p == k.ID })
	return Elect(key, k.self(), known), Closest(key, known)
}

// Heir is the next closest node. If every node holds everything there is none.
func (k *kademlia) Heir(now time.Time, topic holder.Topic) (peer.ID, bool) {
	h, near := k.near(now, topic)
	if !h.Self || h.All || len(near) < replicas {
		return "", false
	}
	return near[replicas-1], true
}

func (k *kademlia) Predecessor(now time.Time, topic holder.Topic, from peer.ID) error {
	if _, near := k.near(now, topic); !slices.Contains(near[:min(len(near), replicas+1)], from) {
		return ErrNotPredecessor
	}
	return nil
}
