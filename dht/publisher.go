package dht

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/dht/holder"
)

const (
	namingTime  = 700 * time.Millisecond // to look up who holds a stream's records
	originsTime = 500 * time.Millisecond // for those to say who claims to publish it
	confirmTime = time.Second            // for the nodes that do to confirm it
)

// Publishers returns which other nodes stream is published at, in no order: one
// at most, unless several took its name at the same time.
//
// The holders say who claims it. They are looked up first, where not everybody
// is one: who is about to publish needs them anyway, and a guess at them would
// let a name be taken twice. Records alone do not prove a claim, though: a node
// that crashed leaves them behind, and its publisher must be able to come back
// elsewhere at once. So the nodes themselves are asked, all at the same time, and
// whoever does not answer within a second is not believed.
func (n *Node) Publishers(ctx context.Context, stream string) []peer.ID {
	topic := StreamTopic(stream)
	if h, looked := n.holders(topic); !looked && !h.all && n.cache.begin(time.Now(), topic) {
		naming, done := context.WithTimeout(ctx, namingTime)
		n.lookUp(naming, topic)
		done()
	}
	looking, done := context.WithTimeout(ctx, originsTime)
	defer done()
	claimed, err := n.find(looking, &finding{
		topic: topic, need: capacity.Need{Purpose: capacity.Publish, Stream: stream}, exclude: []peer.ID{n.ID()},
		limit: queryLimit, origins: true,
	})
	if err != nil {
		n.log.Debug("publishers not all known", "stream", stream, "err", err)
	}
	ctx, cancel := context.WithTimeout(ctx, confirmTime)
	defer cancel() // ends the questions that are left
	answers := make(chan peer.ID, len(claimed.Candidates))
	asked := 0
	for _, c := range claimed.Candidates {
		if !publishes(&c.Record) {
			continue
		}
		started := n.start(func() {
			id := c.Record.Node
			if err := n.confirmPublisher(ctx, id, topic); err != nil {
				n.log.Debug("claim to publish not confirmed", "stream", stream, "peer", id, "err", err)
				id = ""
			}
			answers <- id
		})
		if started {
			asked++
		}
	}
	var confirmed []peer.ID
	for range asked {
		select {
		case id := <-answers:
			if id != "" {
				confirmed = append(confirmed, id)
			}
		case <-ctx.Done():
			return confirmed
		}
	}
	return confirmed
}

// publishes reports whether r claims that its stream is published at its node.
func publishes(r *capacity.Record) bool { return r.Carries != nil && r.Carries.Origin }

// confirmPublisher asks id whether topic's stream is published there.
func (n *Node) confirmPublisher(ctx context.Context, id peer.ID, topic Topic) error {
	n.locate(ctx, id)
	own, err := n.fetch(ctx, id, topic, 1)
	if err != nil {
		return err
	}
	records, _, err := verify(n.wall(time.Now()), topic, own)
	if err != nil {
		return err
	}
	if len(records) != 1 || records[0].record.Node != id || !publishes(&records[0].record) {
		return fmt.Errorf("%s publishes it no more", id)
	}
	return nil
}

// sampleOrigins draws nothing: of the nodes where topic, a stream's, is published
// all that are held count. More than one are leftovers, but for the one heard
// last; it comes first.
func (n *Node) sampleOrigins(topic Topic, exclude []peer.ID, limit int) (picked []capacity.Candidate, held int) {
	records := n.table.List(time.Now(), topic)
	slices.SortFunc(records, func(a, b *holder.Held) int { return b.Received.Compare(a.Received) })
	for _, h := range records {
		if publishes(&h.Record) && !slices.Contains(exclude, h.Node()) {
			picked = append(picked, capacity.Candidate{Record: h.Record, Sealed: h.Sealed, Believed: 1})
		}
	}
	return picked[:min(len(picked), limit)], len(records)
}
