package policy

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/checker"
	"github.com/expr-lang/expr/conf"
)

// sources are the expressions of the policies that come with the package, and
// odd ones.
func sources() []string {
	var list []string
	for _, p := range []Policy{Default(), BinPacking()} {
		for _, r := range p.Filter {
			list = append(list, r.Expr)
		}
		for _, t := range p.Score {
			list = append(list, t.Expr)
		}
	}
	return append(list,
		`1 / rtt`, `-1 / rtt`, `0 / rtt`, `1 / -rtt`, `1 / (0 - 0)`, `1 / -0`, `0 + 1 / -0`, `1 / abs(-0)`, `abs(rtt)`, `+rtt`, `- - rtt`,
		`rtt ** 0.5`, `rtt ^ -1`, `2 ** 3 ** 2`, `-rtt ** 2`, `7 / 2`, `1e308 * 10`, `1e308 * 10 - 1e308 * 10`, `9007199254740993`, `0x10 + 0b11 + 1_000`,
		`round(rtt)`, `round(-0.5)`, `round(2.5)`, `ceil(-0.5)`, `floor(rtt / 7)`,
		`min(rtt, 0 / 0)`, `min(0 / 0, rtt)`, `max(rtt, 0 / 0, 1)`, `max(0 / 0, rtt)`, `min(0, -0)`, `max(-0, 0)`, `max(rtt)`, `min(1, r.stress, q.uplink, me.hash)`,
		`rtt == rtt`, `rtt != rtt`, `rtt <= rtt`, `rtt >= rtt`, `rtt in [rtt]`, `rtt in [0, 1, 0 / 0]`, `rtt in []`, `0 in [-0]`, `rtt not in [1, r.stress]`,
		`r.state in ["active", "full"]`, `r.state in ["active", me.state]`, `"av1" in r.features`, `not ("" in me.features)`, `r.region in me.features`,
		`r.url in [true, me.url]`, `r.url == me.url`, `r.url != (rtt > 1)`, `(r.url ? me.url : r.self) and r.carries`, `r.url ? rtt : -rtt`,
		`r.region + "-" + r.zone == me.zone`, `"a" + "b" + r.region`, `(r.url ? r.region : "none") < me.region`, `r.region >= "eu"`, `r.region > me.region and r.region <= "z"`,
		`r.release contains "0."`, `r.zone startsWith r.region + "-"`, `r.region endsWith ""`, `"" contains r.region`, `r["stress"] < 1`,
		`r.self || !r.url && me.carries`, `not r.self or me.loop`, `if rtt > 1 { r.stress } else { 2 }`, `r.url ?: me.url`, `0 < rtt < 50 <= r.stress`, "r.url and\nnot r.self", `true`, `"é" < r.region`,
	)
}

var numbers = []float64{0, math.Copysign(0, -1), 1, -1, 0.5, 2, 2.5, 7, 50, 0.1, 1e9, Unlimited, 1e308, math.Inf(1), math.Inf(-1), math.NaN()}

var words = []string{"", "a", "active", "draining", "full", "view", "publish", "cascade", "eu", "eu-1a", "us", "é", "0.1.0"}

// randomEnvironment is full of values that are likely to be equal, or special.
func randomEnvironment(rnd *rand.Rand) *environment {
	var fill func(v reflect.Value)
	fill = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Float64:
			v.SetFloat(numbers[rnd.IntN(len(numbers))])
			if rnd.IntN(4) == 0 {
				v.SetFloat(rnd.NormFloat64() * 100)
			}
		case reflect.String:
			v.SetString(words[rnd.IntN(len(words))])
		case reflect.Bool:
			v.SetBool(rnd.IntN(2) == 0)
		case reflect.Slice:
			for range rnd.IntN(4) {
				v.Set(reflect.Append(v, reflect.ValueOf(words[rnd.IntN(len(words))])))
			}
		case reflect.Struct:
			for _, f := range v.Fields() {
				fill(f)
			}
		default:
			panic(v.Kind())
		}
	}
	var e environment
	fill(reflect.ValueOf(&e).Elem())
	return &e
}

// A writer writes random expressions of a type, of at most depth operators from
// the top to a constant or field.
type writer struct {
	rnd    *rand.Rand
	fields map[string][]string // by type, as PolicyFields has them
}

func newWriter(rnd *rand.Rand) *writer {
	w := &writer{rnd, map[string][]string{}}
	for _, f := range Fields() {
		w.fields[f.Type] = append(w.fields[f.Type], f.Name)
		if own, ok := strings.CutPrefix(f.Name, "r."); ok {
			w.fields[f.Type] = append(w.fields[f.Type], "me."+own)
		}
	}
	return w
}

func (w *writer) field(kind string) string { return one(w.rnd, w.fields[kind]...) }

func one[T any](rnd *rand.Rand, of ...T) T { return of[rnd.IntN(len(of))] }

func (w *writer) number(depth int) string {
	if depth == 0 {
		return one(w.rnd, w.field("number"), fmt.Sprint(one(w.rnd, 0, 1, 2, 0.5, 1e9)))
	}
	x, y := func() string { return w.number(depth - 1) }, func() string { return w.number(depth - 1) }
	switch w.rnd.IntN(5) {
	case 0:
		return fmt.Sprintf("(%s %s)", one(w.rnd, "-", "+"), x())
	case 1, 2:
		return fmt.Sprintf("(%s %s %s)", x(), one(w.rnd, "+", "-", "*", "/", "**", "^"), y())
	case 3:
		return fmt.Sprintf("(%s ? %s : %s)", w.condition(depth-1), x(), y())
	}
	if f := one(w.rnd, functions...); f != "min" && f != "max" {
		return f + "(" + x() + ")"
	}
	return fmt.Sprintf("%s(%s, %s)", one(w.rnd, "min", "max"), x(), y())
}

func (w *writer) text(depth int) string {
	if depth == 0 {
		return one(w.rnd, w.field("string"), fmt.Sprintf("%q", one(w.rnd, words...)))
	}
	if w.rnd.IntN(2) == 0 {
		return fmt.Sprintf("(%s + %s)", w.text(depth-1), w.text(depth-1))
	}
	return fmt.Sprintf("(%s ? %s : %s)", w.condition(depth-1), w.text(depth-1), w.text(depth-1))
}

func (w *writer) condition(depth int) string {
	if depth == 0 {
		return one(w.rnd, w.field("condition"), "true", "false")
	}
	write := one(w.rnd, w.number, w.text, w.condition) // for what takes any type
	operators := []string{"and", "&&", "or", "||"}
	switch w.rnd.IntN(8) {
	case 0:
		return fmt.Sprintf("(%s %s)", one(w.rnd, "!", "not"), w.condition(depth-1))
	case 1:
		return fmt.Sprintf("(%s in %s)", w.text(depth-1), w.field("list of strings"))
	case 2:
		return fmt.Sprintf("(%s in [%s, %s])", write(depth-1), write(depth-1), write(depth-1))
	case 3:
		return fmt.Sprintf("(%s ? %s : %s)", w.condition(depth-1), w.condition(depth-1), w.condition(depth-1))
	case 4:
		operators = []string{"==", "!="}
	case 5:
		write, operators = w.text, []string{"<", "<=", ">", ">=", "contains", "startsWith", "endsWith"}
	case 6:
		write, operators = w.number, []string{"<", "<=", ">", ">="}
	default:
		write = w.condition
	}
	return fmt.Sprintf("(%s %s %s)", write(depth-1), one(w.rnd, operators...), write(depth-1))
}

// built returns what source yields in an environment, or nil if it is refused.
// Whatever vet lets pass must be built.
func built(tb testing.TB, source string) func(*environment) any {
	tb.Helper()
	tree, err := new(Compiled).parse(source)
	if err != nil {
		return nil
	}
	var b builder
	var run func(*environment) any
	switch is := tree.Node.Nature(); {
	case is.IsNumber():
		f := b.number(tree.Node)
		run = func(e *environment) any { return f(e) }
	case is.IsString():
		f := b.text(tree.Node)
		run = func(e *environment) any { return f(e) }
	case is.IsBool():
		f := b.condition(tree.Node)
		run = func(e *environment) any { return f(e) }
	default: // a list, which no policy can want
		return nil
	}
	if b.fault != nil {
		tb.Fatalf("%s\npasses vet, but: %v", source, b.fault.Bind(tree.Source))
	}
	return run
}

// agrees checks that source, unless it is refused, yields the same as in
// expr-lang's own machine, and says whether it was refused.
//
// The machine runs what the optimizer has not seen: that takes 0 for -0 where
// an expression has both.
func agrees(tb testing.TB, source string, envs ...*environment) bool {
	tb.Helper()
	run := built(tb, source)
	if run == nil {
		return false
	}
	program, err := expr.Compile(source, expr.Env(environment{}), expr.Patch(floats{}), expr.Optimize(false))
	if err != nil {
		tb.Fatalf("%s\nis refused by expr-lang: %v", source, err)
	}
	for _, e := range envs {
		want, err := expr.Run(program, e)
		if err != nil {
			tb.Fatalf("%s\nfails in %+v: %v", source, *e, err)
		}
		if got := run(e); !same(got, want) {
			tb.Fatalf("%s\nis %v, want %v in %+v", source, got, want, *e)
		}
	}
	return true
}

// same tells −0 from 0, and takes NaN for the same as NaN.
func same(a, b any) bool {
	x, isNumber := a.(float64)
	if y, ok := b.(float64); isNumber && ok {
		return math.IsNaN(x) && math.IsNaN(y) || math.Float64bits(x) == math.Float64bits(y)
	}
	return a == b
}

func TestFunctionsYieldWhatTheMachineDoes(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var envs []*environment
	for range 50 {
		envs = append(envs, randomEnvironment(rnd))
	}
	for _, s := range samples() {
		envs = append(envs, &s.env)
	}
	for _, source := range sources() {
		if !agrees(t, source, envs...) {
			t.Errorf("%s is refused", source)
		}
	}
	for _, f := range Fields() {
		source := f.Name
		if f.Type == "list of strings" {
			source = `"a" in ` + f.Name
		}
		if !agrees(t, source, envs...) {
			t.Errorf("%s is refused", source)
		}
	}
	w := newWriter(rnd)
	const written = 2000
	run := 0
	for i := range written {
		write := one(rnd, w.number, w.text, w.condition)
		if agrees(t, write(1+i%4), envs[:8]...) {
			run++
		}
		envs[rnd.IntN(8)] = randomEnvironment(rnd)
	}
	t.Logf("ran %d of %d", run, written)
	// Refused are those too long, and those that compare a state with other words.
	if run < written/2 {
		t.Errorf("only %d of %d expressions were run", run, written)
	}
}

func FuzzFunction(f *testing.F) {
	for i, source := range sources() {
		f.Add(source, uint64(i))
	}
	w := newWriter(rand.New(rand.NewPCG(3, 4)))
	for i := range 50 {
		f.Add(one(w.rnd, w.number, w.text, w.condition)(2), uint64(i))
	}
	f.Fuzz(func(t *testing.T, source string, seed uint64) {
		rnd := rand.New(rand.NewPCG(5, seed))
		agrees(t, source, randomEnvironment(rnd), randomEnvironment(rnd), randomEnvironment(rnd))
	})
}

// What vet ought to have refused is an error, with its place, and no function
// that fails when it is run.
func TestBuilderRefuses(t *testing.T) {
	for _, source := range []string{
		`r.region matches "a"`, `r.region[:] == "e"`, `any([1, 2], # > 1)`, `len(r.region) > 1`, `now() == now()`,
		`let x = 1; x > 0`, `true; true`, `nil == nil`, `r == me`, `r.region in {"a": 1}`, `{"a": 1}.a == 1`, `"R" in $env`, `(r.url ? 1 : "one") == 1`,
		`$env.rtt > 1`, `$env["rtt"] > 1`, `(r.url ? r : me).url`, `me?.url`, `r.region ?? "a"`, `"a" in (r.url ? r.features : me.features)`,
		`1 in [1, "a"]`, `[] == []`, `r.features == me.features`, `1 < int("1")`, `mean(1, 2) > 1`, `min([1, 2]) > 1`, `max(rtt, [1]) > 1`, `upper("a") == "A"`,
	} {
		t.Run(source, func(t *testing.T) {
			c := conf.New(environment{})
			c.Visitors = []ast.Visitor{floats{}}
			tree, err := checker.ParseCheck(source, c)
			if err != nil {
				t.Fatal(err)
			}
			var b builder
			b.condition(tree.Node)
			if b.fault == nil {
				t.Fatal("built")
			}
			if got := b.fault.Bind(tree.Source).Error(); !strings.Contains(got, "cannot be used here as a") || !strings.Contains(got, "^") {
				t.Errorf("got %s", got)
			}
		})
	}
}
