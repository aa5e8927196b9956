package scale

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"weir/capacity"
	"weir/capacity/capacitytest"
	"weir/capacity/frame"
	cpb "weir/capacity/pb"
	"weir/capacity/signed"
	"weir/dht/pb"
)

var need = capacity.Need{Purpose: capacity.View, Stream: "demo", Uplink: 1}

// between is an exchange whose requests answer answers, by the wire's messages.
func between(tb testing.TB, answer func(context.Context, peer.ID, Request) (Reply, error)) *Exchange {
	x := &Exchange{
		Introduce: func(p peer.ID) *pb.Peer { return pb.PeerOf(peer.AddrInfo{ID: p}) },
		Introduced: func(w *pb.Peer) (peer.ID, bool) {
			ai, err := w.AddrInfo()
			return ai.ID, err == nil
		},
		Answer: answer,
	}
	x.Call = func(ctx context.Context, _ peer.ID, req *pb.ProvisionRequest, resp *pb.ProvisionResponse) error {
		b, err := frame.Append(nil, x.Serve(ctx, "asker", req))
		if err != nil || len(b) > MaxMessage {
			tb.Errorf("an answer of %d bytes, %v", len(b), err)
		}
		proto.Merge(resp, x.Serve(ctx, "asker", req))
		return nil
	}
	return x
}

// What one end says comes to the other, and a refusal is told from an error.
func TestExchange(t *testing.T) {
	closer := capacitytest.ID(t, "closer")
	until := time.Now().Add(30 * time.Second)
	for name, c := range map[string]struct {
		req     Request
		reply   Reply
		err     error
		refused string
		failed  bool
	}{
		"a server is coming":      {req: Request{Region: "eu", Need: need, Reason: "sessions"}, reply: Reply{Server: PendingServer{Request: "r1", Until: until, Started: true}}},
		"a closer one is named":   {req: Request{Region: "eu", Need: need, Reason: "cpu"}, reply: Reply{Closer: closer}},
		"the final answer":        {req: Request{Need: need, Final: true}, reply: Reply{Server: PendingServer{Request: "r2", Until: until}}},
		"it may leave":            {req: Request{Region: "eu", Leave: true}},
		"it may not leave":        {req: Request{Region: "eu", Leave: true, Final: true}, err: &capacity.Refusal{Reason: ProvisioningMaxNodes, RetryAfter: time.Minute}, refused: ProvisioningMaxNodes},
		"that is no refusal":      {req: Request{Region: "eu", Need: need}, err: errors.New("holders are silent"), failed: true},
		"a need that is not sane": {req: Request{Need: capacity.Need{Purpose: capacity.View, Region: string(make([]byte, 64))}}, failed: true},
	} {
		t.Run(name, func(t *testing.T) {
			x := between(t, func(_ context.Context, from peer.ID, req Request) (Reply, error) {
				if from != "asker" || req != c.req {
					t.Errorf("%s asks %+v, want %+v", from, req, c.req)
				}
				return c.reply, c.err
			})
			got, err := x.Ask(t.Context(), "provisioner", c.req)
			var refusal *capacity.Refusal
			switch {
			case c.refused != "":
				if !errors.As(err, &refusal) || refusal.Reason != c.refused || refusal.RetryAfter != time.Minute {
					t.Errorf("%v", err)
				}
			case c.failed:
				if err == nil || errors.As(err, &refusal) {
					t.Errorf("%+v, %v", got, err)
				}
			default:
				if late := c.reply.Server.Until.Sub(got.Server.Until); late < -time.Second || late > time.Second {
					t.Errorf("until %v, want %v", got.Server.Until, c.reply.Server.Until)
				}
				got.Server.Until = c.reply.Server.Until
				if err != nil || got != c.reply {
					t.Errorf("%+v, %v", got, err)
				}
			}
		})
	}
}

// Every answer fits its limit, and a server is started only for a region that
// is served.
func FuzzServe(f *testing.F) {
	var starts, leaves int
	p := &Provisioners{
		Self: "self", Log: slog.New(slog.DiscardHandler),
		Own: &Provisioner{
			Regions: []string{"eu"},
			Start: func(_ context.Context, region string, _ capacity.Need, reason string) (PendingServer, error) {
				starts++
				if reason == "no" {
					return PendingServer{}, &capacity.Refusal{Reason: ProvisioningFailed, Detail: "in " + region, RetryAfter: time.Minute}
				}
				return PendingServer{Request: "r1", Until: time.Now().Add(time.Minute)}, nil
			},
			Leave: func(context.Context, string, peer.ID) error { leaves++; return nil },
		},
		List: func(context.Context, string) ([]peer.ID, error) { return []peer.ID{"self"}, nil },
	}
	x := between(f, p.Answer)
	for _, m := range []*pb.ProvisionRequest{
		{},
		{Op: &pb.ProvisionRequest_Provision{Provision: &pb.Provision{Region: "eu", Need: signed.NeedToWire(need), Reason: "no"}}},
		{Op: &pb.ProvisionRequest_Provision{Provision: &pb.Provision{Region: "eu", Need: signed.NeedToWire(need), Reason: "sessions", Final: true}}},
		{Op: &pb.ProvisionRequest_Provision{Provision: &pb.Provision{Region: "us"}}},
		{Op: &pb.ProvisionRequest_Provision{Provision: &pb.Provision{Region: "eu", Need: &cpb.Need{Uplink: math.MaxUint64}}}},
		{Op: &pb.ProvisionRequest_Leave{Leave: &pb.Leave{Region: "eu", Final: true}}},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var req pb.ProvisionRequest
		if len(b) > MaxMessage || proto.Unmarshal(b, &req) != nil {
			return
		}
		started, left := starts, leaves
		resp := x.Serve(t.Context(), "asker", &req)
		if sent, err := frame.Append(nil, resp); err != nil || len(sent) > MaxMessage {
			t.Fatalf("answer of %d bytes, at most %d: %v", len(sent), MaxMessage, err)
		}
		if starts > started && req.GetProvision().GetRegion() != "eu" || leaves > left && req.GetLeave().GetRegion() != "eu" {
			t.Fatalf("acted on %v", &req)
		}
	})
}

// No answer of a provisioner breaks the seeker.
func FuzzReply(f *testing.F) {
	x := between(f, nil)
	for _, m := range []*pb.ProvisionResponse{
		{}, {Error: "no"}, {Closer: &pb.Peer{Id: []byte("x")}}, {Closer: pb.PeerOf(peer.AddrInfo{ID: capacitytest.ID(f, "a")})},
		{Refusal: &pb.Refusal{Reason: "r"}}, {Coming: &pb.Coming{Request: "r", UntilMs: 1}},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	now := time.Now()
	f.Fuzz(func(t *testing.T, b []byte) {
		var resp pb.ProvisionResponse
		if len(b) > MaxMessage || proto.Unmarshal(b, &resp) != nil {
			return
		}
		r, err := x.reply(now, Request{}, &resp)
		if err == nil && (r.Closer != "" && r.Closer.Validate() != nil || r.Server.Until.Sub(now) > math.MaxUint32*time.Millisecond || len(r.Server.Request) > maxReason) {
			t.Fatalf("%+v", r)
		}
	})
}
