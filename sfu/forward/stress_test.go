package forward

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// Viewers come, go and choose while layers come and go, on as many goroutines,
// and all ends.
func TestLayersUnderChange(t *testing.T) {
	s := newSimulcaster()
	var wg sync.WaitGroup
	const rounds = 300
	for range 4 {
		wg.Go(func() {
			for range rounds {
				d := NewDownTrack(s.track)
				d.Bind(Binding{Sender: discard{}, SSRC: 1, PayloadType: 96, Repair: true})
				s.track.Add(d)
				d.Choose(Choice{RID: []string{"h", "m", "l", ""}[rand.IntN(4)]})
				s.track.Review(time.Now())
				d.Limit(rand.Int64N(2_000_000))
				s.track.Review(time.Now())
				d.RTCP(nacks(1, uint16(rand.IntN(100))), time.Now())
				d.Sending()
				s.track.Remove(d)
			}
		})
	}
	for _, e := range s.all {
		wg.Go(func() {
			for i := range rounds {
				p := append([]byte{0x90, 0xe0, 0x80, byte(i), byte(i), 0, byte(0x10 | i%5&1), 0, 0, 0x9d, 1, 0x2a, e.width, 0, e.width, 0}, 1, 2, 3)
				e.up.Forward(packet(uint16(i), uint32(i)*3000, p), time.Now())
				s.track.Sample(time.Now())
			}
		})
	}
	wg.Wait()
	for _, e := range s.track.Encodings() {
		e.mu.Lock()
		if n := len(e.downs) + len(e.joining); n != 0 || e.passes {
			t.Errorf("%d DownTracks are left of layer %s, and passes %v", n, e.RID, e.passes)
		}
		e.mu.Unlock()
	}
}
