package holder

import (
	"fmt"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

func TestReputationFadeAndRecover(t *testing.T) {
	b := NewReputation()
	now := time.Unix(1_000_000, 0)
	if got := b.Of(now, "p"); got != 1 {
		t.Errorf("a stranger is believed %v, want 1", got)
	}
	b.Refused(now, "p")
	if got := b.Of(now, "p"); got != 0.5 {
		t.Errorf("after one refusal %v, want 0.5", got)
	}
	b.Refused(now, "p")
	b.Refused(now, "p")
	if got := b.Of(now, "p"); got != 0 {
		t.Errorf("after three refusals %v, want 0", got)
	}
	if got := b.Of(now.Add(2*reputationHalfLife), "p"); got != 0.75 {
		t.Errorf("after two half-lives %v, want 0.75", got)
	}
	for i := range maxReputations + 10 {
		b.Refused(now, peer.ID(fmt.Sprint(i)))
	}
	if len(b.peers) > maxReputations {
		t.Errorf("%d peers remembered", len(b.peers))
	}
}
