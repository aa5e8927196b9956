package reserve

import (
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"weir/capacity"
	"weir/capacity/capacitytest"
	"weir/capacity/frame"
	"weir/capacity/ledger"
	"weir/capacity/signed"
	"weir/dht/holder"
	"weir/dht/pb"
)

// newServer makes the server of a node with a ledger, which publishes its
// capacity and the stream "a".
func newServer(tb testing.TB) (*Server, *ledger.Ledger) {
	tb.Helper()
	key, now := capacitytest.Key(tb, "target"), time.UnixMilli(time.Now().UnixMilli())
	own := capacitytest.Record(tb, "target")
	own.Issued, own.TTL = now, capacity.MaxTTL
	sealed, err := signed.SealRecord(own, key)
	if err != nil {
		tb.Fatal(err)
	}
	ledger := ledger.New(own.Node, ledger.Limits{Sessions: 3})
	return &Server{
		Key: key,
		Published: func(topic holder.Topic) (capacity.Record, []byte, bool) {
			return own, sealed, topic == holder.CapacityTopic() || topic == holder.StreamTopic("a")
		},
		Sample: func() (capacity.Record, []capacity.StreamInfo) {
			return own, []capacity.StreamInfo{{Stream: "b", Viewers: 1}, {Stream: "a", Viewers: 7}}
		},
		Grant:   func(req capacity.Request) (capacity.Lease, error) { return ledger.Reserve(time.Now(), req) },
		Release: ledger.Release,
	}, ledger
}

func request(id string, topic holder.Topic, need capacity.Need, seq uint64) *pb.ReserveRequest {
	return &pb.ReserveRequest{Op: &pb.ReserveRequest_Reserve{Reserve: &pb.Reserve{Id: id, Need: signed.NeedToWire(need), Topic: string(topic), Seq: seq}}}
}

// A target grants what its ledger has, once for each request, and says why it
// does not. It sends its record along with a lease to who has an older one.
func TestAnswer(t *testing.T) {
	s, ledger := newServer(t)
	seeker := capacitytest.ID(t, "seeker")
	view := capacity.Need{Purpose: capacity.View, Stream: "a"}
	own, _, _ := s.Published(holder.CapacityTopic())

	resp := s.Answer(t.Context(), seeker, request("1", holder.StreamTopic("a"), view, 0))
	lease, err := signed.OpenLease(resp.Lease, time.Now())
	if err != nil || lease.ID != "1" || lease.From != seeker || lease.Target != own.Node || lease.Need != view {
		t.Errorf("lease %+v, %v", lease, err)
	}
	if r, err := signed.OpenRecord(resp.Record, time.Now()); err != nil || r.Seq != own.Seq {
		t.Errorf("record %+v, %v", r, err)
	}
	if resp := s.Answer(t.Context(), seeker, request("1", holder.CapacityTopic(), view, own.Seq)); len(resp.Lease) == 0 || len(resp.Record) > 0 {
		t.Errorf("asked again, with the record known: %v", resp)
	}
	if got := ledger.Totals(time.Now()).Leases; got != 1 {
		t.Errorf("%d leases for one request", got)
	}
	if resp := s.Answer(t.Context(), seeker, request("2", holder.StreamTopic("x"), view, 0)); resp.GetRefusal().GetReason() != "gone" {
		t.Errorf("of a stream that is not here: %v", resp)
	}
	if resp := s.Answer(t.Context(), seeker, request("2", "nonsense", view, 0)); resp.Error == "" {
		t.Errorf("in no topic: %v", resp)
	}
	if resp := s.Answer(t.Context(), seeker, &pb.ReserveRequest{}); resp.Error == "" {
		t.Errorf("nothing asked: %v", resp)
	}
	if s.Answer(t.Context(), seeker, &pb.ReserveRequest{Op: &pb.ReserveRequest_Release{Release: &pb.Release{Id: "1"}}}); ledger.Totals(time.Now()).Leases != 0 {
		t.Error("a lease given back is still there")
	}
	s.Grant = func(capacity.Request) (capacity.Lease, error) { return capacity.Lease{}, errors.New("disk full") }
	if resp := s.Answer(t.Context(), seeker, request("3", holder.CapacityTopic(), view, 0)); resp.GetRefusal().GetReason() != "error" {
		t.Errorf("a grant that failed: %v", resp)
	}
	s.Grant = nil
	if resp := s.Answer(t.Context(), seeker, request("3", holder.CapacityTopic(), view, 0)); resp.GetRefusal().GetReason() != "closed" {
		t.Errorf("a node that takes nothing: %v", resp)
	}
}

// The load in a stream's topic includes that stream's, and no other's.
func TestUse(t *testing.T) {
	s, _ := newServer(t)
	size := len(s.Use(holder.CapacityTopic()))
	if a, x := len(s.Use(holder.StreamTopic("a"))), len(s.Use(holder.StreamTopic("x"))); a <= size || x != size {
		t.Errorf("%d bytes, with the stream %d, with one that is not there %d", size, a, x)
	}
	s.Sample = nil
	if got := s.Use(holder.CapacityTopic()); got != nil {
		t.Errorf("a node that publishes nothing has the load %x", got)
	}
}

// Whatever is asked, the answer fits, and a lease is this node's for the peer
// that asked.
func FuzzAnswer(f *testing.F) {
	s, ledger := newServer(f)
	from, target := capacitytest.ID(f, "seeker"), capacitytest.ID(f, "target")
	for _, m := range []*pb.ReserveRequest{
		{},
		request("abc", holder.CapacityTopic(), capacity.Need{Purpose: capacity.View, Stream: "a", Uplink: 1}, 7),
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
		if len(b) > MaxMessage || proto.Unmarshal(b, &req) != nil {
			return
		}
		resp := s.Answer(t.Context(), from, &req)
		if sent, err := frame.Append(nil, resp); err != nil || len(sent) > MaxMessage {
			t.Fatalf("answer of %d bytes, at most %d: %v", len(sent), MaxMessage, err)
		}
		if len(resp.Lease) == 0 {
			return
		}
		l, err := signed.OpenLease(resp.Lease, time.Now())
		if err != nil || l.From != from || l.Target != target {
			t.Fatalf("lease %+v, %v", l, err)
		}
		if r, err := signed.OpenRecordAnyAge(resp.Record); len(resp.Record) > 0 && (err != nil || r.Node != target) {
			t.Fatalf("record %+v, %v", r, err)
		}
		ledger.Release(from, l.ID)
	})
}
