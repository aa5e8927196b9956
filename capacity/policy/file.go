package policy

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
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

// Faults are the mistakes in a policy's text, in the order of their lines as
// far as known. As an error it shows each with its line and a caret below.
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

// indentTo is the indentation below source that puts the following text below
// column.
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
// File is the name of the text in errors; the error is a [*Faults].
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
	r.read(document.Content[0], "", reflect.ValueOf(&p).Elem())
	if len(r.faults) > 0 {
		return nil, &Faults{file, r.faults}
	}
	compiled, err := Compile(p)
	if err != nil {
		return nil, r.compiled(err)
	}
	return compiled, nil
}

// A policyReader reads one text and locates mistakes in it.
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

// yaml reports a mistake in the YAML itself, at the line that the library
// names.
func (r *policyReader) yaml(err error) *Faults {
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		if line, err := strconv.Atoi(m[1]); err == nil {
			return &Faults{r.file, []Fault{r.at(line, 1, m[2])}}
		}
	}
	return r.whole(strings.TrimPrefix(err.Error(), "yaml: "))
}

// renamed are former names of a policy's fields, with their present names.
var renamed = map[string]string{
	"mood":  "strategy",
	"wait":  "wait_timeout",
	"most":  "max_nodes",
	"idle":  "idle_timeout",
	"least": "min_nodes",
}

// mostEntries bounds the lists.
var mostEntries = map[string]int{filterList: maxRules, scoreList: maxTerms}

// read decodes n, which the text calls name, into v. The tags of v's type
// define the allowed fields.
func (r *policyReader) read(n *yaml.Node, name string, v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		r.fields(n, v, nil)
	case reflect.Slice:
		r.list(n, name, v)
	default:
		r.scalar(n, name, v)
	}
}

// fields reads the fields of a struct. If found is not nil, it is called with
// each field present.
func (r *policyReader) fields(n *yaml.Node, v reflect.Value, found func(field string, n *yaml.Node)) {
	set := make(map[string]reflect.Value)
	var names []string
	for f, to := range v.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		names = append(names, name)
		set[name] = to
	}
	if n.Kind != yaml.MappingNode {
		last := len(names) - 1
		r.fault(n, "want %s and %s", strings.Join(names[:last], ", "), names[last])
		return
	}
	seen := make(map[string]bool)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		to := set[key.Value]
		now := renamed[key.Value]
		switch {
		case !to.IsValid() && set[now].IsValid():
			r.fault(key, "field %q is called %s now", key.Value, now)
		case !to.IsValid() || key.Kind != yaml.ScalarNode:
			r.fault(key, "unknown field %q: there are %s", key.Value, strings.Join(slices.Sorted(maps.Keys(set)), ", "))
		case seen[key.Value]:
			r.fault(key, "field %q is there twice", key.Value)
		default:
			seen[key.Value] = true
			if found != nil {
				found(key.Value, n.Content[i+1])
			}
			r.read(n.Content[i+1], key.Value, to)
		}
	}
}

// list reads the rules or terms, and notes the place of each of their parts.
func (r *policyReader) list(n *yaml.Node, name string, v reflect.Value) {
	if n.Kind != yaml.SequenceNode {
		r.fault(n, "want a list, each entry with name and expr")
		return
	}
	if len(n.Content) > mostEntries[name] {
		r.fault(n, "%d entries, at most %d", len(n.Content), mostEntries[name])
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, entry := range n.Content {
		if term, ok := v.Index(i).Addr().Interface().(*Term); ok {
			term.Weight = 1
		}
		r.parts[partKey{name, i, ""}] = entry
		r.fields(entry, v.Index(i), func(field string, n *yaml.Node) { r.parts[partKey{name, i, field}] = n })
	}
}

// scalar reads a value that has no parts.
func (r *policyReader) scalar(n *yaml.Node, name string, v reflect.Value) {
	if n.Kind == yaml.ScalarNode && n.Anchor == "" && n.Decode(v.Addr().Interface()) == nil {
		return
	}
	want := "a whole number"
	switch v.Interface().(type) {
	case string:
		want = "a name"
		if name == "expr" {
			want = "an expression, in quotes if it begins with a character that means something in YAML"
		}
	case float64:
		want = "a number"
	case time.Duration:
		want = "a duration such as 30s"
	case Strategy:
		want = "spread or binpack"
		if n.Value == "pack" {
			want = "binpack, as pack is called now"
		}
	}
	r.fault(n, "want %s", want)
}

// compiled adds places to the mistakes that Compile found.
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
	case node.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0: // multi-line text, below a | or >
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

// Text is p in YAML, as [Parse] reads it.
func (p Policy) Text() ([]byte, error) { return yaml.Marshal(p) }
