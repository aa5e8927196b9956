package sfu

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/pion/rtp"

	"weir/capacity/ledger"
	"weir/sfu/client"
	"weir/sfu/keyframe"
)

// Frames collects the packets of one video track that a viewer receives.
type frames struct {
	mu      sync.Mutex
	highest uint64
	packets map[uint64]arrived // by sequence number, extended
}

type arrived struct {
	timestamp   uint32
	marker, key bool
	at          time.Time
}

func (f *frames) take(track client.TrackInfo, p *rtp.Packet, at time.Time) {
	if track.Kind != "video" || len(p.Payload) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.packets == nil {
		f.packets, f.highest = map[uint64]arrived{}, 1<<32|uint64(p.SequenceNumber)
	}
	number := f.highest + uint64(int64(int16(p.SequenceNumber-uint16(f.highest))))
	f.highest = max(f.highest, number)
	if _, twice := f.packets[number]; !twice {
		f.packets[number] = arrived{p.Timestamp, p.Marker, keyframe.Is(track.Codec, p.Payload), at}
	}
}

// A verdict is what became of the frames of a track.
type verdict struct {
	all, complete, decodable int
	late                     []time.Duration // of complete ones, from the first packet that came of them or after them
}

func (v verdict) String() string {
	slices.Sort(v.late)
	return fmt.Sprintf("%d frames: %.2f %% complete, %.2f %% decodable; complete after %v in the median, %v at p99",
		v.all, 100*v.share(v.complete), 100*v.share(v.decodable), v.late[len(v.late)/2].Round(time.Millisecond), v.late[len(v.late)*99/100].Round(time.Millisecond))
}

func (v verdict) share(n int) float64 { return float64(n) / float64(v.all) }

// judge judges the frames that began between two times. A frame that is complete
// is decodable if all since the last keyframe are.
func (f *frames) judge(from, to time.Time) verdict {
	f.mu.Lock()
	defer f.mu.Unlock()
	numbers := make([]uint64, 0, len(f.packets))
	for n := range f.packets {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	// The clip has one timestamp step; whole frames may be missing.
	var stamps []uint32
	seen := map[uint32][]uint64{}
	for _, n := range numbers {
		p := f.packets[n]
		if seen[p.timestamp] == nil {
			stamps = append(stamps, p.timestamp)
		}
		seen[p.timestamp] = append(seen[p.timestamp], n)
	}
	step := uint32(1 << 31)
	for i := 1; i < len(stamps); i++ {
		step = min(step, stamps[i]-stamps[i-1])
	}
	// When the first packet of a frame or a later one came.
	first := make([]time.Time, len(stamps))
	var earliest time.Time
	for i := range slices.Backward(stamps) {
		for _, n := range seen[stamps[i]] {
			if at := f.packets[n].at; earliest.IsZero() || at.Before(earliest) {
				earliest = at
			}
		}
		first[i] = earliest
	}
	var v verdict
	chain := false
	for i, stamp := range stamps {
		of := seen[stamp]
		before, known := f.packets[of[0]-1]
		whole := (i == 0 || known && before.marker) && f.packets[of[len(of)-1]].marker && of[len(of)-1]-of[0] == uint64(len(of)-1)
		missed := 0 // frames before of which nothing came
		if i > 0 {
			missed = int((stamp-stamps[i-1])/step) - 1
		}
		chain = whole && (f.packets[of[0]].key || chain && missed == 0)
		if first[i].Before(from) || first[i].After(to) {
			continue
		}
		v.all += 1 + missed
		if chain {
			v.decodable++
		}
		if whole {
			v.complete++
			end := slices.MaxFunc(of, func(a, b uint64) int { return f.packets[a].at.Compare(f.packets[b].at) })
			v.late = append(v.late, f.packets[end].at.Sub(first[i]))
		}
	}
	return v
}

// watchFrames views stream at n.
func (n *meshNode) watchFrames(stream string) (*client.Viewer, *frames) {
	t := n.mesh.t
	t.Helper()
	f := &frames{}
	v, err := client.View(t.Context(), client.ViewConfig{URL: n.web.URL + "/whep/" + stream, OnRTP: f.take, Silence: patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close() })
	select {
	case <-v.FirstFrame():
	case <-time.After(patience):
		t.Fatal("no frame")
	}
	return v, f
}

// oneWay is the delay of a lossy path, each way.
const oneWay = 20 * time.Millisecond

// lossFrames is how many frames the tests of loss last.
func lossFrames(t *testing.T) int {
	if n, err := strconv.Atoi(os.Getenv("WEIR_LOSS_FRAMES")); err == nil {
		return n
	}
	if testing.Short() {
		return 150
	}
	return 600
}

// last waits for n frames at v.
func last(t *testing.T, v *client.Viewer, n int) {
	for ; n > 0; n -= 300 { // within the patience of flows
		flows(t, v, uint64(min(n, 300)))
	}
}

// Of a twentieth of all datagrams lost, both ways, on one viewer's path, nothing
// is left that its frames lack; and another viewer notices nothing.
func TestLossOfOneViewer(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	var w *wire
	n := m.add(ledger.Limits{}, func(cfg *Config) { w = wired(t, cfg, "127.0.0.31", 1) })
	n.publish("demo")
	honest, clean := n.watchFrames("demo")
	others := w.peers()
	w.mu.Lock()
	w.delay = oneWay
	w.mu.Unlock()
	_, lossy := n.watchFrames("demo")
	w.lose(0.05, func(from netip.AddrPort) bool { return !others[from] })
	from := time.Now()
	want := lossFrames(t)
	last(t, honest, want)
	to := time.Now()
	w.lose(0, nil)
	flows(t, honest, 120) // the ring's time is enough for what is under way
	a, b := lossy.judge(from, to), clean.judge(from, to)
	t.Logf("a twentieth lost: %v; the other viewer: %v", a, b)
	if a.all < want*9/10 || a.share(a.complete) < 0.995 {
		t.Errorf("%d datagrams lost, %v", w.dropped(), a)
	}
	if b.complete != b.all {
		t.Errorf("the other viewer: %v", b)
	}
	// A viewer that is served late requests again what is under way.
	if sent, withheld := n.engine.Repairs(); withheld*2 > sent {
		t.Errorf("%d repairs, and %d withheld", sent, withheld)
	}
}

// Two lossy links in a row leave nearly all frames decodable. Each hop repairs
// its own losses: nothing is requested of the publisher.
func TestLossOnTwoLinks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ loss, least float64 }{{0.05, 0.995}, {0.20, 0.98}} {
		t.Run(fmt.Sprint(c.loss), func(t *testing.T) {
			t.Parallel()
			m := newMesh(t)
			var wires []*wire
			nodes := map[uint16]bool{}
			for i := range 3 {
				m.add(ledger.Limits{}, func(cfg *Config) {
					w := wired(t, cfg, fmt.Sprintf("127.0.0.%d", 41+i+int(100*c.loss)), uint64(i))
					wires, nodes[w.node.Port()] = append(wires, w), true
				})
			}
			a, b, end := m.order[0], m.order[1], m.order[2]
			p := a.publish("demo")
			b.watch("demo")
			m.mu.Lock()
			m.carriers = func(_ string, exclude []peer.ID) []peer.ID { return without(exclude, b.id) }
			m.mu.Unlock()
			v, frames := end.watchFrames("demo")
			for _, w := range wires {
				w.mu.Lock()
				w.delay = oneWay
				w.mu.Unlock()
				w.lose(c.loss, func(from netip.AddrPort) bool { return nodes[from.Port()] })
			}
			from := time.Now()
			want := lossFrames(t)
			last(t, v, want)
			to := time.Now()
			flows(t, v, 120) // the ring's time is enough for what is under way
			got := frames.judge(from, to)
			lost := 0
			for _, w := range wires {
				lost += w.dropped()
			}
			t.Logf("%.0f %% lost each way on two links: %v; %d datagrams lost", 100*c.loss, got, lost)
			// Of the clip, one frame that stays incomplete spoils up to 15.
			if got.all < want*9/10 || got.share(got.complete) < c.least || got.all-got.decodable > 15*(1+got.all-got.complete) {
				t.Errorf("%v, want %.1f %% complete", got, 100*c.least)
			}
			for _, track := range p.Stats().Tracks {
				if track.NACKs != 0 {
					t.Errorf("%d packets were requested of the publisher, whose path loses none", track.NACKs)
				}
			}
		})
	}
}
