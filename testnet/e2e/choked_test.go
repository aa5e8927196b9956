package e2e

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/webrtc/v4"

	"weir/sfu"
)

// A choke carries datagrams at a limited rate, and loses what its queue cannot
// take. The zero value carries all at once.
type choke struct {
	late sync.WaitGroup // datagrams under way

	mu    sync.Mutex
	bytes float64 // a second; 0: any number
	due   time.Time
}

// chokeQueue is the longest queue of a choke.
const chokeQueue = 300 * time.Millisecond

func (c *choke) set(bits float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes = bits / 8
}

// send sends a datagram by write: at once, later, or never.
func (c *choke) send(b []byte, write func([]byte)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wait := time.Until(c.due)
	switch {
	case c.bytes == 0 && wait <= 0:
		write(b)
		return
	case c.bytes > 0 && wait > chokeQueue:
		return
	case wait <= 0:
		c.due, wait = time.Now(), 0
	}
	if c.bytes > 0 { // else it waits for what is queued before
		took := time.Duration(float64(len(b)) / c.bytes * float64(time.Second))
		c.due, wait = c.due.Add(took), wait+took
	}
	b = slices.Clone(b)
	c.late.Add(1)
	time.AfterFunc(wait, func() {
		defer c.late.Done()
		write(b)
	})
}

// wait waits for the datagrams under way.
func (c *choke) wait() { c.late.Wait() }

// A layeredViewer is pion with all that it has, as a viewer of video whose
// payload ends with the number of its layer.
type layeredViewer struct {
	mu     sync.Mutex
	layers []byte // each time that it changes
	gaps   int    // where packets were missing
	last   uint16
}

func (v *layeredViewer) came(layer byte, seq uint16) {
	v.mu.Lock()
	defer v.mu.Unlock()
	ahead := int16(seq - v.last)
	switch {
	case len(v.layers) == 0 || ahead == 1:
	case ahead <= 0:
		return // a repair, or padding
	default:
		v.gaps++
	}
	v.last = seq
	if len(v.layers) == 0 || v.layers[len(v.layers)-1] != layer {
		v.layers = append(v.layers, layer)
	}
}

// layer returns the layer that comes now; 0: none yet.
func (v *layeredViewer) layer() byte {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.layers) == 0 {
		return 0
	}
	return v.layers[len(v.layers)-1]
}

func viewLayers(t *testing.T, n node, stream string) *layeredViewer {
	t.Helper()
	var s webrtc.SettingEngine
	s.SetIncludeLoopbackCandidate(true)
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	pc, err := webrtc.NewAPI(webrtc.WithSettingEngine(s)).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	v := &layeredViewer{}
	var reads sync.WaitGroup
	t.Cleanup(func() {
		_ = pc.GracefulClose()
		reads.Wait()
	})
	pc.OnTrack(func(remote *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		reads.Add(1)
		defer reads.Done()
		for {
			p, _, err := remote.ReadRTP()
			if err != nil {
				return
			}
			if len(p.Payload) > 0 {
				v.came(p.Payload[len(p.Payload)-1], p.SequenceNumber)
			}
		}
	})
	if _, err := pc.AddTransceiverFromKind(webrtc.RTPCodecTypeVideo, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}); err != nil {
		t.Fatal(err)
	}
	resp, answer := n.post(t, n.whep(stream), offerOf(t, pc, nil))
	if resp.StatusCode != http.StatusCreated {
		t.Fatalf("%s: %s", resp.Status, answer)
	}
	if err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		t.Fatal(err)
	}
	return v
}

// A viewer whose link carries less gets a lower layer within a second, and the
// best one again once it carries more; another viewer notices nothing.
func TestViewerOnAChokedLink(t *testing.T) {
	w, nats := behindNATs(t)
	n, front := w.n(1), nats[0]
	p := publishRTP(t, n.whip("demo"), false, func(offer string) string {
		return numbered(undeclared(offer)) + "a=rid:h send\r\na=rid:m send\r\na=rid:l send\r\na=simulcast:send h;m;l\r\n"
	})
	p.edit(func() {
		first := p.streams[0]
		p.streams = nil
		for i, rid := range []string{"l", "m", "h"} {
			s := *first
			s.anew()
			s.mid, s.rid, s.on, s.layer, s.packets = "0", rid, true, byte(i+1), []int{1, 2, 7}[i]
			p.streams = append(p.streams, &s)
		}
	})
	frames := func() (frames int) {
		p.edit(func() { frames = p.ticks })
		return frames
	}
	other := viewLayers(t, n, "demo")
	eventually(t, "one viewer gets the best layer", func() bool { return other.layer() == 3 })
	before := front.chokes()
	v := viewLayers(t, n, "demo")
	eventually(t, "the other does, too", func() bool { return v.layer() == 3 })
	choked := func(bits float64) { // whichever pair of candidates is in use
		for from, c := range front.chokes() {
			if before[from] == nil {
				c.set(bits)
			}
		}
	}
	estimate := func() (estimates, targets []int64) {
		for _, s := range n.sessions(t) {
			if s.Kind == "whep" {
				estimates, targets = append(estimates, s.Estimate), append(targets, s.Target)
			}
		}
		return estimates, targets
	}
	eventually(t, "both connections are estimated, and what is sent is measured", func() bool {
		e, _ := estimate()
		return len(e) == 2 && slices.Min(e) > 1_000_000 && !slices.ContainsFunc(n.sessions(t), func(s sfu.SessionStatus) bool {
			return s.Kind == "whep" && s.Bitrate == 0
		})
	})

	gaps := other.gaps
	choked(900e3)
	begin := frames()
	eventually(t, "a lower layer comes", func() bool { return v.layer() < 3 })
	// 30 frames a second; what was queued comes before.
	if n := frames() - begin; n > 45 {
		t.Errorf("the best layer went on for %d frames", n)
	}
	if e, targets := estimate(); targets[0] != 0 || targets[1] == 0 {
		t.Errorf("limits %v by estimates %v", targets, e)
	}
	eventually(t, "the middle layer comes, which fits", func() bool { return v.layer() == 2 })
	says(t, n.get(t, "/metrics"), `weir_congestion_viewers{state="limited"} 1`, `weir_congestion_viewers{state="free"} 1`)

	choked(0)
	eventually(t, "the best layer comes back", func() bool { return v.layer() == 3 })
	if probes := n.get(t, "/metrics"); strings.Contains(probes, "weir_congestion_probes_total 0\n") {
		t.Error("nothing was probed")
	}
	other.mu.Lock()
	defer other.mu.Unlock()
	if !slices.Equal(other.layers[slices.Index(other.layers, 3):], []byte{3}) || other.gaps != gaps {
		t.Errorf("the other viewer got layers %v, and missed packets %d times", other.layers, other.gaps-gaps)
	}
}
