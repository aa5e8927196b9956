package main

import "fmt"

func or(s, instead string) string {
	if s == "" {
		return instead
	}
	return s
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func ms(v float64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f ms", v)
}

func seconds(millis float64) string { return fmt.Sprintf("%.1f s", millis/1000) }

func usage(used, limit int64) string {
	if limit == 0 {
		return fmt.Sprintf("%d of any", used)
	}
	return fmt.Sprintf("%d of %d", used, limit)
}

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
