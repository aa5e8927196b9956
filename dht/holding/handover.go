package holding

import (
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/signed"
	"weir/dht/holder"
	"weir/dht/pb"
)

const (
	MaxCopies    = 64 // records in one HAND-OVER
	maxHandOvers = 8  // requests to one heir
)

// HandOvers are the requests by which this leaving node passes records on to
// the nodes that replace it, of those that are connected. The other holders of
// each topic have the same records, and publishers will find the new holder by
// themselves; until then it has the records handed over.
func (h *Holder) HandOvers(now time.Time, connected func(peer.ID) bool) map[peer.ID][]*pb.HandOver {
	heirs := make(map[peer.ID][]*pb.HandOver)
	for topic, records := range h.cfg.Table.All(now) {
		heir, ok := h.cfg.Directory.Heir(now, topic)
		if !ok || !connected(heir) {
			continue
		}
		records = slices.DeleteFunc(records, func(c *holder.Held) bool { return c.Node() == heir || c.Node() == h.cfg.ID })
		for batch := range slices.Chunk(records, MaxCopies) {
			if len(heirs[heir]) == maxHandOvers {
				break
			}
			m := &pb.HandOver{Topic: string(topic)}
			for _, c := range batch {
				m.Copies = append(m.Copies, &pb.Copy{Sealed: c.Sealed, HeldMs: uint32(now.Sub(c.Received).Milliseconds())})
			}
			heirs[heir] = append(heirs[heir], m)
		}
	}
	return heirs
}

// HandOver takes in the records of a leaving holder. They come from another
// node than their publisher, so each seal is checked, and they expire no later
// than at the holder that had them.
func (h *Holder) HandOver(now time.Time, from peer.ID, req *pb.HandOver) (*pb.HandOverReply, error) {
	topic := holder.Topic(req.Topic)
	if err := topic.Check(); err != nil {
		return nil, err
	}
	if len(req.Copies) > MaxCopies {
		return nil, fmt.Errorf("%d records at once, at most %d", len(req.Copies), MaxCopies)
	}
	if err := h.cfg.Directory.Predecessor(now, topic, from); err != nil {
		return nil, err
	}
	return &pb.HandOverReply{Taken: h.takeCopies(now, from, topic, req.Copies)}, nil
}

// takeCopies puts the valid ones of copies into the table, and returns how
// many.
func (h *Holder) takeCopies(now time.Time, from peer.ID, topic holder.Topic, copies []*pb.Copy) (taken uint32) {
	for _, c := range copies {
		held := time.Duration(c.HeldMs) * time.Millisecond
		var r capacity.Record
		err := ErrFlood
		if h.cfg.Rates.Allow(now, from) {
			r, err = signed.OpenRecord(c.Sealed, h.cfg.Wall(now))
		}
		if err == nil {
			err = topic.Fits(&r)
		}
		if err == nil && held >= r.TTL {
			err = capacity.ErrExpired
		}
		if err == nil {
			err = h.cfg.Table.Copy(now, now.Add(-held), topic, from, r, c.Sealed)
		}
		if err != nil {
			h.cfg.Log.Debug("record handed over not taken", "peer", from, "topic", topic, "err", err)
			continue
		}
		taken++
	}
	return taken
}
