package bench

import (
	"cmp"
	"io"
	"slices"

	"weir/testnet/plot"
)

const legendStep = 96

// lineOf is an empty line of m. Later modes have thinner lines, so that a line
// below another is visible.
func lineOf(m Mode) plot.Line {
	i := slices.Index(Modes, m)
	return plot.Line{Name: string(m), Colour: plot.Colours()[i], Width: 3.4 - 0.4*float64(i)}
}

func (r *DiscoveryReport) measuredLines(value func(DiscoveryRow) (float64, bool)) []plot.Line {
	var lines []plot.Line
	for _, m := range Modes {
		l := lineOf(m)
		for _, row := range r.Measured {
			if v, ok := value(row); ok && row.Mode == m {
				l.Points = append(l.Points, plot.Point{X: float64(row.Nodes), Y: v})
			}
		}
		slices.SortFunc(l.Points, func(a, b plot.Point) int { return cmp.Compare(a.X, b.X) })
		lines = append(lines, l)
	}
	return lines
}

func (r *DiscoveryReport) simulatedLines(value func(SimulatedRow) float64) []plot.Line {
	var lines []plot.Line
	for _, m := range Modes {
		l := lineOf(m)
		l.Dashed = true
		for _, row := range r.Simulated {
			if Mode(row.Mode) == m {
				l.Points = append(l.Points, plot.Point{X: float64(row.Nodes), Y: value(row)})
			}
		}
		lines = append(lines, l)
	}
	return lines
}

// plotCost draws the cost of selections and upkeep by size.
func (r *DiscoveryReport) plotCost(w io.Writer) error {
	dashed := ""
	if len(r.Simulated) > 0 {
		dashed = "modelled, not measured"
	}
	with := func(title, unit string, measured func(DiscoveryRow) (float64, bool), modelled func(SimulatedRow) float64) plot.Panel {
		return plot.Panel{Title: title, Unit: unit, Log: true, Lines: append(r.simulatedLines(modelled), r.measuredLines(measured)...)}
	}
	return plot.Draw(w, []plot.Panel{
		with("Bytes per selection, with reservation, p50", "bytes",
			func(r DiscoveryRow) (float64, bool) { return r.Selections.Bytes.P50, r.Selections.N > 0 }, func(r SimulatedRow) float64 { return r.Bytes }),
		with("Time of a selection, p50", "ms",
			func(r DiscoveryRow) (float64, bool) { return r.Selections.Time.P50, r.Selections.Time.N > 0 }, func(r SimulatedRow) float64 { return r.TimeP50 }),
		with("Time of a selection, p99", "ms",
			func(r DiscoveryRow) (float64, bool) { return r.Selections.Time.P99, r.Selections.Time.N > 0 }, func(r SimulatedRow) float64 { return r.TimeP99 }),
		with("Upkeep of records, mean of all nodes", "bytes per second",
			func(r DiscoveryRow) (float64, bool) { return r.Upkeep.Records.Mean, true }, func(r SimulatedRow) float64 { return r.Upkeep }),
		with("Upkeep of records, busiest node or server", "bytes per second",
			func(r DiscoveryRow) (float64, bool) { return r.Upkeep.Records.Busiest, true }, func(r SimulatedRow) float64 { return r.Busiest }),
		with("Messages per selection", "messages",
			func(r DiscoveryRow) (float64, bool) { return r.Selections.Messages.P50, r.Selections.N > 0 }, func(r SimulatedRow) float64 { return r.Messages }),
	}, 3, legendStep, dashed)
}

// plotQuality draws the quality of selections, and the effect of a death on them.
func (r *DiscoveryReport) plotQuality(w io.Writer) error {
	of := func(title, unit string, value func(DiscoveryRow) (float64, bool)) plot.Panel {
		return plot.Panel{Title: title, Unit: unit, Lines: r.measuredLines(value)}
	}
	return plot.Draw(w, []plot.Panel{
		of("Age of the record that decided, p50", "seconds", func(r DiscoveryRow) (float64, bool) { return r.Selections.Age.P50 / 1000, r.Selections.Age.N > 0 }),
		of("Age of the record that decided, p99", "seconds", func(r DiscoveryRow) (float64, bool) { return r.Selections.Age.P99 / 1000, r.Selections.Age.N > 0 }),
		of("Regret: score below the best node's, mean", "score, of 1", func(r DiscoveryRow) (float64, bool) { return r.Selections.Regret.Mean, r.Selections.Regret.N > 0 }),
		of("Selections refused by one of the first two", "%", func(r DiscoveryRow) (float64, bool) { return 100 * r.Selections.FirstRefused, r.Selections.N > 0 }),
		of("Selections that fail once the busiest has died", "%", func(r DiscoveryRow) (float64, bool) {
			return 100 * float64(r.Death.Failed) / float64(max(1, r.Death.N)), r.Death.N > 0
		}),
		of("Time of those that succeed then, p99", "ms", func(r DiscoveryRow) (float64, bool) { return r.Death.Time.P99, r.Death.Time.N > 0 }),
	}, 3, legendStep, "")
}
