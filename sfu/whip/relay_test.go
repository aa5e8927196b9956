package whip

import (
	"bufio"
	"crypto/rand"
	"net"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/frame"
	"weir/capacity/signed"
	"weir/sfu/pb"
	"weir/sfu/problem"
	"weir/sfu/sdp/sdptest"
	"weir/sfu/whip/handover"
)

// Only the node that holds a lease may hand its client over.
func TestHandoversAreRefused(t *testing.T) {
	a := newFake(t, nil)
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	from, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	ticket := func(change func(*capacity.Ticket)) string {
		tk := capacity.Ticket{Lease: "lease", Stream: "demo", Purpose: capacity.View, Target: a.cfg.Self, From: from, Expires: time.Now().Add(time.Second)}
		if change != nil {
			change(&tk)
		}
		s, err := signed.SealTicket(tk, key)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	offer := []byte(sdptest.Offer(sdptest.Video("0", "recvonly")))
	send := func(from peer.ID, m *pb.Handover) (*pb.Outcome, error) {
		near, far := net.Pipe()
		served := make(chan struct{})
		go func() {
			defer close(served)
			a.TakeOver(from, far, "http://127.0.0.1:1")
		}()
		defer func() { <-served }()
		defer near.Close()
		if _, err := frame.Write(near, m); err != nil {
			return nil, err
		}
		out := &pb.Outcome{}
		_, err := frame.Read(bufio.NewReader(near), handover.MaxMessage, out)
		return out, err
	}
	for _, tt := range []struct {
		name string
		from peer.ID
		m    *pb.Handover
		code problem.Code
	}{
		{"no ticket", from, &pb.Handover{Stream: "demo", Offer: offer}, problem.BadTicket},
		{"another node's", a.cfg.Self, &pb.Handover{Stream: "demo", Ticket: ticket(nil), Offer: offer}, problem.BadTicket},
		{"for another node", from, &pb.Handover{Stream: "demo", Ticket: ticket(func(t *capacity.Ticket) { t.Target = t.From }), Offer: offer}, problem.BadTicket},
		{"for another stream", from, &pb.Handover{Stream: "other", Ticket: ticket(nil), Offer: offer}, problem.BadTicket},
		{"for a viewer", from, &pb.Handover{Role: pb.Handover_PUBLISH, Stream: "demo", Ticket: ticket(nil), Offer: offer}, problem.BadTicket},
		{"without a lease", from, &pb.Handover{Stream: "demo", Ticket: ticket(nil), Offer: offer}, problem.BadTicket},
		{"no offer", from, &pb.Handover{Stream: "demo", Ticket: ticket(nil)}, problem.BadSDP},
		{"a wait without end", from, &pb.Handover{Stream: "demo", Ticket: ticket(nil), Offer: offer, WaitMs: 1 << 31}, problem.BadWait},
		{"a stream that cannot be", from, &pb.Handover{Stream: "../healthz", Ticket: ticket(nil), Offer: offer}, problem.BadStreamName},
	} {
		out, err := send(tt.from, tt.m)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if p := problem.Parse(int(out.Status), out.ContentType, out.Body); p.Code != tt.code || out.Location != "" {
			t.Errorf("%s: %d %s: %s", tt.name, out.Status, p.Code, out.Body)
		}
	}
}
