package directory

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/dht/holder"
)

// listed is what the modes have in common in which a list says who holds: there
// are no shards to search one after the other, and nobody knows better than the
// list.
type listed struct{ View }

// Holders are the servers listed. One that is listed itself has everything.
func (l *listed) Holders(now time.Time, _ holder.Topic) (h Holders, known bool) {
	for _, p := range l.Servers() {
		switch {
		case p == l.ID:
			h.Self, h.All = !l.Client, !l.Client
		case !l.Live.Down(now, p):
			h.Remote = append(h.Remote, p)
		}
	}
	return h, true
}

func (l *listed) MayHold(now time.Time, _ holder.Topic) []peer.ID {
	return l.unexpired(now, l.Servers())
}

// Voters are the servers listed that are not unreachable, and most of them
// have to answer.
func (l *listed) Voters(now time.Time, _ holder.Topic, _ []peer.ID) (list []peer.ID, must int) {
	list = l.here(now, l.Servers())
	return list, Majority(len(list))
}

func (l *listed) Each() ([]peer.ID, bool) { return nil, false }

func (l *listed) Whole(time.Time) bool { return true }

func (l *listed) Known([]peer.ID) []byte { return nil }

func (l *listed) Closer(time.Time, holder.Topic, peer.ID, []byte) []peer.ID { return nil }

func (l *listed) Meets(time.Time, peer.ID) bool { return false }

func (l *listed) Heir(time.Time, holder.Topic) (peer.ID, bool) { return "", false }

func (l *listed) Predecessor(time.Time, holder.Topic, peer.ID) error { return ErrNotHolder }

func (l *listed) isListed() bool { return slices.Contains(l.Servers(), l.ID) }
