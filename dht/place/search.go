package place

import (
	"math/rand/v2"
	"slices"

	"weir/dht/holder"
)

const (
	// NearRegions are asked at once when the own region does not suffice.
	NearRegions = 2
	farRegions  = 4 // and when those do not suffice either

	// Levels is the number of levels of a [Search]: the seeker's own shards,
	// another shard of its region, the nearest regions, others.
	Levels = 4

	// wideStress is the stress of the best offer above which a seeker searches
	// further away: waiting for refusals first would cost more.
	wideStress = 0.8
)

// GoodEnough reports whether an offer of a node with that stress makes a wider
// search unnecessary.
func GoodEnough(stress float64) bool { return stress <= wideStress }

// A ShardMap is a seeker's knowledge of where capacity is listed.
type ShardMap struct {
	// Region is where to look first: the requested region, or the seeker's own.
	// Empty: unknown.
	Region string
	// Own is the seeker's shard, and Publishes whether its record is there.
	Own       holder.Topic
	Publishes bool
	// Former is the shard in which the seeker's record still is after a move,
	// and Peer the second shard that the seeker stays in touch with; "": none.
	Former, Peer holder.Topic
	// Near are regions, nearest first.
	Near []string
	// Elsewhere is a less loaded region to look in first instead of Region; "":
	// none. See [Loads].
	Elsewhere string
	// Depth returns how many bits a region's shards were found to be split
	// into.
	Depth func(region string) int
}

// A Search looks for capacity near by and then further away, until an offer is
// good enough: topic by topic, all of one level at the same time. A shard that
// has been split is replaced by one of its parts, and an empty one by the
// coarser shard it was a part of.
type Search struct {
	ShardMap
	// Level is where to begin, and, when the search is over, where to go on.
	Level int
	// Learned is how many bits regions were found to be split into.
	Learned map[string]int

	rnd      *rand.Rand
	asked    map[holder.Topic]bool
	rounds   int // at this level
	answered bool
	failed   bool
	last     bool
}

// NewSearch begins at level. Tests seed rnd.
func NewSearch(a ShardMap, level int, rnd *rand.Rand) *Search {
	if level == 0 && a.Elsewhere != "" {
		a.Region = a.Elsewhere
	}
	return &Search{ShardMap: a, Level: level, Learned: make(map[string]int), rnd: rnd, asked: make(map[holder.Topic]bool)}
}

// A SearchStep is what a search wants done: a query of each topic, all at the
// same time. Without topics the search has ended.
type SearchStep struct {
	Topics []holder.Topic
	// Near means that there are other topics to ask; see [Query.Near].
	Near bool
	// OneEach means that one holder of each topic is asked at first, and that
	// the answer of one topic is enough if those of others are overdue.
	OneEach bool
}

// A TopicAnswer is the answer of the holders of one topic.
type TopicAnswer struct {
	Topic  holder.Topic
	Failed bool // too few have answered
	Held   int  // records
	Split  bool // its publishers have moved on to finer shards
}

// Start returns the topics to ask first.
func (s *Search) Start() SearchStep { return s.level() }

// Answered takes in the answers in the topics of the step before. Enough says
// whether some find is good enough; it is called only where it matters.
func (s *Search) Answered(answers []TopicAnswer, enough func() bool) SearchStep {
	var instead []holder.Topic
	for _, a := range answers {
		s.asked[a.Topic] = true
		if a.Failed {
			s.failed = true
			continue
		}
		s.answered = true
		if t := s.redirected(a); t != "" && !s.asked[t] {
			instead = append(instead, t)
		}
	}
	if s.last {
		return SearchStep{}
	}
	if s.rounds++; len(instead) > 0 && s.rounds <= holder.MaxShardBits {
		return s.step(instead)
	}
	if enough() {
		return SearchStep{}
	}
	return s.level()
}

// Unanswered reports whether no topic's holders have answered.
func (s *Search) Unanswered() bool { return s.failed && !s.answered }

// level goes on to the next level at which there is a topic to ask. If there is
// none, and no topic has answered, the seeker's own shard is the last resort:
// all its holders are asked and waited for.
func (s *Search) level() SearchStep {
	for s.Level < Levels {
		topics := slices.DeleteFunc(s.topics(), func(t holder.Topic) bool { return s.asked[t] })
		s.Level++
		s.rounds = 0
		if len(topics) > 0 {
			return s.step(topics)
		}
	}
	if s.Unanswered() {
		s.last = true
		return SearchStep{Topics: []holder.Topic{s.Own}}
	}
	return SearchStep{}
}

func (s *Search) step(topics []holder.Topic) SearchStep {
	return SearchStep{Topics: topics, Near: true, OneEach: s.Level == 1 && len(topics) > 1}
}

// topics are the topics to ask at the current level.
func (s *Search) topics() []holder.Topic {
	own, bits, _ := s.Own.Shard()
	home := s.Publishes && s.Region == own
	switch s.Level {
	case 0:
		return s.first(home)
	case 1:
		if other := holder.ShardTopic(own, s.bits(len(bits))); home && other != s.Own {
			return []holder.Topic{other}
		}
		return nil
	}
	near := slices.DeleteFunc(slices.Clone(s.Near), func(r string) bool { return r == s.Region })
	if s.Level == 2 {
		near = near[:min(len(near), NearRegions)]
	} else {
		near = near[min(len(near), NearRegions):]
		near = near[:min(len(near), farRegions)]
	}
	topics := make([]holder.Topic, 0, len(near))
	for _, r := range near {
		topics = append(topics, s.anyShard(r))
	}
	return topics
}

func (s *Search) first(home bool) []holder.Topic {
	switch {
	case home:
		topics := []holder.Topic{s.Own}
		for _, t := range []holder.Topic{s.Former, s.Peer} {
			if t != "" && !slices.Contains(topics, t) {
				topics = append(topics, t)
			}
		}
		return topics
	case s.Region != "":
		return []holder.Topic{s.anyShard(s.Region)}
	case len(s.Near) > 0: // a client that does not name its region
		return []holder.Topic{s.anyShard(s.Near[0])}
	}
	return []holder.Topic{holder.CapacityTopic()} // any record of the holders asked
}

// redirected returns the shard to ask instead of the one that answered: a finer
// one if its nodes have moved on, a coarser one if it is empty. The seeker's
// own shards are not replaced here: as a publisher it learns of their split
// anyway.
func (s *Search) redirected(a TopicAnswer) holder.Topic {
	region, bits, ok := a.Topic.Shard()
	switch {
	case !ok || s.Publishes && (a.Topic == s.Own || a.Topic == s.Peer):
		return ""
	case a.Split && len(bits) < holder.MaxShardBits:
		s.Learned[region] = len(bits) + 1
		return holder.ShardTopic(region, bits+s.bits(1))
	case a.Held == 0 && len(bits) > 0 && !a.Split:
		s.Learned[region] = len(bits) - 1
		return holder.ShardTopic(region, bits[:len(bits)-1])
	}
	return ""
}

// anyShard is a shard of a region that the seeker is not in, as fine as was
// found last.
func (s *Search) anyShard(region string) holder.Topic {
	depth, ok := s.Learned[region]
	if !ok {
		depth = s.Depth(region)
	}
	return holder.ShardTopic(region, s.bits(depth))
}

func (s *Search) bits(depth int) string {
	b := make([]byte, depth)
	for i := range b {
		b[i] = '0' + byte(s.rnd.IntN(2))
	}
	return string(b)
}
