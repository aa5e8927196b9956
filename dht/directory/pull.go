package directory

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/dht/holder"
)

// Pull mode: no node holds the records of others, and a seeker asks every
// listed node for its own.
const Pull Mode = "pull"

type pull struct{ listed }

func newPull(v View) Directory { return &pull{listed{v}} }

// Holders is this node alone.
func (p *pull) Holders(now time.Time, topic holder.Topic) (h Holders, known bool) {
	return p.Peek(now, topic), true
}

func (p *pull) Peek(time.Time, holder.Topic) Holders { return Holders{Self: !p.Client} }

// Voters are all listed nodes that are not unreachable, and all of them have to
// answer: each knows only its own streams.
func (p *pull) Voters(now time.Time, _ holder.Topic, _ []peer.ID) (list []peer.ID, must int) {
	known := p.Servers()
	if self := p.self(); self != "" && !slices.Contains(known, self) {
		known = append(slices.Clip(known), self)
	}
	list = p.here(now, known)
	return list, max(len(list), 1)
}

func (p *pull) Each() ([]peer.ID, bool) { return p.Servers(), true }

func (p *pull) Holds() bool { return false }
