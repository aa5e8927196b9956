package term

import (
	"fmt"
	"strconv"
	"strings"
)

// ParseBitrate reads "5mbps", "800 kbit/s", "1.5g" or plain bit/s.
func ParseBitrate(s string) (int64, error) {
	number := strings.TrimSpace(strings.ToLower(s))
	for _, unit := range []string{"bit/s", "bps", "b/s", "bit"} {
		number = strings.TrimSuffix(number, unit)
	}
	number = strings.TrimSpace(number)
	factor := 1.0
	for suffix, f := range map[string]float64{"k": 1e3, "m": 1e6, "g": 1e9} {
		if rest, ok := strings.CutSuffix(number, suffix); ok {
			number, factor = strings.TrimSpace(rest), f
		}
	}
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || !(v >= 0) || v*factor > 1e13 {
		return 0, fmt.Errorf("bitrate %q: want for example 5mbps, 800kbps or 2500000", s)
	}
	return int64(v * factor), nil
}
