package policy

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/expr-lang/expr/checker/nature"
	"github.com/expr-lang/expr/compiler"
	"github.com/expr-lang/expr/vm"
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

// randomEnvironment makes values that are likely to be equal, or special.
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

// A writer writes random expressions of a type, with at most depth operators
// from the top to a constant or field.
type writer struct {
	rnd    *rand.Rand
	fields map[string][]string // by type, as Fields has them
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
	write := one(w.rnd, w.number, w.text, w.condition) // for operators on any type
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

// yields checks that source, unless it is refused, never fails and yields the
// type that the checker gives, and reports whether it was run.
func yields(tb testing.TB, source string, envs ...*environment) bool {
	tb.Helper()
	tree, config, err := new(Compiled).parse(source)
	if err != nil {
		return false
	}
	is := tree.Node.Nature()
	if !scalar(tree.Node) { // a list, which no policy can use
		return false
	}
	program, err := compiler.Compile(tree, config)
	if err != nil {
		tb.Fatalf("%s\npasses vet, but: %v", source, err)
	}
	var machine vm.VM
	for _, e := range envs {
		got, err := machine.Run(program, e)
		if err != nil {
			tb.Fatalf("%s\nfails in %+v: %v", source, *e, err)
		}
		var fits bool
		switch got.(type) {
		case float64:
			fits = is.IsNumber()
		case string:
			fits = is.IsString()
		case bool:
			fits = is.IsBool()
		}
		if !fits {
			tb.Fatalf("%s\nyields %v, want a %s", source, got, is)
		}
	}
	return true
}

func TestExpressionsYieldWhatTheySay(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var envs []*environment
	for range 50 {
		envs = append(envs, randomEnvironment(rnd))
	}
	for _, s := range samples() {
		envs = append(envs, &s.env)
	}
	for _, source := range sources() {
		if !yields(t, source, envs...) {
			t.Errorf("%s is refused", source)
		}
	}
	for _, f := range Fields() {
		source := f.Name
		if f.Type == "list of strings" {
			source = `"a" in ` + f.Name
		}
		if !yields(t, source, envs...) {
			t.Errorf("%s is refused", source)
		}
	}
	w := newWriter(rnd)
	const written = 2000
	run := 0
	for i := range written {
		write := one(rnd, w.number, w.text, w.condition)
		if yields(t, write(1+i%4), envs[:8]...) {
			run++
		}
		envs[rnd.IntN(8)] = randomEnvironment(rnd)
	}
	// Expressions that are too long are refused, and those that compare a state
	// with other words.
	if run < written/2 {
		t.Errorf("only %d of %d expressions were run", run, written)
	}
}

// Numbers are those of IEEE 754, with its zeros and its NaN.
func TestNumbers(t *testing.T) {
	for source, want := range map[string]float64{
		`1 / -0`: math.Inf(-1), `0 + 1 / -0`: math.Inf(-1), `7 / 2`: 3.5, `2 ** 3 ** 2`: 512, `1e308 * 10`: math.Inf(1),
		`round(2.5)`: 3, `floor(-0.5)`: -1, `max(1, 2, 0)`: 2, `min(1, r.stress)`: 0, `true ? 1 : 2`: 1, `0x10 + 0b11 + 1_000`: 1019,
	} {
		p, err := new(Compiled).compile(source, "a number", (*nature.Nature).IsNumber)
		if err != nil {
			t.Fatal(err)
		}
		if got := number(new(vm.VM), p, new(environment)); got != want {
			t.Errorf("%s is %v, want %v", source, got, want)
		}
	}
}

func FuzzExpression(f *testing.F) {
	for i, source := range sources() {
		f.Add(source, uint64(i))
	}
	w := newWriter(rand.New(rand.NewPCG(3, 4)))
	for i := range 50 {
		f.Add(one(w.rnd, w.number, w.text, w.condition)(2), uint64(i))
	}
	f.Fuzz(func(t *testing.T, source string, seed uint64) {
		rnd := rand.New(rand.NewPCG(5, seed))
		yields(t, source, randomEnvironment(rnd), randomEnvironment(rnd), randomEnvironment(rnd))
	})
}

// An expression that could loop, build data or have no known type is refused,
// with its place.
func TestVetRefuses(t *testing.T) {
	for _, source := range []string{
		`r.region matches "a"`, `r.region[:] == "e"`, `any([1, 2], # > 1)`, `len(r.region) > 1`, `now() == now()`,
		`let x = 1; x > 0`, `true; true`, `nil == nil`, `r == me`, `r.region in {"a": 1}`, `{"a": 1}.a == 1`, `"R" in $env`, `(r.url ? 1 : "one") == 1`,
		`$env.rtt > 1`, `$env["rtt"] > 1`, `(r.url ? r : me).url`, `me?.url`, `r.region ?? "a"`, `"a" in (r.url ? r.features : me.features)`,
		`1 in [1, "a"]`, `[] == []`, `r.features == me.features`, `1 < int("1")`, `mean(1, 2) > 1`, `min([1, 2]) > 1`, `max(rtt, [1]) > 1`, `upper("a") == "A"`,
	} {
		t.Run(source, func(t *testing.T) {
			_, err := new(Compiled).compile(source, "a condition", (*nature.Nature).IsBool)
			if err == nil || !strings.Contains(err.Error(), "^") {
				t.Errorf("got %v", err)
			}
		})
	}
}
