package inspect

import (
	"cmp"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/dht/holder"
)

// HeldTopic is a node's records of one topic.
type HeldTopic struct {
	Topic   holder.Topic `json:"topic"`
	Records []HeldRecord `json:"records"`
}

// HeldRecord is one record that a node holds, times by its own clock.
type HeldRecord struct {
	Node   peer.ID       `json:"node"`
	Seq    uint64        `json:"seq"`
	Sealed []byte        `json:"-"`
	For    time.Duration `json:"-"` // since it came in
	Left   time.Duration `json:"-"` // until it is dropped
}

// Holdings are all records that this node holds, of others and its own.
func (r *Reader) Holdings() []HeldTopic {
	now := time.Now()
	list := []HeldTopic{}
	for topic, records := range r.Table.All(now) {
		t := HeldTopic{Topic: topic}
		for _, h := range records {
			t.Records = append(t.Records, HeldRecord{
				Node:   h.Node(),
				Seq:    h.Record.Seq,
				Sealed: h.Sealed,
				For:    now.Sub(h.Received),
				Left:   h.Expires.Sub(now),
			})
		}
		slices.SortFunc(t.Records, func(a, b HeldRecord) int { return cmp.Compare(a.Node, b.Node) })
		list = append(list, t)
	}
	slices.SortFunc(list, func(a, b HeldTopic) int { return cmp.Compare(a.Topic, b.Topic) })
	return list
}
