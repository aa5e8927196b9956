package naming

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/dht/pb"
	"weir/dht/place"
)

// Taken is the error of a claim to a name that another node has.
type Taken struct {
	At peer.ID
	// Now: At has only a pending claim, which goes first.
	Now bool
}

// Error names the node at which the stream is published.
func (e *Taken) Error() string {
	if e.Now {
		return "its name is being taken at the same time at node " + e.At.String()
	}
	return "it is being published at node " + e.At.String()
}

// A ballot is the voters' answers about a name. It has no clock and asks no
// node.
type ballot struct {
	self   peer.ID
	taking bool
	must   int
	voters []peer.ID                             // nodes required to answer
	said   map[peer.ID]pb.ClaimReply_Own         // by node that has answered
	rivals map[peer.ID]time.Time                 // nodes that a voter named, and when it heard from them last
	errs   map[peer.ID]string                    // why others have not answered
	gone   func(p peer.ID, heard time.Time) bool // reports whether a rival is not running any more
}

// publishers are the nodes that answered that they publish it.
func (b *ballot) publishers() []peer.ID {
	var list []peer.ID
	for p, word := range b.said {
		if word == pb.ClaimReply_PUBLISHED {
			list = append(list, p)
		}
	}
	slices.Sort(list)
	return list
}

// taken is why the name is not free for the asking node, or nil.
func (b *ballot) taken() *Taken {
	if at := b.publishers(); len(at) > 0 {
		return &Taken{At: at[0]}
	}
	var first peer.ID
	for p, word := range b.said {
		if b.taking && word == pb.ClaimReply_TAKING && (first == "" || p < first) {
			first = p
		}
	}
	if first == "" {
		return nil
	}
	return &Taken{At: first, Now: true}
}

// unheard is a rival that has neither answered nor is known to have gone, or
// "".
func (b *ballot) unheard() (rival peer.ID) {
	for p, last := range b.rivals {
		if _, heard := b.said[p]; !heard && !b.gone(p, last) && (rival == "" || p < rival) {
			rival = p
		}
	}
	return rival
}

func (b *ballot) hearing() place.Hearing {
	var silent []place.Silence
	for _, p := range b.voters {
		if _, heard := b.said[p]; !heard {
			silent = append(silent, place.Silence{Node: p, Err: b.errs[p]})
		}
	}
	return place.Hear(len(b.voters), len(b.voters)-len(silent), b.must, silent)
}
