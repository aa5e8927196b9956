package bench

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// A panel is one diagram: a value over the number of nodes, one line per mode.
type panel struct {
	title, unit string
	log         bool // the value's axis; that of nodes always is
	lines       []plotLine
}

type plotLine struct {
	mode Mode
	// dashed: reckoned, not measured.
	dashed bool
	points []plotPoint
}

type plotPoint struct{ x, y float64 }

// modeColours are told apart also by those who see fewer colours (Okabe and
// Ito, "Color Universal Design", 2008).
var modeColours = map[Mode]string{
	ModeDHT: "#0072b2", ModeCentral1: "#d55e00", ModeCentral3: "#e69f00",
	ModeNone: "#009e73", ModeAll: "#cc79a7", ModeRedis: "#555555",
}

// Of a panel, in pixels, and of what lies around its plot.
const (
	panelWidth, panelHeight             = 400, 270
	plotLeft, plotRight                 = 62, 14
	plotTop, plotBottom                 = 34, 40
	legendHeight                        = 44
	plotFont                            = "font-family=\"Helvetica, Arial, sans-serif\""
	ink, faint, background, plotMarkers = "#222222", "#dddddd", "#ffffff", 3.2
)

// drawPanels writes the panels as one SVG, columns side by side, with one legend
// for all.
func drawPanels(w io.Writer, panels []panel, columns int, dashed bool) error {
	rows := (len(panels) + columns - 1) / columns
	width, height := columns*panelWidth, rows*panelHeight+legendHeight
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" %s font-size="12" fill="%s">`+"\n", width, height, width, height, plotFont, ink)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="%s"/>`+"\n", width, height, background)
	drawLegend(&b, panels, width, dashed)
	for i, p := range panels {
		fmt.Fprintf(&b, `<g transform="translate(%d %d)">`+"\n", i%columns*panelWidth, legendHeight+i/columns*panelHeight)
		p.draw(&b)
		b.WriteString("</g>\n")
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func drawLegend(b *strings.Builder, panels []panel, width int, dashed bool) {
	var modes []Mode
	for _, m := range Modes {
		if slices.ContainsFunc(panels, func(p panel) bool {
			return slices.ContainsFunc(p.lines, func(l plotLine) bool { return l.mode == m && len(l.points) > 0 })
		}) {
			modes = append(modes, m)
		}
	}
	const step = 96
	x := 24
	for _, m := range modes {
		fmt.Fprintf(b, `<path d="M%d 22h22" stroke="%s" stroke-width="2.4"/><circle cx="%d" cy="22" r="%v" fill="%s"/><text x="%d" y="26">%s</text>`+"\n",
			x, modeColours[m], x+11, plotMarkers, modeColours[m], x+28, m)
		x += step
	}
	if dashed {
		fmt.Fprintf(b, `<path d="M%d 22h26" stroke="%s" stroke-width="1.6" stroke-dasharray="5 4"/><text x="%d" y="26">reckoned, not measured</text>`+"\n", x, ink, x+32)
	}
}

// draw writes the panel within panelWidth by panelHeight.
func (p *panel) draw(b *strings.Builder) {
	const right, bottom = panelWidth - plotRight, panelHeight - plotBottom
	fmt.Fprintf(b, `<text x="14" y="20" font-size="13" font-weight="bold">%s</text>`+"\n", p.title)
	xs, ys := p.axes()
	atX := func(v float64) float64 { return plotLeft + xs.at(v)*(right-plotLeft) }
	atY := func(v float64) float64 { return bottom - ys.at(v)*(bottom-plotTop) }
	for _, v := range ys.ticks {
		y := atY(v)
		fmt.Fprintf(b, `<path d="M%d %.1fH%d" stroke="%s"/><text x="%d" y="%.1f" text-anchor="end" font-size="11">%s</text>`+"\n", plotLeft, y, right, faint, plotLeft-6, y+4, tickLabel(v))
	}
	for _, v := range xs.ticks {
		x := atX(v)
		fmt.Fprintf(b, `<path d="M%.1f %dv4" stroke="%s"/><text x="%.1f" y="%d" text-anchor="middle" font-size="11">%s</text>`+"\n", x, bottom, ink, x, bottom+17, tickLabel(v))
	}
	fmt.Fprintf(b, `<path d="M%d %dV%dH%d" fill="none" stroke="%s"/>`+"\n", plotLeft, plotTop, bottom, right, ink)
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end" font-size="11">nodes</text><text x="14" y="%d" font-size="11" text-anchor="middle" transform="rotate(-90 14 %d)">%s</text>`+"\n",
		right, bottom+33, (plotTop+bottom)/2, (plotTop+bottom)/2, p.unit)
	for _, l := range p.lines {
		if len(l.points) == 0 {
			continue
		}
		var path strings.Builder
		for i, pt := range l.points {
			fmt.Fprintf(&path, "%c%.1f %.1f", "ML"[min(i, 1)], atX(pt.x), atY(pt.y))
		}
		style := ""
		if l.dashed {
			style = ` stroke-dasharray="5 4"`
		}
		// Later lines are thinner, so that one below another still shows.
		width := 3.4 - 0.4*float64(slices.Index(Modes, l.mode))
		fmt.Fprintf(b, `<path d="%s" fill="none" stroke="%s" stroke-width="%.1f"%s/>`+"\n", &path, modeColours[l.mode], width, style)
		for _, pt := range l.points {
			if !l.dashed {
				fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="%v" fill="%s"/>`+"\n", atX(pt.x), atY(pt.y), plotMarkers, modeColours[l.mode])
			}
		}
	}
}

// A scale maps values to 0…1.
type scale struct {
	low, high float64
	log       bool
	ticks     []float64
}

func (s scale) at(v float64) float64 {
	if s.log {
		return (math.Log10(max(v, s.low)) - math.Log10(s.low)) / (math.Log10(s.high) - math.Log10(s.low))
	}
	return (v - s.low) / (s.high - s.low)
}

func (p *panel) axes() (xs, ys scale) {
	var x, y []float64
	for _, l := range p.lines {
		for _, pt := range l.points {
			x = append(x, pt.x)
			if pt.y > 0 || !p.log {
				y = append(y, pt.y)
			}
		}
	}
	xs = logScale(x)
	slices.Sort(x)
	if sizes := slices.Compact(slices.Clone(x)); len(sizes) > 0 && len(sizes) <= 6 {
		xs.ticks = sizes // few enough to name each
	}
	if p.log {
		return xs, logScale(y)
	}
	return xs, linearScale(y)
}

// logScale spans the values with a little room, with a tick for each power of
// ten, and for 2 and 5 times those where there would be few.
func logScale(values []float64) scale {
	if len(values) == 0 {
		values = []float64{1, 10}
	}
	s := scale{low: slices.Min(values) / 1.3, high: slices.Max(values) * 1.3, log: true}
	steps := []float64{1}
	if s.high/s.low < 300 {
		steps = []float64{1, 2, 5}
	}
	for e := math.Floor(math.Log10(s.low)); e <= math.Log10(s.high); e++ {
		for _, step := range steps {
			if v := step * math.Pow(10, e); v >= s.low && v <= s.high {
				s.ticks = append(s.ticks, v)
			}
		}
	}
	return s
}

// linearScale begins at 0 and has about five ticks.
func linearScale(values []float64) scale {
	high := 0.0
	for _, v := range values {
		high = max(high, v)
	}
	if high == 0 {
		high = 1
	}
	step := math.Pow(10, math.Floor(math.Log10(high)))
	for _, f := range []float64{5, 2, 1, 0.5, 0.2, 0.1} {
		if high/(step*f) >= 3 {
			step *= f
			break
		}
	}
	s := scale{high: math.Ceil(high*1.02/step) * step}
	for i := 0; float64(i)*step <= s.high*1.001; i++ {
		s.ticks = append(s.ticks, float64(i)*step)
	}
	return s
}

func tickLabel(v float64) string {
	for _, unit := range []struct {
		size float64
		name string
	}{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if v >= unit.size {
			return fmt.Sprintf("%.3g%s", v/unit.size, unit.name)
		}
	}
	return fmt.Sprintf("%.3g", v)
}

// Panels of the report.

func (r *DiscoveryReport) measuredLines(value func(DiscoveryRow) (float64, bool)) []plotLine {
	var lines []plotLine
	for _, m := range Modes {
		l := plotLine{mode: m}
		for _, row := range r.Measured {
			if v, ok := value(row); ok && row.Mode == m {
				l.points = append(l.points, plotPoint{float64(row.Nodes), v})
			}
		}
		slices.SortFunc(l.points, func(a, b plotPoint) int { return cmp.Compare(a.x, b.x) })
		lines = append(lines, l)
	}
	return lines
}

func (r *DiscoveryReport) simulatedLines(value func(SimulatedRow) float64) []plotLine {
	var lines []plotLine
	for _, m := range Modes {
		l := plotLine{mode: m, dashed: true}
		for _, row := range r.Simulated {
			if Mode(row.Mode) == m {
				l.points = append(l.points, plotPoint{float64(row.Nodes), value(row)})
			}
		}
		lines = append(lines, l)
	}
	return lines
}

// plotCost draws what selections and upkeep cost at any size.
func (r *DiscoveryReport) plotCost(w io.Writer) error {
	with := func(title, unit string, measured func(DiscoveryRow) (float64, bool), reckoned func(SimulatedRow) float64) panel {
		return panel{title: title, unit: unit, log: true, lines: append(r.simulatedLines(reckoned), r.measuredLines(measured)...)}
	}
	return drawPanels(w, []panel{
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
	}, 3, len(r.Simulated) > 0)
}

// plotQuality draws how good selections are, and what a death does to them.
func (r *DiscoveryReport) plotQuality(w io.Writer) error {
	of := func(title, unit string, value func(DiscoveryRow) (float64, bool)) panel {
		return panel{title: title, unit: unit, lines: r.measuredLines(value)}
	}
	return drawPanels(w, []panel{
		of("Age of the record that decided, p50", "seconds", func(r DiscoveryRow) (float64, bool) { return r.Selections.Age.P50 / 1000, r.Selections.Age.N > 0 }),
		of("Age of the record that decided, p99", "seconds", func(r DiscoveryRow) (float64, bool) { return r.Selections.Age.P99 / 1000, r.Selections.Age.N > 0 }),
		of("Regret: score below the best node's, mean", "score, of 1", func(r DiscoveryRow) (float64, bool) { return r.Selections.Regret.Mean, r.Selections.Regret.N > 0 }),
		of("Selections refused by one of the first two", "%", func(r DiscoveryRow) (float64, bool) { return 100 * r.Selections.FirstRefused, r.Selections.N > 0 }),
		of("Selections that fail once the busiest has died", "%", func(r DiscoveryRow) (float64, bool) {
			return 100 * float64(r.Death.Failed) / float64(max(1, r.Death.N)), r.Death.N > 0
		}),
		of("Time of those that succeed then, p99", "ms", func(r DiscoveryRow) (float64, bool) { return r.Death.Time.P99, r.Death.Time.N > 0 }),
	}, 3, false)
}
