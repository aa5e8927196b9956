package policy

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/expr-lang/expr/file"
	"go.yaml.in/yaml/v3"
)

// MaxText bounds a policy's text in bytes.
const MaxText = 32 << 10

// A Fault is one mistake in a policy's text.
type Fault struct {
	Line, Column int    // from 1; 0: the text as a whole
	Message      string //
	Source       string // the line, as it is
}

// Faults are the mistakes in a policy's text, in the order of their
// lines as far as that is known. As an error it shows each with its line and a
// caret below.
type Faults struct {
	File   string
	Faults []Fault
}

func (e *Faults) Error() string {
	var b strings.Builder
	for i, f := range e.Faults {
		if i > 0 {
			b.WriteByte('\n')
		}
		if f.Line == 0 {
			fmt.Fprintf(&b, "%s: %s", e.File, f.Message)
			continue
		}
		fmt.Fprintf(&b, "%s:%d:%d: %s\n    %s\n    %s^", e.File, f.Line, f.Column, f.Message, f.Source, indentTo(f.Source, f.Column))
	}
	return b.String()
}

// indentTo is what to put below source so that what follows is below column.
func indentTo(source string, column int) string {
	var b strings.Builder
	for i, r := range []rune(source) {
		if i == column-1 {
			return b.String()
		}
		if r != '\t' {
			r = ' '
		}
		b.WriteRune(r)
	}
	return b.String()
}

// Parse reads a policy written in YAML and compiles all of it, as [Compile]
// does:
//
//	name: spread
//	version: 2
//	filter:
//	  - name: room
//	    expr: r.sessions_free >= 1
//	score:
//	  - name: headroom
//	    expr: 1 - r.stress
//	    weight: 0.5
//
// File is what an error calls the text; the error is a [*PolicyFaults].
func Parse(file string, text []byte) (*Compiled, error) {
	r := &policyReader{file: file, lines: strings.Split(string(text), "\n"), parts: make(map[partKey]*yaml.Node)}
	if len(text) > MaxText {
		return nil, r.whole(fmt.Sprintf("%d bytes, at most %d", len(text), MaxText))
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document, second yaml.Node
	if err := decoder.Decode(&document); err == io.EOF {
		return nil, r.whole("it is empty: want name, filter and score")
	} else if err != nil {
		return nil, r.yaml(err)
	}
	if err := decoder.Decode(&second); err != io.EOF {
		return nil, r.whole("want one document")
	}
	var p Policy
	r.policy(document.Content[0], &p)
	if len(r.faults) > 0 {
		return nil, &Faults{file, r.faults}
	}
	judge, err := Compile(p)
	if err != nil {
		return nil, r.compiled(err)
	}
	return judge, nil
}

// A policyReader reads one text and finds out where in it a mistake is.
type policyReader struct {
	file   string
	lines  []string
	parts  map[partKey]*yaml.Node
	faults []Fault
}

// partKey is a field of a rule or term.
type partKey struct {
	list  string
	index int
	field string
}

func (r *policyReader) whole(message string) *Faults {
	return &Faults{r.file, []Fault{{Message: message}}}
}

func (r *policyReader) at(line, column int, message string) Fault {
	f := Fault{Line: line, Column: max(1, column), Message: message}
	if line >= 1 && line <= len(r.lines) {
		f.Source = strings.TrimRight(r.lines[line-1], "\r")
	}
	return f
}

func (r *policyReader) fault(n *yaml.Node, format string, args ...any) {
	r.faults = append(r.faults, r.at(n.Line, n.Column, fmt.Sprintf(format, args...)))
}

var yamlLine = regexp.MustCompile(`^yaml: line (\d+): (.*)`)

// yaml is a mistake in the YAML itself, of which the library tells the line.
func (r *policyReader) yaml(err error) *Faults {
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		if line, err := strconv.Atoi(m[1]); err == nil {
			return &Faults{r.file, []Fault{r.at(line, 1, m[2])}}
		}
	}
	return r.whole(strings.TrimPrefix(err.Error(), "yaml: "))
}

// fields calls set with each key of n and its value.
func (r *policyReader) fields(n *yaml.Node, what string, set map[string]func(*yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		r.fault(n, "want %s", what)
		return
	}
	seen := make(map[string]bool)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		f := set[key.Value]
		switch {
		case f == nil || key.Kind != yaml.ScalarNode:
			r.fault(key, "unknown field %q: there are %s", key.Value, strings.Join(slices.Sorted(maps.Keys(set)), ", "))
		case seen[key.Value]:
			r.fault(key, "field %q is there twice", key.Value)
		default:
			seen[key.Value] = true
			f(n.Content[i+1])
		}
	}
}

// value decodes a scalar.
func value[T any](r *policyReader, to *T, what string) func(*yaml.Node) {
	return func(n *yaml.Node) {
		if n.Kind != yaml.ScalarNode || n.Anchor != "" || n.Decode(to) != nil {
			r.fault(n, "want %s", what)
		}
	}
}

func (r *policyReader) policy(n *yaml.Node, p *Policy) {
	r.fields(n, "name, version, mood, filter, score, keep, fanout, depth and provision", map[string]func(*yaml.Node){
		"name":    value(r, &p.Name, "a name"),
		"mood":    value(r, &p.Strategy, "spread or pack"),
		"version": value(r, &p.Version, "a whole number"),
		"keep":    value(r, &p.Keep, "a whole number"),
		"fanout":  value(r, &p.Fanout, "a whole number"),
		"depth":   value(r, &p.Depth, "a whole number"),
		"provision": func(n *yaml.Node) {
			const period = "a duration such as 30s"
			r.fields(n, "cooldown, wait, most, idle and least", map[string]func(*yaml.Node){
				"cooldown": value(r, &p.Provision.Cooldown, period),
				"wait":     value(r, &p.Provision.WaitTimeout, period),
				"most":     value(r, &p.Provision.MaxNodes, "a whole number"),
				"idle":     value(r, &p.Provision.IdleTimeout, period),
				"least":    value(r, &p.Provision.MinNodes, "a whole number"),
			})
		},
		filterList: r.list(filterList, maxRules, func(i int) map[string]func(*yaml.Node) {
			p.Filter = append(p.Filter, Rule{})
			rule := &p.Filter[i]
			return map[string]func(*yaml.Node){
				"name": value(r, &rule.Name, "a name"),
				"expr": value(r, &rule.Expr, "an expression, in quotes if it begins with a character that means something in YAML"),
			}
		}),
		scoreList: r.list(scoreList, maxTerms, func(i int) map[string]func(*yaml.Node) {
			p.Score = append(p.Score, Term{Weight: 1})
			term := &p.Score[i]
			return map[string]func(*yaml.Node){
				"name":   value(r, &term.Name, "a name"),
				"expr":   value(r, &term.Expr, "an expression, in quotes if it begins with a character that means something in YAML"),
				"weight": value(r, &term.Weight, "a number"),
			}
		}),
	})
}

// list reads the parts of a list, for each of which add makes room.
func (r *policyReader) list(name string, most int, add func(i int) map[string]func(*yaml.Node)) func(*yaml.Node) {
	return func(n *yaml.Node) {
		if n.Kind != yaml.SequenceNode {
			r.fault(n, "want a list, each entry with name and expr")
			return
		}
		if len(n.Content) > most {
			r.fault(n, "%d entries, at most %d", len(n.Content), most)
			return
		}
		for i, entry := range n.Content {
			set := add(i)
			for field, f := range set {
				set[field] = func(v *yaml.Node) {
					r.parts[partKey{name, i, field}] = v
					f(v)
				}
			}
			r.parts[partKey{name, i, ""}] = entry
			r.fields(entry, "name and expr", set)
		}
	}
}

// compiled places what Compile found.
func (r *policyReader) compiled(err error) *Faults {
	faults := &Faults{File: r.file}
	errs := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		errs = joined.Unwrap()
	}
	for _, err := range errs {
		var part *partError
		if !errors.As(err, &part) {
			faults.Faults = append(faults.Faults, Fault{Message: err.Error()})
			continue
		}
		faults.Faults = append(faults.Faults, r.part(part))
	}
	return faults
}

// plainWords keeps the names of types out of messages.
var plainWords = strings.NewReplacer("type policy.RecordVars has no field", "r and me have no field", "type policy.NeedVars has no field", "q has no field")

func (r *policyReader) part(part *partError) Fault {
	message := fmt.Sprintf("%s %q: %v", part.what(), part.name, part.err)
	field := "name"
	var in *file.Error
	if errors.As(part.err, new(valueError)) {
		field = "expr"
	}
	if errors.As(part.err, &in) {
		field = "expr"
		message = fmt.Sprintf("%s %q: %s", part.what(), part.name, plainWords.Replace(in.Message))
	}
	node := cmp.Or(r.parts[partKey{part.list, part.index, field}], r.parts[partKey{part.list, part.index, ""}])
	if node == nil {
		return Fault{Message: message}
	}
	line, column := node.Line, node.Column
	if in == nil {
		return r.at(line, column, message)
	}
	switch {
	case node.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0: // of several lines, below a | or >
		if line < len(r.lines) {
			first := r.lines[line]
			column = len(first) - len(strings.TrimLeft(first, " ")) + in.Column + 1
		}
		line += in.Line
	case node.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0:
		column += in.Column + 1
	default:
		column += in.Column
	}
	return r.at(line, column, message)
}

// Text is p as YAML, as [Parse] reads it.
func (p Policy) Text() ([]byte, error) {
	type rule struct {
		Name string `yaml:"name"`
		Expr string `yaml:"expr"`
	}
	type term struct {
		Name   string  `yaml:"name"`
		Expr   string  `yaml:"expr"`
		Weight float64 `yaml:"weight"`
	}
	type provision struct {
		Cooldown    time.Duration `yaml:"cooldown,omitempty"`
		WaitTimeout time.Duration `yaml:"wait,omitempty"`
		MaxNodes    int           `yaml:"most,omitempty"`
		IdleTimeout time.Duration `yaml:"idle,omitempty"`
		MinNodes    int           `yaml:"least,omitempty"`
	}
	out := struct {
		Name      string    `yaml:"name"`
		Version   uint64    `yaml:"version"`
		Mood      string    `yaml:"mood"`
		Keep      int       `yaml:"keep,omitempty"`
		Fanout    int       `yaml:"fanout,omitempty"`
		Depth     int       `yaml:"depth,omitempty"`
		Provision provision `yaml:"provision,omitempty"`
		Filter    []rule    `yaml:"filter"`
		Score     []term    `yaml:"score"`
	}{Name: p.Name, Version: p.Version, Mood: p.Strategy.String(), Keep: p.Keep, Fanout: p.Fanout, Depth: p.Depth, Provision: provision(p.Provision)}
	for _, f := range p.Filter {
		out.Filter = append(out.Filter, rule(f))
	}
	for _, s := range p.Score {
		out.Score = append(out.Score, term(s))
	}
	return yaml.Marshal(out)
}
