package directory

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/dht/holder"
)

// A shardWorld is many publishers of one region and one holder that all topics
// share, in the place of eight with slightly different counts.
type shardWorld struct {
	t      *testing.T
	now    time.Time
	nodes  map[peer.ID]*Sharding
	holder *holder.Table
	rnd    *rand.Rand
	made   int
}

func newShardWorld(t *testing.T) *shardWorld {
	return &shardWorld{
		t: t, now: time.Unix(1_700_000_000, 0), nodes: make(map[peer.ID]*Sharding),
		holder: holder.NewTable(holder.Limits{Total: 1 << 20, Topic: 1 << 20, Node: 1 << 20}),
		rnd:    rand.New(rand.NewPCG(1, 2)),
	}
}

const worldSplit, worldMerge = 64, 16

func (w *shardWorld) join(count int) {
	for range count {
		w.made++
		id := peer.ID(fmt.Sprintf("node-%d", w.made))
		w.nodes[id] = NewSharding(id, worldSplit, worldMerge)
	}
}

// leave removes nodes, without a withdrawal, until so many are left.
func (w *shardWorld) leave(left int) {
	for id := range w.nodes {
		if len(w.nodes) == left {
			return
		}
		delete(w.nodes, id)
	}
}

// pass advances time by d, a holder.Keepalive at a time.
func (w *shardWorld) pass(d time.Duration) {
	for end := w.now.Add(d); w.now.Before(end); w.now = w.now.Add(holder.Keepalive) {
		for id, s := range w.nodes {
			s.Step(w.now)
			for _, topic := range s.Homes(w.now, "eu") {
				r := capacity.Record{Node: id, Region: "eu", Seq: uint64(w.now.UnixMilli()), TTL: capacity.DefaultTTL}
				if err := topic.Fits(&r); err != nil {
					w.t.Fatalf("%s publishes in %s: %v", id, topic, err)
				}
				if err := w.holder.Put(w.now, w.now, topic, r, []byte("sealed")); err != nil {
					w.t.Fatal(err)
				}
				held, split := w.holder.Count(w.now, topic, s.Quorum())
				s.Report(w.now, topic, "holder", held, split)
			}
			for _, p := range s.SplitNotices(w.now) {
				if p.Split {
					w.holder.NoteSplit(w.now, w.now.Add(NoticeTTL), p.Topic, id)
				}
				held, split := w.holder.Count(w.now, p.Topic, s.Quorum())
				s.Report(w.now, p.Topic, "holder", held, split)
			}
		}
		w.holder.Sweep(w.now)
	}
}

// check fails unless every shard is within bounds, and every node can be found
// from the whole region by following the split notices.
func (w *shardWorld) check(what string, most int) {
	w.t.Helper()
	var walk func(bits string) int
	walk = func(bits string) int {
		held, split := w.holder.Count(w.now, holder.ShardTopic("eu", bits), min(noticeQuorum, worldMerge))
		if held > most {
			w.t.Errorf("%s: %d publishers in shard %q, at most %d are wanted", what, held, bits, most)
		}
		if split {
			held += walk(bits+"0") + walk(bits+"1")
		}
		return held
	}
	if found := walk(""); found < len(w.nodes) {
		w.t.Errorf("%s: %d of %d nodes are found", what, found, len(w.nodes))
	}
}

func (w *shardWorld) depths() map[int]int {
	m := make(map[int]int)
	for _, s := range w.nodes {
		_, bits, _ := s.Home().Shard()
		m[len(bits)]++
	}
	return m
}

func TestShardsFollowTheNumberOfPublishers(t *testing.T) {
	w := newShardWorld(t)
	w.join(50)
	w.pass(time.Minute)
	w.check("50 nodes", worldSplit)
	if d := w.depths(); d[0] != 50 {
		t.Errorf("50 nodes, which fit in one shard, are at depths %v", d)
	}

	w.join(950)
	w.pass(5 * time.Minute)
	w.check("1000 nodes", worldSplit)
	settled := fmt.Sprint(w.depths())
	w.pass(30 * time.Minute)
	if now := fmt.Sprint(w.depths()); now != settled {
		t.Errorf("shards change without need: depths %s became %s", settled, now)
	}

	// Later nodes find their way down.
	w.join(20)
	w.pass(time.Minute)
	w.check("20 more", worldSplit+8)
	if d := w.depths(); d[0]+d[1] > 0 {
		t.Errorf("newcomers stay at the top: %v", d)
	}

	w.leave(20)
	w.pass(45 * time.Minute)
	w.check("20 left", worldSplit)
	if d := w.depths(); d[0] != 20 {
		t.Errorf("20 nodes, which fit in one shard, are at depths %v", d)
	}
}

// A thin shard beside a crowded one is not merged: the joint shard would only
// be split again.
func TestThinShardBesideACrowdedOneStays(t *testing.T) {
	w := newShardWorld(t)
	w.join(100)
	w.pass(5 * time.Minute)
	var thin int
	for id, s := range w.nodes {
		if strings.HasPrefix(s.bits, "0") {
			if thin++; thin > 5 {
				delete(w.nodes, id)
			}
		}
	}
	w.pass(10 * time.Minute)
	before := w.depths()
	w.pass(30 * time.Minute)
	if now := w.depths(); fmt.Sprint(now) != fmt.Sprint(before) || now[1] < 40 {
		t.Errorf("depths %v became %v", before, now)
	}
}

// One lying holder moves no node.
func TestOneHolderAmongEightMovesNobody(t *testing.T) {
	s := NewSharding("n", 0, 0)
	now := time.Unix(1_700_000_000, 0)
	home := s.Homes(now, "eu")[0]
	for i := range replicas - 1 {
		s.Report(now, home, peer.ID(fmt.Sprint("h", i)), 100, false)
	}
	s.Report(now, home, "liar", 1_000_000, true)
	if s.Step(now) {
		t.Error("moved on the word of one holder")
	}
	if held, _, _ := s.opinion(now, home, reportAge); held != 100 {
		t.Errorf("%d publishers, want 100", held)
	}
	// Reports about other topics do not count.
	s.Report(now, holder.ShardTopic("us", ""), "x", 10_000, true)
	s.Report(now, holder.ShardTopic("eu", "0101"), "y", 10_000, true)
	if s.Step(now) {
		t.Error("moved by what was said of other topics")
	}
}

// Every node has a peer shard outside of its own shard; the nodes of one shard
// have peers everywhere; and a node whose peer shard is empty, or only has
// split notices, adjusts to it.
func TestPartner(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	peers := make(map[holder.Topic]int)
	var s *Sharding
	for i := range 400 {
		s = NewSharding(peer.ID(fmt.Sprint("node", i)), 4, 1)
		s.Homes(now, "eu")
		if p := s.PeerShard(); p != "" {
			t.Fatalf("in a region of one shard the peer shard is %s", p)
		}
		for range 3 {
			s.Report(now, s.Home(), "h", 5, false)
			s.Step(now)
		}
		_, home, _ := s.Home().Shard()
		region, bits, ok := s.PeerShard().Shard()
		if !ok || region != "eu" || len(home) != 3 || len(bits) != 3 || bits == home {
			t.Fatalf("home %s, peer shard %s", s.Home(), s.PeerShard())
		}
		peers[s.PeerShard()]++
	}
	for p, n := range peers {
		if n < 20 {
			t.Errorf("%s is the peer shard of %d of 400", p, n)
		}
	}
	if len(peers) != 8 {
		t.Errorf("peers %v, want all shards", peers)
	}
	depth := func() int {
		_, bits, _ := s.PeerShard().Shard()
		if _, home, _ := s.Home().Shard(); strings.HasPrefix(home, bits) || strings.HasPrefix(bits, home) {
			t.Errorf("home %s, peer shard %s", home, bits)
		}
		return len(bits)
	}
	s.PeerReport("capacity/eu/111111", 0, true) // another topic
	s.PeerReport(s.PeerShard(), 3, false)
	if d := depth(); d != 3 {
		t.Errorf("depth %d of one that is in use", d)
	}
	s.PeerReport(s.PeerShard(), 0, true)
	if d := depth(); d != 4 {
		t.Errorf("depth %d of one that was split", d)
	}
	for range 6 {
		s.PeerReport(s.PeerShard(), 0, false)
	}
	if d := depth(); d != 1 {
		t.Errorf("depth %d where nobody is", d)
	}
	s.Report(now, s.Home(), "h", 5, false)
	s.Step(now)
	if d := depth(); d != 4 {
		t.Errorf("depth %d after a move to depth 4", d)
	}
}

// For one TTL after a move both shards have the record.
func TestBothShardsHaveARecordWhileItsNodeMoves(t *testing.T) {
	s := NewSharding("n", 4, 1)
	now := time.Unix(1_700_000_000, 0)
	top := s.Homes(now, "")[0]
	s.Report(now, top, "h", 5, false)
	if !s.Step(now) {
		t.Fatal("a shard of 5 with room for 4 is not split")
	}
	finer := holder.ShardTopic("", s.bits[:1])
	if got := s.Homes(now.Add(bothTime-1), ""); !slices.Equal(got, []holder.Topic{finer, top}) {
		t.Errorf("publishes in %v, want %s and %s", got, finer, top)
	}
	if got := s.Homes(now.Add(bothTime), ""); !slices.Equal(got, []holder.Topic{finer}) {
		t.Errorf("publishes in %v after a TTL, want %s", got, finer)
	}
}
