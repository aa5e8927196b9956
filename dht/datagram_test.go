package dht

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"weir/capacity"
	"weir/dht/holder"
	"weir/dht/pb"
)

// datagramsIn is how many datagrams n has received.
func datagramsIn(n *testNode) int64 {
	for _, t := range n.Traffic() {
		if t.Protocol == string(n.datagramProtocol()) {
			return t.MessagesIn
		}
	}
	return 0
}

// atRest is nil when nothing is on its way to a holder.
func (o *outbox) atRest() error {
	if o.underWay() {
		return errors.New("something is under way")
	}
	return nil
}

func (o *outbox) seqNow() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.seq
}

// What only amends a record goes by datagram to a holder that has answered
// lately; news is confirmed.
func TestKeepalivesGoByDatagram(t *testing.T) {
	nodes := newTestNetwork(t, 2)
	from, holder := nodes[0], nodes[1]
	if from.quicTo(holder.ID()) == nil {
		t.Fatal("no QUIC connection")
	}
	topic := from.sharding.home()
	arrives := func(what string, by func(before, after int64) bool, change func(*capacity.Record)) {
		t.Helper()
		eventually(t, from.outbox.atRest) // nothing else is on its way
		before := datagramsIn(holder)
		r, _ := from.sample()
		change(&r)
		from.publish([]claim{{topic, r}})
		seq := from.outbox.seqNow()
		eventually(t, func() error {
			if h := holder.table.Get(time.Now(), topic, from.ID()); h == nil || h.Record.Seq < seq {
				return fmt.Errorf("%s: the holder has not got record %d", what, seq)
			}
			return nil
		})
		if after := datagramsIn(holder); !by(before, after) {
			t.Errorf("%s: %d datagrams became %d", what, before, after)
		}
	}
	more := func(before, after int64) bool { return after > before }
	same := func(before, after int64) bool { return after == before }
	// The node itself publishes meanwhile, so an odd datagram may come in
	// between: what must not is that one with news does.
	arrives("a keepalive", more, func(*capacity.Record) {})
	arrives("a node that is full now", same, func(r *capacity.Record) { r.State = capacity.Full })
}

func TestDatagramsOfOthersAreNotTaken(t *testing.T) {
	n := newTestNode(t, nil)
	now := time.Now()
	key := newKey(t)
	from := idOf(t, key)
	r := capacity.Record{Node: from, Seq: 1, Issued: time.UnixMilli(now.UnixMilli()), TTL: capacity.DefaultTTL}
	sealed := seal(t, r, key)
	datagram := func(network string, entries ...*pb.Entry) []byte {
		b, err := proto.MarshalOptions{}.MarshalAppend(datagramPrefix(NetworkID(network)), &pb.Advertise{Entries: entries})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	good := &pb.Entry{Topic: string(testHome), Sealed: sealed}
	for _, c := range []struct {
		name, want string
		b          []byte
	}{
		{"nothing", errNoDatagram.Error(), nil},
		{"another network's", errNoDatagram.Error(), datagram("other", good)},
		{"too long", errNoDatagram.Error(), append(datagram("test", good), make([]byte, maxDatagram)...)},
		{"garbage", "proto", append(datagramPrefix(NetworkID("test")), 0xff, 0xff)},
		{"another node's record", errNotYours.Error(), datagram("test", &pb.Entry{Topic: string(testHome), Sealed: seal(t, capacity.Record{Node: n.ID(), Seq: 9, Issued: r.Issued, TTL: r.TTL}, n.key)})},
		{"a record of another topic", holder.ErrWrongTopic.Error(), datagram("test", &pb.Entry{Topic: string(ShardTopic("eu", "")), Sealed: sealed})},
		{"no topic", "unknown topic", datagram("test", &pb.Entry{Topic: "x", Sealed: sealed})},
	} {
		if err := n.takeDatagram(now, from, c.b); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	if h := n.table.All(now); len(h) != 0 {
		t.Errorf("held: %v", h)
	}
	if err := n.takeDatagram(now, from, datagram("test", good, good)); err != nil || n.table.Get(now, testHome, from) == nil {
		t.Errorf("a good one: %v", err)
	}
	// A withdrawal is not believed: it may be an old one.
	if err := n.takeDatagram(now, from, datagram("test", &pb.Entry{Topic: string(testHome), Seq: 99})); err != nil || n.table.Get(now, testHome, from) == nil {
		t.Errorf("a withdrawal by datagram: %v", err)
	}
	many := slices.Repeat([]*pb.Entry{{Topic: "x", Sealed: []byte{1}}}, datagramTopics+1)
	if err := n.takeDatagram(now, from, datagram("test", many...)); strings.Count(fmt.Sprint(err), "unknown topic") != datagramTopics {
		t.Errorf("of too many entries: %v", err)
	}
}

func FuzzDatagram(f *testing.F) {
	node := newTestNode(f, func(c *Config) { c.Listen = nil })
	key := newKey(f)
	from := idOf(f, key)
	prefix := datagramPrefix(NetworkID("test"))
	r := capacity.Record{Node: from, Seq: 1, Issued: time.UnixMilli(time.Now().UnixMilli()), TTL: capacity.MaxTTL}
	next := r
	next.Seq++
	for _, m := range []*pb.Advertise{
		{},
		{Entries: []*pb.Entry{{Topic: string(testHome), Sealed: seal(f, r, key)}}},
		{Entries: []*pb.Entry{{Topic: string(testHome), Amendment: amend(f, &testNode{key: key}, seal(f, r, key), next)}}},
		{Entries: []*pb.Entry{{Topic: "stream/a", Sealed: []byte("x")}, {Topic: "regions", Deeper: true}}},
	} {
		b, err := proto.MarshalOptions{}.MarshalAppend(prefix, m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = node.takeDatagram(time.Now(), from, b)
		for _, topic := range node.Held() {
			for _, h := range topic.Records {
				if h.Node != from {
					t.Fatalf("a record of %s came from %s", h.Node, from)
				}
			}
		}
	})
}

func FuzzTopic(f *testing.F) {
	for _, s := range []string{"capacity/eu/*", "capacity/*/01", "capacity/%2A/1", "regions", "stream/a/b", "provision/*", "provision/eu", "provision/%2A", "provision/a/b", "capacity", "capacity/%/", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		topic := Topic(s)
		region, bits, ok := topic.Shard()
		if ok && (ShardTopic(region, bits) != topic || topic.Check() != nil || len(region) > capacity.MaxLabel || len(bits) > holder.MaxShardBits) {
			t.Fatalf("%q is region %q, bits %q", s, region, bits)
		}
		if !ok && topic.Check() == nil && topic != holder.RegionsTopic && topic.Stream() == "" && !topic.Provisions() {
			t.Fatalf("%q passes for a topic", s)
		}
	})
}

// Whatever is handed over, what is kept is signed by the node it names, belongs
// in the topic, and outlives no original.
func FuzzHandOver(f *testing.F) {
	node := newTestNode(f, func(c *Config) { c.Listen = nil })
	key := newKey(f)
	r := capacity.Record{Node: idOf(f, key), Seq: 1, Issued: time.UnixMilli(time.Now().UnixMilli()), TTL: capacity.MaxTTL}
	other := r
	other.Region, other.Seq = "eu", 2
	for _, m := range []*pb.HandOver{
		{},
		{Topic: string(testHome), Copies: []*pb.Copy{{Sealed: seal(f, r, key), HeldMs: 10}}},
		{Topic: string(testHome), Copies: []*pb.Copy{{Sealed: seal(f, other, key)}, {Sealed: []byte("x"), HeldMs: 1 << 31}}},
		{Topic: "stream/a", Copies: []*pb.Copy{{}}},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var m pb.HandOver
		if proto.Unmarshal(b, &m) != nil || Topic(m.Topic).Check() != nil {
			return
		}
		now := time.Now()
		if taken := node.takeCopies(now, "from", Topic(m.Topic), m.Copies); int(taken) > len(m.Copies) {
			t.Fatalf("%d taken of %d", taken, len(m.Copies))
		}
		for topic, records := range node.table.All(now) {
			for _, h := range records {
				if got, err := capacity.OpenAnyAge(h.Sealed); err != nil || got.Node != h.Node() || topic.Fits(&got) != nil || h.Expires.Sub(h.Received) > got.TTL {
					t.Fatalf("%s holds %+v: %v", topic, got, err)
				}
			}
		}
	})
}
