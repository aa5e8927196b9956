package doctor

import (
	"fmt"
	"io"
	"strings"

	"weir/cmd/weir/term"
	"weir/dht/inspect"
)

// A Check is the result of one check, in plain words: what was seen, and what
// to do if it is not fine.
type Check struct {
	Name    string          `json:"name"`
	Outcome inspect.Outcome `json:"outcome"`
	Seen    string          `json:"seen"`
	Do      string          `json:"do,omitempty"`
}

// A Diagnosis is the answer of the admin API that weir doctor prints.
type Diagnosis struct {
	OK      bool    `json:"ok"` // nothing failed; there may be warnings
	Node    string  `json:"node"`
	Network string  `json:"network"`
	Checks  []Check `json:"checks"`
}

// Word puts a finding into words. A code without a sentence is shown as it is.
func Word(f inspect.Finding) Check {
	c := Check{Name: f.Check, Outcome: f.Outcome}
	word := words[f.Code]
	if word == nil {
		c.Seen = fmt.Sprintf("found %s", f.Code)
		if f.Outcome == inspect.Warning || f.Outcome == inspect.Failure {
			c.Do = "look at this node's log"
		}
		return c
	}
	s := word(&f)
	c.Seen, c.Do = s.seen, s.do
	return c
}

// WordAll puts findings into words.
func WordAll(findings []inspect.Finding) []Check {
	checks := make([]Check, 0, len(findings))
	for _, f := range findings {
		checks = append(checks, Word(f))
	}
	return checks
}

// Print prints what each check has seen, what to do below each that is not
// fine, and a summary.
func Print(w io.Writer, d Diagnosis) {
	marks := map[inspect.Outcome]string{inspect.Fine: "ok  ", inspect.Warning: "WARN", inspect.Failure: "FAIL", inspect.Skipped: "-   "}
	wide := 0
	for _, c := range d.Checks {
		wide = max(wide, len(c.Name))
	}
	fmt.Fprintf(w, "node %s of network %q\n\n", d.Node, d.Network)
	var failed, warned []string
	for _, c := range d.Checks {
		fmt.Fprintf(w, "%s  %-*s  %s\n", marks[c.Outcome], wide, c.Name, term.Printable(c.Seen))
		if c.Do != "" {
			fmt.Fprintf(w, "      %-*s  → %s\n", wide, "", term.Printable(c.Do))
		}
		switch c.Outcome {
		case inspect.Failure:
			failed = append(failed, c.Name)
		case inspect.Warning:
			warned = append(warned, c.Name)
		}
	}
	fmt.Fprintln(w)
	switch {
	case len(failed) > 0:
		also := ""
		if len(warned) > 0 {
			also = "; have a look at " + once(warned) + " too"
		}
		fmt.Fprintf(w, "%s: %s%s\n", term.Count(len(failed), "problem", "problems"), once(failed), also)
	case len(warned) > 0:
		fmt.Fprintf(w, "nothing is broken; have a look at %s\n", once(warned))
	default:
		fmt.Fprintln(w, "all checks passed")
	}
}

// once joins all without duplicates.
func once(all []string) string {
	var list []string
	seen := map[string]bool{}
	for _, s := range all {
		if !seen[s] {
			seen[s] = true
			list = append(list, s)
		}
	}
	return strings.Join(list, ", ")
}
