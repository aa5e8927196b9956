package policies

import (
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/cmd/weir/api"
	"weir/dht"
	"weir/dht/inspect"
)

// Trial compares two policies over surveys, by topic, for needs and for those
// of earlier decisions.
func Trial(before, after *policy.Compiled, surveys map[dht.Topic]inspect.Survey, needs []capacity.Need, decisions []dht.Decision) api.PolicyTrial {
	nameOf := func(j *policy.Compiled) api.PolicyName {
		p := j.Policy()
		return api.PolicyName{Name: p.Name, Version: p.Version}
	}
	t := api.PolicyTrial{InForce: nameOf(before), Tried: nameOf(after), Silent: []peer.ID{}}
	for _, s := range surveys {
		t.Silent = append(t.Silent, s.Silent...)
	}
	slices.Sort(t.Silent)
	t.Silent = slices.Compact(t.Silent)

	compare := func(topic dht.Topic, need capacity.Need) policy.Comparison {
		return policy.Compare(before, after, need, surveys[topic].Me, surveys[topic].Candidates)
	}
	for _, need := range needs {
		topic := dht.CapacityTopic()
		if need.Purpose == capacity.Cascade {
			topic = dht.StreamTopic(need.Stream)
		}
		t.Needs = append(t.Needs, api.NeedTrial{Topic: topic, Need: dht.DecisionNeed(need), Comparison: compare(topic, need)})
	}
	type placement struct {
		topic dht.Topic
		need  dht.DecisionNeed
	}
	compared := make(map[placement]policy.Comparison) // many needs are the same
	for _, d := range decisions {
		if _, read := surveys[d.Topic]; !read {
			continue
		}
		p := placement{d.Topic, d.Need}
		c, ok := compared[p]
		if !ok {
			c = compare(d.Topic, capacity.Need(d.Need))
			compared[p] = c
		}
		addRecent(&t.Recent, c)
	}
	return t
}

func addRecent(r *api.RecentTrial, c policy.Comparison) {
	r.Placements++
	if c.Before.Passed > 0 {
		r.Before++
	}
	if c.After.Passed > 0 {
		r.After++
	}
	if c.Before.First != c.After.First {
		r.FirstChanges++
	}
}
