package term

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"
)

// Prefixed is s behind prefix, or nothing if s is empty.
func Prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

// YesNo is yes or no.
func YesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// Millis is a time in milliseconds; 0 is one that is not known.
func Millis(v float64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f ms", v)
}

// Seconds is a time in milliseconds.
func Seconds(millis float64) string { return fmt.Sprintf("%.1f s", millis/1000) }

// Used is how much of a limit is used; limit 0 is none.
func Used(used, limit int64) string {
	if limit == 0 {
		return fmt.Sprintf("%d of any", used)
	}
	return fmt.Sprintf("%d of %d", used, limit)
}

// Bitrate is a rate in bits per second.
func Bitrate(v int64) string {
	switch {
	case v >= 1e9:
		return fmt.Sprintf("%.1f Gbit/s", float64(v)/1e9)
	case v >= 1e6:
		return fmt.Sprintf("%.1f Mbit/s", float64(v)/1e6)
	case v >= 1e3:
		return fmt.Sprintf("%.0f kbit/s", float64(v)/1e3)
	}
	return fmt.Sprintf("%d bit/s", v)
}

// Count is n things.
func Count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// Elapsed is d to a tenth of a millisecond.
func Elapsed(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

// PrintJSON prints v on one line.
func PrintJSON(c *cli.Context, v any) error {
	b, err := json.Marshal(v)
	if err == nil {
		_, err = fmt.Fprintf(c.App.Writer, "%s\n", b)
	}
	return err
}
