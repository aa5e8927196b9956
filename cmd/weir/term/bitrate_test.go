package term

import (
	"strings"
	"testing"
)

func TestBitrate(t *testing.T) {
	for in, want := range map[string]int64{
		"5mbps": 5_000_000, "800kbps": 800_000, "2500000": 2_500_000, "1.5 Gbit/s": 1_500_000_000, "0": 0, "64 kbit/s": 64_000,
	} {
		if got, err := ParseBitrate(in); err != nil || got != want {
			t.Errorf("%q is %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "fast", "-1", "5 MB", "NaN", "1e30", "inf"} {
		if got, err := ParseBitrate(in); err == nil || !strings.Contains(err.Error(), "5mbps") {
			t.Errorf("%q is %d, %v; want an error with an example", in, got, err)
		}
	}
}
