package dht

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/proto"

	"weir/capacity"
	cpb "weir/capacity/pb"
	"weir/capacity/policy"
	"weir/dht/dhttest"
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

// These decode the answers of holders; no input may do harm.
func FuzzDecodeAnswers(f *testing.F) {
	key := dhttest.Key(f)
	id := dhttest.ID(f, key)
	r := capacity.Record{Node: id, Seq: 1, Issued: time.UnixMilli(time.Now().UnixMilli()), TTL: capacity.MaxTTL}
	sealed := seal(f, r, key)
	for _, m := range []*pb.Response{
		{Error: "no"},
		{Op: &pb.Response_Query{Query: &pb.QueryReply{Sealed: [][]byte{sealed}, Held: 1, Rejected: []*pb.Rejected{{Rule: "x", Count: 1}}}}},
		{Op: &pb.Response_Query{Query: &pb.QueryReply{Held: 1, Digests: []*pb.Digest{
			{Node: []byte(id), Seq: 1, Age: 5, Stress: 1, Rtt: 1, Terms: make([]float32, 4), Addrs: [][]byte{multiaddr.StringCast("/ip4/127.0.0.1/tcp/1").Bytes()}},
		}}}},
		{Op: &pb.Response_Query{Query: &pb.QueryReply{Sealed: [][]byte{sealed}, Reports: []*pb.Report{{Node: []byte(id), Trust: 2_500}}}}},
		{Op: &pb.Response_Fetch{Fetch: &pb.FetchReply{Sealed: [][]byte{sealed}, Coordinate: &cpb.Coordinate{Vec: make([]float32, 8)}}}},
		{Op: &pb.Response_Advertise{Advertise: &pb.AdvertiseReply{
			Results:    []*pb.Result{{Refused: "no"}},
			Coordinate: &cpb.Coordinate{Vec: make([]float32, 3)},
			Closer:     []*pb.Peer{{Id: []byte(id), Addrs: [][]byte{multiaddr.StringCast("/ip4/127.0.0.1/tcp/1").Bytes()}}},
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
		reports, err := holding.ReportsFromWire(m.GetQuery().GetReports(), holding.QueryLimit)
		if err != nil && reports != nil || len(reports) > holding.QueryLimit {
			t.Fatalf("%d reports, %v", len(reports), err)
		}
		for _, d := range reports {
			if d.Node.Validate() != nil || !(d.Trust >= 0 && d.Trust <= 1) {
				t.Fatalf("report %+v", d)
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
