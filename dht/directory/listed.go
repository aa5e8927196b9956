package directory

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/dht/holder"
)

// listed is the common part of the modes with a list of servers: there are no
// shards to search one after the other, and no node knows better than the list.
type listed struct{ View }

// Holders are the listed servers. A listed server itself holds everything.
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

// Voters are the listed servers that are not unreachable, most of which have to
// answer.
func (l *listed) Voters(now time.Time, _ holder.Topic, _ []peer.ID) (list []peer.ID, must int) {
	list = l.here(now, l.Servers())
	return list, Majority(len(list))
}

func (l *listed) Each() ([]peer.ID, bool) { return nil, false }

func (l *listed) Complete(time.Time) bool { return true }

func (l *listed) Known([]peer.ID) []byte { return nil }

func (l *listed) Closer(time.Time, holder.Topic, peer.ID, []byte) []peer.ID { return nil }

func (l *listed) Meets(time.Time, peer.ID) bool { return false }

func (l *listed) Heir(time.Time, holder.Topic) (peer.ID, bool) { return "", false }

func (l *listed) Predecessor(time.Time, holder.Topic, peer.ID) error { return ErrNotHolder }

func (l *listed) isListed() bool { return slices.Contains(l.Servers(), l.ID) }
