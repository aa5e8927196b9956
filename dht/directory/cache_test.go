package directory

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	kb "github.com/libp2p/go-libp2p-kbucket"
	"github.com/libp2p/go-libp2p/core/peer"

	"weir/dht/holder"
)

var testHome = holder.ShardTopic("", "")

func peersNamed(from, to int) []peer.ID {
	var list []peer.ID
	for i := from; i < to; i++ {
		list = append(list, peer.ID(fmt.Sprintf("peer-%d", i)))
	}
	return list
}

func TestElectHolders(t *testing.T) {
	key := kb.ConvertKey("some topic")
	ordered := Closest(key, peersNamed(0, 30))
	for i := 1; i < len(ordered); i++ {
		if bytes.Compare(distance(key, ordered[i-1]), distance(key, ordered[i])) >= 0 {
			t.Fatal("closest is not in the order of distance")
		}
	}
	cases := []struct {
		name      string
		self      peer.ID
		others    []peer.ID
		remote    []peer.ID
		hold, all bool
	}{
		{"alone, we hold everything", "me", nil, nil, true, true},
		{"up to nine nodes, everyone holds everything", ordered[20], ordered[:8], ordered[:8], true, true},
		{"of ten nodes, one far from the key holds nothing", ordered[20], ordered[:9], ordered[:8], false, false},
		{"of ten nodes, one near the key is one of eight", ordered[3], slices.Concat(ordered[:3], ordered[4:10]), slices.Concat(ordered[:3], ordered[4:8]), true, false},
		{"the eighth is in", ordered[7], slices.Concat(ordered[:7], ordered[8:12]), ordered[:7], true, false},
		{"the ninth is out", ordered[8], slices.Concat(ordered[:8], ordered[9:12]), ordered[:8], false, false},
		{"ourselves among the others are dropped", ordered[0], ordered[:5], ordered[1:5], true, true},
		{"a peer named twice counts once", "me", slices.Concat(ordered[:4], ordered[:4]), ordered[:4], true, true},
		{"a client never holds; of nine, everyone else does", "", ordered[:3], ordered[:3], false, true},
		{"a client knows eight of many", "", ordered, ordered[:8], false, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := Elect(key, c.self, c.others)
			if !slices.Equal(got.Remote, c.remote) || got.Self != c.hold || got.All != c.all {
				t.Errorf("got %v self %v all %v, want %v self %v all %v", got.Remote, got.Self, got.All, c.remote, c.hold, c.all)
			}
		})
	}
}

func TestMissingHolders(t *testing.T) {
	key := kb.ConvertKey("some topic")
	ordered := Closest(key, peersNamed(0, 30))
	cases := []struct {
		name        string
		view, known []peer.ID
		want        []peer.ID
	}{
		{"views agree", ordered[:8], ordered[:8], nil},
		{"a closer one is named", ordered[:8], slices.Concat(ordered[:3], ordered[4:9]), ordered[3:4]},
		{"a farther one is not", ordered[1:9], ordered[:8], nil},
		{"who knows few learns of farther ones too", ordered[:8], ordered[:2], ordered[2:8]},
		{"who knows nobody learns of all", ordered[:8], nil, ordered[:8]},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := missing(key, c.view, knownList(c.known)); !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
	if got := missing(key, ordered[:8], []byte{1, 2, 3}); len(got) != 8 {
		t.Errorf("a torn list: got %d, want all", len(got))
	}
}

func TestHolderCacheLooksUpWhatIsInUse(t *testing.T) {
	c := NewCache()
	now := time.Unix(1_000_000, 0)
	later := func(d time.Duration) { now = now.Add(d) }
	expect := func(when string, small bool, want ...holder.Topic) {
		t.Helper()
		got := c.due(now, small)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: due %v, want %v", when, got, want)
		}
	}
	expect("nothing in use", false)
	if peers, looked := c.Use(now, "stream/a"); looked || len(peers) != 0 {
		t.Errorf("a new topic has %v, looked up: %v", peers, looked)
	}
	c.Use(now, testHome)
	expect("a small network looks up the capacity topic only", true, testHome)
	expect("never looked up", false, "stream/a")
	expect("being looked up", false)
	c.found(now, "stream/a", peersNamed(0, 3))
	c.found(now, testHome, nil)
	later(time.Second)
	if peers, looked := c.Use(now, "stream/a"); !looked || len(peers) != 3 {
		t.Errorf("after the look-up: %v, looked up: %v", peers, looked)
	}
	expect("fresh", false)

	c.Lost("peer-1")
	expect("lost a holder just after a look-up", false)
	later(lookUpPause)
	expect("lost a holder", false, "stream/a")
	c.found(now, "stream/a", peersNamed(2, 5))
	c.Lost("peer-0")
	later(lookUpPause + 1)
	expect("lost a peer that was not a holder", false)

	later(LookUpAge)
	expect("old but not used since", false)
	c.Use(now, "stream/a")
	expect("old and in use", false, "stream/a")
	if c.Begin(now, "stream/a") {
		t.Error("a second look-up begins while one is under way")
	}
	c.found(now, "stream/a", nil)
	if peers := c.Peek("stream/a"); len(peers) != 3 {
		t.Errorf("an empty result replaced %d peers", len(peers))
	}
	if c.Begin(now, "stream/a") {
		t.Error("a look-up begins right after the last")
	}
	later(lookUpPause)
	if !c.Begin(now, "stream/a") {
		t.Error("no look-up begins after the pause")
	}

	later(setIdle + 1)
	c.due(now, false)
	if len(c.sets) != 0 {
		t.Errorf("%d sets left though none was used", len(c.sets))
	}
}

func TestHolderCacheIsBounded(t *testing.T) {
	c := NewCache()
	now := time.Unix(1_000_000, 0)
	for i := range maxSets + 10 {
		c.Use(now.Add(time.Duration(i)), holder.Topic(fmt.Sprint("stream/", i)))
	}
	if len(c.sets) != maxSets || c.sets["stream/0"] != nil {
		t.Errorf("%d sets, want %d without the oldest", len(c.sets), maxSets)
	}
	for _, p := range peersNamed(0, maxNamed+10) {
		c.Add(p)
		c.Add(p)
	}
	if len(c.named) != maxNamed || slices.Contains(c.named, "peer-0") {
		t.Errorf("%d hinted, want %d without the oldest", len(c.named), maxNamed)
	}
	c.Lost("peer-20")
	if slices.Contains(c.Peek("stream/none"), "peer-20") {
		t.Error("a hinted holder that was lost is still there")
	}
	if !c.Meets(now, "x") || c.Meets(now, "x") || !c.Meets(now.Add(LookUpAge+1), "x") {
		t.Error("a named holder is not checked once per LookUpAge")
	}
}
