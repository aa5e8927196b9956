package dht

import (
	"bytes"
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"weir/capacity"
	"weir/capacity/frame"
	cpb "weir/capacity/pb"
	"weir/capacity/policy"
	"weir/capacity/signed"
	"weir/dht/holding"
	"weir/dht/pb"
	"weir/dht/seek"
	"weir/dht/vivaldi"
)

// golden compares got with testdata/name. WEIR_UPDATE_GOLDEN writes it.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("WEIR_UPDATE_GOLDEN") != "" {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got %x, want %x", name, got, want)
	}
}

// seedRequests are requests of every kind.
func seedRequests() []proto.Message {
	return []proto.Message{
		&pb.Request{},
		advertisement(&pb.Entry{Topic: "capacity/*/*", Sealed: []byte("x"), Known: make([]byte, 32)}, &pb.Entry{Topic: "stream/a", Seq: 9}),
		&pb.Request{Op: &pb.Request_Query{Query: &pb.Query{
			Topic:   "capacity/*/*",
			Need:    &cpb.Need{Purpose: 2, Stream: "a", Uplink: 1, Packets: 1, Region: "eu"},
			Exclude: [][]byte{{1}},
			Origin:  &cpb.Coordinate{Vec: make([]float32, 8), Height: 1},
			Limit:   3,
			Explain: true,
		}}},
		&pb.Request{Op: &pb.Request_Query{Query: &pb.Query{Topic: "capacity/*/*", Need: &cpb.Need{Uplink: 1 << 62, Packets: 1 << 62}}}},
		&pb.Request{Op: &pb.Request_Query{Query: &pb.Query{
			Topic: "capacity/*/*", Need: &cpb.Need{},
			Doubts: []*pb.Doubt{{Node: []byte("\x00\x04node"), Belief: 2_500}, {Node: []byte("\x00\x05other")}},
		}}},
		&pb.Request{Op: &pb.Request_Query{Query: &pb.Query{
			Topic: "capacity/*/*", Need: &cpb.Need{}, Doubts: []*pb.Doubt{{Node: []byte("\x00\x04node"), Belief: 1 << 31}},
		}}},
		&pb.Request{Op: &pb.Request_Fetch{Fetch: &pb.Fetch{Max: 1 << 31}}},
		&pb.Request{Op: &pb.Request_Watch{Watch: &pb.Watch{Topic: "stream/a"}}},
		&pb.Request{Op: &pb.Request_Claim{Claim: &pb.Claim{Topic: "stream/a", Intent: pb.Claim_TAKE, Known: []byte{1, 2, 3, 4}}}},
		advertisement(&pb.Entry{Topic: "capacity/eu/01", Deeper: true}, &pb.Entry{Topic: "regions", Sealed: []byte("x")}),
		&pb.Request{Op: &pb.Request_Query{Query: &pb.Query{Topic: "regions", Need: &cpb.Need{}, Limit: 1 << 31}}},
		&pb.Request{Op: &pb.Request_Query{Query: &pb.Query{Topic: "capacity", Need: &cpb.Need{}, Sealed: true}}},
		&pb.Request{Op: &pb.Request_HandOver{HandOver: &pb.HandOver{Topic: "capacity/*/*", Copies: []*pb.Copy{{Sealed: []byte("x"), HeldMs: 1 << 31}}}}},
	}
}

// A holder answers every input of a peer within its own limits.
func FuzzServeRecords(f *testing.F) {
	node := newTestNode(f, func(c *Config) { c.Listen = nil })
	key := newKey(f)
	from := idOf(f, key)
	r := capacity.Record{Node: from, Seq: 1, Issued: time.UnixMilli(time.Now().UnixMilli()), TTL: capacity.MaxTTL, URL: "http://127.0.0.1:1"}
	own := advertisement(&pb.Entry{Topic: string(testHome), Sealed: seal(f, r, key)})
	next := r
	next.Seq++
	updated := advertisement(&pb.Entry{Topic: string(testHome), Update: sealUpdate(f, &testNode{key: key}, seal(f, r, key), next)})
	for _, m := range append(seedRequests(), own, updated) {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var req pb.Request
		if len(b) > maxRequest || proto.Unmarshal(b, &req) != nil {
			return
		}
		resp := node.answers(from, &req)
		limit := maxAdvertiseReply
		switch req.Op.(type) {
		case *pb.Request_Query:
			limit = maxQueryReply
		case *pb.Request_Fetch:
			limit = maxFetchReply
		}
		sent, err := frame.Append(nil, resp)
		if err != nil || len(sent) > limit {
			t.Fatalf("answer of %d bytes, at most %d: %v", len(sent), limit, err)
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

func FuzzServeReserve(f *testing.F) {
	node := newTestNode(f, func(c *Config) { c.Listen = nil })
	ctx, cancel := context.WithCancel(f.Context())
	f.Cleanup(cancel)
	go func() { _ = node.publisher.Run(ctx) }()
	eventually(f, func() error {
		if _, ok := node.publisher.Own(); !ok {
			return errors.New("nothing is published")
		}
		return nil
	})
	from := idOf(f, newKey(f))
	for _, m := range []*pb.ReserveRequest{
		{},
		seek.ReserveRequest("abc", CapacityTopic(), capacity.Need{Purpose: capacity.View, Stream: "a", Uplink: 1}, 7),
		{Op: &pb.ReserveRequest_Release{Release: &pb.Release{Id: "abc"}}},
		{Op: &pb.ReserveRequest_Reserve{Reserve: &pb.Reserve{}}},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var req pb.ReserveRequest
		if len(b) > maxReserve || proto.Unmarshal(b, &req) != nil {
			return
		}
		resp := node.answersReserve(from, &req)
		if sent, err := frame.Append(nil, resp); err != nil || len(sent) > maxReserve {
			t.Fatalf("answer of %d bytes, at most %d: %v", len(sent), maxReserve, err)
		}
		if len(resp.Lease) > 0 {
			l, err := signed.OpenLease(resp.Lease, time.Now())
			if err != nil || l.From != from || l.Target != node.ID() {
				t.Fatalf("lease %+v, %v", l, err)
			}
			if r, err := signed.OpenRecord(resp.Record, time.Now()); len(resp.Record) > 0 && (err != nil || r.Node != node.ID()) {
				t.Fatalf("record %+v, %v", r, err)
			}
			node.ledger.Release(from, l.ID)
		}
	})
}

// These decode the answers of holders; no input may do harm.
func FuzzDecodeAnswers(f *testing.F) {
	key := newKey(f)
	id := idOf(f, key)
	r := capacity.Record{Node: id, Seq: 1, Issued: time.UnixMilli(time.Now().UnixMilli()), TTL: capacity.MaxTTL}
	sealed := seal(f, r, key)
	for _, m := range []*pb.Response{
		{Error: "no"},
		{Op: &pb.Response_Query{Query: &pb.QueryReply{Sealed: [][]byte{sealed}, Held: 1, Rejected: []*pb.Rejected{{Rule: "x", Count: 1}}}}},
		{Op: &pb.Response_Query{Query: &pb.QueryReply{Held: 1, Digests: []*pb.Digest{
			{Node: []byte(id), Seq: 1, Age: 5, Stress: 1, Rtt: 1, Terms: make([]float32, 4), Addrs: [][]byte{addr(f, "/ip4/127.0.0.1/tcp/1").Bytes()}},
		}}}},
		{Op: &pb.Response_Query{Query: &pb.QueryReply{Sealed: [][]byte{sealed}, Doubts: []*pb.Doubt{{Node: []byte(id), Belief: 2_500}}}}},
		{Op: &pb.Response_Fetch{Fetch: &pb.FetchReply{Sealed: [][]byte{sealed}, Coordinate: &cpb.Coordinate{Vec: make([]float32, 8)}}}},
		{Op: &pb.Response_Event{Event: &pb.Event{Sealed: sealed, HeldMs: 7}}},
		{Op: &pb.Response_Event{Event: &pb.Event{Gone: []byte(id)}}},
		{Op: &pb.Response_Event{Event: &pb.Event{Synced: true}}},
		{Op: &pb.Response_Advertise{Advertise: &pb.AdvertiseReply{
			Results:    []*pb.Result{{Refused: "no"}},
			Coordinate: &cpb.Coordinate{Vec: make([]float32, 3)},
			Closer:     []*pb.Peer{{Id: []byte(id), Addrs: [][]byte{addr(f, "/ip4/127.0.0.1/tcp/1").Bytes()}}},
		}}},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	v, err := vivaldi.New()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var m pb.Response
		if proto.Unmarshal(b, &m) != nil {
			return
		}
		now := time.Now()
		check := func(rs []seek.Verified) {
			for _, r := range rs {
				if err := testHome.Fits(&r.Record); err != nil {
					t.Fatalf("kept %+v: %v", r.Record, err)
				}
			}
		}
		rs, _, err := seek.Verify(now, testHome, m.GetQuery().GetSealed())
		if err != nil && rs != nil {
			t.Fatal("records in spite of an error")
		}
		check(rs)
		policy := policy.Default()
		offers, err := holding.DigestsFromWire(now, id, policy, m.GetQuery().GetDigests())
		if err != nil && offers != nil {
			t.Fatal("offers in spite of an error")
		}
		for _, o := range offers {
			if o.Record.Node.Validate() != nil || math.IsNaN(o.Score) || len(o.Terms) != len(policy.Score) || o.RTT < 0 || !o.DigestOnly() {
				t.Fatalf("offer %+v", o)
			}
		}
		doubts, err := holding.DoubtsFromWire(m.GetQuery().GetDoubts(), holding.QueryLimit)
		if err != nil && doubts != nil || len(doubts) > holding.QueryLimit {
			t.Fatalf("%d doubts, %v", len(doubts), err)
		}
		for _, d := range doubts {
			if d.Node.Validate() != nil || !(d.Belief >= 0 && d.Belief <= 1) {
				t.Fatalf("doubt %+v", d)
			}
		}
		if e := m.GetEvent(); e != nil {
			got, ok, err := eventFromWire(now, testHome, e)
			if ok && (err != nil || !got.Synced && got.Err == nil && got.Node.Validate() != nil) {
				t.Fatalf("event %+v, %v", got, err)
			}
		}
		for _, c := range []*cpb.Coordinate{m.GetFetch().GetCoordinate(), m.GetAdvertise().GetCoordinate()} {
			v.Observe(peer.ID("p"), vivaldi.FromWire(c), time.Millisecond)
			if here := v.Here(); !here.IsValid() || v.Predict(vivaldi.FromWire(c)) < 0 {
				t.Fatalf("coordinate is %+v", here)
			}
		}
		for _, w := range m.GetAdvertise().GetCloser() {
			if ai, err := w.AddrInfo(); err == nil && ai.ID.Validate() != nil {
				t.Fatalf("peer %+v", ai)
			}
		}
	})
}
