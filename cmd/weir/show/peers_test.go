package show

import (
	"testing"
	"time"

	"weir/dht/inspect"
)

func TestClockOffsetInWords(t *testing.T) {
	for want, off := range map[string]float64{"+0.4 ms": 0.4, "-35 ms": -35.2, "+2.5 s": 2500, "-300.0 s": -300_000} {
		if got := clockOffset(inspect.PeerInfo{Told: time.Now(), ClockOffset: off}); got != want {
			t.Errorf("%v ms: %q, want %q", off, got, want)
		}
	}
	if got := clockOffset(inspect.PeerInfo{}); got != "-" {
		t.Errorf("not told: %q", got)
	}
}
