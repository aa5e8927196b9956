package sfu

import (
	"context"
	"errors"
	"math"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/event"
	"weir/capacity/ledger"
	"weir/sfu/client"
	"weir/sfu/tree"
)

func TestCascade(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	a, b := m.add(ledger.Limits{}, nil), m.add(ledger.Limits{}, nil)
	a.publish("room/main")
	v := b.watch("room/main")
	flows(t, v, 15)
	if s := v.Stats(); s.Lost != 0 {
		t.Errorf("%d packets lost on loopback", s.Lost)
	}

	got, ok := b.carriage("room/main")
	if !ok || got.Origin || got.Depth != 1 || got.Parent != a.id || !slices.Equal(got.Path, []peer.ID{a.id, b.id}) || got.Viewers != 1 {
		t.Errorf("the relay claims %+v", got)
	}
	links := b.Links().All()
	if len(links) != 1 || links[0].Peer != a.id || !links[0].Dialer || !slices.Equal(links[0].PullsIn, []string{"room/main"}) || links[0].PacketsIn == 0 {
		t.Errorf("links = %+v", links)
	}
	eventually(t, "sender reports tell how far apart audio and video are", func() bool { return v.Stats().Skew != nil })
	if skew := *v.Stats().Skew; skew.Abs() > 20*time.Millisecond {
		t.Errorf("audio and video are %v apart after two hops", skew)
	}
}

// For any number of concurrent viewers, a node pulls a stream once.
func TestManyViewersOnePull(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	a, b := m.add(ledger.Limits{}, nil), m.add(ledger.Limits{}, nil)
	a.publish("demo")

	var wg sync.WaitGroup
	for range manyViewers {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
			defer cancel()
			v, err := client.View(ctx, client.ViewConfig{URL: b.web.URL + "/whep/demo", Wait: patience})
			if err != nil {
				t.Errorf("view: %v", err)
				return
			}
			select {
			case <-v.FirstFrame():
			case <-ctx.Done():
				t.Error("a viewer got no frame")
			}
			if err := v.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
	wg.Wait()
	if n := b.saw("pull.started"); n != 1 {
		t.Errorf("%d pulls, want 1", n)
	}
	if n := len(a.Links().All()); n != 1 {
		t.Errorf("%d links, want 1", n)
	}
	eventually(t, "all sessions ended", func() bool { return b.Counts().Viewers == 0 })
}

// Both directions and all streams between two nodes share one link.
func TestOneLinkForAPair(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	a, b := m.add(ledger.Limits{}, nil), m.add(ledger.Limits{}, nil)
	a.publish("from-a")
	a.publish("from-a-too")
	b.publish("from-b")
	for _, v := range []*client.Viewer{b.watch("from-a"), b.watch("from-a-too"), a.watch("from-b")} {
		flows(t, v, 5)
	}
	links := a.Links().All()
	if len(links) != 1 || len(links[0].PullsIn) != 1 || len(links[0].PullsOut) != 2 {
		t.Errorf("links of a = %+v, want one with one pull in and two out", links)
	}
}

// Nodes that open a link to each other at the same moment end up with one.
func TestLinksOpenedAtOnce(t *testing.T) {
	for range 5 {
		m := newMesh(t)
		a, b := m.add(ledger.Limits{}, nil), m.add(ledger.Limits{}, nil)
		a.publish("from-a")
		b.publish("from-b")
		var wg sync.WaitGroup
		wg.Go(func() { a.watch("from-b") })
		wg.Go(func() { b.watch("from-a") })
		wg.Wait()
		if t.Failed() {
			t.Fatalf("a: %q, b: %q", a.lastDetail("pull.failed"), b.lastDetail("pull.failed"))
		}
		if n, k := len(a.Links().All()), len(b.Links().All()); n != 1 || k != 1 {
			t.Errorf("%d and %d links, want one", n, k)
		}
	}
}

// Sections of a link are reused, so that it does not grow with the number of
// streams that it has ever carried.
func TestSectionsAreReused(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	a, b := m.add(ledger.Limits{}, nil), m.add(ledger.Limits{}, func(c *Config) { c.Linger = always(50 * time.Millisecond) })
	for _, name := range []string{"one", "two", "three"} {
		p := a.publish(name)
		v := b.watch(name)
		flows(t, v, 5)
		if n, _ := a.Links().Sections(b.id); n != 2 {
			t.Fatalf("%d sections while %s is sent, want its two", n, name)
		}
		_ = v.Close()
		_ = p.Close()
		eventually(t, "sections at rest", func() bool { all, rested := a.Links().Sections(b.id); return all > 0 && rested == all })
	}
}

// Every node knows the stream's path, so the stream never comes back to a node.
func TestNoLoops(t *testing.T) {
	m := newMesh(t)
	a, b, c := m.add(ledger.Limits{}, nil), m.add(ledger.Limits{}, nil), m.add(ledger.Limits{}, nil)
	a.publish("demo")
	m.carriers = func(_ string, exclude []peer.ID) []peer.ID { return []peer.ID{a.id} }
	b.watch("demo")
	m.mu.Lock()
	m.carriers = func(_ string, exclude []peer.ID) []peer.ID { return []peer.ID{b.id} }
	m.mu.Unlock()
	c.watch("demo")

	_, err := b.Links().Subscribe(t.Context(), Carrier{Node: c.id}, "demo")
	var refusal *capacity.Refusal
	if !errors.As(err, &refusal) || refusal.Reason != tree.Loop {
		t.Errorf("pulling a stream from one's own child = %v, want a refusal for a loop", err)
	}
}

func most(n int) func() int { return func() int { return n } }

func TestDepthAndFanoutAreBounded(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	var depth, fanout atomic.Int64
	depth.Store(2)
	fanout.Store(1)
	bounds := func(c *Config) {
		c.Depth = func() int { return int(depth.Load()) }
		c.Fanout = func() int { return int(fanout.Load()) }
		c.RoomWait = time.Millisecond
	}
	var chain []*meshNode
	for range 4 {
		chain = append(chain, m.add(ledger.Limits{}, bounds))
	}
	chain[0].publish("demo")
	from := func(n *meshNode) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.carriers = func(_ string, exclude []peer.ID) []peer.ID {
			if slices.Contains(exclude, n.id) {
				return nil
			}
			return []peer.ID{n.id}
		}
	}
	refused := func(n *meshNode, reason string) {
		t.Helper()
		_, err := client.View(t.Context(), client.ViewConfig{URL: n.web.URL + "/whep/demo"})
		var r *client.Refused
		if !errors.As(err, &r) || r.Status != http.StatusServiceUnavailable || r.RetryAfter == 0 || !strings.Contains(r.Body, reason) {
			t.Fatalf("view = %v, want 503 with Retry-After and a word of %q", err, reason)
		}
		eventually(t, "its pull has ended", func() bool { // or the next request gets the same error
			return n.tree.Pulls() == 0
		})
	}
	from(chain[0])
	chain[1].watch("demo")
	refused(chain[2], "fanout")
	from(chain[1])
	chain[2].watch("demo")
	from(chain[2])
	refused(chain[3], "depth")
	// A change of the policy applies at once, also to a carrier that was
	// started under the old one.
	depth.Store(3)
	chain[3].watch("demo")
	from(chain[0])
	last := m.add(ledger.Limits{}, bounds)
	refused(last, "fanout")
	fanout.Store(2)
	last.watch("demo")
}

// If all carriers of a stream have as many children as allowed, a viewer waits
// until there is another relay.
func TestPullWaitsForARelay(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	narrow := func(c *Config) { c.Fanout = most(1) }
	a, b, c := m.add(ledger.Limits{}, narrow), m.add(ledger.Limits{}, narrow), m.add(ledger.Limits{}, nil)
	a.publish("demo")
	b.watch("demo")
	m.mu.Lock()
	m.carriers = func(_ string, exclude []peer.ID) []peer.ID {
		if c.saw("pull.waiting") == 0 {
			return without(exclude, a.id)
		}
		return without(exclude, b.id) // its record has spread
	}
	m.mu.Unlock()
	flows(t, c.watch("demo"), 5)
	if got, _ := c.carriage("demo"); got.Parent != b.id {
		t.Errorf("pulled from %s, want the relay %s", got.Parent, b.id)
	}
	if started, waited := c.saw("pull.started"), c.saw("pull.waiting"); started != 1 || waited != 1 {
		t.Errorf("%d pulls that waited %d times, want one that waited once", started, waited)
	}
}

// without returns id, or nothing if exclude has it.
func without(exclude []peer.ID, id peer.ID) []peer.ID {
	if slices.Contains(exclude, id) {
		return nil
	}
	return []peer.ID{id}
}

func (n *meshNode) lastDetail(kind event.Kind) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range slices.Backward(n.events) {
		if e.Kind == kind {
			return e.Detail
		}
	}
	return ""
}

// A relay whose parent is lost continues from another one, and its viewers see
// only a pause: same SSRC, no break in the numbering.
func TestRelaySurvivesItsParent(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	a, b, c := m.add(ledger.Limits{}, nil), m.add(ledger.Limits{}, nil), m.add(ledger.Limits{}, nil)
	a.publish("demo")
	b.watch("demo")
	m.mu.Lock()
	m.carriers = func(_ string, exclude []peer.ID) []peer.ID {
		for _, id := range []peer.ID{b.id, a.id} {
			if !slices.Contains(exclude, id) {
				return []peer.ID{id}
			}
		}
		return nil
	}
	m.mu.Unlock()
	v := c.watch("demo")
	flows(t, v, 5)
	ssrc := v.Stats().Tracks[0].SSRC

	b.crash()
	eventually(t, "the relay has another parent", func() bool { return c.saw("pull.resumed") == 1 })
	flows(t, v, 15)
	if got := v.Stats().Tracks[0].SSRC; got != ssrc {
		t.Errorf("the SSRC changed from %d to %d", ssrc, got)
	}
	got, _ := c.carriage("demo")
	if got.Parent != a.id || got.Depth != 1 {
		t.Errorf("the relay claims parent %s at depth %d", got.Parent, got.Depth)
	}
}

// When the publisher goes, the stream ends everywhere.
func TestPublisherGoes(t *testing.T) {
	m := newMesh(t)
	a, b := m.add(ledger.Limits{}, nil), m.add(ledger.Limits{}, nil)
	p := a.publish("demo")
	v := b.watch("demo")
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-v.Done():
	case <-time.After(patience):
		t.Fatal("the viewer at the relay was not told")
	}
	eventually(t, "nobody carries it", func() bool { return len(a.StreamInfos())+len(b.StreamInfos()) == 0 })
}

// An unwatched relay ends.
func TestUnwatchedRelayLetsGo(t *testing.T) {
	m := newMesh(t)
	a, b := m.add(ledger.Limits{}, nil), m.add(ledger.Limits{}, func(c *Config) { c.Linger = always(50 * time.Millisecond) })
	a.publish("demo")
	v := b.watch("demo")
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the relay has let go", func() bool { return len(b.StreamInfos()) == 0 })
	eventually(t, "the origin has no child", func() bool { c, _ := a.carriage("demo"); return c.Children == 0 })
	flows(t, b.watch("demo"), 5) // and pulls it again
}

// An unwatched relay ends by the current Linger, not by the one at the end of
// its last viewer.
func TestLingerThatChanges(t *testing.T) {
	t.Parallel()
	var linger atomic.Int64
	linger.Store(int64(time.Hour))
	m := newMesh(t)
	a, b := m.add(ledger.Limits{}, nil), m.add(ledger.Limits{}, func(c *Config) { c.Linger = func() time.Duration { return time.Duration(linger.Load()) } })
	a.publish("demo")
	v := b.watch("demo")
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nobody watches", func() bool { c, _ := b.carriage("demo"); return c.Viewers == 0 })
	linger.Store(int64(time.Millisecond))
	eventually(t, "the relay has let go", func() bool { return len(b.StreamInfos()) == 0 })
}

// A pulled stream waits for the viewer that requested it, even where relays are
// ended at once.
func TestPullOutlivesShortLinger(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	a, b := m.add(ledger.Limits{}, nil), m.add(ledger.Limits{}, func(c *Config) { c.Linger = always(time.Nanosecond) })
	a.publish("demo")
	for range 5 {
		v := b.watch("demo")
		flows(t, v, 5)
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the relay has let go", func() bool { return len(b.StreamInfos()) == 0 })
	}
}

func TestFullNodeRedirects(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	a, b := m.add(ledger.Limits{Sessions: 2}, nil), m.add(ledger.Limits{Sessions: 3}, nil)
	a.publish("demo")
	stays := a.watch("demo")
	v := a.watch("demo")
	if !strings.HasPrefix(v.NodeURL(), b.web.URL) {
		t.Errorf("served at %s, want the helper %s", v.NodeURL(), b.web.URL)
	}
	flows(t, v, 5)
	flows(t, stays, 5)

	a.publish("second") // a publisher is redirected, too
	if c, ok := b.carriage("second"); !ok || !c.Origin {
		t.Errorf("the helper carries second as %+v", c)
	}

	// The ticket worked once, and is valid for nothing else.
	url := v.NodeURL()
	for name, bad := range map[string]string{
		"used":             url,
		"another stream's": strings.Replace(url, "/demo?", "/other?", 1),
		"tampered with":    url[:len(url)-3] + "AAA",
		"another node's":   strings.Replace(url, b.web.URL, a.web.URL, 1),
		"a publisher's":    strings.Replace(url, "/whep/", "/whip/", 1),
	} {
		var err error
		if strings.Contains(bad, "/whip/") {
			_, err = client.Publish(t.Context(), client.PublishConfig{URL: bad, Media: client.Pattern()})
		} else {
			_, err = client.View(t.Context(), client.ViewConfig{URL: bad})
		}
		var r *client.Refused
		if !errors.As(err, &r) || r.Status != http.StatusForbidden || !strings.Contains(r.Body, "ticket") {
			t.Errorf("a ticket that is %s: %v, want 403 that says so", name, err)
		}
	}

	b.watch("demo") // the last place
	_, err := client.View(t.Context(), client.ViewConfig{URL: a.web.URL + "/whep/demo"})
	var r *client.Refused
	if !errors.As(err, &r) || r.Status != http.StatusServiceUnavailable || r.RetryAfter == 0 || !strings.Contains(r.Body, "sessions") {
		t.Errorf("with nobody free: %v, want 503 with Retry-After and the reason", err)
	}
	flows(t, stays, 5)
}

func TestRelayOverflow(t *testing.T) {
	m := newMesh(t)
	a := m.add(ledger.Limits{Sessions: 1}, func(c *Config) { c.Overflow = always(Relay) })
	b := m.add(ledger.Limits{}, nil)
	a.publish("demo")
	v := a.watch("demo") // one answer, no redirect
	if got := v.Stats().Hops; len(got) != 1 {
		t.Errorf("hops = %v, want none", got)
	}
	flows(t, v, 5)
	if b.Counts().Viewers != 1 {
		t.Error("the helper does not serve the viewer")
	}
	if err := v.Close(); err != nil {
		t.Errorf("DELETE at the helper: %v", err)
	}
	eventually(t, "the helper's session has ended", func() bool { return b.Counts().Viewers == 0 })
}

// A peer's data on a link can end that link, and nothing else.
func TestLinkGarbage(t *testing.T) {
	t.Parallel()
	for name, garbage := range map[string][]byte{
		"a length beyond all bounds": {0xff, 0xff, 0xff, 0xff, 0x0f},
		"no protobuf":                {3, 0xff, 0xff, 0xff},
		"an answer nobody asked for": {4, 0x4a, 2, 0x0a, 0},
		"nothing":                    {},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMesh(t)
			a := m.add(ledger.Limits{}, nil)
			a.publish("demo")
			v := a.watch("demo")
			near, far := net.Pipe()
			served := make(chan struct{})
			go func() {
				defer close(served)
				a.Links().Accept("stranger", far)
			}()
			go func() { // its data to us
				buf := make([]byte, 1024)
				for {
					if _, err := near.Read(buf); err != nil {
						return
					}
				}
			}()
			_ = near.SetWriteDeadline(time.Now().Add(patience))
			_, _ = near.Write(garbage)
			select {
			case <-served:
			case <-time.After(patience):
				t.Error("the link outlives it")
			}
			_ = near.Close()
			eventually(t, "the link has gone", func() bool { return len(a.Links().All()) == 0 })
			flows(t, v, 5)
		})
	}
}

// A packet lost on the way in, or on the link, is requested again there, and
// the viewer misses nothing.
func TestLossIsRepairedHopByHop(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	// Every 20th RTP packet that arrives is lost, repairs included: RFC 7983
	// gives RTP and RTCP the first bytes 128 to 191, and RTCP the second byte
	// 192 to 223 (RFC 5761).
	lossy := func(c *Config) {
		n := 0
		c.Socket.Lose = func(d []byte, _ netip.AddrPort) bool {
			if len(d) < 2 || d[0] < 128 || d[0] > 191 || d[1] >= 192 && d[1] <= 223 {
				return false
			}
			n++
			return n%20 == 0
		}
	}
	a, b := m.add(ledger.Limits{}, lossy), m.add(ledger.Limits{}, lossy)
	a.publish("demo")
	v := b.watch("demo")
	from := v.Stats()
	eventually(t, "150 frames", func() bool { return v.Stats().Frames >= from.Frames+150 })
	for _, l := range b.Links().All() {
		if l.PacketsIn < 150 {
			t.Errorf("%d packets came over the link", l.PacketsIn)
		}
	}
	// Two hops lose 10 %. Missing packets of the viewer may be under way,
	// particularly on a busy machine.
	for _, track := range v.Stats().Tracks {
		if track.Lost*100 > track.Packets*5 {
			t.Errorf("%d of %d %s packets are missing: losses are not repaired", track.Lost, track.Packets, track.Kind)
		}
	}
}

// The refusal of a carrier without room takes precedence over other errors.
func TestPullTellsWhoLackedRoom(t *testing.T) {
	m := newMesh(t)
	narrow := func(c *Config) { c.Fanout, c.RoomWait = most(1), time.Millisecond }
	a, b, c := m.add(ledger.Limits{}, narrow), m.add(ledger.Limits{}, narrow), m.add(ledger.Limits{}, narrow)
	a.publish("demo")
	m.mu.Lock()
	m.carriers = func(_ string, exclude []peer.ID) []peer.ID { return without(exclude, a.id) }
	m.mu.Unlock()
	b.watch("demo")
	// a refused the pull, and no other carrier was left.
	_, _, err := c.tree.Acquire(t.Context(), "demo", nil, time.Now(), func() error { return nil })
	var refusal *capacity.Refusal
	if !errors.As(err, &refusal) || refusal.Reason != "fanout" || !strings.Contains(refusal.Detail, a.id.String()[len(a.id.String())-8:]) {
		t.Errorf("ask = %v, want a refusal for fan-out that names %s", err, a.id.String()[len(a.id.String())-8:])
	}
}

// Of two nodes that pull from the same one, the one with unrepaired losses
// reports them, and the other reports that all packets arrive.
func TestDeliveredShare(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	told := map[string]chan float64{"lossy": make(chan float64, 1), "clean": make(chan float64, 1)}
	from := make(chan peer.ID, 64)
	relay := func(name string, lose func([]byte, netip.AddrPort) bool) *meshNode {
		return m.add(ledger.Limits{}, func(c *Config) {
			c.Socket.Lose = lose
			c.Delivered = func(node peer.ID, share float64) {
				select {
				case told[name] <- share:
					from <- node
				default:
				}
			}
		})
	}
	// Every fourth RTP packet, by its sequence number and so with its repairs, or
	// by the payload type of those in linkMedia.
	lose := func(d []byte, _ netip.AddrPort) bool {
		if len(d) < 4 || d[0] < 128 || d[0] > 191 || d[1] >= 192 && d[1] <= 223 {
			return false
		}
		if pt := d[1] & 0x7f; pt == 97 || pt == 99 || pt == 101 || pt == 103 {
			return true
		}
		return d[3]%4 == 0
	}
	a := m.add(ledger.Limits{}, nil)
	a.publish("demo")
	relay("lossy", lose).tryWatch("demo")
	relay("clean", nil).watch("demo")
	for name, want := range map[string]float64{"lossy": 0.75, "clean": 1} {
		select {
		case share := <-told[name]:
			if math.Abs(share-want) > 0.1 || <-from != a.id {
				t.Errorf("%s: %.3f came, want about %v", name, share, want)
			}
		case <-time.After(patience):
			t.Errorf("%s: not judged within %v", name, patience)
		}
	}
}
