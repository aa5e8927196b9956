package seek

import (
	"context"
	"time"

	"weir/capacity"
	"weir/dht/holder"
	"weir/dht/holding"
	"weir/dht/place"
)

// askLoad asks one holder of region for the region's load. A cascade fits no
// record of capacity: the holder offers nothing, and counts nothing as used.
func (s *Seeker) askLoad(ctx context.Context, region string) {
	search := place.NewSearch(place.ShardMap{Region: region, Depth: s.Regions.depthOf}, 0, newRand())
	topic := search.Start().Topics[0]
	h, _ := s.cfg.Directory.Holders(time.Now(), topic)
	if len(h.Remote) == 0 {
		return
	}
	q := &query{topic: topic, need: capacity.Need{Purpose: capacity.Cascade}, limit: 1, compact: true}
	q.begin(s)
	r := s.askHolder(ctx, 0, s.NearestFirst(h.Remote)[0], q)
	if r.err != nil {
		return
	}
	s.heardLoad(&r, topic)
	search.Answered([]place.TopicAnswer{{Topic: topic, Held: int(r.query.Held), Split: r.query.Split}}, func() bool { return true })
	for region, depth := range search.Learned {
		s.Regions.setDepth(region, depth)
	}
}

// heardLoad takes in the load of topic's region from a holder's good answer.
func (s *Seeker) heardLoad(r *reply, topic holder.Topic) {
	if r.query.Stress != nil {
		s.Regions.heard(time.Now(), topic, min(float64(*r.query.Stress)/1e4, holding.MaxStress))
	}
}
