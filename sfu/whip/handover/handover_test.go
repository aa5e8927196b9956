package handover

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/goleak"

	"weir/capacity"
	"weir/capacity/frame"
	"weir/capacity/signed"
	"weir/sfu/pb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The Taker bounds the handovers of each node separately.
func TestHandoversAreBounded(t *testing.T) {
	const from, other = peer.ID("asks"), peer.ID("asks too")
	taker := NewTaker(t.Context(), "serves", http.NotFoundHandler(), time.Second, slog.New(slog.DiscardHandler))
	for range maxPeer {
		leave, ok := taker.enter(from)
		if !ok {
			t.Fatal("no place")
		}
		defer leave()
	}
	near, far := net.Pipe()
	served := make(chan struct{})
	go func() {
		defer close(served)
		taker.Serve(from, far, "http://127.0.0.1:1")
	}()
	if out, err := Ask(t.Context(), near, &pb.Handover{}); err != nil || out.Status != http.StatusServiceUnavailable {
		t.Errorf("one more than there may be: %v, %v", out, err)
	}
	<-served
	if _, ok := taker.enter(other); !ok {
		t.Error("another node's has no place")
	}
}

// A malformed handover ends the stream, and takes no place while it is read.
func TestNoHandover(t *testing.T) {
	const from = peer.ID("asks")
	taker := NewTaker(t.Context(), "serves", http.NotFoundHandler(), time.Second, slog.New(slog.DiscardHandler))
	for range maxPeer {
		leave, ok := taker.enter(from)
		if !ok {
			t.Fatal("no place")
		}
		defer leave()
	}
	for name, b := range map[string][]byte{
		"too much announced": {0xff, 0xff, 0xff, 0xff, 0x0f},
		"no protobuf":        {3, 0xff, 0xff, 0xff},
		"nothing":            {},
	} {
		near, far := net.Pipe()
		served := make(chan struct{})
		go func() {
			defer close(served)
			taker.Serve(from, far, "http://127.0.0.1:1")
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

// Without a valid ticket of the sending node, no bytes become a request.
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
	taker := NewTaker(f.Context(), from, http.NotFoundHandler(), time.Second, slog.New(slog.DiscardHandler))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := &pb.Handover{}
		if _, err := frame.Read(bufio.NewReader(bytes.NewReader(b)), MaxMessage, m); err != nil {
			return
		}
		r, err := taker.request(from, m, "https://sfu.example.net")
		if err != nil {
			return
		}
		if r.URL.Host != "sfu.example.net" || r.Method != http.MethodPost || r.URL.Query().Get("ticket") != m.Ticket || !strings.HasPrefix(r.URL.Path, "/wh") {
			t.Fatalf("%v became %s %s", m, r.Method, r.URL)
		}
	})
}

// The helper's answer can link to its own session only, and not without end.
func TestLinksAreOfTheSession(t *testing.T) {
	near, far := net.Pipe()
	go func() {
		defer far.Close()
		var m pb.Handover
		if _, err := frame.Read(bufio.NewReader(far), MaxMessage, &m); err != nil {
			t.Error(err)
			return
		}
		out := &pb.Outcome{Status: 201, Location: "https://b.example/session/X", Links: []string{
			`<https://b.example/session/X/events>; rel="e"`, `<https://evil.example/session/X/events>; rel="e"`, "<https://b.example/session/X/\r\nX-Other: 1>",
		}}
		for range 2 * maxLinks {
			out.Links = append(out.Links, `<https://b.example/session/X/layer>; rel="l"`)
		}
		_, _ = frame.Write(far, out)
	}()
	out, err := Ask(t.Context(), near, &pb.Handover{})
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Links) != maxLinks || out.Links[0] != `<https://b.example/session/X/events>; rel="e"` || strings.Contains(strings.Join(out.Links[1:], ""), "events") {
		t.Errorf("links %q", out.Links)
	}
}
