package dht

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/multiformats/go-multiaddr"
	"github.com/quic-go/quic-go"
	"google.golang.org/protobuf/proto"

	"weir/capacity"
	"weir/dht/datagram"
	"weir/dht/dhttest"
	"weir/dht/directory"
	"weir/dht/holder"
	"weir/dht/holding"
	"weir/dht/pb"
)

// datagramsCounted returns how many datagrams n has received and sent.
func (n *testNode) datagramsCounted() (in, out int64) {
	for _, t := range n.Overlay.Traffic.List() {
		if t.Protocol == string(n.protocols.records)+"/datagram" {
			return t.MessagesIn, t.MessagesOut
		}
	}
	return 0, 0
}

// An update of a known record goes by datagram; a change is confirmed, by
// datagram too.
func TestUpdatesGoByDatagram(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes := newTestNetwork(t, 2)
		from, holder := nodes[0], nodes[1]
		if !slices.ContainsFunc(from.Host().Network().ConnsToPeer(holder.ID()), func(c network.Conn) bool { return c.As(new(*quic.Conn)) }) {
			t.Fatal("no QUIC connection")
		}
		topic := from.sharding.Home()
		dhttest.Eventually(t, func() error {
			if in, _ := holder.datagramsCounted(); in == 0 {
				return errors.New("no keepalive has come by datagram")
			}
			return nil
		})
		in, _ := holder.datagramsCounted()
		answers, _ := from.datagramsCounted()
		from.ledger.SetDraining(true)
		from.Publisher.Kick()
		dhttest.Eventually(t, func() error {
			if h := holder.table.Get(time.Now(), topic, from.ID()); h == nil || h.Record.State != capacity.Draining {
				return errors.New("the holder has not heard that the node drains")
			}
			return nil
		})
		if after, _ := holder.datagramsCounted(); after == in {
			t.Error("the news did not come by datagram")
		}
		dhttest.Eventually(t, func() error {
			if after, _ := from.datagramsCounted(); after == answers {
				return errors.New("the news is not confirmed")
			}
			return nil
		})
	})
}

func TestDatagramsOfOthersAreNotTaken(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := newTestNode(t, nil)
		now := time.Now()
		key := dhttest.Key(t)
		from := dhttest.ID(t, key)
		r := capacity.Record{Node: from, Seq: 1, Issued: time.UnixMilli(now.UnixMilli()), TTL: capacity.DefaultTTL}
		sealed := seal(t, r, key)
		wire := func(network string, entries ...*pb.Entry) []byte {
			b, err := proto.MarshalOptions{}.MarshalAppend(datagram.Prefix(NetworkID(network)), &pb.Datagram{Entries: entries})
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
			{"nothing", datagram.ErrForeign.Error(), nil},
			{"another network's", datagram.ErrForeign.Error(), wire("other", good)},
			{"too long", datagram.ErrForeign.Error(), append(wire("test", good), make([]byte, datagram.MaxSize)...)},
			{"garbage", "proto", append(datagram.Prefix(NetworkID("test")), 0xff, 0xff)},
			{"another node's record", holding.ErrNotYours.Error(), wire("test", &pb.Entry{Topic: string(testHome), Sealed: seal(t, capacity.Record{Node: n.ID(), Seq: 9, Issued: r.Issued, TTL: r.TTL}, n.key)})},
			{"a record of another topic", holder.ErrWrongTopic.Error(), wire("test", &pb.Entry{Topic: string(ShardTopic("eu", "")), Sealed: sealed})},
			{"no topic", "unknown topic", wire("test", &pb.Entry{Topic: "x", Sealed: sealed})},
		} {
			if _, err := n.datagrams.Take(now, from, c.b); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %q", c.name, err, c.want)
			}
		}
		if h := n.table.All(now); len(h) != 0 {
			t.Errorf("held: %v", h)
		}
		if _, err := n.datagrams.Take(now, from, wire("test", good, good)); err != nil || n.table.Get(now, testHome, from) == nil {
			t.Errorf("a good one: %v", err)
		}
		// A withdrawal by datagram is ignored: it may be an old one.
		if _, err := n.datagrams.Take(now, from, wire("test", &pb.Entry{Topic: string(testHome), Seq: 99})); err != nil || n.table.Get(now, testHome, from) == nil {
			t.Errorf("a withdrawal by datagram: %v", err)
		}
		many := slices.Repeat([]*pb.Entry{{Topic: "x", Sealed: []byte{1}}}, holding.MaxDatagramTopics+1)
		if _, err := n.datagrams.Take(now, from, wire("test", many...)); strings.Count(fmt.Sprint(err), "unknown topic") != holding.MaxDatagramTopics {
			t.Errorf("of too many entries: %v", err)
		}
	})
}

// A datagram gets only the answers it asks for.
func TestAnswersToDatagrams(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := newTestNode(t, nil)
		now := time.Now()
		key := dhttest.Key(t)
		from := dhttest.ID(t, key)
		r := capacity.Record{Node: from, Seq: 1, Issued: time.UnixMilli(now.UnixMilli()), TTL: capacity.DefaultTTL}
		sealed := seal(t, r, key)
		next := r
		next.Seq = 2
		delta := sealUpdate(t, &testNode{key: key}, sealed, next)
		take := func(m *pb.Datagram) *pb.Datagram {
			t.Helper()
			b, err := proto.MarshalOptions{}.MarshalAppend(datagram.Prefix(NetworkID("test")), m)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := n.datagrams.Take(now, from, b)
			if err != nil && !errors.Is(err, holding.ErrNothingToUpdate) {
				t.Fatal(err)
			}
			return answer
		}
		home := string(testHome)
		if a := take(&pb.Datagram{Entries: []*pb.Entry{{Topic: home, Update: delta}}}); !slices.Equal(a.GetLacking(), []string{home}) || a.Answer != nil {
			t.Errorf("what cannot be updated: %v", a)
		}
		a := take(&pb.Datagram{Id: 7, Entries: []*pb.Entry{{Topic: home, Update: delta}}})
		if a.GetAnswers() != 7 || a.GetAnswer().GetResults()[0].GetRefused() != holding.ErrNothingToUpdate.Error() || len(a.Lacking) > 0 {
			t.Errorf("what cannot be updated and is to be confirmed: %v", a)
		}
		a = take(&pb.Datagram{Id: 8, Entries: []*pb.Entry{{Topic: home, Sealed: sealed}, {Topic: home, Update: delta}}})
		if rs := a.GetAnswer().GetResults(); a.GetAnswers() != 8 || len(rs) != 2 || rs[0].Refused+rs[1].Refused != "" {
			t.Errorf("what is to be confirmed: %v", a)
		}
		if a := take(&pb.Datagram{Entries: []*pb.Entry{{Topic: home, Update: delta}}}); a != nil {
			t.Errorf("what is not to be confirmed: %v", a)
		}
		if a := take(&pb.Datagram{Answer: &pb.AdvertiseReply{}, Answers: 7, Lacking: []string{home, "x"}}); a != nil {
			t.Errorf("an answer: %v", a)
		}
	})
}

// An answer fits into a datagram, however much its holder knows.
func TestAnswerFitsIntoADatagram(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes := joinTestNetwork(t, directory.Everyone+3, func(int, *testNode) {}, nil)
		n, from := nodes[0], nodes[1]
		for _, other := range nodes[2:] { // many addresses each
			for port := range 12 {
				n.Host().Peerstore().AddAddr(other.ID(), multiaddr.StringCast(fmt.Sprintf("/ip4/192.0.2.1/tcp/%d", 1000+port)), time.Hour)
			}
		}
		dhttest.Eventually(t, func() error {
			r, _ := from.sample()
			r.Node, r.Seq, r.Issued, r.TTL = from.ID(), uint64(time.Now().UnixMilli())+1000, time.UnixMilli(time.Now().UnixMilli()), capacity.DefaultTTL
			m := &pb.Datagram{Id: 1, Entries: []*pb.Entry{{Topic: string(from.sharding.Home()), Sealed: seal(t, r, from.key)}}}
			b, err := proto.MarshalOptions{}.MarshalAppend(datagram.Prefix(n.network), m)
			if err != nil {
				t.Fatal(err)
			}
			a, err := n.datagrams.Take(time.Now(), from.ID(), b)
			if err != nil {
				t.Fatal(err)
			}
			if size := proto.Size(a); size > 1_116 {
				t.Fatalf("%d bytes", size)
			}
			if len(a.Answer.Closer) == 0 {
				return errors.New("no closer holder is named")
			}
			return nil
		})
	})
}

func FuzzDatagram(f *testing.F) {
	node := newTestNode(f, func(c *Config) { c.Listen = nil })
	key := dhttest.Key(f)
	from := dhttest.ID(f, key)
	prefix := datagram.Prefix(NetworkID("test"))
	r := capacity.Record{Node: from, Seq: 1, Issued: time.UnixMilli(time.Now().UnixMilli()), TTL: capacity.MaxTTL}
	next := r
	next.Seq++
	for _, m := range []*pb.Datagram{
		{},
		{Answer: &pb.AdvertiseReply{Results: []*pb.Result{{Held: 3}}}, Answers: 1, Lacking: []string{string(testHome)}},
		{Id: 5, Entries: []*pb.Entry{{Topic: string(testHome), Sealed: seal(f, r, key), Known: []byte("12345678")}}},
		{Entries: []*pb.Entry{{Topic: string(testHome), Sealed: seal(f, r, key)}}},
		{Entries: []*pb.Entry{{Topic: string(testHome), Update: sealUpdate(f, &testNode{key: key}, seal(f, r, key), next)}}},
		{Entries: []*pb.Entry{{Topic: "stream/a", Sealed: []byte("x")}, {Topic: "regions", Deeper: true}}},
	} {
		b, err := proto.MarshalOptions{}.MarshalAppend(prefix, m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		node.rates = holder.RateLimit{}
		if a, _ := node.datagrams.Take(time.Now(), from, b); a != nil && proto.Size(a) > datagram.MaxSize-8 {
			t.Fatalf("an answer of %d bytes", proto.Size(a))
		}
		for _, topic := range node.Reader.Holdings() {
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
