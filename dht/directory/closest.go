package directory

import (
	"bytes"
	"encoding/binary"
	"slices"

	kb "github.com/libp2p/go-libp2p-kbucket"
	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/dht/holder"
)

const (
	// replicas is how many nodes hold a topic.
	replicas = holder.Replicas
	// Everyone is the size up to which every node of a network with elected
	// holders holds every topic: a node and replicas others.
	Everyone = replicas + 1
	// recordLife is how long a record is valid after it was published last.
	recordLife = capacity.DefaultTTL
)

// Elect picks the holders of key among self and the others, the replicas
// closest to it by XOR distance (Maymounkov and Mazières, "Kademlia", IPTPS
// 2002). An empty self, a client, is never a holder.
func Elect(key kb.ID, self peer.ID, others []peer.ID) Holders {
	others = slices.DeleteFunc(Closest(key, others), func(p peer.ID) bool { return p == self })
	if self == "" {
		if len(others) > 0 && len(others) <= Everyone {
			return Holders{Remote: others, All: true}
		}
		return Holders{Remote: others[:min(len(others), replicas)]}
	}
	if len(others) < Everyone {
		return Holders{Remote: others, Self: true, All: true}
	}
	rank, _ := slices.BinarySearchFunc(others, distance(key, self), func(p peer.ID, d []byte) int {
		return bytes.Compare(distance(key, p), d)
	})
	if rank < replicas {
		return Holders{Remote: others[:replicas-1], Self: true}
	}
	return Holders{Remote: others[:replicas]}
}

// Closest returns the distinct peers by XOR distance to key, nearest first.
func Closest(key kb.ID, peers []peer.ID) []peer.ID {
	type entry struct {
		id       peer.ID
		distance []byte
	}
	entries := make([]entry, 0, len(peers))
	seen := make(map[peer.ID]struct{}, len(peers))
	for _, p := range peers {
		if _, dup := seen[p]; !dup {
			seen[p] = struct{}{}
			entries = append(entries, entry{p, distance(key, p)})
		}
	}
	slices.SortFunc(entries, func(a, b entry) int { return bytes.Compare(a.distance, b.distance) })
	sorted := make([]peer.ID, len(entries))
	for i, e := range entries {
		sorted[i] = e.id
	}
	return sorted
}

func distance(key kb.ID, p peer.ID) []byte { return kb.Xor(key, kb.ConvertPeerID(p)) }

// Majority is how many of count have to answer so that any two majorities have
// a node in common.
func Majority(count int) int { return count/2 + 1 }

// knownList encodes the holders that a publisher knows, for another holder:
// four bytes of each one's Kademlia ID.
func knownList(peers []peer.ID) []byte {
	b := make([]byte, 0, 4*len(peers))
	for _, p := range peers {
		b = append(b, kb.ConvertPeerID(p)[:4]...)
	}
	return b
}

// missing returns the nodes of view, a holder's own view of key's holders, that
// a publisher with the holders in known lacks: absent from known and nearer
// than its farthest.
func missing(key kb.ID, view []peer.ID, known []byte) []peer.ID {
	top := binary.BigEndian.Uint32(key)
	has := make(map[uint32]bool, len(known)/4)
	var farthest uint32
	for ; len(known) >= 4; known = known[4:] {
		prefix := binary.BigEndian.Uint32(known)
		has[prefix] = true
		farthest = max(farthest, prefix^top)
	}
	var lacking []peer.ID
	for _, p := range view {
		prefix := binary.BigEndian.Uint32(kb.ConvertPeerID(p))
		if !has[prefix] && (len(has) < replicas || prefix^top < farthest) {
			lacking = append(lacking, p)
		}
	}
	return lacking
}
