package e2e

import (
	"errors"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"weir/capacity"
	"weir/cmd/weir/api"
	"weir/sfu/client"
)

// A node that gets no CPU for most of the time, as under a quota or on a crowded
// host, takes no more viewers, says why, and stays full for a while afterwards.
// Those that it has keep their stream.
func TestStarvedNodeRefuses(t *testing.T) {
	t.Parallel()
	n := up(t, 1, nil).n(1)
	publish(t, n.whip("show"))
	viewer := view(t, n.whep("show"))

	// It runs for a tenth of the time: half of its timers are later than 100 ms.
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(300 * time.Millisecond)
		defer tick.Stop()
		for starved := true; starved; {
			_ = syscall.Kill(n.PID, syscall.SIGSTOP)
			select {
			case <-tick.C:
			case <-over:
				starved = false
			}
			_ = syscall.Kill(n.PID, syscall.SIGCONT)
			<-time.After(30 * time.Millisecond)
		}
	}()
	full := func() bool {
		var s api.Status
		return n.Get(t.Context(), "/status", &s) == nil && s.State == capacity.Full
	}
	refuses := func() bool {
		_, err := tryView(t, n.whep("show"))
		var r *client.Refused
		return errors.As(err, &r) && r.Status == http.StatusServiceUnavailable && strings.Contains(r.Body, "delay")
	}
	eventually(t, "the node is full", full)
	eventually(t, "it refuses, as it is late", refuses)
	close(over)
	<-ended

	flows(t, viewer)
	if !full() || !refuses() {
		t.Error("it is free again at once, and would soon be late again")
	}
}
