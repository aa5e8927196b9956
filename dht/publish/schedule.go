package publish

import (
	"reflect"
	"slices"
	"time"

	"weir/capacity"
	"weir/dht/holder"
)

const (
	// indexKeepalive is how often a record in the index of regions is renewed,
	// whatever its node's load.
	indexKeepalive = 20 * time.Second
	// streamGap is the least time between two records of one stream when only
	// the node's load has changed: a node may carry many.
	streamGap = 2 * time.Second
)

// A draft is a record to be published, without the fields that publishing fills
// in.
type draft struct {
	topic  holder.Topic
	record capacity.Record
}

// A schedule decides when to publish which record: a new or ended one at once,
// a changed one soon, and every one once per keepalive. Time is passed in.
type schedule struct {
	last map[holder.Topic]drafted
}

type drafted struct {
	at, news time.Time // last published, and last published because of a change
	record   capacity.Record
}

func newSchedule() schedule { return schedule{last: make(map[holder.Topic]drafted)} }

// due returns the records to publish and the topics to withdraw at now, given a
// sample and the topics of the capacity record, and counts them as done. Kicked
// asks for all that the pace allows; owed means that it did not allow all.
func (s *schedule) due(now time.Time, homes []holder.Topic, r capacity.Record, streams []capacity.StreamInfo, kicked bool) (drafts []draft, gone []holder.Topic, owed bool) {
	r.Carries = nil
	var all []draft
	for _, topic := range homes {
		all = append(all, draft{topic, r})
	}
	for _, c := range streams {
		of := r
		of.Carries = &c
		all = append(all, draft{holder.StreamTopic(c.Stream), of})
	}
	for _, c := range all {
		last, known := s.last[c.topic]
		news := now // when it was last published because of a change
		switch since := now.Sub(last.at); {
		case !known:
		case since >= holder.Keepalive && c.topic != holder.RegionsTopic, since >= indexKeepalive:
			news = last.news
		case now.Sub(last.news) < holder.PublishGap:
			owed = owed || kicked
			continue
		case c.topic == holder.RegionsTopic:
			continue
		case kicked:
		case streamChanged(last.record.Carries, c.record.Carries):
		case !holder.LoadMoved(&last.record, &c.record):
			continue
		case c.record.Carries != nil && since < streamGap:
			continue
		}
		drafts = append(drafts, c)
		s.last[c.topic] = drafted{now, news, c.record}
	}
	for topic := range s.last {
		if !slices.ContainsFunc(all, func(c draft) bool { return c.topic == topic }) {
			gone = append(gone, topic)
			delete(s.last, topic)
		}
	}
	return drafts, gone, owed
}

func streamChanged(a, b *capacity.StreamInfo) bool {
	if a == nil || b == nil {
		return a != b
	}
	x, y := *a, *b
	x.ParentRTT, y.ParentRTT = 0, 0 // changes all the time
	return !reflect.DeepEqual(x, y)
}
