package term

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"
)

// Prefixed is prefix and s, or empty if s is empty.
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

// Millis formats a time in milliseconds; 0 means unknown.
func Millis(v float64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f ms", v)
}

// Seconds formats a time in milliseconds as seconds.
func Seconds(millis float64) string { return fmt.Sprintf("%.1f s", millis/1000) }

// Used formats the used part of a limit; limit 0 means none.
func Used(used, limit int64) string {
	if limit == 0 {
		return fmt.Sprintf("%d of any", used)
	}
	return fmt.Sprintf("%d of %d", used, limit)
}

// Bitrate formats a rate in bit/s.
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

// Count is n and the noun: one or many.
func Count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// Elapsed formats d in milliseconds, to a tenth.
func Elapsed(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

// Stamp formats a moment, in UTC and to the second.
func Stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// PrintJSON prints v as JSON on one line.
func PrintJSON(c *cli.Context, v any) error {
	b, err := json.Marshal(v)
	if err == nil {
		_, err = fmt.Fprintf(c.App.Writer, "%s\n", b)
	}
	return err
}
