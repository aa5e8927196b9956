package dht

import (
	"context"
	"sync"
	"time"

	"weir/dht/pb"
)

// handOverTime bounds all hand-overs of a leaving node.
const handOverTime = time.Second

// handOver sends the records that this node holds to the nodes that replace it
// as holders, within handOverTime; see [holding.Holder.HandOvers].
func (n *Node) handOver() {
	if n.self() == "" || n.dir.Whole(time.Now()) {
		return
	}
	heirs := n.holding.HandOvers(time.Now(), n.peers.Connected)
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
