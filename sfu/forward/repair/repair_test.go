package repair

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/pion/rtp"
)

// What nothing was earned for ends with Start, and a share of what is sent is
// added.
func TestBudget(t *testing.T) {
	r, now := New(), time.Now()
	spend := func(from uint64) (n int) {
		for r.Allow(from+uint64(n), 1000, now, 0) {
			n++
		}
		return n
	}
	if n := spend(1); n != Start/1000 {
		t.Errorf("%d packets before any was sent, want %d", n, Start/1000)
	}
	for range 10 * Share {
		r.Earn(1000)
	}
	if n := spend(100); n != 10 {
		t.Errorf("%d packets for %d that were sent, want 10", n, 10*Share)
	}
	for range 10_000 {
		r.Earn(1000)
	}
	if n := spend(200); n != burst/1000 {
		t.Errorf("%d packets were saved up, want %d", n, burst/1000)
	}
}

// One packet is sent again Times in all, and not within half a round trip.
func TestPauses(t *testing.T) {
	for _, c := range []struct{ rtt, pause time.Duration }{
		{0, pauseLeast}, {time.Millisecond, pauseLeast}, {100 * time.Millisecond, 50 * time.Millisecond}, {time.Minute, pauseMost},
	} {
		r, now := New(), time.Now()
		for i := range Times {
			if !r.Allow(7, 10, now, c.rtt) {
				t.Errorf("round trip of %v: repair %d is withheld", c.rtt, i)
			}
			if now = now.Add(c.pause); r.Allow(7, 10, now.Add(-1), c.rtt) {
				t.Errorf("round trip of %v: repaired again within %v", c.rtt, c.pause)
			}
		}
		if r.Allow(7, 10, now.Add(time.Hour), c.rtt) {
			t.Errorf("repaired more than %d times", Times)
		}
	}
}

// Asks are bounded, and what is sent allows more.
func TestAsks(t *testing.T) {
	r, n := New(), 0
	for r.Ask() {
		n++
	}
	r.Earn(0)
	for r.Ask() {
		n++
	}
	if n != askBurst+askShare {
		t.Errorf("%d packets could be requested, want %d", n, askBurst+askShare)
	}
}

// A retransmission packet has the original sequence number first, and numbers
// of its own.
func TestWrap(t *testing.T) {
	r := New()
	first := r.seq
	for i := range uint16(3) {
		h := rtp.Header{SSRC: 1, PayloadType: 96, SequenceNumber: 1000 + 5*i, Timestamp: 9, Marker: true, Padding: true, PaddingSize: 4}
		p := r.Wrap(RTX{SSRC: 2, PayloadType: 97}, &h, []byte("media"))
		if binary.BigEndian.Uint16(p) != 1000+5*i || string(p[2:]) != "media" {
			t.Errorf("the payload is %x", p)
		}
		if h.SSRC != 2 || h.PayloadType != 97 || h.SequenceNumber != first+i || h.Timestamp != 9 || !h.Marker || h.Padding || h.PaddingSize != 0 {
			t.Errorf("the header is %+v", h)
		}
	}
}
