package nack

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/rtcp"
)

// wanted returns the packets that a NACK requests of each SSRC.
func wanted(packets []rtcp.Packet) map[uint32][]uint16 {
	all := map[uint32][]uint16{}
	for _, p := range packets {
		n := p.(*rtcp.TransportLayerNack)
		for _, pair := range n.Nacks {
			all[n.MediaSSRC] = append(all[n.MediaSSRC], pair.PacketList()...)
		}
	}
	return all
}

// Streams of a connection share its timer, and what is due together goes out
// together, in datagrams that are not too large.
func TestRequesterServesAllStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var sent []rtcp.Packet
		largest := 0
		r := NewRequester(func(p []rtcp.Packet) error {
			mu.Lock()
			defer mu.Unlock()
			b, err := rtcp.Marshal(p)
			if err != nil {
				t.Error(err)
			}
			largest = max(largest, len(b))
			sent = append(sent, p...)
			return nil
		})
		defer r.Close()
		r.Begin(50 * time.Millisecond)
		requested, keyframes := 0, 0
		a := r.Stream(1, func(n int, lost bool) {
			mu.Lock()
			defer mu.Unlock()
			if requested += n; lost {
				keyframes++
			}
		})
		b := r.Stream(2, nil)
		a.Came(1, time.Now())
		a.Came(1+maxMissing, time.Now())
		b.Came(7, time.Now())
		b.Came(9, time.Now())
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		got := wanted(sent)
		if len(got[1]) != maxMissing-1 || requested != maxMissing-1 || !slices.Equal(got[2], []uint16{8}) {
			t.Errorf("requested %d (told %d) of one and %v of the other", len(got[1]), requested, got[2])
		}
		if largest > 1200 {
			t.Errorf("a NACK of %d bytes", largest)
		}

		// One that comes, and one that is closed, are not requested any more.
		sent = nil
		for seq := uint16(2); seq <= maxMissing; seq++ {
			a.Came(seq, time.Now())
		}
		b.Close()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if len(sent) != 0 || keyframes != 0 {
			t.Errorf("%d more NACKs, and %d keyframes", len(sent), keyframes)
		}

		a.Came(2000, time.Now())
		a.Came(2002, time.Now())
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if keyframes == 0 || keyframes > 2 { // one of the jump, one of the packet given up
			t.Errorf("%d keyframes", keyframes)
		}
	})
}

// After Close nothing is sent, and a NACK that is being sent is waited for.
func TestRequesterCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sending, done := make(chan struct{}), false
		r := NewRequester(func([]rtcp.Packet) error {
			close(sending)
			time.Sleep(time.Second)
			done = true
			return nil
		})
		s := r.Stream(1, nil)
		s.Came(1, time.Now())
		s.Came(3, time.Now())
		<-sending
		r.Close()
		if !done {
			t.Error("Close returned before the NACK was sent")
		}
		s.Came(5, time.Now())
		time.Sleep(time.Minute)
	})
}

// However many gaps there are, NACKs of one connection are a while apart.
func TestNACKsAreGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent atomic.Int64
		r := NewRequester(func(p []rtcp.Packet) error { sent.Add(1); return nil })
		defer r.Close()
		s := r.Stream(1, nil)
		for seq := uint16(0); seq < 20_000; seq += 2 {
			s.Came(seq, time.Now())
			time.Sleep(100 * time.Microsecond)
		}
		if n, most := sent.Load(), int64(time.Second/gather)+3; n > most {
			t.Errorf("%d NACKs in a second, want at most %d", n, most)
		}
	})
}

// While requests cannot be sent no others are begun, and what is missing still
// is requested afterwards.
func TestRequestsWaitForTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		blocked := make(chan struct{})
		r := NewRequester(func([]rtcp.Packet) error {
			calls.Add(1)
			<-blocked
			return nil
		})
		defer r.Close()
		r.Begin(20 * time.Millisecond)
		s := r.Stream(1, nil)
		for seq := uint16(0); seq < 100; seq += 2 {
			s.Came(seq, time.Now())
			time.Sleep(10 * time.Millisecond)
		}
		if n := calls.Load(); n != 1 {
			t.Errorf("%d calls while the first is blocked, want 1", n)
		}
		close(blocked)
		time.Sleep(time.Second)
		if n := calls.Load(); n < 2 {
			t.Errorf("%d calls in all: nothing is requested any more", n)
		}
	})
}
