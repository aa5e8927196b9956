package overlay

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/multiformats/go-multiaddr"
)

func TestFailuresAreSaidLessAndLessOften(t *testing.T) {
	var s LogBackoff
	start := time.Now()
	said := 0
	for at := range 24 * 3600 {
		if s.Due(start.Add(time.Duration(at) * time.Second)) {
			said++
		}
	}
	if said < 20 || said > 32 {
		t.Errorf("a failure of a day was said %d times", said)
	}
}

// libp2p's error has a line for each address.
func TestDialErrorIsOneLine(t *testing.T) {
	refused := &swarm.DialError{Cause: swarm.ErrAllDialsFailed}
	for port := range 5 {
		refused.DialErrors = append(refused.DialErrors, swarm.TransportError{
			Address: multiaddr.StringCast(fmt.Sprintf("/ip4/192.0.2.1/tcp/%d", port+1)), Cause: fmt.Errorf("dial: %w", syscall.ECONNREFUSED),
		})
	}
	got := DialError(fmt.Errorf("connect: %w", refused))
	if want := "/ip4/192.0.2.1/tcp/1 and 4 more: connection refused"; got.Error() != want {
		t.Errorf("%q, want %q", got, want)
	}
	if !errors.Is(got, syscall.ECONNREFUSED) {
		t.Error("the cause is lost")
	}
}

func TestBackoff(t *testing.T) {
	b := backoff{first: time.Second, most: 10 * time.Second}
	var got []time.Duration
	for range 6 {
		got = append(got, b.wait(0.5))
	}
	b.reset()
	got = append(got, b.wait(0), b.wait(0.999))
	want := []time.Duration{1e9, 2e9, 4e9, 8e9, 10e9, 10e9, 0.75e9, 2.499e9}
	if !slices.Equal(got, want) {
		t.Errorf("waits %v, want %v", got, want)
	}
}
