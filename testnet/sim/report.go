package sim

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"weir/testnet/plot"
	"weir/testnet/report"
)

// Write puts the report into dir: sim.json, sim.md and the plots of the
// simulated scenarios.
func (r *Report) Write(dir string) error {
	files := map[string]func(io.Writer) error{"sim.json": r.JSON, "sim.md": r.Markdown}
	if len(r.of("steady")) > 0 {
		files["sim-steady.svg"] = r.plotSteady
	}
	if len(r.of("scale")) > 0 {
		files["sim-scale.svg"] = r.plotScale
	}
	if len(r.of("liars"))+len(r.of("flash"))+len(r.of("pack")) > 0 {
		files["sim-time.svg"] = r.plotTime
	}
	return report.Write(dir, files)
}

// JSON writes the whole report.
func (r *Report) JSON(w io.Writer) error { return report.JSON(w, r) }

func (r *Report) of(scenario string) (rows []Row) {
	for _, row := range r.Rows {
		if row.Scenario == scenario {
			rows = append(rows, row)
		}
	}
	return rows
}

var explained = map[string]string{
	"burst":      "92 viewers come within 31 s to 10 idle nodes of one region, with room for 20 each (in jicofo#1298 one of Jitsi's bridges got 63 % of them). Ten times over; of each figure the worst.",
	"steady":     "Load of 85 % of what viewers may fill, which is 90 % of the uplink; four regions; viewers watch for a lognormal time of ten minutes in the mean, nodes carry 100, 200 or 400 of them. All begin equally loaded; what is counted is what goes on after 15 minutes, for three. Everybody sees the same records, and gets the same viewers at the same time. Targets refuse what they have no room for, those of Jitsi and LiveKit do not: what they take all the same is overfull. All-knowing are two references that no one can be: they see the truth and are never late.",
	"flash":      "One stream; its tree grows by cascade pulls as viewers come to more nodes, at most 8 to a node. Full nodes send viewers on. A viewer's request may wait up to 10 s, and its pull is tried again meanwhile. First refused: viewers who found no way at once, and waited.",
	"pack":       "Equal nodes under the pack policy. Load is 60 % of what they may be packed with for eight minutes, and falls to 20 % within twelve; viewers stay for a minute in the mean. A node that is idle for 30 s drains, and is released once it is empty. The bound is the fewest nodes that could carry the sessions of the moment.",
	"liars":      "One node in twenty claims tenfold capacity and takes whoever comes; what it delivers is bounded by the truth. Viewers and links notice every 5 s what arrives. Fair is what honest nodes of the same size carry: the highest ratio after two minutes.",
	"antagonist": "One node in ten carries half of what it should for a minute, and neither its load nor its limits show it. Load is 75 %; viewers stay for two minutes in the mean. Counted is where viewers are sent from five seconds after that on. What shows it is the delay in a node's queues, the same for all: weir's nodes measure their own and are full for two minutes once it was above the limit, and Prequal's probes report it; with weir, viewers and links also notice every 5 s what arrives.",
	"scale":      "80 % load, and 30 % further demand in one of four regions. Beyond 20,000 nodes stays are longer and nodes smaller, to keep the number of sessions down.",
}

// Markdown writes the report as tables.
func (r *Report) Markdown(w io.Writer) error {
	var b strings.Builder
	b.WriteString("# Placement, simulated\n\n")
	fmt.Fprintf(&b, "`weir-lab sim`, seed %d, %s, %.0f s of real time, %s. Virtual time; policy, ranking, ledger, holders' tables and offers are the product's own code, and all get the same viewers at the same times. Not measured on real nodes.\n\n",
		r.Seed, r.Began.UTC().Format("2006-01-02"), r.Elapsed, r.Go)
	b.WriteString("| scenario | aim | found | |\n| --- | --- | --- | --- |\n")
	for _, a := range r.Aims {
		met := "missed"
		if a.Met {
			met = "met"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", a.Scenario, a.Aim, a.Found, met)
	}
	for _, scenario := range Scenarios {
		rows := r.of(scenario)
		if len(rows) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n## %s%s\n\n%s\n\n", strings.ToUpper(scenario[:1]), scenario[1:], explained[scenario])
		columns := r.columns(scenario)
		titles := []string{"case", "nodes", "who"}
		for _, c := range columns {
			titles = append(titles, c.title)
		}
		report.Head(&b, titles...)
		for _, row := range rows {
			name := row.Case
			if name == "" {
				name = "–"
			}
			fmt.Fprintf(&b, "| %s | %d | %s |", name, row.Nodes, row.Who)
			for _, c := range columns {
				fmt.Fprintf(&b, " %s |", c.value(row))
			}
			b.WriteString("\n")
		}
	}
	b.WriteString("\nFirst refused: the node tried first had no room; both: nor the one that weir tries at the same time, so that only this costs time. Blocked: none of up to six had room, with weir also further afield. Peak: the highest load of a node at any moment, of what viewers may fill (in a flash crowd, of all). Spread: standard deviation of load, of nodes' limits. Messages and bytes: payload up to the decision.\n")
	_, err := io.WriteString(w, b.String())
	return err
}

type column struct {
	title string
	value func(Row) string
}

func (r *Report) columns(scenario string) []column {
	percent := func(title string, of func(Row) float64) column {
		return column{title, func(x Row) string { return fmt.Sprintf("%.2f %%", 100*of(x)) }}
	}
	number := func(title, format string, of func(Row) float64) column {
		return column{title, func(x Row) string {
			if v := of(x); v != 0 {
				return fmt.Sprintf(format, v)
			}
			return "–"
		}}
	}
	placed := column{"placements", func(x Row) string { return fmt.Sprint(x.Placed) }}
	first := percent("first refused", func(x Row) float64 { return x.FirstRefused })
	both := column{"both", func(x Row) string {
		if !placesByWeir(x.Who) {
			return "–"
		}
		return fmt.Sprintf("%.2f %%", 100*x.BothRefused)
	}}
	blocked := percent("blocked", func(x Row) float64 { return x.Blocked })
	overfull := percent("overfull", func(x Row) float64 { return x.Overfull })
	most := percent("most on one", func(x Row) float64 { return x.MostOnOne })
	peak := column{"peak", func(x Row) string { return fmt.Sprintf("%.0f %%", 100*x.Peak) }}
	spread := number("spread", "%.4f", func(x Row) float64 { return x.Spread })
	times := column{"time, ms, p50 / p99", func(x Row) string { return fmt.Sprintf("%.0f / %.0f", x.TimeP50, x.TimeP99) }}
	messages := number("messages", "%.1f", func(x Row) float64 { return x.Messages })
	distance := number("round trip, ms", "%.0f", func(x Row) float64 { return x.RTT })
	size := number("bytes", "%.0f", func(x Row) float64 { return x.Bytes })
	switch scenario {
	case "burst":
		return []column{most, peak, blocked, overfull, times}
	case "flash":
		return []column{placed, first, blocked, peak, number("depth", "%.0f", func(x Row) float64 { return float64(x.Depth) }), number("carriers", "%.0f", func(x Row) float64 { return float64(x.Carriers) }), times}
	case "pack":
		return []column{placed, first, blocked, peak, number("in use, of the bound", "%.2f", func(x Row) float64 { return x.InUse }), number("while load falls", "%.2f", func(x Row) float64 { return x.Falling }),
			number("released", "%.0f", func(x Row) float64 { return float64(x.Released) }), column{"of them not empty", func(x Row) string { return fmt.Sprint(x.Disturbed) }}}
	case "liars":
		return []column{placed, number("liars, of their fair share", "%.2f", func(x Row) float64 { return x.FairShare }), first, blocked, peak}
	case "antagonist":
		return []column{placed, percent("sent to degraded nodes", func(x Row) float64 { return x.Degraded }), first, blocked, spread, distance}
	case "scale":
		return []column{placed, first, both, blocked, overfull, spread, times, messages, size, number("regret", "%.3f", func(x Row) float64 { return x.Regret }), number("CPU, µs", "%.0f", func(x Row) float64 { return x.CPU })}
	}
	return []column{placed, first, both, blocked, overfull, peak, spread, distance, times, messages, size}
}

func colour(who string) string {
	i := slices.Index(append([]string{Weir}, Rivals...), who)
	return plot.Colours()[max(i, 0)%len(plot.Colours())]
}

const legendStep = 168

// plotSteady draws each figure of the steady cases, one line per rule.
func (r *Report) plotSteady(w io.Writer) error {
	of := func(title, unit string, value func(Row) float64) plot.Panel {
		p := plot.Panel{Title: title, Unit: unit, X: "1: up to 15 s old, 2: as weir publishes, 3: small nodes", Linear: true}
		var cases []string
		for _, row := range r.of("steady") {
			i := slices.Index(cases, row.Case)
			if i < 0 {
				i, cases = len(cases), append(cases, row.Case)
			}
			j := slices.IndexFunc(p.Lines, func(l plot.Line) bool { return l.Name == row.Who })
			if j < 0 {
				j = len(p.Lines)
				p.Lines = append(p.Lines, plot.Line{Name: row.Who, Colour: colour(row.Who), Width: 2, Dashed: row.Who == Knowing || row.Who == KnowingDraw})
			}
			p.Lines[j].Points = append(p.Lines[j].Points, plot.Point{X: float64(i + 1), Y: value(row)})
		}
		return p
	}
	return plot.Draw(w, []plot.Panel{
		of("First tries refused", "%", func(x Row) float64 { return 100 * x.FirstRefused }),
		of("Blocked, or placed where there was no room", "%", func(x Row) float64 { return 100 * (x.Blocked + x.Overfull) }),
		of("Spread of load", "% of the limit, s.d.", func(x Row) float64 { return 100 * x.Spread }),
		of("Highest load of a node", "% of what viewers may fill", func(x Row) float64 { return 100 * x.Peak }),
		of("Time of a placement, p99", "ms", func(x Row) float64 { return x.TimeP99 }),
	}, 5, legendStep, "")
}

func (r *Report) plotScale(w io.Writer) error {
	of := func(title, unit string, log bool, value func(Row) float64) plot.Panel {
		p := plot.Panel{Title: title, Unit: unit, Log: log}
		for _, row := range r.of("scale") {
			if v := value(row); v > 0 || !log {
				j := slices.IndexFunc(p.Lines, func(l plot.Line) bool { return l.Name == row.Who })
				if j < 0 {
					j = len(p.Lines)
					p.Lines = append(p.Lines, plot.Line{Name: row.Who, Colour: colour(row.Who), Width: 2})
				}
				p.Lines[j].Points = append(p.Lines[j].Points, plot.Point{X: float64(row.Nodes), Y: v})
			}
		}
		return p
	}
	return plot.Draw(w, []plot.Panel{
		of("First tries refused", "%", false, func(x Row) float64 { return 100 * x.FirstRefused }),
		of("Spread of load", "% of the limit, s.d.", false, func(x Row) float64 { return 100 * x.Spread }),
		of("Time of a placement, p99", "ms", false, func(x Row) float64 { return x.TimeP99 }),
	}, 3, legendStep, "")
}

// plotTime draws the time series of the scenarios that have any.
func (r *Report) plotTime(w io.Writer) error {
	of := func(scenario, title, unit string, scale float64) plot.Panel {
		p := plot.Panel{Title: title, Unit: unit, X: "seconds", Linear: true}
		for i, row := range r.of(scenario) {
			name := row.Who
			if row.Case != "" && scenario == "liars" {
				name += ", " + row.Case
			}
			l := plot.Line{Name: name, Colour: plot.Colours()[i%len(plot.Colours())], Width: 2}
			for _, pt := range row.Series {
				l.Points = append(l.Points, plot.Point{X: pt.T, Y: math.Round(100*scale*pt.Y) / 100})
			}
			p.Lines = append(p.Lines, l)
		}
		return p
	}
	return plot.Draw(w, []plot.Panel{
		of("liars", "Liars' sessions, over their fair share", "×", 1),
		of("flash", "Flash crowd: viewers served", "viewers", 1),
		of("pack", "Pack: nodes in use", "nodes", 1),
	}, 3, 200, "")
}
