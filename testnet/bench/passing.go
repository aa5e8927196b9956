package bench

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/pion/rtp"

	"weir/capacity"
	"weir/sfu/client"
)

// A passing records the time of each packet of a stream at two of its viewers,
// near (at the origin) and far (behind a cascade link). Both must be in this
// process, so that their times are comparable.
//
// A packet is identified by the capture time set by the publisher, which no
// node changes: sequence numbers and SSRC differ by Transport.
type passing struct {
	mu        sync.Mutex
	near, far map[stamp]time.Time
}

type stamp struct {
	kind    string
	capture uint64 // 32.32 fixed point seconds
}

func newPassing() *passing {
	return &passing{near: map[stamp]time.Time{}, far: map[stamp]time.Time{}}
}

func (p *passing) atNear(t client.TrackInfo, packet *rtp.Packet, at time.Time) {
	p.note(p.near, t.Kind, packet, at)
}

func (p *passing) atFar(t client.TrackInfo, packet *rtp.Packet, at time.Time) {
	p.note(p.far, t.Kind, packet, at)
}

func (p *passing) note(where map[stamp]time.Time, kind string, packet *rtp.Packet, at time.Time) {
	capture, ok := captureTime(packet)
	if !ok {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	key := stamp{kind, capture}
	if _, again := where[key]; !again {
		where[key] = at
	}
}

// captureTime finds abs-capture-time in packet. Its ID is negotiated each time,
// but no other extension that viewers offer has its length of 8 or 16 bytes.
func captureTime(packet *rtp.Packet) (uint64, bool) {
	for _, id := range packet.GetExtensionIDs() {
		if b := packet.GetExtension(id); len(b) == 8 || len(b) == 16 {
			return binary.BigEndian.Uint64(b), true
		}
	}
	return 0, false
}

// added lists, in milliseconds, how much later than near each packet arrived at
// far. missing counts the packets at near, between the first and the last one
// at far, that never arrived at far.
func (p *passing) added() (differences []float64, missing int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	first, last := map[string]uint64{}, map[string]uint64{}
	for key := range p.far {
		if f, ok := first[key.kind]; !ok || key.capture < f {
			first[key.kind] = key.capture
		}
		last[key.kind] = max(last[key.kind], key.capture)
	}
	for key, near := range p.near {
		far, ok := p.far[key]
		switch {
		case ok:
			differences = append(differences, capacity.Milliseconds(far.Sub(near)))
		case len(first) > 0 && key.capture > first[key.kind] && key.capture < last[key.kind]:
			missing++
		}
	}
	return differences, missing
}
