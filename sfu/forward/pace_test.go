package forward

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"weir/sfu/congestion"
)

// A clockSender records when which packets are sent.
type clockSender struct {
	begin time.Time
	mu    sync.Mutex
	sent  []arrival
}

type arrival struct {
	seq uint16
	at  time.Duration
}

func (s *clockSender) WriteRTP(h *rtp.Header, payload []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent = append(s.sent, arrival{h.SequenceNumber, time.Since(s.begin)})
	return len(payload), nil
}

// take returns what was sent since the last call.
func (s *clockSender) take() []arrival {
	s.mu.Lock()
	defer s.mu.Unlock()
	sent := s.sent
	s.sent = nil
	return sent
}

func (s *clockSender) WriteRTCP([]rtcp.Packet) error { return nil }

// A large frame is spread at the pace, and all of it arrives, in order, in time;
// small frames, and viewers without a pace, get theirs at once.
func TestLargeFramesAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		track := vp8Track()
		up := track.Attach(never)
		begin := time.Now()
		paced, unpaced := &clockSender{begin: begin}, &clockSender{begin: begin}
		for s, pace := range map[*clockSender]int64{paced: 4_000_000, unpaced: 0} {
			d := NewDownTrack(track)
			d.Bind(Binding{SSRC: 1, PayloadType: 96, Sender: s})
			d.Pace(pace)
			add(t, track, d)
		}
		seq := uint16(0)
		frame := func(packets int, key bool) {
			for i := range packets {
				payload := make([]byte, 1000)
				copy(payload, deltaPayload)
				if key && i == 0 {
					copy(payload, keyPayload)
				}
				up.Forward(packet(seq, uint32(time.Since(begin).Milliseconds())*90, payload), time.Now())
				seq++
			}
			synctest.Wait()
		}
		frame(3, true)
		time.Sleep(100 * time.Millisecond)
		for range 20 {
			frame(10, false)
			time.Sleep(33 * time.Millisecond)
		}
		synctest.Wait()
		slow, free := paced.take(), unpaced.take()
		if len(slow) != 203 || slow[202].at != free[202].at {
			t.Fatalf("small frames: %d and %d packets, the last after %v and %v", len(slow), len(free), slow[len(slow)-1].at, free[len(free)-1].at)
		}
		time.Sleep(time.Second)
		at := time.Since(begin)
		frame(80, true) // 80 kB; at 4 Mbit/s those beyond the first 28 take 104 ms
		slow, free = paced.take(), unpaced.take()
		if len(free) != 80 || len(slow) < 20 || len(slow) > 35 {
			t.Fatalf("at once come %d packets, and %d without a pace", len(slow), len(free))
		}
		time.Sleep(50 * time.Millisecond)
		frame(1, false) // comes meanwhile
		time.Sleep(time.Second)
		synctest.Wait()
		slow, free = append(slow, paced.take()...), append(free, unpaced.take()...)
		if len(slow) != 81 || len(free) != 81 {
			t.Fatalf("%d and %d packets of 81", len(slow), len(free))
		}
		for i := range slow {
			if slow[i].seq != free[i].seq {
				t.Fatalf("packet %d has number %d, want %d", i, slow[i].seq, free[i].seq)
			}
		}
		if took := slow[79].at - at; took < 80*time.Millisecond || took > 130*time.Millisecond {
			t.Errorf("80 kB take %v", took)
		}

		// However low the pace, nothing waits longer than paceTime.
		time.Sleep(time.Second)
		at = time.Since(begin)
		frame(1000, true)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		slow = paced.take()
		if took := slow[len(slow)-1].at - at; len(slow) != 1000 || took > 200*time.Millisecond+2*congestion.PacePause {
			t.Errorf("%d of 1000 packets, the last after %v", len(slow), took)
		}
		frame(3, false)
		if n := len(paced.take()); n != 3 {
			t.Errorf("%d packets of 3 once the frame is over", n)
		}
	})
}
