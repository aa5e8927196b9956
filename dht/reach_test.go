package dht

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/multiformats/go-multiaddr"
)

// People are told once that a peer is lost, and once that it is back; not of
// one that is slow for a moment, is connected, or was never there.
func TestPeersLostAndBack(t *testing.T) {
	r := newReach()
	start := time.Now()
	connected := func(p peer.ID) bool { return p == "slow" }
	for _, p := range []peer.ID{"dies", "slow", "blinks"} {
		r.answered(start, p, time.Millisecond)
	}
	for _, p := range []peer.ID{"dies", "slow", "blinks", "stranger"} {
		r.failed(start, p, unreachable)
	}
	r.answered(start.Add(time.Second), "blinks", 0)
	if got := r.lost(start.Add(lostAfter-1), connected); len(got) > 0 {
		t.Errorf("lost too early: %v", got)
	}
	if got := r.lost(start.Add(lostAfter), connected); !slices.Equal(got, []peer.ID{"dies"}) {
		t.Errorf("lost are %v, want the one that died", got)
	}
	r.failed(start.Add(2*lostAfter), "dies", unreachable)
	if got := r.lost(start.Add(time.Hour), connected); len(got) > 0 {
		t.Errorf("lost again: %v", got)
	}
	if back := r.answered(start.Add(time.Hour), "dies", 0); back != time.Hour {
		t.Errorf("back after %v, want an hour", back)
	}
	if back := r.answered(start.Add(time.Hour), "dies", 0); back != 0 {
		t.Error("back twice")
	}
}

func TestFailuresAreSaidLessAndLessOften(t *testing.T) {
	var s sayAgain
	start := time.Now()
	said := 0
	for at := range 24 * 3600 {
		if s.due(start.Add(time.Duration(at) * time.Second)) {
			said++
		}
	}
	if said < 20 || said > 32 {
		t.Errorf("a failure of a day was said %d times", said)
	}
}

// libp2p's error has a line for each address.
func TestWhyNotDialledIsOneLine(t *testing.T) {
	refused := &swarm.DialError{Cause: swarm.ErrAllDialsFailed}
	for port := range 5 {
		refused.DialErrors = append(refused.DialErrors, swarm.TransportError{
			Address: multiaddr.StringCast(fmt.Sprintf("/ip4/192.0.2.1/tcp/%d", port+1)), Cause: fmt.Errorf("dial: %w", syscall.ECONNREFUSED),
		})
	}
	got := whyNotDialled(fmt.Errorf("connect: %w", refused))
	if want := "/ip4/192.0.2.1/tcp/1 and 4 more: connection refused"; got.Error() != want {
		t.Errorf("%q, want %q", got, want)
	}
	if !errors.Is(got, syscall.ECONNREFUSED) {
		t.Error("the cause is lost")
	}
}
