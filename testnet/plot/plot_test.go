package plot

import "testing"

func TestLabel(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.05: "0.05", 20: "20", 999: "999", 1_000: "1k", 2_500: "2.5k", 1e6: "1M", 3e9: "3G"} {
		if got := Label(v); got != want {
			t.Errorf("Label(%v) = %q, want %q", v, got, want)
		}
	}
}
