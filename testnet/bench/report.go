package bench

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// Print writes r for people.
func (r *Report) Print(w io.Writer) {
	fmt.Fprintf(w, "weir %s, %s, %d CPUs shared by all nodes, publishers and viewers; %.0f s\n", r.Release, r.Go, r.CPUs, r.Elapsed/1000)
	for _, n := range r.Networks {
		n.print(w)
	}
}

func (n Network) print(w io.Writer) {
	fmt.Fprintf(w, "\n%d nodes, up in %.1f s\n", n.Nodes, n.Up/1000)

	fmt.Fprintln(w, "\n  From a viewer's POST to its first decodable frame, ms (p50 / p95)")
	table(w, "\tn\ttotal\twithout keyframe wait\t= answer\t+ connect\t+ whole frame\tkeyframe wait", func(row func(...string)) {
		for _, f := range n.FirstFrame {
			row(f.Case, count(f.Total), pair(f.Total), pair(f.Beyond), pair(f.Answer), pair(f.Connect), pair(f.Frame), pair(f.Keyframe))
		}
	})
	if h := n.Hop; h != nil {
		fmt.Fprintf(w, "\n  Added by one cascade hop, one-way: p50 %.3f ms, p99 %.3f ms, worst %.3f ms of %d packets, %d missing; link's round trip %.2f ms\n",
			h.Added.P50, h.Added.P99, h.Added.Max, h.Added.N, h.Missing, h.RTT)
	}

	fmt.Fprintln(w, "\n  A full node selects a helper and reserves (p50 / p95)")
	table(w, "client\tn\tmessages\tbytes\tms", func(row func(...string)) {
		for _, s := range n.Selections {
			row(s.Client, count(s.Messages), whole(s.Messages), whole(s.Bytes), pair(s.Time))
		}
	})
	fmt.Fprintf(w, "\n  Age of the record used: p50 %.0f ms, p99 %.0f ms of %d\n", n.Age.P50, n.Age.P99, n.Age.N)

	fmt.Fprintf(w, "\n  Discovery at rest, %.0f s: mean %.0f B/s per node, busiest %.0f B/s", n.Upkeep.Seconds, n.Upkeep.Bytes.Mean, n.Upkeep.Bytes.Max)
	var parts []string
	for _, p := range slices.Sorted(maps.Keys(n.Upkeep.ByProtocol)) {
		parts = append(parts, fmt.Sprintf("%s %.0f", p, n.Upkeep.ByProtocol[p]))
	}
	if len(parts) > 0 {
		fmt.Fprintf(w, " (%s)", strings.Join(parts, ", "))
	}
	fmt.Fprintln(w)

	if s := n.Sessions; s != nil {
		fmt.Fprintf(w, "\n  %d sessions opened and closed in %.1f s, %d at once; first frame %s ms\n", s.Opened, s.Elapsed/1000, sessionsAtOnce, pair(s.First))
		table(w, "\tgoroutines\tsessions\tstreams\tlinks\tleases\theap, MB\t", func(row func(...string)) {
			for _, side := range []struct {
				name string
				r    Remains
			}{{"origin", s.Origin}, {"relay", s.Relay}} {
				verdict := "clean"
				if !side.r.Clean {
					verdict = "NOT CLEAN"
				}
				b, a := side.r.Before, side.r.After
				change := func(before, after int) string { return fmt.Sprintf("%d → %d", before, after) }
				row(side.name, change(b.Goroutines, a.Goroutines), change(b.Sessions, a.Sessions), change(b.Streams, a.Streams),
					change(b.Links, a.Links), change(b.Leases, a.Leases), fmt.Sprintf("%.1f → %.1f", float64(b.Heap)/1e6, float64(a.Heap)/1e6), verdict)
			}
		})
	}
}

func table(w io.Writer, head string, rows func(row func(cells ...string))) {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "    "+head)
	rows(func(cells ...string) { fmt.Fprintln(t, "    "+strings.Join(cells, "\t")) })
	_ = t.Flush()
}

func count(s Spread) string { return fmt.Sprint(s.N) }
func pair(s Spread) string  { return fmt.Sprintf("%.1f / %.1f", s.P50, s.P95) }
func whole(s Spread) string { return fmt.Sprintf("%.0f / %.0f", s.P50, s.P95) }
