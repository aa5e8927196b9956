package place

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"weir/dht/holder"
)

func testRand() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

// topic parses a topic such as "eu/0", or "eu" for the whole region.
func topic(s string) holder.Topic {
	region, bits, _ := strings.Cut(s, "/")
	return holder.ShardTopic(region, bits)
}

// short is the inverse of topic.
func short(t holder.Topic) string {
	region, bits, ok := t.Shard()
	if !ok {
		return string(t)
	}
	return strings.TrimSuffix(region+"/"+bits, "/")
}

// Each round of a search lists the topics that are asked at the same time, with
// "?" for random bits.
func TestSearch(t *testing.T) {
	seeker := ShardMap{Region: "eu", Own: topic("eu"), Publishes: true, Near: []string{"eu", "us", "ap", "sa", "af"}}
	inShard, client, lost := seeker, seeker, seeker
	inShard.Own, inShard.Former, inShard.Peer = topic("eu/0"), topic("eu"), topic("eu/1")
	client.Publishes, client.Region, client.Own = false, "", holder.ShardTopic("", "")
	lost.Near = nil
	foreign, diverted := inShard, seeker
	diverted.Elsewhere = "us"
	foreign.Region = "us"
	for _, c := range []struct {
		name    string
		shards  ShardMap
		level   int
		depth   map[string]int
		said    map[string]TopicAnswer // held 0 unless it says otherwise
		enough  string                 // the topic in which a good offer is found
		rounds  []string
		next    int // where to go on
		learned map[string]int
		silence bool
	}{
		{
			name: "a good offer near by is enough", shards: seeker, enough: "eu",
			rounds: []string{"eu"}, next: 1,
		},
		{
			name: "then the nearest regions, then others", shards: seeker,
			rounds: []string{"eu", "us ap", "sa af"}, next: Levels,
		},
		{
			name: "the shard, the one before, and the peer; then any", shards: inShard, enough: "us",
			rounds: []string{"eu/0 eu eu/1", "us ap"}, next: 3,
		},
		{
			name: "it goes on where it was", shards: seeker, level: 2, enough: "ap",
			rounds: []string{"us ap"}, next: 3,
		},
		{
			name: "a loaded region's client goes elsewhere, and if that has no room comes back", shards: diverted, enough: "eu",
			rounds: []string{"us", "eu ap"}, next: 3,
		},
		{
			name: "but not in a search that goes on", shards: diverted, level: 1, enough: "ap",
			rounds: []string{"us ap"}, next: 3,
		},
		{
			name: "another region is asked for", shards: foreign, depth: map[string]int{"us": 2},
			said:   map[string]TopicAnswer{"us/??": {Held: 3}},
			enough: "us/??", rounds: []string{"us/??"}, next: 1,
		},
		{
			name: "a client begins in the nearest region", shards: client, enough: "eu",
			rounds: []string{"eu"}, next: 1,
		},
		{
			name: "or with whoever is near", shards: ShardMap{Own: holder.ShardTopic("", "")},
			rounds: []string{"capacity"}, next: Levels,
		},
		{
			name: "a shard that was split since", shards: foreign,
			said:   map[string]TopicAnswer{"us": {Held: 4, Split: true}, "us/?": {Held: 4, Split: true}, "us/??": {Held: 3}},
			enough: "us/??", rounds: []string{"us", "us/?", "us/??"}, next: 1, learned: map[string]int{"us": 2},
		},
		{
			name: "a shard that nobody is in any more", shards: foreign, depth: map[string]int{"us": 2},
			said:   map[string]TopicAnswer{"us": {Held: 3}},
			enough: "us", rounds: []string{"us/??", "us/?", "us"}, next: 1, learned: map[string]int{"us": 0},
		},
		{
			name: "the seeker's own are not replaced", shards: inShard,
			said:   map[string]TopicAnswer{"eu/0": {Held: 0, Split: true}, "eu/1": {Held: 0}, "eu": {Held: 1}},
			rounds: []string{"eu/0 eu eu/1", "us ap", "sa af"}, next: Levels,
		},
		{
			name: "nobody answers: all of the own shard are asked", shards: lost,
			said:   map[string]TopicAnswer{"eu": {Failed: true}},
			rounds: []string{"eu", "eu"}, next: Levels, silence: true,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.shards.Depth = func(region string) int { return c.depth[region] }
			s := NewSearch(c.shards, c.level, testRand())
			drawn := func(name string) string { // random bits
				if strings.HasPrefix(name, "eu/") {
					return name
				}
				return strings.NewReplacer("0", "?", "1", "?").Replace(name)
			}
			var rounds []string
			found := false
			for step := s.Start(); len(step.Topics) > 0; {
				var names []string
				var answers []TopicAnswer
				for _, topic := range step.Topics {
					name := drawn(short(topic))
					names = append(names, name)
					a := c.said[name]
					a.Topic = topic
					answers = append(answers, a)
					found = found || name == c.enough
				}
				if got := strings.Join(names, " "); got != "eu/1" { // level 1 draws it, or not
					rounds = append(rounds, got)
				}
				if wide := len(names) > 1 && s.Level == 1; step.OneEach != wide {
					t.Errorf("%v at level %d: one of each: %v", names, s.Level, step.OneEach)
				}
				if len(rounds) > 10 {
					t.Fatalf("it goes on for ever: %q", rounds)
				}
				step = s.Answered(answers, func() bool { return found })
			}
			if !slices.Equal(rounds, c.rounds) || s.Level != c.next || s.Unanswered() != c.silence || !maps.Equal(s.Learned, c.learned) {
				t.Errorf("asked %q, goes on at %d, learned %v, unanswered %v; want %q, %d, %v, %v",
					rounds, s.Level, s.Learned, s.Unanswered(), c.rounds, c.next, c.learned, c.silence)
			}
		})
	}
}

// The last resort waits for slow holders, and is the last.
func TestSearchEndsWithTheOwnShard(t *testing.T) {
	s := NewSearch(ShardMap{Region: "eu", Own: topic("eu"), Publishes: true}, 0, testRand())
	never := func() bool { return false }
	if step := s.Start(); !step.Near {
		t.Errorf("it begins with %+v", step)
	}
	step := s.Answered([]TopicAnswer{{Topic: topic("eu"), Failed: true}}, never)
	if step.Near || len(step.Topics) != 1 {
		t.Errorf("at last %+v", step)
	}
	if step = s.Answered([]TopicAnswer{{Topic: topic("eu")}}, never); len(step.Topics) > 0 || s.Unanswered() {
		t.Errorf("after the last %+v, unanswered %v", step, s.Unanswered())
	}
}

// A search that begins with a whole region deepens as often as regions can be
// split, not for ever.
func TestSearchDeepensWithinBounds(t *testing.T) {
	s := NewSearch(ShardMap{Region: "us", Own: topic("eu"), Publishes: true, Depth: func(string) int { return 0 }}, 0, testRand())
	rounds := 0
	for step := s.Start(); len(step.Topics) > 0; rounds++ {
		step = s.Answered([]TopicAnswer{{Topic: step.Topics[0], Held: 9, Split: true}}, func() bool { return false })
	}
	if rounds != holder.MaxShardBits+1 {
		t.Errorf("%d rounds", rounds)
	}
}
