package holder

import (
	"testing"
	"time"

	"weir/capacity"
)

// A holder is warm a TTL after it began to hold everything, and cold again once
// it does not, or was suspended.
func TestWarmth(t *testing.T) {
	var w Warmth
	now := time.Unix(1_000_000_000, 0)
	pass := func(d time.Duration, everything bool) {
		for end := now.Add(d); now.Before(end); {
			now = now.Add(time.Second)
			w.Note(now, everything)
		}
	}
	check := func(when string, want bool) {
		t.Helper()
		if got := w.Warm(now); got != want {
			t.Errorf("%s: %v, want %v", when, got, want)
		}
	}
	const long = capacity.DefaultTTL + 2*time.Second
	check("at first", false)
	pass(long, false)
	check("while others hold more", false)
	pass(capacity.DefaultTTL, true)
	check("before a TTL", false)
	pass(2*time.Second, true)
	check("after a TTL", true)
	now = now.Add(Keepalive + time.Second)
	w.Note(now, true)
	check("after it was stopped", false)
	pass(long, true)
	check("a TTL later", true)
	pass(time.Second, false)
	check("once others hold more", false)
}
