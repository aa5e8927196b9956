package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v4"

	"weir/cmd/weir/cmdline"
)

const (
	// MaxFile bounds a configuration file, in bytes.
	MaxFile = 64 << 10
	// maxConfigList bounds the items of one list.
	maxConfigList = 256
	// maxConfigFaults bounds the mistakes reported. A file with more is
	// probably not a configuration file.
	maxConfigFaults = 50
	// FlagName is the flag that names the file; it is the only flag that cannot
	// be set in the file.
	FlagName = "config"
)

// A Fault is one mistake in a configuration file, or an entry in it without
// effect.
type Fault struct {
	Line    int    `json:"line"` // from 1; 0: the file as a whole
	Column  int    `json:"column"`
	Message string `json:"message"`

	source string // the line's text
}

// Faults are the mistakes in one file, in the order of their lines.
type Faults struct {
	File   string
	Faults []Fault
}

// Error lists each fault with its place and, below it, the line with a caret.
func (e *Faults) Error() string {
	var b strings.Builder
	for i, f := range e.Faults {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(f.At(e.File))
		if f.source != "" {
			fmt.Fprintf(&b, "\n    %s\n    %s^", f.source, indentTo(f.source, f.Column))
		}
	}
	return b.String()
}

// Line is Error for a log: shortened, and without the lines of the file.
func (e *Faults) Line() string {
	const most = 8
	var all []string
	for _, f := range e.Faults[:min(len(e.Faults), most)] {
		all = append(all, f.At(e.File))
	}
	if more := len(e.Faults) - most; more > 0 {
		all = append(all, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(all, "; ")
}

// At is the message with its place. Secrets in it are masked.
func (f Fault) At(file string) string {
	if f.Line == 0 {
		return file + ": " + f.Message
	}
	return fmt.Sprintf("%s:%d:%d: %s", file, f.Line, f.Column, f.Message)
}

// indentTo returns the blanks that put following text below column of source.
func indentTo(source string, column int) string {
	var b strings.Builder
	for i, r := range []rune(source) {
		if i >= column-1 {
			break
		}
		if r != '\t' {
			r = ' '
		}
		b.WriteRune(r)
	}
	return b.String()
}

// An Entry is one setting in a file.
type Entry struct {
	Name         string // the flag's first name
	Values       []string
	list         bool
	Line, Column int // of the value
	places       []place
	Alias        string // the old name by which it was given, if any
}

// A place is a position in a file, from 1.
type place struct{ Line, Column int }

// At is the place for a mistake described by why: that of the value that why
// names, or that of the whole entry.
func (e Entry) At(why string) place {
	at, first, longest := place{e.Line, e.Column}, len(why), 0
	for i, v := range e.Values {
		if j := strings.Index(why, v); len(e.places) == len(e.Values) && j >= 0 && (j < first || j == first && len(v) > longest) {
			at, first, longest = e.places[i], j, len(v)
		}
	}
	return at
}

// A Reader reads one file and locates the mistakes in it.
type Reader struct {
	name   string
	lines  []string
	flags  []cli.Flag
	Faults []Fault
}

// ReadFile returns the text of the file at path. The error is a
// [*Faults].
func ReadFile(path string) ([]byte, error) {
	fail := func(format string, args ...any) ([]byte, error) {
		return nil, &Faults{path, []Fault{{Message: fmt.Sprintf(format, args...)}}}
	}
	// The file is opened anew by its name each time: editors and Kubernetes
	// replace it. Only regular files are read, as others may block the reader.
	info, err := os.Stat(path)
	if err != nil {
		return fail("%v", plainPathError(err))
	}
	switch {
	case info.IsDir():
		return fail("it is a directory: name the file in it")
	case !info.Mode().IsRegular():
		return fail("it is no regular file, and could not be read again: write it to one")
	}
	f, err := os.Open(path)
	if err != nil {
		return fail("%v", plainPathError(err))
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return fail("%v", plainPathError(err))
	}
	return text, nil
}

// plainPathError returns err without the path, which the message has already,
// and with advice.
func plainPathError(err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return errors.New("there is no such file; weir config example prints one to begin with")
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("permission denied for user %d: change the file's owner or mode", os.Geteuid())
	}
	if e := new(os.PathError); errors.As(err, &e) {
		return e.Err
	}
	return err
}

// Parse reads a configuration file: a flat YAML mapping with the names of flags
// as keys. The entries are in the order of their lines, and have the types of
// their flags; the error is a [*Faults] with every mistake.
func Parse(name string, text []byte, flags []cli.Flag) ([]Entry, error) {
	r := NewReader(name, text, flags)
	entries := r.Read(text)
	if len(r.Faults) == 0 {
		return entries, nil
	}
	return entries, r.Err()
}

// NewReader returns a Reader of text, the content of the file name. flags are
// those that the file may set.
func NewReader(name string, text []byte, flags []cli.Flag) *Reader {
	return &Reader{name: name, lines: strings.Split(LineBreaks.Replace(string(text)), "\n"), flags: flags}
}

// LineBreaks replaces all line breaks of YAML (1.2.2, section 5.4) by \n.
var LineBreaks = strings.NewReplacer("\r\n", "\n", "\r", "\n")

// Err returns the faults so far, in the order of their places, or nil.
func (r *Reader) Err() *Faults {
	slices.SortStableFunc(r.Faults, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return &Faults{r.name, r.Faults}
}

// Fault notes a mistake at line and column, both from 1; line 0 is the file as a
// whole. Secrets in the message are masked. Mistakes after the first
// maxConfigFaults are dropped.
func (r *Reader) Fault(line, column int, format string, args ...any) {
	if len(r.Faults) >= maxConfigFaults {
		return
	}
	f := Fault{Line: line, Column: max(column, 1), Message: shortened(MaskSecrets(fmt.Sprintf(format, args...)), 400)}
	if line == 0 {
		f.Column = 0
	} else if line <= len(r.lines) {
		if f.source = r.lines[line-1]; line == 1 {
			f.source = strings.TrimPrefix(f.source, byteOrderMark)
		}
		f.source = MaskSecrets(strings.ToValidUTF8(f.source, "\ufffd"))
		if utf8.RuneCountInString(f.source) > 160 {
			f.source = "" // a caret below a line this long helps nobody
		}
	}
	r.Faults = append(r.Faults, f)
}

func (r *Reader) at(n *yaml.Node, format string, args ...any) {
	r.Fault(n.Line, n.Column, format, args...)
}

const byteOrderMark = "\ufeff"

// Read parses text and returns its entries in the order of their lines. Mistakes
// go to r.Faults.
func (r *Reader) Read(text []byte) []Entry {
	if len(text) > MaxFile {
		r.Fault(0, 0, "it has more than %d bytes: that is no configuration of weir", MaxFile)
		return nil
	}
	if bytes.HasPrefix(text, []byte{0xff, 0xfe}) || bytes.HasPrefix(text, []byte{0xfe, 0xff}) {
		r.Fault(1, 1, "it is UTF-16: save it as UTF-8")
		return nil
	}
	if !r.readable(text) {
		return nil
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document, second yaml.Node
	switch err := decoder.Decode(&document); {
	case err == io.EOF:
		return nil // only comments: every setting has its default
	case err != nil:
		r.syntax(err)
		return nil
	}
	if err := decoder.Decode(&second); err == nil {
		r.at(&second, "a second document begins: all settings belong into one, so take the --- out")
	} else if err != io.EOF {
		r.syntax(err)
	}
	if len(document.Content) == 0 {
		return nil
	}
	return r.mapping(document.Content[0])
}

// readable reports whether the text has only characters that are visible in an
// editor.
func (r *Reader) readable(text []byte) bool {
	line, column := 1, 1
	for i := 0; i < len(text); {
		c, size := utf8.DecodeRune(text[i:])
		switch {
		case c == utf8.RuneError && size == 1:
			r.Fault(line, column, "the byte %#02x is not UTF-8: save the file as UTF-8", text[i])
			return false
		case c == '\n', c == '\r' && !bytes.HasPrefix(text[i:], []byte("\r\n")):
			line, column = line+1, 0
		case c == '\t', c == '\r', i == 0 && c == '\ufeff':
		case c < ' ', c == 0x7f, c >= 0x80 && c < 0xa0, c == '\u2028', c == '\u2029', c == '\ufeff':
			r.Fault(line, column, "the character %U cannot be seen and does not belong here: take it out", c)
			return false
		}
		column++
		if i == 0 && c == '\ufeff' {
			column = 1
		}
		i += size
	}
	return true
}

// syntax notes a mistake in the YAML itself.
func (r *Reader) syntax(err error) {
	var e *yaml.LoadError
	if !errors.As(err, &e) || e.Mark.Line == 0 {
		r.Fault(0, 0, "not YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
		return
	}
	line, column := e.Mark.Line, e.Mark.Column
	if line > len(r.lines) || line == len(r.lines) && r.lines[line-1] == "" { // the end of the text
		for line = min(line, len(r.lines)); line > 1 && strings.TrimSpace(r.lines[line-1]) == ""; {
			line--
		}
		column = utf8.RuneCountInString(r.lines[line-1]) + 1
	}
	source := r.lines[line-1]
	indent := source[:len(source)-len(strings.TrimLeft(source, " \t"))]
	if i := strings.IndexByte(indent, '\t'); i >= 0 {
		r.Fault(line, i+1, "a tab: YAML indents by spaces only, so put spaces in its place")
		return
	}
	why := e.Message
	switch {
	case strings.Contains(why, "mapping values are not allowed"):
		why += ": put a text that has a colon followed by a space into quotes, and begin every key at the first column"
	case strings.Contains(why, "cannot start any token"):
		why += ": put a text that begins with @, %% or ` into quotes"
		why = strings.ReplaceAll(why, "%%", "%")
	case strings.Contains(why, "anchor"):
		why += ": aliases are not taken here, so write the value out, or put a text that begins with * or & into quotes"
	}
	r.Fault(line, column, "not YAML: %s", why)
}

// plain reports whether n is written without anchor, alias and tag.
func (r *Reader) plain(n *yaml.Node) bool {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		r.at(n, "anchors and aliases are not taken here: write the value out, or put a text that begins with * or & into quotes")
	case n.Style&yaml.TaggedStyle != 0:
		r.at(n, "tags are not taken here: take %s out, or put a text that begins with ! into quotes", n.Tag)
	default:
		return true
	}
	return false
}

func (r *Reader) mapping(root *yaml.Node) []Entry {
	if !r.plain(root) {
		return nil
	}
	switch {
	case root.Kind == yaml.ScalarNode && root.Tag == "!!null":
		return nil
	case root.Kind == yaml.ScalarNode:
		r.at(root, "want lines such as session-limit: 500, with a space after the colon")
		return nil
	case root.Kind != yaml.MappingNode:
		r.at(root, "want lines such as session-limit: 500, not a list")
		return nil
	}
	var entries []Entry
	seen := map[string]int{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		if len(r.Faults) >= maxConfigFaults-1 {
			r.at(key, "so many mistakes that the rest is not looked at: is this a configuration of weir node?")
			break
		}
		if !r.plain(key) {
			continue
		}
		if key.Kind != yaml.ScalarNode {
			r.at(key, "want the name of a setting, such as session-limit")
			continue
		}
		f := r.flagOf(key.Value)
		if f == nil {
			r.at(key, "%s", r.unknown(key.Value, value))
			continue
		}
		name := f.Names()[0]
		if first, ok := seen[name]; ok {
			r.at(key, "%s is set already in line %d: take one of the two out, or give a list if both are meant and it takes one", key.Value, first)
			continue
		}
		seen[name] = key.Line
		e := Entry{Name: name, Line: value.Line, Column: value.Column}
		if key.Value != name {
			e.Alias = key.Value
		}
		before := len(r.Faults)
		e.Values, e.list = r.values(name, f, value)
		for _, item := range value.Content {
			e.places = append(e.places, place{item.Line, item.Column})
		}
		if len(r.Faults) == before {
			entries = append(entries, e)
		}
	}
	return entries
}

func (r *Reader) flagOf(name string) cli.Flag {
	i := slices.IndexFunc(r.flags, func(f cli.Flag) bool { return f.Names()[0] != FlagName && slices.Contains(f.Names(), name) })
	if i < 0 {
		return nil
	}
	return r.flags[i]
}

// unknown describes the mistake of an unknown key.
func (r *Reader) unknown(key string, value *yaml.Node) string {
	if key == FlagName {
		return "config cannot stand in the file that it names: take it out"
	}
	bare := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(key, "WEIR_")), "_", "-")
	var names []string
	for _, f := range r.flags {
		if name := f.Names()[0]; name != FlagName {
			names = append(names, name)
		}
	}
	hint := ""
	if bare != key && slices.Contains(names, strings.TrimLeft(bare, "-")) {
		hint = fmt.Sprintf(" (did you mean %s?)", strings.TrimLeft(bare, "-"))
	} else {
		hint = cmdline.DidYouMean(bare, names)
	}
	text := fmt.Sprintf("there is no setting %q%s", shortened(key, 40), hint)
	switch {
	case key == "<<":
		return "merging is not taken here: write the values out"
	case strings.HasPrefix(key, "#") || strings.Contains(key, ":"):
		return text + "; a space belongs after the colon"
	case hint == "" && value.Kind == yaml.MappingNode && len(value.Content) > 0:
		return text + "; settings are not nested, and each has the name of a flag"
	case hint == "":
		return text + "; the names are those of the flags: weir node --help lists them"
	}
	return text
}
