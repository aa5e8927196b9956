package sfu

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"go.uber.org/goleak"

	"weir/capacity"
	"weir/capacity/event"
	"weir/capacity/ledger"
	"weir/sfu/client"
	"weir/sfu/udp"
)

// TestMain fails the package if anything is left running after its tests.
// Parallel tests wait for media most of the time, so that more of them than the
// machine has cores run at once.
const atOnce = "4"

func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = f.Value.Set(atOnce)
	}
	goleak.VerifyTestMain(m)
}

// A mesh is some SFUs in one process, joined by pipes instead of libp2p, with
// real media between them on loopback.
type mesh struct {
	t *testing.T

	mu    sync.Mutex
	nodes map[peer.ID]*meshNode
	order []*meshNode
	pulls int // calls of Locate
	// carriers, if set, replaces the search for carriers of a stream.
	carriers func(stream string, exclude []peer.ID) []peer.ID
}

type meshNode struct {
	*SFU
	mesh   *mesh
	id     peer.ID
	key    crypto.PrivKey
	ledger *ledger.Ledger
	web    *httptest.Server

	mu      sync.Mutex
	events  []Event
	down    bool
	silence func() // stops the last publisher here, without a word
	pipes   []net.Conn
}

func newMesh(t *testing.T) *mesh {
	return &mesh{t: t, nodes: map[peer.ID]*meshNode{}}
}

// add starts one more node. change, if not nil, edits its configuration.
func (m *mesh) add(limits ledger.Limits, change func(*Config)) *meshNode {
	m.t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		m.t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		m.t.Fatal(err)
	}
	socket, err := udp.Listen("127.0.0.1:0")
	if err != nil {
		m.t.Fatal(err)
	}
	n := &meshNode{mesh: m, id: id, key: key, ledger: ledger.New(id, limits)}
	cfg := Config{
		Self: id, Key: key, Socket: socket, Ledger: n.ledger,
		Locate: n.locate, Place: n.place, Dial: n.dial, Handover: n.handover, Live: n.live,
		Addrs:  func() []multiaddr.Multiaddr { return nil },
		Linger: always(time.Minute),
		Event: func(e Event) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.events = append(n.events, e)
		},
	}
	if change != nil {
		change(&cfg)
	}
	if n.SFU, err = New(cfg); err != nil {
		m.t.Fatal(err)
	}
	n.web = httptest.NewServer(n.Clients().Handler())
	m.mu.Lock()
	m.nodes[id] = n
	m.order = append(m.order, n)
	m.mu.Unlock()
	m.t.Cleanup(func() {
		n.web.Close()
		if err := n.Close(); err != nil {
			m.t.Errorf("Close = %v", err)
		}
		// The ledger of a closed node has no entries.
		if got := n.ledger.Totals(time.Now()); got.Viewers+got.Publishers+got.Cascades != 0 {
			m.t.Errorf("after Close the ledger counts %d viewers, %d publishers, %d cascades", got.Viewers, got.Publishers, got.Cascades)
		}
	})
	return n
}

func (m *mesh) all() []*meshNode {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.order)
}

func (n *meshNode) locate(_ context.Context, need capacity.Need, exclude []peer.ID) (Carrier, error) {
	m := n.mesh
	m.mu.Lock()
	m.pulls++
	choose := m.carriers
	m.mu.Unlock()
	if choose != nil {
		for _, id := range choose(need.Stream, exclude) {
			return Carrier{Node: id}, nil
		}
		return Carrier{}, ErrNotLive
	}
	for _, other := range m.all() {
		if slices.Contains(exclude, other.id) || other.isDown() {
			continue
		}
		for _, c := range other.StreamInfos() {
			if c.Stream == need.Stream {
				return Carrier{Node: other.id}, nil
			}
		}
	}
	return Carrier{}, ErrNotLive
}

// live reports whether another node carries stream.
func (n *meshNode) live(_ context.Context, stream string) bool {
	return slices.ContainsFunc(n.mesh.all(), func(other *meshNode) bool {
		return other != n && !other.isDown() && other.tree.Get(stream) != nil
	})
}

func (n *meshNode) place(_ context.Context, need capacity.Need, exclude []peer.ID) (Helper, error) {
	for _, other := range n.mesh.all() {
		if slices.Contains(exclude, other.id) || other.isDown() {
			continue
		}
		lease, err := other.ledger.Reserve(time.Now(), capacity.Request{ID: rand.Text(), From: n.id, Need: need})
		if err == nil {
			return Helper{Node: other.id, URL: other.web.URL, Lease: lease, Why: "it was free"}, nil
		}
	}
	return Helper{}, &capacity.Refusal{Reason: "sessions", Detail: "nobody has room", RetryAfter: 3 * time.Second}
}

func (n *meshNode) dial(_ context.Context, to peer.ID, _ []multiaddr.Multiaddr) (Signal, error) {
	n.mesh.mu.Lock()
	other := n.mesh.nodes[to]
	n.mesh.mu.Unlock()
	if other == nil || other.isDown() {
		return nil, errors.New("unreachable")
	}
	near, far := net.Pipe()
	other.mu.Lock()
	other.pipes = append(other.pipes, far)
	other.mu.Unlock()
	n.mu.Lock()
	n.pipes = append(n.pipes, near)
	n.mu.Unlock()
	go other.Links().Accept(n.id, far) // ends with the link; checked by goleak
	return near, nil
}

func (n *meshNode) handover(_ context.Context, to peer.ID, _ []multiaddr.Multiaddr) (Signal, error) {
	n.mesh.mu.Lock()
	other := n.mesh.nodes[to]
	n.mesh.mu.Unlock()
	if other == nil || other.isDown() {
		return nil, errors.New("unreachable")
	}
	near, far := net.Pipe()
	go other.Clients().TakeOver(n.id, far, other.web.URL) // ends with the request; checked by goleak
	return near, nil
}

func (n *meshNode) isDown() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.down
}

// crash cuts the node off from the others.
func (n *meshNode) crash() {
	n.mu.Lock()
	n.down = true
	pipes := n.pipes
	n.mu.Unlock()
	for _, p := range pipes {
		_ = p.Close()
	}
}

// saw counts the events of one kind.
func (n *meshNode) saw(kind event.Kind) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	count := 0
	for _, e := range n.events {
		if e.Kind == kind {
			count++
		}
	}
	return count
}

func (n *meshNode) carriage(stream string) (capacity.StreamInfo, bool) {
	for _, c := range n.StreamInfos() {
		if c.Stream == stream {
			return c, true
		}
	}
	return capacity.StreamInfo{}, false
}

// publish sends the test clip to the node until the test ends.
func (n *meshNode) publish(stream string) *client.Publisher {
	n.mesh.t.Helper()
	p, ok := n.tryPublish(stream)
	if !ok {
		n.mesh.t.Fatalf("the name %s is taken", stream)
	}
	return p
}

// tryPublish reports false if the name is taken.
func (n *meshNode) tryPublish(stream string) (*client.Publisher, bool) {
	n.mesh.t.Helper()
	t := n.mesh.t
	p, err := client.Publish(t.Context(), client.PublishConfig{URL: n.web.URL + "/whip/" + stream, Media: client.Pattern()})
	if refused := new(client.Refused); errors.As(err, &refused) && refused.Status == http.StatusConflict {
		return nil, false
	}
	if err != nil {
		t.Fatalf("publish %s: %v", stream, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	n.mu.Lock()
	n.silence = cancel
	n.mu.Unlock()
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		_ = p.Run(ctx) // ends with ctx, or with the session, which tests check
	}()
	t.Cleanup(func() {
		cancel()
		<-ran
		_ = p.Close() // the node may be gone already
	})
	return p, true
}

// watch views stream at the node, until the test ends, and waits for a frame.
func (n *meshNode) watch(stream string) *client.Viewer {
	n.mesh.t.Helper()
	v := n.tryWatch(stream)
	select {
	case <-v.FirstFrame():
	case <-time.After(patience):
		n.mesh.t.Fatalf("no frame of %s within %v", stream, patience)
	}
	return v
}

func (n *meshNode) tryWatch(stream string) *client.Viewer {
	n.mesh.t.Helper()
	t := n.mesh.t
	v, err := client.View(t.Context(), client.ViewConfig{URL: n.web.URL + "/whep/" + stream})
	if err != nil {
		t.Fatalf("view %s: %v", stream, err)
	}
	t.Cleanup(func() { _ = v.Close() })
	return v
}

// patience bounds a test's wait for an event that should take milliseconds.
const patience = 30 * time.Second

// eventually waits for ok to hold.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// flows waits until the viewer has received n more frames, all decodable: none
// lost, and no break in the numbering.
func flows(t *testing.T, v *client.Viewer, n uint64) {
	t.Helper()
	from := v.Stats()
	eventually(t, "frames at the viewer", func() bool { return v.Stats().Frames >= from.Frames+n })
	for _, track := range v.Stats().Tracks {
		if track.Resets != 0 || track.Backwards != 0 {
			t.Errorf("%s: %d breaks in sequence numbers, %d in timestamps", track.Kind, track.Resets, track.Backwards)
		}
	}
}

// always is a setting that does not change.
func always[T any](v T) func() T { return func() T { return v } }

// withCredentials puts other ICE credentials into an answer, as if the server
// had sent it again for a restart.
func withCredentials(answer, ufrag, pwd string) string {
	var b strings.Builder
	for line := range strings.Lines(answer) {
		switch {
		case strings.HasPrefix(line, "a=candidate:"), strings.HasPrefix(line, "a=end-of-candidates"):
			continue
		case strings.HasPrefix(line, "a=ice-ufrag:"):
			line = "a=ice-ufrag:" + ufrag + "\r\n"
		case strings.HasPrefix(line, "a=ice-pwd:"):
			line = "a=ice-pwd:" + pwd + "\r\n"
		}
		b.WriteString(line)
	}
	return b.String()
}
