package whip

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
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
)

// Only the node that holds a lease hands its client over, and so many at once.
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
		_, err := frame.Read(bufio.NewReader(near), MaxHandover, out)
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
	for range maxHandoversPeer {
		leave, ok := a.enterHandover(from)
		if !ok {
			t.Fatal("no place")
		}
		defer leave()
	}
	if out, err := send(from, &pb.Handover{}); err != nil || out.Status != http.StatusServiceUnavailable {
		t.Errorf("one more than there may be: %v, %v", out, err)
	}
	if _, ok := a.enterHandover(a.cfg.Self); !ok {
		t.Error("another node's has no place")
	}

	// What is no handover ends the stream, and holds no place while it comes.
	for name, b := range map[string][]byte{
		"too much announced": {0xff, 0xff, 0xff, 0xff, 0x0f},
		"no protobuf":        {3, 0xff, 0xff, 0xff},
		"nothing":            {},
	} {
		near, far := net.Pipe()
		served := make(chan struct{})
		go func() {
			defer close(served)
			a.TakeOver(from, far, "http://127.0.0.1:1")
		}()
		_, _ = near.Write(b)
		if len(b) == 0 {
			_ = near.Close()
		}
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("%s: read %v, want the end", name, err)
		}
		_ = near.Close()
		<-served
	}
}

// Without a good ticket of its sender's, no bytes become a request.
func FuzzHandover(f *testing.F) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	from, err := peer.IDFromPrivateKey(key)
	if err != nil {
		f.Fatal(err)
	}
	tk := capacity.Ticket{Lease: "lease", Stream: "demo", Target: from, From: from, Expires: time.Now().Add(time.Minute)}
	ticket, err := signed.SealTicket(tk, key)
	if err != nil {
		f.Fatal(err)
	}
	for _, m := range []*pb.Handover{{}, {Stream: "demo", Ticket: ticket, WaitMs: 5, Client: "192.0.2.1:9", Offer: []byte("v=0\r\n")}, {Stream: "..", Ticket: ticket}} {
		var b bytes.Buffer
		if _, err := frame.Write(&b, m); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	s := &Server{cfg: Config{Self: from}}
	f.Fuzz(func(t *testing.T, b []byte) {
		m := &pb.Handover{}
		if _, err := frame.Read(bufio.NewReader(bytes.NewReader(b)), MaxHandover, m); err != nil {
			return
		}
		r, err := s.handedOver(from, m, "https://sfu.example.net")
		if err != nil {
			return
		}
		if r.URL.Host != "sfu.example.net" || r.Method != http.MethodPost || r.URL.Query().Get("ticket") != m.Ticket || !strings.HasPrefix(r.URL.Path, "/wh") {
			t.Fatalf("%v became %s %s", m, r.Method, r.URL)
		}
	})
}
