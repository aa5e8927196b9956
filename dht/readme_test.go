package dht

import (
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// constants are the named constants of packages of this module, parsed on
// demand. Types are ignored: a duration is its nanoseconds.
type constants struct {
	t     *testing.T
	decls map[string]map[string]ast.Expr // by package and name
}

func (c *constants) dir(pkg string) string {
	switch pkg {
	case "dht":
		return "."
	case "capacity":
		return "../capacity"
	case "signed", "policy":
		return "../capacity/" + pkg
	}
	return pkg
}

func (c *constants) load(pkg string) map[string]ast.Expr {
	if names, ok := c.decls[pkg]; ok {
		return names
	}
	names := make(map[string]ast.Expr)
	c.decls[pkg] = names
	files, _ := filepath.Glob(filepath.Join(c.dir(pkg), "*.go"))
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			c.t.Fatal(err)
		}
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST {
				continue
			}
			for _, s := range g.Specs {
				v := s.(*ast.ValueSpec)
				for i, name := range v.Names {
					if i < len(v.Values) {
						names[name.Name] = v.Values[i]
					}
				}
			}
		}
	}
	return names
}

// value is the value of e in pkg, or nil if this test cannot tell.
func (c *constants) value(pkg string, e ast.Expr) constant.Value {
	switch e := e.(type) {
	case *ast.BasicLit:
		return constant.MakeFromLiteral(e.Value, e.Kind, 0)
	case *ast.ParenExpr:
		return c.value(pkg, e.X)
	case *ast.Ident:
		if e := c.load(pkg)[e.Name]; e != nil {
			return c.value(pkg, e)
		}
	case *ast.SelectorExpr:
		from := e.X.(*ast.Ident).Name
		if from == "time" {
			unit, err := time.ParseDuration("1" + map[string]string{"Millisecond": "ms", "Second": "s", "Minute": "m", "Hour": "h"}[e.Sel.Name])
			if err == nil {
				return constant.MakeInt64(int64(unit))
			}
			return nil
		}
		return c.value(from, e.Sel)
	case *ast.BinaryExpr:
		x, y := c.value(pkg, e.X), c.value(pkg, e.Y)
		if x == nil || y == nil {
			return nil
		}
		if e.Op == token.SHL {
			n, _ := constant.Uint64Val(y)
			return constant.Shift(x, token.SHL, uint(n))
		}
		return constant.BinaryOp(x, e.Op, y)
	}
	return nil
}

// written parses a value as the README writes it: "1,024", "96 KiB", "500 ms".
func written(s string) constant.Value {
	number, unit, _ := strings.Cut(strings.ReplaceAll(s, ",", ""), " ")
	v := constant.MakeFromLiteral(number, token.FLOAT, 0)
	scale, ok := map[string]int64{
		"": 1, "B": 1, "KiB": 1 << 10, "ms": int64(time.Millisecond), "s": int64(time.Second), "min": int64(time.Minute),
	}[unit]
	if !ok || v.Kind() == constant.Unknown {
		return nil
	}
	return constant.BinaryOp(v, token.MUL, constant.MakeInt64(scale))
}

// The README's constants, messages and protocols match the code.
func TestREADMEIsTrue(t *testing.T) {
	b, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	readme := string(b)
	known := &constants{t, make(map[string]map[string]ast.Expr)}
	rows := regexp.MustCompile("(?m)^\\| `([a-z]+)\\.([A-Za-z]+)` \\| ([^|]+) \\|").FindAllStringSubmatch(readme, -1)
	for _, row := range rows {
		got, want := known.value(row[1], ast.NewIdent(row[2])), written(strings.TrimSpace(row[3]))
		if got == nil || want == nil || !constant.Compare(constant.ToFloat(got), token.EQL, constant.ToFloat(want)) {
			t.Errorf("%s.%s is %s; the code says %v", row[1], row[2], row[3], got)
		}
	}
	if len(rows) < 40 {
		t.Errorf("%d constants are in the table", len(rows))
	}
	listed := make(map[string]bool)
	for _, row := range rows {
		listed[row[2]] = true
	}
	for _, m := range regexp.MustCompile("`([A-Za-z]*[a-z][A-Z][A-Za-z]*)`").FindAllStringSubmatch(readme, -1) {
		for pkg := range map[string]bool{"dht": true, "holder": true, "place": true, "directory": true, "capacity": true, "liveness": true, "policysync": true} {
			if known.load(pkg)[m[1]] != nil && !listed[m[1]] {
				t.Errorf("%s is named, and not in the table", m[1])
			}
		}
	}

	proto, err := os.ReadFile("pb/dht.proto")
	if err != nil {
		t.Fatal(err)
	}
	// Each request of each protocol, by the names in its oneof.
	for _, m := range regexp.MustCompile(`(?m)^message (\w+) \{\n  oneof op \{\n((?:    .*\n)+)`).FindAllStringSubmatch(string(proto), -1) {
		for _, op := range regexp.MustCompile(`(?m)^    (\w+) \w+ = \d+;`).FindAllStringSubmatch(m[2], -1) {
			if name := op[1]; !strings.HasSuffix(name, "Reply") && name != "Event" && !strings.Contains(readme, "`"+name+"`") {
				t.Errorf("%s, of %s, is not explained", name, m[1])
			}
		}
	}
	node, err := os.ReadFile("node.go")
	if err != nil {
		t.Fatal(err)
	}
	protocols := regexp.MustCompile(`"(/[a-z]+/\d+)"`).FindAllStringSubmatch(string(node), -1)
	for _, m := range protocols {
		if !strings.Contains(readme, "`"+m[1]+"`") {
			t.Errorf("protocol %s is not explained", m[1])
		}
	}
	if len(protocols) < 4 {
		t.Errorf("found %d protocols in node.go", len(protocols))
	}
}
