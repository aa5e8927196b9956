package dht

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/signed"
	"weir/dht/holder"
	"weir/dht/pb"
)

const (
	maxCopies    = 64              // records in one HAND-OVER
	maxHandOvers = 8               // of them to one heir
	handOverTime = 1 * time.Second // for all
)

// handOver passes what this node holds on to the nodes that come in its place,
// within handOverTime. The other holders of each topic have the same records,
// and publishers will find the new one by themselves; until they do it knows
// what it was handed.
func (n *Node) handOver() {
	if n.self() == "" || n.dir.Whole(time.Now()) {
		return
	}
	now := time.Now()
	heirs := make(map[peer.ID][]*pb.HandOver)
	for topic, records := range n.table.All(now) {
		heir, ok := n.dir.Heir(now, topic)
		if !ok || !n.peers.Connected(heir) {
			continue
		}
		records = slices.DeleteFunc(records, func(h *holder.Held) bool { return h.Node() == heir || h.Node() == n.ID() })
		for batch := range slices.Chunk(records, maxCopies) {
			if len(heirs[heir]) == maxHandOvers {
				break
			}
			m := &pb.HandOver{Topic: string(topic)}
			for _, h := range batch {
				m.Copies = append(m.Copies, &pb.Copy{Sealed: h.Sealed, HeldMs: uint32(now.Sub(h.Received).Milliseconds())})
			}
			heirs[heir] = append(heirs[heir], m)
		}
	}
	ctx, cancel := context.WithTimeout(n.overlay.Context(), handOverTime)
	defer cancel()
	var wg sync.WaitGroup
	for heir, batches := range heirs {
		wg.Go(func() {
			for _, m := range batches {
				var resp pb.Response
				if _, _, err := n.overlay.Call(ctx, heir, n.records, &pb.Request{Op: &pb.Request_HandOver{HandOver: m}}, &resp, maxAdvertiseReply); err != nil {
					n.log.Debug("records not handed over", "peer", heir, "err", err)
					return
				}
				n.log.Debug("records handed over", "peer", heir, "topic", m.Topic, "records", len(m.Copies), "taken", resp.GetHandOver().GetTaken())
			}
		})
	}
	wg.Wait()
}

// serveHandOver takes in the records of a holder that leaves. They come from
// others than the nodes they name, so each seal is checked, and they live no
// longer than with the one who had them.
func (n *Node) serveHandOver(from peer.ID, req *pb.HandOver) *pb.Response {
	topic := Topic(req.Topic)
	if err := topic.Check(); err != nil {
		return errorReply(err)
	}
	if len(req.Copies) > maxCopies {
		return errorReply(fmt.Errorf("%d records at once, at most %d", len(req.Copies), maxCopies))
	}
	if err := n.dir.Predecessor(time.Now(), topic, from); err != nil {
		return errorReply(err)
	}
	taken := n.takeCopies(time.Now(), from, topic, req.Copies)
	return &pb.Response{Op: &pb.Response_HandOver{HandOver: &pb.HandOverReply{Taken: taken}}}
}

// takeCopies puts those of copies into the table that are good, and returns how
// many.
func (n *Node) takeCopies(now time.Time, from peer.ID, topic Topic, copies []*pb.Copy) (taken uint32) {
	for _, c := range copies {
		held := time.Duration(c.HeldMs) * time.Millisecond
		var r capacity.Record
		err := errFlood
		if n.rates.Allow(now, from) {
			r, err = signed.OpenRecord(c.Sealed, n.wall(now))
		}
		if err == nil {
			err = topic.Fits(&r)
		}
		if err == nil && held >= r.TTL {
			err = capacity.ErrExpired
		}
		if err == nil {
			err = n.table.Copy(now, now.Add(-held), topic, from, r, c.Sealed)
		}
		if err != nil {
			n.log.Debug("record handed over not taken", "peer", from, "topic", topic, "err", err)
			continue
		}
		taken++
	}
	return taken
}
