package holder

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Each peer has a rate of its own, and a peer whose allowance is full again is
// forgotten.
func TestRateLimit(t *testing.T) {
	var l RateLimit
	now := time.Unix(1_000_000, 0)
	allowed := func(p peer.ID) (n int) {
		for range 2 * RecordBurst {
			if l.Allow(now, p) {
				n++
			}
		}
		return n
	}
	if n := allowed("a"); n != RecordBurst {
		t.Errorf("%d at once, want %d", n, RecordBurst)
	}
	if n := allowed("b"); n != RecordBurst {
		t.Errorf("%d of another peer, want %d", n, RecordBurst)
	}
	now = now.Add(time.Second)
	if n := allowed("a"); n != RecordRate {
		t.Errorf("%d a second later, want %d", n, RecordRate)
	}
	if n := l.Refused(); n != 4*RecordBurst-RecordRate {
		t.Errorf("%d refused", n)
	}
	l.Sweep(now)
	if len(l.peers) != 2 {
		t.Errorf("%d peers remembered, want both", len(l.peers))
	}
	l.Sweep(now.Add(time.Minute))
	if len(l.peers) != 0 {
		t.Errorf("%d peers remembered that may send as much as any", len(l.peers))
	}
}
