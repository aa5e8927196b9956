package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/cmd/weir/api"
	"weir/cmd/weir/ask"
	"weir/cmd/weir/cmdline"
	"weir/cmd/weir/names"
	"weir/cmd/weir/policies"
	"weir/cmd/weir/show"
	"weir/cmd/weir/term"
)

func tryPolicyCommand() *cli.Command {
	return &cli.Command{
		Name: "try", Usage: "what a policy would change, judged on the records published now; nothing is applied", ArgsUsage: "FILE",
		Description: "A running node judges every record it can get by the policy in force and by that\n" +
			"of FILE: who passes, by which rule others fail, rank, score, and CHANCE, which is how\n" +
			"likely a node is to be asked first by who sees them all. The node itself is left out,\n" +
			"as when it looks for another's help. It judges all regions that it knows of; a real\n" +
			"placement begins in one, and goes on only if no node there has much room.",
		Flags: ask.Flags(
			&cli.StringFlag{Name: "need", Usage: "uplink needed, such as 5mbps; default: what viewers and publishers are assumed to take"},
			&cli.StringFlag{Name: "stream", Usage: "`NAME` of a stream: try who would be pulled from, too"},
			&cli.StringFlag{Name: "region", Usage: "`LABEL` to prefer"},
			&cli.BoolFlag{Name: "fail-if-none", Usage: "exit with 1 if there is a need for which no node would pass"},
		),
		Action: tryPolicy,
	}
}

func tryPolicy(c *cli.Context) error {
	if c.NArg() != 1 {
		return cmdline.BadInput(errors.New("weir policy try wants one FILE, or - for standard input"))
	}
	name := c.Args().First()
	text, err := policies.ReadText(name, c.App.Reader)
	if err != nil {
		return cmdline.BadInput(err)
	}
	q := url.Values{"file": {name}, "uplink": {c.String("need")}, "stream": {c.String("stream")}, "region": {c.String("region")}}
	var t api.PolicyTrial
	if err := ask.Post(c, "/policy/try?"+q.Encode(), text, &t); err != nil {
		return err
	}
	if c.Bool("json") {
		err = term.PrintJSON(c, t)
	} else {
		printPolicyTrial(term.Of(c), t, ask.NamesOf(c))
	}
	if i := slices.IndexFunc(t.Needs, nobody); err == nil && i >= 0 && c.Bool("fail-if-none") {
		return cli.Exit(fmt.Sprintf("by this policy no node would be chosen for %s", t.Needs[i].Need.Purpose), cmdline.ExitFailure)
	}
	return err
}

// nobody reports whether the tried policy rejects all nodes.
func nobody(t api.NeedTrial) bool { return len(t.Nodes) > 0 && t.After.Passed == 0 }

// printPolicyTrial writes t for people: one line for each need with its
// changes, and then the nodes. Needs with the same outcome at all nodes share a
// table.
func printPolicyTrial(w term.Terminal, t api.PolicyTrial, known names.Names) {
	var groups [][]api.NeedTrial
	for _, n := range t.Needs {
		i := slices.IndexFunc(groups, func(g []api.NeedTrial) bool {
			return g[0].Topic == n.Topic && reflect.DeepEqual(g[0].Comparison, n.Comparison)
		})
		if i < 0 {
			groups = append(groups, []api.NeedTrial{n})
		} else {
			groups[i] = append(groups[i], n)
		}
	}
	for _, g := range groups {
		fmt.Fprintf(w, "%s: %s\n", purposes(g), summary(known, g[0]))
	}
	fmt.Fprintf(w, "%s is in force, %s was tried by node %s; nothing is applied\n", t.InForce, t.Tried, known.Of(t.Node))
	if r := t.Recent; r.Placements > 0 {
		fmt.Fprintf(w, "of the last %s of this node, a node passes now for %d, would for %d; the first choice would be another for %d\n",
			term.Count(r.Placements, "placement", "placements"), r.Before, r.After, r.FirstChanges)
	}
	if len(t.Silent) > 0 {
		fmt.Fprintf(w, "%s did not answer in time (%s): nodes whose records only they hold are missing here\n", term.Count(len(t.Silent), "holder", "holders"), known.List(t.Silent))
	}
	for _, g := range groups {
		if !nobody(g[0]) {
			continue
		}
		fmt.Fprintf(w, "\nNO NODE would be chosen for %s: %s rejected, most by rule %q.\n", purposes(g), term.Count(len(g[0].Nodes), "node is", "nodes are"), worst(g[0].After.Rejected))
		if g[0].Need.Purpose == capacity.Cascade {
			fmt.Fprintln(w, "With this policy in force no node could pull the stream from another: only viewers at nodes\nthat carry it already would be served.")
		} else {
			fmt.Fprintf(w, "With this policy in force every client that comes to a full node would be refused, with 503\nand %q, however much room there is elsewhere.\n", worst(g[0].After.Rejected))
		}
	}
	for _, g := range groups {
		if len(g[0].Nodes) > 0 {
			fmt.Fprintln(w)
			printTrial(w, known, g)
		}
	}
}

func purposes(group []api.NeedTrial) string {
	var list []string
	for _, n := range group {
		list = append(list, n.Need.Purpose.String())
	}
	return strings.Join(list, " or ")
}

// summary describes in one line the changes for a need.
func summary(known names.Names, t api.NeedTrial) string {
	total := len(t.Nodes)
	switch {
	case total == 0 && t.Need.Purpose == capacity.Cascade:
		return fmt.Sprintf("no other node carries %q now, so there is nothing to compare", t.Need.Stream)
	case total == 0:
		return "there is no other node, so there is nothing to compare"
	}
	before, after := t.Before, t.After
	line := fmt.Sprintf("of %s %d pass now, %d would", term.Count(total, "node", "nodes"), before.Passed, after.Passed)
	if before.Passed == after.Passed {
		line = fmt.Sprintf("of %s %d pass, as now", term.Count(total, "node", "nodes"), after.Passed)
	}
	switch {
	case after.First == "" && before.First == "":
	case after.First == "":
		line += fmt.Sprintf("; the first choice is %s, and would be NONE", known.Of(before.First))
	case before.First == "":
		line += fmt.Sprintf("; the first choice would be %s", known.Of(after.First))
	case before.First == after.First:
		line += fmt.Sprintf("; the first choice stays %s", known.Of(after.First))
	default:
		line += fmt.Sprintf("; the first choice changes from %s to %s", known.Of(before.First), known.Of(after.First))
	}
	for _, rule := range rulesOf(t.Comparison) {
		switch more := after.Rejected[rule] - before.Rejected[rule]; {
		case more > 0:
			line += fmt.Sprintf("; rule %q rejects %d more", rule, more)
		case more < 0:
			line += fmt.Sprintf("; rule %q rejects %d fewer", rule, -more)
		}
	}
	return line
}

// rulesOf are the rules that reject any node, those that would reject most first.
func rulesOf(c policy.Comparison) []string {
	all := maps.Clone(c.Before.Rejected)
	maps.Copy(all, c.After.Rejected)
	return slices.SortedFunc(maps.Keys(all), func(a, b string) int {
		return cmp.Or(cmp.Compare(c.After.Rejected[b], c.After.Rejected[a]), cmp.Compare(a, b))
	})
}

// worst is the rule that rejects most, and so the reason given to clients.
func worst(rejected map[string]int) string {
	return slices.MaxFunc(slices.Sorted(maps.Keys(rejected)), func(a, b string) int { return cmp.Compare(rejected[a], rejected[b]) })
}

// trialRows bounds the rows shown of a large network.
const trialRows = 64

// printTrial writes the nodes of one table: before and after.
func printTrial(w term.Terminal, known names.Names, group []api.NeedTrial) {
	for _, t := range group {
		fmt.Fprintf(w, "%s, %s, %d packets/s%s\n", t.Need.Purpose, term.Bitrate(t.Need.Uplink), t.Need.Packets, term.Prefixed(", stream ", t.Need.Stream)+term.Prefixed(", region ", t.Need.Region))
	}
	c := group[0].Comparison
	shown := c.Nodes[:min(len(c.Nodes), trialRows)]
	term.Table(w, "NODE\tRANK\tSCORE\tCHANCE\tSTRESS\tRTT\tREGION\t…THEN BY TERM, OR REJECTED BY", func(row func(...any)) {
		for _, n := range shown {
			row(term.Called(known.Of(n.Node)), arrow(rank(n.Before), rank(n.After)), arrow(score(n.Before), score(n.After)), arrow(chance(n.Before), chance(n.After)),
				fmt.Sprintf("%.2f", n.Stress), term.Millis(n.RTT), cmp.Or(n.Region, "-"), why(n.Before, n.After))
		}
	})
	if more := len(c.Nodes) - len(shown); more > 0 {
		fmt.Fprintf(w, "… and %d more: --json has them all\n", more)
	}
	if rules := rulesOf(c); len(rules) > 0 {
		term.Table(w, "RULE\tREJECTS NOW\tWOULD", func(row func(...any)) {
			for _, rule := range rules {
				row(rule, c.Before.Rejected[rule], c.After.Rejected[rule])
			}
		})
	}
}

// arrow is before, and after if that differs.
func arrow(before, after string) string {
	if before == after {
		return before
	}
	return before + " → " + after
}

func rank(s policy.Standing) string { return unlessRejected(s, "%d", s.Rank) }

func score(s policy.Standing) string { return unlessRejected(s, "%.3f", s.Score) }

func chance(s policy.Standing) string { return unlessRejected(s, "%.0f %%", 100*s.Chance) }

func unlessRejected(s policy.Standing, format string, v any) string {
	if s.Rule != "" {
		return "-"
	}
	return fmt.Sprintf(format, v)
}

// why is the rule that rejects, or else the new score by term, and the rule
// that rejects now.
func why(before, after policy.Standing) string {
	switch {
	case after.Rule == "" && before.Rule == "":
		return show.ByTerm(after.Terms)
	case after.Rule == "":
		return arrow("rule "+before.Rule, show.ByTerm(after.Terms))
	case before.Rule == "":
		return "rule " + after.Rule
	}
	return arrow("rule "+before.Rule, "rule "+after.Rule)
}
