package show

import (
	"cmp"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"weir/capacity/policy"
	"weir/cmd/weir/ask"
	"weir/cmd/weir/cmdline"
	"weir/cmd/weir/names"
	"weir/cmd/weir/term"
	"weir/dht"
)

func SelectCommand() *cli.Command {
	return &cli.Command{
		Name: "select", Usage: "which node would be chosen now, and why",
		Description: "Asks the running node to choose as it would for a client that it cannot take\n" +
			"itself. Nothing is reserved.",
		Flags: ask.Flags(
			&cli.BoolFlag{Name: "explain", Usage: "every candidate, with its score by term or the rule that rejected it"},
			&cli.StringFlag{Name: "need", Usage: "uplink needed, such as 5mbps", Value: "2.5mbps"},
			&cli.StringFlag{Name: "purpose", Usage: "view, publish or cascade", Value: "view"},
			&cli.StringFlag{Name: "stream", Usage: "`NAME` of the stream; needed for cascade"},
			&cli.StringFlag{Name: "region", Usage: "`LABEL` to prefer"},
			&cli.StringFlag{Name: "from", Usage: "`ADDR` of the admin API of the node that is to choose, if not --admin"},
		),
		Action: func(c *cli.Context) error {
			if from := c.String("from"); from != "" {
				if err := c.Set("admin", from); err != nil {
					return cmdline.BadInput(err)
				}
			}
			q := url.Values{"uplink": {c.String("need")}, "purpose": {c.String("purpose")}, "stream": {c.String("stream")}, "region": {c.String("region")}}
			var d dht.Decision
			if done, err := ask.Get(c, "/select?"+q.Encode(), &d); done {
				return err
			}
			return printDecision(term.Of(c), d, ask.NamesOf(c), c.Bool("explain"))
		},
	}
}

func printDecision(w term.Terminal, d dht.Decision, known names.Names, explain bool) error {
	passed := 0
	for _, v := range d.Verdicts {
		if v.Rule == "" {
			passed++
		}
	}
	if explain {
		term.Pairs(w, func(row func(string, ...any)) {
			row("need", fmt.Sprintf("%s, %s, %d packets/s", d.Need.Purpose, term.Bitrate(d.Need.Uplink), d.Need.Packets), term.Prefixed(", stream ", d.Need.Stream), term.Prefixed(", region ", d.Need.Region))
			row("found", fmt.Sprintf("%s held, %s, %s policy %d; %s, %s, %.1f ms", term.Count(d.Held, "record", "records"), term.Count(len(d.Verdicts), "candidate", "candidates"),
				term.Count(passed, "passes", "pass"), d.Policy, term.Count(d.Messages, "message", "messages"), term.Count(int(d.Bytes), "byte", "bytes"), d.FindMillis))
			for _, a := range d.Asked {
				row("asked", fmt.Sprintf("%s: %s in %.1f ms%s", known.Of(a.Holder), term.Count(a.Records, "record", "records"), a.Millis, term.Prefixed("; ", a.Err)))
			}
			if silent := d.Hearing.String(); silent != "" {
				row("silent", term.Printable(silent))
			}
			for _, rule := range slices.Sorted(maps.Keys(d.Rejected)) {
				row("holder", fmt.Sprintf("rejected %d by rule %s", d.Rejected[rule], rule))
			}
		})
		fmt.Fprintln(w)
		printVerdicts(w, d, known)
		fmt.Fprintln(w)
	}
	if passed == 0 {
		return cli.Exit("no node would be chosen: "+term.Printable(cmp.Or(d.Refused, "no candidate passes")), cmdline.ExitFailure)
	}
	best := d.Verdicts[0]
	fmt.Fprintf(w, "best is %s  %s  score %.3f; a real placement draws among the best by score, and reserves\n",
		w.Paint(term.Strong, known.Of(best.Node)), term.Printable(best.URL), best.Score)
	return nil
}

// printVerdicts prints the candidates of a placement: accepted ones first, best
// first.
func printVerdicts(w term.Terminal, d dht.Decision, known names.Names) {
	term.Table(w, "NODE\tSCORE\tSTRESS\tRTT\tAGE\tREGION\t…BY TERM, OR REJECTED BY", func(row func(...any)) {
		for _, v := range d.Verdicts {
			why := term.Warn.Of("rule " + v.Rule)
			if v.Rule == "" {
				why = term.Plain.Of(ByTerm(v.Terms))
			}
			row(term.Called(known.Of(v.Node)), fmt.Sprintf("%.3f", v.Score), fmt.Sprintf("%.2f", v.Stress), term.Millis(v.RTT), term.Seconds(v.Age), cmp.Or(v.Region, "-"), why)
		}
	})
}

// ByTerm formats a score as the sum of its terms.
func ByTerm(terms []policy.TermScore) string {
	var list []string
	for _, t := range terms {
		list = append(list, fmt.Sprintf("%s %.3f", t.Name, t.Score))
	}
	return strings.Join(list, ", ")
}
