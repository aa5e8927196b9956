package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"
)

// prefixed is s behind prefix, or nothing if s is empty.
func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

// yes is yes or no.
func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// ms is a time in milliseconds; 0 is one that is not known.
func ms(v float64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f ms", v)
}

// seconds is a time in milliseconds.
func seconds(millis float64) string { return fmt.Sprintf("%.1f s", millis/1000) }

// usage is how much of a limit is used; limit 0 is none.
func usage(used, limit int64) string {
	if limit == 0 {
		return fmt.Sprintf("%d of any", used)
	}
	return fmt.Sprintf("%d of %d", used, limit)
}

// bits is a rate in bits per second.
func bits(v int64) string {
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

// count is n things.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// millis is d to a tenth of a millisecond.
func millis(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

// printJSON prints v on one line.
func printJSON(c *cli.Context, v any) error {
	b, err := json.Marshal(v)
	if err == nil {
		_, err = fmt.Fprintf(c.App.Writer, "%s\n", b)
	}
	return err
}
