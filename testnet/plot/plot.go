// Package plot draws line diagrams as SVG.
package plot

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// A Panel is one diagram, one line per series.
type Panel struct {
	Title, Unit string
	X           string // label of the x axis; "": nodes
	Log         bool   // the y axis is logarithmic
	Linear      bool   // the x axis is linear; logarithmic otherwise
	Lines       []Line
}

// A Line is one series in one panel. Lines of one name have one colour.
type Line struct {
	Name, Colour string
	Dashed       bool // modelled, not measured
	Width        float64
	Points       []Point
}

// Point is a value of a Line.
type Point struct{ X, Y float64 }

// Colours can be told apart also with colour vision deficiency (Okabe and Ito,
// "Color Universal Design", 2008).
func Colours() []string {
	return []string{"#0072b2", "#d55e00", "#e69f00", "#009e73", "#cc79a7", "#555555", "#56b4e9", "#a08000"}
}

// Sizes of a panel, in pixels, and of the margins of its plot.
const (
	panelWidth, panelHeight             = 400, 270
	plotLeft, plotRight                 = 62, 14
	plotTop, plotBottom                 = 34, 40
	legendHeight                        = 44
	plotFont                            = "font-family=\"Helvetica, Arial, sans-serif\""
	ink, faint, background, plotMarkers = "#222222", "#dddddd", "#ffffff", 3.2

	mostMarkers = 12 // points of a line that are marked
)

// Draw writes the panels as one SVG, with columns panels side by side, and one
// legend for all: its entries are step pixels apart, and dashed explains the
// dashed lines.
func Draw(w io.Writer, panels []Panel, columns, step int, dashed string) error {
	rows := (len(panels) + columns - 1) / columns
	width, height := columns*panelWidth, rows*panelHeight+legendHeight
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" %s font-size="12" fill="%s">`+"\n", width, height, width, height, plotFont, ink)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="%s"/>`+"\n", width, height, background)
	drawLegend(&b, panels, step, dashed)
	for i, p := range panels {
		fmt.Fprintf(&b, `<g transform="translate(%d %d)">`+"\n", i%columns*panelWidth, legendHeight+i/columns*panelHeight)
		p.draw(&b)
		b.WriteString("</g>\n")
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func drawLegend(b *strings.Builder, panels []Panel, step int, dashed string) {
	var known []string
	x := 24
	for _, p := range panels {
		for _, l := range p.Lines {
			if len(l.Points) == 0 || slices.Contains(known, l.Name) {
				continue
			}
			known = append(known, l.Name)
			fmt.Fprintf(b, `<path d="M%d 22h22" stroke="%s" stroke-width="2.4"/><circle cx="%d" cy="22" r="%v" fill="%s"/><text x="%d" y="26">%s</text>`+"\n",
				x, l.Colour, x+11, plotMarkers, l.Colour, x+28, l.Name)
			x += step
		}
	}
	if dashed != "" {
		fmt.Fprintf(b, `<path d="M%d 22h26" stroke="%s" stroke-width="1.6" stroke-dasharray="5 4"/><text x="%d" y="26">%s</text>`+"\n", x, ink, x+32, dashed)
	}
}

// draw writes the panel within panelWidth by panelHeight.
func (p *Panel) draw(b *strings.Builder) {
	const right, bottom = panelWidth - plotRight, panelHeight - plotBottom
	fmt.Fprintf(b, `<text x="14" y="20" font-size="13" font-weight="bold">%s</text>`+"\n", p.Title)
	xs, ys := p.axes()
	atX := func(v float64) float64 { return plotLeft + xs.at(v)*(right-plotLeft) }
	atY := func(v float64) float64 { return bottom - ys.at(v)*(bottom-plotTop) }
	for _, v := range ys.ticks {
		y := atY(v)
		fmt.Fprintf(b, `<path d="M%d %.1fH%d" stroke="%s"/><text x="%d" y="%.1f" text-anchor="end" font-size="11">%s</text>`+"\n", plotLeft, y, right, faint, plotLeft-6, y+4, Label(v))
	}
	for _, v := range xs.ticks {
		x := atX(v)
		fmt.Fprintf(b, `<path d="M%.1f %dv4" stroke="%s"/><text x="%.1f" y="%d" text-anchor="middle" font-size="11">%s</text>`+"\n", x, bottom, ink, x, bottom+17, Label(v))
	}
	fmt.Fprintf(b, `<path d="M%d %dV%dH%d" fill="none" stroke="%s"/>`+"\n", plotLeft, plotTop, bottom, right, ink)
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end" font-size="11">%s</text><text x="14" y="%d" font-size="11" text-anchor="middle" transform="rotate(-90 14 %d)">%s</text>`+"\n",
		right, bottom+33, cmp.Or(p.X, "nodes"), (plotTop+bottom)/2, (plotTop+bottom)/2, p.Unit)
	for _, l := range p.Lines {
		if len(l.Points) == 0 {
			continue
		}
		var path strings.Builder
		for i, pt := range l.Points {
			fmt.Fprintf(&path, "%c%.1f %.1f", "ML"[min(i, 1)], atX(pt.X), atY(pt.Y))
		}
		style := ""
		if l.Dashed {
			style = ` stroke-dasharray="5 4"`
		}
		fmt.Fprintf(b, `<path d="%s" fill="none" stroke="%s" stroke-width="%.1f"%s/>`+"\n", &path, l.Colour, l.Width, style)
		for _, pt := range l.Points {
			if !l.Dashed && len(l.Points) <= mostMarkers {
				fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="%v" fill="%s"/>`+"\n", atX(pt.X), atY(pt.Y), plotMarkers, l.Colour)
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

func (p *Panel) axes() (xs, ys scale) {
	var x, y []float64
	for _, l := range p.Lines {
		for _, pt := range l.Points {
			x = append(x, pt.X)
			if pt.Y > 0 || !p.Log {
				y = append(y, pt.Y)
			}
		}
	}
	if p.Linear {
		xs = linearScale(x)
	} else {
		xs = logScale(x)
	}
	slices.Sort(x)
	if sizes := slices.Compact(slices.Clone(x)); len(sizes) > 0 && len(sizes) <= 6 && !p.Linear {
		xs.ticks = sizes // few enough to label each
	}
	if p.Log {
		return xs, logScale(y)
	}
	return xs, linearScale(y)
}

// logScale spans the values with a margin, with a tick for each power of ten,
// and for 2 and 5 times those if there would be few.
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

// Label formats v for an axis, with three digits at most.
func Label(v float64) string {
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
