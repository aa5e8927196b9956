package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"weir/testnet/lab"
	"weir/testnet/model"
	"weir/testnet/plot"
	"weir/testnet/report"
)

// A SimulatedRow is modelled by package model, not measured.
type SimulatedRow = model.Row

// Above these shares of the machine's CPU, of other programs and of all, times
// are unreliable.
const disturbing, saturated = 0.3, 0.85

// simulatedSizes are the sizes of the modelled networks: the measured ones, for
// comparison, and those too large to measure.
var simulatedSizes = []int{1_000, 10_000, 100_000, 1_000_000}

// Reckon fills in the modelled rows.
func (r *DiscoveryReport) Reckon() error {
	sizes, err := model.SizesOf()
	if err != nil {
		return err
	}
	rate, confirmed, whole := publishing(r.Seed)
	r.Model = model.Params{
		Map: lab.NewGeography(r.Seed, regions, time.Duration(r.RTT*float64(time.Millisecond))), Regions: regions, Seed: r.Seed,
		Rate: rate, Confirmed: confirmed, Whole: whole, Sizes: sizes,
	}
	var ns []int
	var modes []Mode
	for _, row := range r.Measured {
		if !slices.Contains(ns, row.Nodes) {
			ns = append(ns, row.Nodes)
		}
		if !slices.Contains(modes, row.Mode) {
			modes = append(modes, row.Mode)
		}
	}
	r.Simulated = nil
	for _, n := range append(ns, simulatedSizes...) {
		for _, m := range modes {
			r.Simulated = append(r.Simulated, model.Reckon(r.Model, string(m), n))
		}
	}
	return nil
}

// ReadDiscovery reads the output of [DiscoveryReport.JSON], and computes the
// modelled rows again.
func ReadDiscovery(file string) (*DiscoveryReport, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	r := &DiscoveryReport{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("%s is no report of weir-lab bench discovery: %w", file, err)
	}
	if len(r.Measured) == 0 || r.Seed == 0 || !(r.RTT > 0 && r.RTT <= 1_000) {
		return nil, fmt.Errorf("%s is no report of weir-lab bench discovery: nothing was measured", file)
	}
	for _, row := range r.Measured {
		if !slices.Contains(Modes, row.Mode) || row.Nodes < 3 {
			return nil, fmt.Errorf("%s is no report of weir-lab bench discovery: mode %q with %d nodes", file, row.Mode, row.Nodes)
		}
	}
	return r, r.Reckon()
}

// Write puts the report into dir: discovery.json, discovery.md and the plots.
func (r *DiscoveryReport) Write(dir string) error {
	return report.Write(dir, map[string]func(io.Writer) error{
		"discovery.json":        r.JSON,
		"discovery.md":          r.Markdown,
		"discovery-cost.svg":    r.plotCost,
		"discovery-quality.svg": r.plotQuality,
	})
}

// JSON writes the whole report.
func (r *DiscoveryReport) JSON(w io.Writer) error { return report.JSON(w, r) }

// Markdown writes the report as tables.
func (r *DiscoveryReport) Markdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# Who should hold the servers' state: measured\n\n")
	fmt.Fprintf(&b, "`weir-lab bench discovery` on %s, %d CPUs shared by all nodes, %s, %.0f minutes. Real nodes in one process on a simulated network, mean round trip %.0f ms; per mode and size %.0f s of upkeep, %.0f s of %.0f selections a second, and as long again after the busiest has died. Map, load and selections are the same in each (seed %d).\n\n",
		r.Began.UTC().Format("2006-01-02"), r.CPUs, r.Go, r.Elapsed/60_000, r.RTT, max(r.Phase, upkeepLeast.Seconds()), r.Phase, r.Rate, r.Seed)
	report.Head(&b, "nodes", "mode", "messages", "bytes per selection, p50 / p99", "time, ms, p50 / p99", "record's age, s, p50 / p99", "regret", "refused at first", "failed")
	for _, m := range r.Measured {
		s := m.Selections
		fmt.Fprintf(&b, "| %d | %s | %.0f | %.0f / %.0f | %.0f / %.0f | %.1f / %.1f | %.3f | %.1f %% | %d of %d |\n", m.Nodes, m.Mode, s.Messages.P50,
			s.Bytes.P50, s.Bytes.P99, s.Time.P50, s.Time.P99, s.Age.P50/1000, s.Age.P99/1000, s.Regret.Mean, 100*s.FirstRefused, s.Failed, s.N)
	}
	fmt.Fprintf(&b, "\nBytes are payload, both ways, up to the decision. Regret is by how much the chosen node's score, of 1, fell short of the best node's, on what was true at that moment; one who knew all and drew two of the best four as the policy says would have had %s, one who took any node with room %s, in the order of sizes.\n\n", r.reference(func(s DiscoverySelections) float64 { return s.RegretKnowing }), r.reference(func(s DiscoverySelections) float64 { return s.RegretRandom }))

	report.Head(&b, "nodes", "mode", "records, B/s, mean / busiest", "routing, B/s, mean / busiest", "on the wire, B/s, mean / busiest", "who dies", "then fail", "until", "time then, ms, p50 / p99")
	for _, m := range r.Measured {
		u, d := m.Upkeep, m.Death
		until := "–"
		switch {
		case d.Failed > 0 && d.Recovered:
			until = fmt.Sprintf("%.1f s", d.Recovery/1000)
		case d.Failed > 0:
			until = "not again"
		}
		then := "–"
		if d.Time.N > 0 {
			then = fmt.Sprintf("%.0f / %.0f", d.Time.P50, d.Time.P99)
		}
		fmt.Fprintf(&b, "| %d | %s | %.0f / %.0f | %.0f / %.0f | %.0f / %.0f | %s | %d of %d | %s | %s |\n", m.Nodes, m.Mode,
			u.Records.Mean, u.Records.Busiest, u.Routing.Mean, u.Routing.Busiest, u.Wire.Mean, u.Wire.Busiest, d.Who, d.Failed, d.N, until, then)
	}
	b.WriteString("\nUpkeep is in and out, while load moves and nobody selects. Records: payload of keeping them. Routing: of Kademlia and identify, which every mode runs. On the wire: IP packets, with QUIC's own; for redis its TCP is modelled.\n")

	var disturbed []string
	for _, m := range r.Measured {
		if m.Others > disturbing || m.CPU+m.Others > saturated {
			disturbed = append(disturbed, fmt.Sprintf("%s with %d nodes", m.Mode, m.Nodes))
		}
	}
	if len(disturbed) > 0 {
		fmt.Fprintf(&b, "\nThe machine was short of processor while this was measured, by more than %.0f %% of it that other programs used, or all in all, so times may be too long: %s.\n", 100*disturbing, strings.Join(disturbed, ", "))
	}

	if len(r.Simulated) > 0 {
		fmt.Fprintf(&b, "\n## Reckoned\n\nBy `testnet/model`, with messages of real size, %.2f records per node and second of which %.0f %% are confirmed and %.0f %% whole, the others updates, and the same map. Not measured. Who asks everybody has a second for it: with many nodes it hears of a part only.\n\n", r.Model.Rate, 100*r.Model.Confirmed, 100*r.Model.Whole)
		report.Head(&b, "nodes", "mode", "messages", "bytes per selection", "time, ms, p50 / p99", "records, B/s, mean / busiest")
		for _, m := range r.Simulated {
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %.0f / %.0f | %s / %s |\n", plot.Label(float64(m.Nodes)), m.Mode, plot.Label(m.Messages), plot.Label(m.Bytes), m.TimeP50, m.TimeP99, plot.Label(m.Upkeep), plot.Label(m.Busiest))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// reference lists a figure that hardly depends on the mode, by size: its mean
// over the modes.
func (r *DiscoveryReport) reference(value func(DiscoverySelections) float64) string {
	var sizes []int
	sums, counts := map[int]float64{}, map[int]float64{}
	for _, m := range r.Measured {
		if counts[m.Nodes] == 0 {
			sizes = append(sizes, m.Nodes)
		}
		sums[m.Nodes] += value(m.Selections)
		counts[m.Nodes]++
	}
	var list []string
	for _, n := range sizes {
		list = append(list, fmt.Sprintf("%.3f", sums[n]/counts[n]))
	}
	return strings.Join(list, ", ")
}
