package policy

import (
	"cmp"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"unsafe"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
)

// A function is an expression, or a part of one, ready to run: what it yields
// in an environment is what expr-lang's own machine would. It cannot fail.
//
// That machine boxes every number and reflects on every field. A function does
// neither, and allocates only where it joins texts.
type function[T any] func(*environment) T

// A builder makes functions of an expression's parts. It knows what vet lets
// pass; at anything else it notes the first fault and goes on, and what it then
// returns must not be run.
type builder struct {
	fault *file.Error
}

func (b *builder) unknown(node ast.Node, want string) {
	if b.fault == nil {
		b.fault = &file.Error{Location: node.Location(), Message: fmt.Sprintf("%s cannot be used here as a %s", node, want)}
	}
}

func (b *builder) number(node ast.Node) (f function[float64]) {
	switch n := node.(type) {
	case *ast.FloatNode:
		f = constant(n.Value)
	case *ast.IdentifierNode, *ast.MemberNode:
		f = field[float64](node)
	case *ast.UnaryNode:
		switch x := b.number(n.Node); n.Operator {
		case "+":
			f = x
		case "-":
			f = func(e *environment) float64 { return -x(e) }
		}
	case *ast.BinaryNode:
		f = arithmetic(n.Operator, b.number(n.Left), b.number(n.Right))
	case *ast.ConditionalNode:
		f = choice(b.condition(n.Cond), b.number(n.Exp1), b.number(n.Exp2))
	case *ast.BuiltinNode:
		f = builtin(n.Name, all(b.number, n.Arguments))
	}
	if f == nil {
		b.unknown(node, "number")
	}
	return f
}

func (b *builder) text(node ast.Node) (f function[string]) {
	switch n := node.(type) {
	case *ast.StringNode:
		f = constant(n.Value)
	case *ast.MemberNode:
		f = field[string](node)
	case *ast.BinaryNode:
		if x, y := b.text(n.Left), b.text(n.Right); n.Operator == "+" {
			f = func(e *environment) string { return x(e) + y(e) }
		}
	case *ast.ConditionalNode:
		f = choice(b.condition(n.Cond), b.text(n.Exp1), b.text(n.Exp2))
	}
	if f == nil {
		b.unknown(node, "string")
	}
	return f
}

func (b *builder) condition(node ast.Node) (f function[bool]) {
	switch n := node.(type) {
	case *ast.BoolNode:
		f = constant(n.Value)
	case *ast.MemberNode:
		f = field[bool](node)
	case *ast.UnaryNode:
		if x := b.condition(n.Node); n.Operator == "not" || n.Operator == "!" {
			f = not(x)
		}
	case *ast.BinaryNode:
		f = b.binaryCondition(n)
	case *ast.ConditionalNode:
		f = choice(b.condition(n.Cond), b.condition(n.Exp1), b.condition(n.Exp2))
	}
	if f == nil {
		b.unknown(node, "condition")
	}
	return f
}

// binaryCondition returns nil where it does not know the operator or the types.
func (b *builder) binaryCondition(n *ast.BinaryNode) function[bool] {
	if n.Operator == "in" {
		return b.in(n)
	}
	switch left := n.Left.Nature(); {
	case left.IsNumber():
		return ordering(n.Operator, b.number(n.Left), b.number(n.Right))
	case left.IsString():
		x, y := b.text(n.Left), b.text(n.Right)
		if f := search(n.Operator, x, y); f != nil {
			return f
		}
		return ordering(n.Operator, x, y)
	case left.IsBool():
		return logic(n.Operator, b.condition(n.Left), b.condition(n.Right))
	}
	return nil
}

// in returns nil where it does not know the types.
func (b *builder) in(n *ast.BinaryNode) function[bool] {
	list, spelt := n.Right.(*ast.ArrayNode)
	if !spelt {
		x, texts := b.text(n.Left), field[[]string](n.Right)
		if texts == nil {
			return nil
		}
		return func(e *environment) bool { return slices.Contains(texts(e), x(e)) }
	}
	switch left := n.Left.Nature(); {
	case left.IsNumber():
		return oneOf(b.number(n.Left), all(b.number, list.Nodes))
	case left.IsString():
		return oneOf(b.text(n.Left), all(b.text, list.Nodes))
	case left.IsBool():
		return oneOf(b.condition(n.Left), all(b.condition, list.Nodes))
	}
	return nil
}

func all[T any](build func(ast.Node) function[T], nodes []ast.Node) []function[T] {
	list := make([]function[T], len(nodes))
	for i, n := range nodes {
		list[i] = build(n)
	}
	return list
}

func constant[T any](v T) function[T] {
	return func(*environment) T { return v }
}

// field returns nil if node does not name a T in an environment.
func field[T any](node ast.Node) function[T] {
	var path []string
	switch n := node.(type) {
	case *ast.IdentifierNode:
		path = []string{n.Value}
	case *ast.MemberNode:
		record, isName := n.Node.(*ast.IdentifierNode)
		name, isConstant := n.Property.(*ast.StringNode)
		if !isName || !isConstant {
			return nil
		}
		path = []string{record.Value, name.Value}
	}
	offset, in := uintptr(0), reflect.TypeFor[environment]()
	for _, name := range path {
		f, ok := fieldNamed(in, name)
		if !ok {
			return nil
		}
		offset += f.Offset
		in = f.Type
	}
	if in != reflect.TypeFor[T]() {
		return nil
	}
	// There is a T at offset: reflect has just said so.
	return func(e *environment) T { return *(*T)(unsafe.Add(unsafe.Pointer(e), offset)) }
}

// fieldNamed finds a field by the name that expressions use.
func fieldNamed(in reflect.Type, name string) (reflect.StructField, bool) {
	if in.Kind() == reflect.Struct {
		for f := range in.Fields() {
			if f.Tag.Get("expr") == name {
				return f, true
			}
		}
	}
	return reflect.StructField{}, false
}

func choice[T any](first function[bool], x, y function[T]) function[T] {
	return func(e *environment) T {
		if first(e) {
			return x(e)
		}
		return y(e)
	}
}

func not(x function[bool]) function[bool] {
	return func(e *environment) bool { return !x(e) }
}

// The functions below return nil if they do not know the operator or name.

func arithmetic(operator string, x, y function[float64]) function[float64] {
	switch operator {
	case "+":
		return func(e *environment) float64 { return x(e) + y(e) }
	case "-":
		return func(e *environment) float64 { return x(e) - y(e) }
	case "*":
		return func(e *environment) float64 { return x(e) * y(e) }
	case "/":
		return func(e *environment) float64 { return x(e) / y(e) }
	case "**", "^":
		return func(e *environment) float64 { return math.Pow(x(e), y(e)) }
	}
	return nil
}

func ordering[T cmp.Ordered](operator string, x, y function[T]) function[bool] {
	switch operator {
	case "==":
		return func(e *environment) bool { return x(e) == y(e) }
	case "!=":
		return func(e *environment) bool { return x(e) != y(e) }
	case "<":
		return func(e *environment) bool { return x(e) < y(e) }
	case "<=":
		return func(e *environment) bool { return x(e) <= y(e) }
	case ">":
		return func(e *environment) bool { return x(e) > y(e) }
	case ">=":
		return func(e *environment) bool { return x(e) >= y(e) }
	}
	return nil
}

func logic(operator string, x, y function[bool]) function[bool] {
	switch operator {
	case "==":
		return func(e *environment) bool { return x(e) == y(e) }
	case "!=":
		return func(e *environment) bool { return x(e) != y(e) }
	case "and", "&&":
		return func(e *environment) bool { return x(e) && y(e) }
	case "or", "||":
		return func(e *environment) bool { return x(e) || y(e) }
	}
	return nil
}

func search(operator string, x, y function[string]) function[bool] {
	switch operator {
	case "contains":
		return func(e *environment) bool { return strings.Contains(x(e), y(e)) }
	case "startsWith":
		return func(e *environment) bool { return strings.HasPrefix(x(e), y(e)) }
	case "endsWith":
		return func(e *environment) bool { return strings.HasSuffix(x(e), y(e)) }
	}
	return nil
}

func oneOf[T comparable](x function[T], list []function[T]) function[bool] {
	return func(e *environment) bool {
		v := x(e)
		return slices.ContainsFunc(list, func(y function[T]) bool { return y(e) == v })
	}
}

func builtin(name string, args []function[float64]) function[float64] {
	switch name {
	case "min":
		return fold(args, func(best, v float64) bool { return v < best })
	case "max":
		return fold(args, func(best, v float64) bool { return v > best })
	}
	if len(args) != 1 {
		return nil
	}
	x := args[0]
	switch name {
	case "abs":
		return func(e *environment) float64 {
			v := x(e)
			if v < 0 { // so that −0 stays, which math.Abs changes
				return -v
			}
			return v
		}
	case "ceil":
		return func(e *environment) float64 { return math.Ceil(x(e)) }
	case "floor":
		return func(e *environment) float64 { return math.Floor(x(e)) }
	case "round":
		return func(e *environment) float64 { return math.Round(x(e)) }
	}
	return nil
}

// fold yields the best of args. NaN is only so where it comes first, for it is
// better than nothing else, unlike what min and max of Go make of it.
func fold(args []function[float64], better func(best, v float64) bool) function[float64] {
	if len(args) == 0 {
		return nil
	}
	first, others := args[0], args[1:]
	return func(e *environment) float64 {
		best := first(e)
		for _, x := range others {
			if v := x(e); better(best, v) {
				best = v
			}
		}
		return best
	}
}
