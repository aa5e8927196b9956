package dht

import (
	"fmt"
	"testing"
	"time"
	"weir/dht/directory"
	"weir/dht/holder"

	"github.com/libp2p/go-libp2p/core/peer"
)

// total sums the messages and bytes that all nodes sent over the given
// protocols, so that every message counts once.
func total(nodes []*testNode, wanted func(protocol string) bool) (messages, bytes int64) {
	for _, n := range nodes {
		for _, t := range n.Overlay.Traffic.List() {
			if wanted(t.Protocol) {
				messages += t.MessagesOut
				bytes += t.BytesOut
			}
		}
	}
	return messages, bytes
}

// BenchmarkPlace measures one placement with its reservation. Msgs and B are
// those of the decision; reserve-B covers all reservations, including the
// unused lease and its release, as counted at the streams.
func BenchmarkPlace(b *testing.B) {
	for _, size := range []int{5, 10, 20} {
		b.Run(fmt.Sprintf("%dnodes", size), func(b *testing.B) {
			nodes := newTestNetwork(b, size)
			seeker := nodes[size-1]
			if size <= directory.Everyone {
				// Once the node has warmed up, its own memory is the answer.
				now := time.Now()
				seeker.warmth.Note(now, false)
				for ago := time.Minute; ago >= 0; ago -= time.Second {
					seeker.warmth.Note(now.Add(-ago), true)
				}
			}
			reserves := func(p string) bool { return p == string(seeker.protocols.reserve) }
			_, before := total(nodes, reserves)
			var messages int
			var bytes int64
			for b.Loop() {
				placed, d, err := seeker.Seeker.Place(b.Context(), CapacityTopic(), view(), []peer.ID{seeker.ID()})
				if err != nil {
					b.Fatal(err)
				}
				messages += d.Messages
				bytes += d.Bytes
				for _, n := range nodes {
					if n.ID() == placed.Lease.Target {
						n.ledger.Release(seeker.ID(), placed.Lease.ID)
					}
				}
			}
			_, after := total(nodes, reserves)
			b.ReportMetric(float64(messages)/float64(b.N), "msgs/op")
			b.ReportMetric(float64(bytes)/float64(b.N), "B-wire/op")
			b.ReportMetric(float64(after-before)/float64(b.N), "reserve-B/op")
		})
	}
}

// BenchmarkUpkeep measures the cost of an idle network, per node and second.
func BenchmarkUpkeep(b *testing.B) {
	for _, size := range []int{5, 10} {
		b.Run(fmt.Sprintf("%dnodes", size), func(b *testing.B) {
			nodes := newTestNetwork(b, size)
			all := func(string) bool { return true }
			messages, bytes := total(nodes, all)
			start := time.Now()
			for b.Loop() {
				<-time.After(2 * holder.Keepalive)
			}
			seconds := time.Since(start).Seconds() * float64(size)
			messagesAfter, bytesAfter := total(nodes, all)
			b.ReportMetric(float64(messagesAfter-messages)/seconds, "msgs/s/node")
			b.ReportMetric(float64(bytesAfter-bytes)/seconds, "B/s/node")
		})
	}
}
