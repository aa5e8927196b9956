package dht

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/proto"

	"weir/capacity"
	"weir/capacity/frame"
	cpb "weir/capacity/pb"
	"weir/capacity/policy"
	"weir/capacity/signed"
	"weir/dht/datagram"
	"weir/dht/dhttest"
	"weir/dht/holder"
	"weir/dht/holding"
	"weir/dht/overlay"
	"weir/dht/pb"
	"weir/dht/records"
	"weir/dht/seek"
	"weir/dht/vivaldi"
)

// Records that a holder refuses, and the reason it gives.
func TestHolderRefusesBadRecords(t *testing.T) {
	bubble(t, func(t *testing.T) {
		node := newTestNode(t, nil)
		f := newFake(t, node.info(), nil)
		other := dhttest.Key(t)

		sealed := func(change func(*capacity.Record)) []byte {
			r := f.record()
			change(&r)
			return seal(t, r, f.key)
		}
		none := func(*capacity.Record) {}
		carries := func(stream string) func(*capacity.Record) {
			return func(r *capacity.Record) {
				r.Carries = &capacity.StreamInfo{Stream: stream, Origin: true, Path: []peer.ID{r.Node}}
			}
		}
		forged := sealed(none)
		forged[len(forged)-3] ^= 1
		foreign := f.record()
		foreign.Node = dhttest.ID(t, other)

		newest := f.record()
		older := newest
		newest.Seq += 100
		withdrawn := newest
		withdrawn.Seq += 100

		capacityTopic := string(testHome)
		cases := []struct {
			name  string
			entry *pb.Entry
			want  string // part of the reason; "": accepted
		}{
			{"a good record", &pb.Entry{Topic: capacityTopic, Sealed: sealed(none)}, ""},
			{"a good record of a stream", &pb.Entry{Topic: "stream/a/b", Sealed: sealed(carries("a/b"))}, ""},
			{"a forged one", &pb.Entry{Topic: capacityTopic, Sealed: forged}, "forged"},
			{"one of another node", &pb.Entry{Topic: capacityTopic, Sealed: seal(t, foreign, other)}, "another node"},
			{"an expired one", &pb.Entry{Topic: capacityTopic, Sealed: sealed(func(r *capacity.Record) {
				r.Issued = r.Issued.Add(-time.Hour)
			})}, "expired"},
			{"one from the future", &pb.Entry{Topic: capacityTopic, Sealed: sealed(func(r *capacity.Record) {
				r.Issued = r.Issued.Add(time.Hour)
			})}, "future"},
			{"an oversized one", &pb.Entry{Topic: capacityTopic, Sealed: make([]byte, signed.MaxRecordSize+1)}, "too large"},
			{"garbage", &pb.Entry{Topic: capacityTopic, Sealed: []byte("garbage")}, "malformed"},
			{"a stream's record among the nodes", &pb.Entry{Topic: capacityTopic, Sealed: sealed(carries("a"))}, "another topic"},
			{"a node's record among a stream's", &pb.Entry{Topic: "stream/a", Sealed: sealed(none)}, "another topic"},
			{"another stream's record", &pb.Entry{Topic: "stream/a", Sealed: sealed(carries("b"))}, "another topic"},
			{"an unknown topic", &pb.Entry{Topic: "nonsense", Sealed: sealed(none)}, "unknown topic"},
			{"a shard that is none", &pb.Entry{Topic: "capacity/all/9", Sealed: sealed(none)}, "unknown topic"},
			{"a stream without a name", &pb.Entry{Topic: "stream/", Sealed: sealed(carries("a"))}, "stream name"},
			{"a newer one", &pb.Entry{Topic: capacityTopic, Sealed: seal(t, newest, f.key)}, ""},
			{"a replayed one", &pb.Entry{Topic: capacityTopic, Sealed: seal(t, older, f.key)}, "replayed"},
			{"a withdrawal of an older one", &pb.Entry{Topic: capacityTopic, Seq: older.Seq}, "replayed"},
			{"a withdrawal", &pb.Entry{Topic: capacityTopic, Seq: withdrawn.Seq}, ""},
			{"one that was withdrawn", &pb.Entry{Topic: capacityTopic, Sealed: seal(t, newest, f.key)}, "replayed"},
		}
		var entries []*pb.Entry
		for _, c := range cases {
			entries = append(entries, c.entry)
		}
		results := f.call(t, node.ID(), advertisement(entries...)).GetAdvertise().GetResults()
		if len(results) != len(cases) {
			t.Fatalf("%d results, want %d", len(results), len(cases))
		}
		for i, c := range cases {
			got := results[i].Refused
			if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
				t.Errorf("%s: %q, want %q in it", c.name, got, c.want)
			}
		}
		held := 0
		for _, topic := range node.Reader.Holdings() {
			held += len(topic.Records)
		}
		if held != 1 { // the stream's
			t.Errorf("%d records held, want 1", held)
		}
	})
}

func TestHolderRefusesBadRequests(t *testing.T) {
	node := newTestNode(t, nil)
	f := newFake(t, node.info(), nil)
	query := func(q *pb.Query) *pb.Request { return &pb.Request{Op: &pb.Request_Query{Query: q}} }
	topic := string(testHome)
	cases := []struct {
		name string
		req  *pb.Request
		want string
	}{
		{"nothing", &pb.Request{}, "unknown request"},
		{"too many records at once", advertisement(make([]*pb.Entry, holding.MaxEntries+1)...), "at most 64"},
		{"a query without a need", query(&pb.Query{Topic: topic}), "no need"},
		{"a query for an unknown purpose", query(&pb.Query{Topic: topic, Need: &cpb.Need{Purpose: 9}}), "purpose"},
		{"a query for more than there is", query(&pb.Query{Topic: topic, Need: &cpb.Need{Uplink: math.MaxUint64}}), "uplink"},
		{"a query with a stream that has no name", query(&pb.Query{Topic: topic, Need: &cpb.Need{Stream: "a//b"}}), "stream name"},
		{"a query with a long region", query(&pb.Query{Topic: topic, Need: &cpb.Need{Region: strings.Repeat("x", 33)}}), "region"},
		{"a query of an unknown topic", query(&pb.Query{Topic: "x", Need: &cpb.Need{}}), "unknown topic"},
		{"a query that excludes the world", query(&pb.Query{Topic: topic, Need: &cpb.Need{}, Exclude: make([][]byte, holding.MaxExclude+1)}), "at most 64"},
		{"a watch of an unknown topic", &pb.Request{Op: &pb.Request_Watch{Watch: &pb.Watch{Topic: "x"}}}, "unknown topic"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := f.call(t, node.ID(), c.req).Error; !strings.Contains(got, c.want) {
				t.Errorf("error %q, want %q in it", got, c.want)
			}
		})
	}
}

// Invalid requests end their stream, and nothing else.
func TestHolderSurvivesHostileStreams(t *testing.T) {
	node := newTestNode(t, nil)
	f := newFake(t, node.info(), nil)
	garbage := map[string][]byte{
		"too much announced":   binary.AppendUvarint(nil, records.MaxRequest+1),
		"a length that is no":  {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"no protobuf":          append(binary.AppendUvarint(nil, 5), "\xff\xff\xff\xff\xff"...),
		"less than announced":  append(binary.AppendUvarint(nil, 500), "short"...),
		"text that is no text": append(binary.AppendUvarint(nil, 6), 0x22, 0x04, 0x0a, 0x02, 0xff, 0xfe),
	}
	for name, b := range garbage {
		t.Run(name, func(t *testing.T) {
			s, err := f.host.NewStream(t.Context(), node.ID(), testProtocol(testRecords))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Write(b); err != nil {
				t.Fatal(err)
			}
			_ = s.CloseWrite()
			_ = s.SetReadDeadline(time.Now().Add(dhttest.Patience))
			var resp pb.Response
			if _, err := frame.ReadPrintable(bufio.NewReader(s), records.MaxRequest, &resp); err == nil {
				t.Errorf("answered %v", &resp)
			}
			_ = s.Reset()
		})
	}
	f.advertise(t, node)
}

// ask is a query that any node answers.
var ask = &pb.Request{Op: &pb.Request_Query{Query: &pb.Query{Topic: string(testHome), Need: &cpb.Need{}}}}

// A peer gets a bounded number of concurrent requests, is told when it has
// reached it, and frees its places afterwards.
func TestRequestsPerPeerAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		node := newTestNode(t, nil)
		f := newFake(t, node.info(), nil)
		g := newFake(t, node.info(), nil)
		for range overlay.MaxServedPeer {
			if !node.Overlay.Server.Inbound.Enter(f.host.ID(), false) {
				t.Fatal("no place at an idle desk")
			}
		}
		resp := f.call(t, node.ID(), ask)
		if !resp.Busy || !errors.Is(holding.ReplyError(resp), ErrBusy) {
			t.Errorf("one request too many: %v", resp)
		}
		g.advertise(t, node) // another peer is served all the same
		for range overlay.MaxServedPeer {
			node.Overlay.Server.Inbound.Leave(f.host.ID(), false)
		}
		f.advertise(t, node)
		dhttest.Eventually(t, func() error {
			if requests, peers := node.Overlay.Server.Inbound.Served(); requests != 0 || peers != 0 {
				return fmt.Errorf("%d requests under way after all have ended", requests)
			}
			return nil
		})
	})
}

// Silent streams take no place of other peers or of their own.
func TestSilentStreamsKeepNobodyOut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		node := newTestNode(t, nil)
		f := newFake(t, node.info(), nil)
		const silent = overlay.StreamsPerPeer - 4
		failed := 0
		for _, p := range []protocol.ID{testRecords, testReserves} {
			for i := range silent {
				s, err := f.host.NewStream(t.Context(), node.ID(), testProtocol(p))
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = s.Reset() }()
				if i%2 == 0 {
					if _, err := s.Write([]byte{200, 1}); err != nil { // the length, and then nothing
						t.Fatal(err)
					}
				}
			}
		}
		for range 20 {
			if f.call(t, node.ID(), ask).Error != "" {
				failed++
			}
		}
		places, _ := node.Overlay.Server.Inbound.Served()
		t.Logf("%d silent streams hold %d places; %d of 20 requests of the same peer failed", 2*silent, places, failed)
		if places > 0 || failed > 0 {
			t.Error("silent streams take places")
		}
	})
}

// A holder accepts a bounded number of records from a flooding peer, by stream
// or datagram, and others notice nothing.
func TestRecordsPerPeerAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		node := newTestNode(t, nil)
		f := newFake(t, node.info(), nil)
		g := newFake(t, node.info(), nil)
		now, from, sent, taken := time.Now(), f.host.ID(), 0, 0
		entry := func() *pb.Entry { return &pb.Entry{Topic: string(testHome), Sealed: seal(t, f.record(), f.key)} }
		flood := func(now time.Time) {
			for range 20 {
				var entries []*pb.Entry
				for range holding.MaxEntries {
					entries = append(entries, entry())
				}
				reply, err := node.holding.Advertise(now, from, &pb.Advertise{Entries: entries})
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range reply.Results {
					sent++
					if r.Refused == "" {
						taken++
					}
				}
			}
		}
		flood(now)
		t.Logf("%d of %d records taken at once", taken, sent)
		if taken != holder.RecordBurst {
			t.Errorf("%d taken, want %d", taken, holder.RecordBurst)
		}
		sent, taken = 0, 0
		flood(now.Add(time.Second))
		t.Logf("%d of %d a second later", taken, sent)
		if taken != holder.RecordRate {
			t.Errorf("%d taken a second later, want %d", taken, holder.RecordRate)
		}
		// Its rate is used up for datagrams and hand-overs as well.
		b, err := proto.MarshalOptions{}.MarshalAppend(datagram.Prefix(node.network), &pb.Datagram{Entries: []*pb.Entry{entry()}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := node.datagrams.Take(now.Add(time.Second), from, b); !errors.Is(err, holding.ErrFlood) {
			t.Errorf("a datagram of the same peer: %v, want %v", err, holding.ErrFlood)
		}
		if node.rates.Refused() == 0 {
			t.Error("none of that is counted")
		}
		g.advertise(t, node)
		node.rates.Sweep(now.Add(time.Minute))
		f.advertise(t, node)
	})
}

// A holder whose places for watchers are taken says so, and can still watch its
// own table.
func TestBusyHolderIsNoEmptyOne(t *testing.T) {
	bubble(t, func(t *testing.T) {
		node := newTestNetwork(t, 1)[0]
		client := newClient(t, []*testNode{node})
		f := newFake(t, node.info(), nil)
		f.advertise(t, node)
		for i := range holder.DefaultLimits().Watchers {
			if _, _, err := node.table.Watch(time.Now(), peer.ID(fmt.Sprint("stranger ", i)), testHome); err != nil {
				t.Fatal(err)
			}
		}
		resp := f.call(t, node.ID(), &pb.Request{Op: &pb.Request_Watch{Watch: &pb.Watch{Topic: string(testHome)}}})
		if !resp.Busy || !errors.Is(holding.ReplyError(resp), ErrBusy) {
			t.Errorf("a watch where there is no place: %v", resp)
		}
		list, err := node.Reader.Snapshot(t.Context(), testHome)
		if err != nil || len(list) != 1 {
			t.Errorf("its own view: %d records, %v", len(list), err)
		}
		dhttest.Eventually(t, func() error {
			if list, err := client.Reader.Snapshot(t.Context(), testHome); !errors.Is(err, ErrBusy) {
				return fmt.Errorf("a client is shown %d records, %v; want ErrBusy", len(list), err)
			}
			return nil
		})
	})
}

// A query answers with as many fitting records as allowed, sixteen at most, a
// varying sample, and counts those it left out.
func TestQuerySamples(t *testing.T) {
	bubble(t, func(t *testing.T) {
		node := newTestNode(t, nil)
		asker := newFake(t, node.info(), nil)
		now := time.Now()
		const full, free = 7, 40
		for i := range full + free {
			key := dhttest.Key(t)
			r := capacity.Record{
				Node: dhttest.ID(t, key), Seq: 1, Issued: time.UnixMilli(now.UnixMilli()), TTL: capacity.DefaultTTL,
				URL: "http://127.0.0.1:1", Sessions: capacity.Usage{Limit: 10},
			}
			if i < full {
				r.State, r.Sessions.Used = capacity.Full, 10
			}
			if err := node.table.Put(now, now, testHome, r, seal(t, r, key)); err != nil {
				t.Fatal(err)
			}
		}
		seen := make(map[peer.ID]bool)
		for range 20 {
			q := asker.call(t, node.ID(), &pb.Request{Op: &pb.Request_Query{Query: &pb.Query{
				Topic: string(testHome), Need: &cpb.Need{}, Limit: 100, Sealed: true,
			}}}).GetQuery()
			if len(q.Sealed) != holding.QueryLimit || q.Held != full+free {
				t.Fatalf("%d records of %d held, want %d of %d", len(q.Sealed), q.Held, holding.QueryLimit, full+free)
			}
			if len(q.Rejected) != 1 || q.Rejected[0].Rule != "state" || q.Rejected[0].Count != full {
				t.Fatalf("rejected %v, want %d by state", q.Rejected, full)
			}
			for _, b := range q.Sealed {
				r, err := signed.OpenRecord(b, now)
				if err != nil || r.State == capacity.Full {
					t.Fatalf("got %+v, %v", r, err)
				}
				seen[r.Node] = true
			}
			if proto.Size(q) > seek.MaxQueryReply {
				t.Fatalf("answer of %d bytes", proto.Size(q))
			}
		}
		if len(seen) < free*3/4 {
			t.Errorf("in 20 samples of %d only %d of %d nodes turned up", holding.QueryLimit, len(seen), free)
		}
	})
}

// A publisher learns from acknowledgements of holders that it did not know.
func TestAcknowledgementNamesCloserHolders(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes := newTestNetwork(t, 4)
		f := newFake(t, nodes[0].info(), nil)
		sealed := seal(t, f.record(), f.key)
		reply := f.call(t, nodes[0].ID(), advertisement(&pb.Entry{
			Topic: string(testHome), Sealed: sealed, Known: nodes[0].dir.Known([]peer.ID{nodes[0].ID(), nodes[1].ID()}),
		})).GetAdvertise()
		named := make(map[peer.ID]bool)
		for _, w := range reply.Closer {
			ai, err := w.AddrInfo()
			if err != nil || len(ai.Addrs) == 0 {
				t.Errorf("named %v, %v", ai, err)
			}
			named[ai.ID] = true
		}
		if !named[nodes[2].ID()] || !named[nodes[3].ID()] || named[nodes[1].ID()] || named[f.host.ID()] {
			t.Errorf("named %v", named)
		}
		if vivaldi.FromWire(reply.Coordinate) == nil {
			t.Error("no coordinate")
		}
	})
}

// A holder that a peer names counts once it has proven to be one.
func TestNamedHoldersAreVerified(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes := newTestNetwork(t, 2)
		stranger := newTestNode(t, nil) // of this network, but not announced
		ghost := dhttest.ID(t, dhttest.Key(t))
		nodes[0].acks.Take(nodes[1].ID(), &pb.AdvertiseReply{Closer: []*pb.Peer{
			{Id: []byte("no peer ID")},
			pb.PeerOf(peer.AddrInfo{ID: ghost, Addrs: []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/tcp/1")}}),
			pb.PeerOf(nodes[0].info()),
			pb.PeerOf(stranger.info()),
		}}, 0, false)
		dhttest.Eventually(t, func() error {
			for _, p := range nodes[0].cache.Peek(testHome) {
				switch p {
				case stranger.ID():
					return nil
				case ghost, nodes[0].ID():
					t.Fatalf("%s counts as a holder", p)
				}
			}
			return fmt.Errorf("%s does not count as a holder", stranger.ID())
		})
	})
}

func TestFetchReturnsANodesOwnRecords(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes := newTestNetwork(t, 2)
		nodes[0].carry("a", "b")
		dhttest.Eventually(t, func() error {
			sealed, err := nodes[1].Prober.Fetch(context.Background(), nodes[0].ID())
			if err != nil {
				return err
			}
			if len(sealed) != 3 {
				return fmt.Errorf("%d records, want 3", len(sealed))
			}
			first, err := signed.OpenRecord(sealed[0], time.Now())
			if err != nil || first.Carries != nil || first.Node != nodes[0].ID() {
				return fmt.Errorf("first %+v, %v; want the capacity record", first, err)
			}
			return nil
		})
		if c := nodes[1].Overlay.Coords.Here(); !c.IsValid() || c.Height == 0 {
			t.Errorf("coordinate %+v", c)
		}
		if sealed, err := nodes[0].Prober.Fetch(context.Background(), nodes[0].ID()); err != nil || len(sealed) != 3 {
			t.Errorf("own records: %d, %v", len(sealed), err)
		}
	})
}

// A node of another network has other protocols: it is no member, and its
// messages are ignored.
func TestOtherNetworksAreStrangers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		node := newTestNode(t, nil)
		node.run(t)
		stranger := newTestNode(t, func(c *Config) {
			c.Network = "another"
			c.Bootstrap = []peer.AddrInfo{node.info()}
		})
		stranger.run(t)
		stranger.awaitReady(t) // alone
		if stranger.NetworkID() == node.NetworkID() {
			t.Fatal("two networks with one ID")
		}
		if _, err := stranger.Prober.Fetch(t.Context(), node.ID()); err == nil {
			t.Error("a request across networks was answered")
		}
		for _, n := range []*testNode{node, stranger} {
			if got := n.Holders(CapacityTopic()); len(got) != 1 || got[0] != n.ID() {
				t.Errorf("%s takes %v for holders", n.ID(), got)
			}
		}
	})
}

// The golden file is a request's wire format, so that a change of the protocol
// shows.
func TestWireFormat(t *testing.T) {
	req := &pb.Request{Op: &pb.Request_Query{Query: &pb.Query{
		Topic:   "capacity/*/*",
		Need:    signed.NeedToWire(capacity.Need{Purpose: capacity.Cascade, Stream: "a", Uplink: 5_000_000, Packets: 600, Region: "eu"}),
		Exclude: [][]byte{{1, 2, 3}},
		Origin:  &cpb.Coordinate{Vec: []float32{0, 0, 0, 0, 0, 0, 0, 0.5}, Error: 1.5, Height: 1e-5},
		Limit:   16,
		Policy:  7,
	}}}
	b, err := frame.Append(nil, req)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "query.frame", b)
}

// The same for the answers of holders.
func TestWireFormatOfAnswers(t *testing.T) {
	digest := holding.DigestToWire(time.UnixMilli(1_700_000_001_000), &holder.Offer{
		Evaluation: policy.Evaluation{
			Candidate: policy.Candidate{RTT: 12_345 * time.Microsecond, Record: capacity.Record{
				Node: "a node", Seq: 1_700_000_000_000,
				Addrs: []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/192.0.2.1/udp/4001/quic-v1")},
			}},
			Terms: []policy.TermScore{{Value: 0.5}, {Value: 0.25}, {Value: 1}, {Value: 0}},
		},
		Stress: 0.5, Headroom: 800_000_000, Received: time.UnixMilli(1_700_000_000_000),
	})
	b, err := frame.Append(nil, &pb.Response{Op: &pb.Response_Query{Query: &pb.QueryReply{Held: 3, Digests: []*pb.Digest{digest}}}})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "digest.frame", b)
	b, err = frame.Append(nil, seek.ReserveRequest("0123456789abcdef", CapacityTopic(), view(), 1_700_000_000_000))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "reserve.frame", b)
}
