package forward

import (
	"io"

	"weir/testnet/plot"
)

// plot draws the figures by the number of viewers.
func (r *Report) plot(w io.Writer) error {
	of := func(title, unit string, log bool, scale float64, figure func(Row) float64) plot.Panel {
		return plot.Panel{Title: title, Unit: unit, X: "viewers", Log: log, Lines: r.lines(scale, log, figure)}
	}
	cost := of("CPU for a million packets", "seconds", true, 1, func(r Row) float64 { return r.PerMillion })
	cost.Lines = append(cost.Lines, r.floorLine())
	return plot.Draw(w, []plot.Panel{
		cost,
		of("CPU of the server", "% of its core", false, 100, func(r Row) float64 { return r.ServerShare }),
		of("Packets lost", "%", false, 100, func(r Row) float64 { return r.Lost }),
		of("One way, p50", "ms", true, 1, func(r Row) float64 { return r.P50 }),
		of("One way, p99", "ms", true, 1, func(r Row) float64 { return r.P99 }),
		of("Memory of a viewer", "MB", true, 1e-6, func(r Row) float64 { return r.Memory }),
	}, 3, legendStep, "")
}

const legendStep = 130

// lines are the servers' medians; a logarithmic axis has no place for 0, which
// stands for a figure that is not known.
func (r *Report) lines(scale float64, log bool, figure func(Row) float64) []plot.Line {
	var lines []plot.Line
	for i, name := range r.names() {
		l := plot.Line{Name: name, Colour: plot.Colours()[i%len(plot.Colours())], Width: 2.4}
		for _, n := range r.sizes() {
			if v, ok := r.median(name, n, figure); ok && (v > 0 || !log) {
				l.Points = append(l.Points, plot.Point{X: float64(n), Y: scale * v})
			}
		}
		lines = append(lines, l)
	}
	return lines
}

func (r *Report) floorLine() plot.Line {
	l := plot.Line{Name: floorName, Colour: "#222222", Width: 1.6}
	for _, n := range r.sizes() {
		if v, ok := r.floorAt(n); ok {
			l.Points = append(l.Points, plot.Point{X: float64(n), Y: v})
		}
	}
	return l
}
