package sfu

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/proto"

	"weir/capacity"
	"weir/capacity/frame"
	"weir/capacity/ledger"
	"weir/capacity/scope"
	"weir/sfu/client"
	"weir/sfu/pb"
	"weir/sfu/problem"
	"weir/sfu/sdp/sdptest"
	"weir/sfu/whip"
	"weir/sfu/whip/handover"
)

// A helper that grants a lease and then answers with anything gets only its
// text to the client, and no request goes to the URL in its record.
func TestHelperIsAskedAsThePeerItIs(t *testing.T) {
	var posts atomic.Int64
	internal := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		posts.Add(1)
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, "secret")
	}))
	defer internal.Close()
	created := func(location string) func(*pb.Handover) proto.Message {
		return func(*pb.Handover) proto.Message {
			return &pb.Outcome{Status: 201, ContentType: "application/sdp", Location: location, Body: []byte("v=0\r\n")}
		}
	}
	var helper func(*pb.Handover) proto.Message
	m := newMesh(t)
	a := m.add(ledger.Limits{Sessions: 1}, func(c *Config) {
		c.Overflow = always(Relay)
		c.Place = func(context.Context, capacity.Need, []peer.ID) (Helper, error) {
			return Helper{Node: c.Self, URL: internal.URL, Lease: capacity.Lease{ID: "lease", Expires: time.Now().Add(capacity.LeaseTime)}}, nil
		}
		c.Handover = func(context.Context, peer.ID, []multiaddr.Multiaddr) (Signal, error) {
			near, far := net.Pipe()
			go func() { // ends with the handover
				defer far.Close()
				req := &pb.Handover{}
				if _, err := frame.Read(bufio.NewReader(far), handover.MaxMessage, req); err != nil {
					return
				}
				if m := helper(req); m != nil {
					_, _ = frame.Write(far, m)
				}
			}()
			return near, nil
		}
	})
	a.publish("own") // it is full now
	offer := sdptest.Offer(sdptest.Video("0", "recvonly"))
	for _, tt := range []struct {
		name   string
		helper func(*pb.Handover) proto.Message
		status int
		code   problem.Code
	}{
		{"an answer", created("http://127.0.0.1:9/session/x"), http.StatusCreated, ""},
		{"a session on a metadata service", created("http://169.254.169.254/session/x"), http.StatusServiceUnavailable, problem.HelperUnreachable},
		{"one within a site", created("http://10.0.0.1/session/x"), http.StatusServiceUnavailable, problem.HelperUnreachable},
		{"one that is a script", created("javascript:alert(1)"), http.StatusServiceUnavailable, problem.HelperUnreachable},
		{"one that is nowhere", created(""), http.StatusServiceUnavailable, problem.HelperUnreachable},
		{"a location that is a book", created("http://127.0.0.1/" + strings.Repeat("a", 2<<10)), http.StatusServiceUnavailable, problem.HelperUnreachable},
		{"a redirect", func(*pb.Handover) proto.Message { return &pb.Outcome{Status: 307, Location: internal.URL} }, http.StatusServiceUnavailable, problem.HelperUnreachable},
		{"no status", func(*pb.Handover) proto.Message { return &pb.Outcome{} }, http.StatusServiceUnavailable, problem.HelperUnreachable},
		{"nothing", func(*pb.Handover) proto.Message { return nil }, http.StatusServiceUnavailable, problem.HelperUnreachable},
		{"more than there may be", func(*pb.Handover) proto.Message {
			return &pb.Outcome{Status: 201, Body: make([]byte, handover.MaxMessage)}
		}, http.StatusServiceUnavailable, problem.HelperUnreachable},
		{"that the ticket is not good", func(*pb.Handover) proto.Message {
			return outcomeOf(problem.New(problem.BadTicket, "no"))
		}, http.StatusServiceUnavailable, problem.HelperUnreachable},
		{"that it is full by now", func(*pb.Handover) proto.Message {
			return outcomeOf(problem.New(problem.NoCapacity, "full\x1b[2J").Retry(time.Second))
		}, http.StatusServiceUnavailable, problem.NoCapacity},
	} {
		helper = tt.helper
		resp, body := call(t, "POST", a.web.URL+"/whep/own?wait=1s", "application/sdp", offer)
		p := problem.Parse(resp.StatusCode, resp.Header.Get("Content-Type"), []byte(body))
		if resp.StatusCode != tt.status || p.Code != tt.code || strings.Contains(body, "\x1b") {
			t.Errorf("%s: the client gets %s, %q: %s", tt.name, resp.Status, p.Code, body)
		}
		if tt.status != http.StatusCreated && resp.Header.Get("Location") != "" {
			t.Errorf("%s: the client is sent to %s", tt.name, resp.Header.Get("Location"))
		}
	}
	var got *pb.Handover
	helper = func(m *pb.Handover) proto.Message { got = m; return nil }
	call(t, "POST", a.web.URL+"/whep/own?wait=9s", "application/sdp", offer)
	if got == nil || got.Stream != "own" || string(got.Offer) != offer || got.WaitMs < 5_000 || !strings.HasPrefix(got.Client, "127.0.0.1:") {
		t.Errorf("handed over: %v", got)
	}
	if n := posts.Load(); n != 0 {
		t.Errorf("%d requests to the URL in the record, want none", n)
	}
	if n := a.cfg.Gate.Refused()[scope.Refusal{Use: scope.Redirect, Kind: scope.Metadata}]; n != whip.MaxHelpers {
		t.Errorf("%d refused addresses of metadata services counted, want one for each helper tried, %d", n, whip.MaxHelpers)
	}
}

// A helper that breaks its promise costs a client only time, while there is
// another.
func TestAnotherHelperIsTried(t *testing.T) {
	m := newMesh(t)
	var places, handovers atomic.Int64
	var a *meshNode
	bad := 1
	a = m.add(ledger.Limits{Sessions: 1}, func(c *Config) {
		c.Overflow = always(Relay)
		place, handover := c.Place, c.Handover
		c.Place = func(ctx context.Context, need capacity.Need, exclude []peer.ID) (Helper, error) {
			places.Add(1)
			h, err := place(ctx, need, exclude)
			if len(exclude) <= bad { // including this node
				h.Node = idOfNobody(t)
			}
			return h, err
		}
		c.Handover = func(ctx context.Context, id peer.ID, addrs []multiaddr.Multiaddr) (Signal, error) {
			handovers.Add(1)
			return handover(ctx, id, addrs)
		}
	})
	b := m.add(ledger.Limits{}, nil)
	a.publish("demo")
	flows(t, a.watch("demo"), 5)
	if b.Counts().Viewers != 1 || places.Load() != 2 || handovers.Load() != 2 {
		t.Errorf("%d viewers at the helper after %d searches and %d handovers, want 1 after 2 and 2", b.Counts().Viewers, places.Load(), handovers.Load())
	}
	bad = whip.MaxHelpers
	_, err := client.View(t.Context(), client.ViewConfig{URL: a.web.URL + "/whep/demo"})
	if !strings.Contains(fmt.Sprint(err), "could not be reached") || handovers.Load() != 2+whip.MaxHelpers {
		t.Errorf("where nobody keeps his word: %v after %d handovers", err, handovers.Load()-2)
	}
}

func idOfNobody(t *testing.T) peer.ID {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func outcomeOf(p *problem.Problem) *pb.Outcome {
	w := httptest.NewRecorder()
	p.Write(w)
	return &pb.Outcome{Status: uint32(w.Code), ContentType: w.Header().Get("Content-Type"), Body: w.Body.Bytes()}
}

// This node sends no checks to a client's candidates: it waits for the
// client's. It checks the candidates of another node where the policy allows
// that.
func TestCandidatesAreNotKnockedAt(t *testing.T) {
	t.Parallel()
	var knocks atomic.Int64
	listener, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		for b := make([]byte, 1500); ; {
			if _, _, err := listener.ReadFromUDP(b); err != nil {
				return
			}
			knocks.Add(1)
		}
	}()
	defer func() {
		_ = listener.Close()
		<-heard
	}()
	m := newMesh(t)
	a := m.add(ledger.Limits{}, nil)
	a.publish("demo")
	candidate := fmt.Sprintf("a=candidate:1 1 UDP 2130706431 127.0.0.1 %d typ host\r\n", listener.LocalAddr().(*net.UDPAddr).Port)
	resp, body := call(t, "POST", a.web.URL+"/whep/demo", "application/sdp", sdptest.Offer(sdptest.Video("0", "recvonly"))+candidate)
	if resp.StatusCode != http.StatusCreated {
		t.Fatalf("%s: %s", resp.Status, body)
	}

	// A node with a public address does not check candidates on loopback.
	gate := scope.NewGate(nil, false)
	gate.Own(scope.Candidate, func() []scope.Kind { return []scope.Kind{scope.Public} })
	b := m.add(ledger.Limits{}, func(c *Config) { c.Gate, c.RoomWait = gate, time.Millisecond })
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if v, err := client.View(ctx, client.ViewConfig{URL: b.web.URL + "/whep/demo"}); err == nil {
		_ = v.Close()
	}
	eventually(t, "the other node's candidate is refused", func() bool {
		return gate.Refused()[scope.Refusal{Use: scope.Candidate, Kind: scope.Loopback}] > 0
	})
	<-time.After(600 * time.Millisecond) // three times an agent's interval of checks
	if n := knocks.Load(); n != 0 {
		t.Errorf("%d datagrams to the address that a client named", n)
	}
}
