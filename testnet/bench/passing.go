package bench

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/pion/rtp"

	"weir/capacity"
	"weir/sfu/client"
)

// A passing notes when each packet of a stream came by at two viewers of it,
// near (at the origin) and far (behind a cascade link). Both must be of this
// process: their times are compared.
//
// The same packet is told by the capture time that the publisher put on it,
// which no node changes: numbers and SSRC are each leg's own.
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

// captureTime finds abs-capture-time in packet. Its number is settled by each
// negotiation, but of the extensions that viewers offer no other has its
// length of 8 or 16 bytes.
func captureTime(packet *rtp.Packet) (uint64, bool) {
	for _, id := range packet.GetExtensionIDs() {
		if b := packet.GetExtension(id); len(b) == 8 || len(b) == 16 {
			return binary.BigEndian.Uint64(b), true
		}
	}
	return 0, false
}

// added lists, in milliseconds, how much later each packet that came by at
// both was far than near. missing counts those that came near, before the last
// one that came far and after the first, and never far.
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
