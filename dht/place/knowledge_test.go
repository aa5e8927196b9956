package place

import (
	"testing"

	"weir/dht/holder"
)

func TestKnowledge(t *testing.T) {
	capacity, stream := topic("eu"), holder.StreamTopic("show")
	for _, c := range []struct {
		name    string
		k       Knowledge
		own     bool
		lookUp  bool
		nothing bool
	}{
		{"a lone node knows all the capacity there is", Knowledge{Topic: capacity, Self: true, Everyone: true}, true, false, false},
		{"but may not have heard of others that have the stream", Knowledge{Topic: stream, Self: true, Everyone: true}, false, true, false},
		{"unless the network was searched", Knowledge{Topic: stream, Self: true, Everyone: true, LookedUp: true}, false, false, false},
		{"one of few that has warmed up asks nobody", Knowledge{Topic: stream, Self: true, Everyone: true, Others: 5, Own: 1, Held: 1, WarmedUp: true}, true, false, false},
		{"but one that has not", Knowledge{Topic: stream, Self: true, Everyone: true, Others: 5, Own: 1, Held: 1}, false, false, false},
		{"nor is its memory enough if it has nothing", Knowledge{Topic: capacity, Self: true, Everyone: true, Others: 5, WarmedUp: true}, false, false, false},
		{"one of many holders asks others too", Knowledge{Topic: capacity, Self: true, Others: 7, Own: 40, Held: 41, WarmedUp: true}, false, false, false},
		{"nobody answers", Knowledge{Topic: capacity, Others: 8}, false, true, true},
		{"nor does anybody in one of several topics", Knowledge{Topic: capacity, Others: 8, Near: true}, false, false, true},
		{"holders know of nothing, of which there is always more", Knowledge{Topic: capacity, Others: 8, Answers: 3}, false, false, false},
		{"of nothing that is there or not", Knowledge{Topic: stream, Others: 8, Answers: 5}, false, true, false},
		{"of something", Knowledge{Topic: stream, Others: 8, Answers: 2, Held: 1}, false, false, false},
	} {
		if own, lookUp, nothing := c.k.OwnWillDo(), c.k.LookUp(), c.k.Nothing(); own != c.own || lookUp != c.lookUp || nothing != c.nothing {
			t.Errorf("%s: own %v, look up %v, nothing %v; want %v, %v, %v", c.name, own, lookUp, nothing, c.own, c.lookUp, c.nothing)
		}
	}
}
