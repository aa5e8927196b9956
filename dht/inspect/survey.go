package inspect

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/dht/holder"
	"weir/dht/place"
)

// A Survey is the set of candidates that this node would choose among, if it
// saw every record of a topic.
type Survey struct {
	Me         capacity.Record    // its own, as a policy sees it
	Candidates []policy.Candidate // the newest record of each other node
	// Silent are the holders that did not send all their records in time:
	// records that only they hold are missing. Hearing names those that did.
	Silent  []peer.ID
	Hearing place.Hearing
}

// Survey reads all current records of topic, as Snapshot does, with those of
// finer shards: a region's are those of its coarsest one. Unlike a query it
// leaves no choice to the holders.
func (r *Reader) Survey(ctx context.Context, topic holder.Topic) (Survey, error) {
	errDone := errors.New("done")
	var heard place.Hearing
	newest := make(map[peer.ID]Change)
	err := r.watch(ctx, topic, holder.Replicas, false, func(c Change) error {
		switch {
		case c.Synced:
			heard = c.Hearing
			return errDone
		case c.Gone:
			delete(newest, c.Node)
		case c.Err == nil && c.Node != r.Self:
			newest[c.Node] = c
		}
		return nil
	})
	if !errors.Is(err, errDone) {
		return Survey{}, err
	}
	now := time.Now()
	s := Survey{Me: r.Me(), Candidates: make([]policy.Candidate, 0, len(newest)), Hearing: heard}
	for _, h := range heard.Silent {
		s.Silent = append(s.Silent, h.Node)
	}
	for id, c := range newest {
		s.Candidates = append(s.Candidates, policy.Candidate{
			Record: c.Record,
			Sealed: c.Sealed,
			RTT:    r.RTT(c.Record.Coordinate),
			Trust:  r.Trust(now, id),
		})
	}
	slices.SortFunc(s.Candidates, func(a, b policy.Candidate) int { return cmp.Compare(a.Record.Node, b.Record.Node) })
	return s, nil
}
