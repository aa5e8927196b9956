package holder

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	maxNotices     = 256   // of one topic
	maxNoticed     = 4_096 // topics with notices
	maxNoticesNode = 64    // of one node; an honest one moves on from a few topics
)

// splitNotices are the nodes that have moved on from a topic to finer shards,
// and until when each notice counts. A [Table] guards them.
type splitNotices struct {
	topics map[Topic]map[peer.ID]time.Time
	nodes  map[peer.ID]int // how many notices each has given
}

func newSplitNotices() splitNotices {
	return splitNotices{topics: make(map[Topic]map[peer.ID]time.Time), nodes: make(map[peer.ID]int)}
}

// standing is how many notices count in topic.
func (s *splitNotices) standing(now time.Time, topic Topic) (count int) {
	for _, until := range s.topics[topic] {
		if until.After(now) {
			count++
		}
	}
	return count
}

// note takes in a notice, or renews it. New ones beyond the bounds are dropped.
func (s *splitNotices) note(until time.Time, topic Topic, node peer.ID) {
	if _, known := s.topics[topic][node]; known {
		s.topics[topic][node] = until
		return
	}
	if s.nodes[node] >= maxNoticesNode {
		return
	}
	if s.topics[topic] == nil {
		if len(s.topics) >= maxNoticed {
			return
		}
		s.topics[topic] = make(map[peer.ID]time.Time)
	}
	if len(s.topics[topic]) < maxNotices {
		s.topics[topic][node] = until
		s.nodes[node]++
	}
}

// sweep drops expired notices.
func (s *splitNotices) sweep(now time.Time) {
	for topic, notices := range s.topics {
		for node, until := range notices {
			if until.After(now) {
				continue
			}
			delete(notices, node)
			if s.nodes[node]--; s.nodes[node] == 0 {
				delete(s.nodes, node)
			}
		}
		if len(notices) == 0 {
			delete(s.topics, topic)
		}
	}
}
