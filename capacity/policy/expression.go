package policy

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/checker"
	"github.com/expr-lang/expr/checker/nature"
	"github.com/expr-lang/expr/compiler"
	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/vm"

	"weir/capacity"
)

// compile makes a program of source for expr-lang's virtual machine. is accepts
// the type of its result, which errors call want.
//
// The tree is not optimized: expr-lang's optimizer takes 0 for -0 if an
// expression has both.
func (j *Compiled) compile(source, want string, is func(*nature.Nature) bool) (*vm.Program, error) {
	tree, config, err := j.parse(source)
	if err != nil {
		return nil, err
	}
	if got := tree.Node.Nature(); !is(got) {
		fault := &file.Error{Location: tree.Node.Location(), Message: "yields a " + got.String() + ", want " + want}
		return nil, fault.Bind(tree.Source)
	}
	return compiler.Compile(tree, config)
}

// number is the result of p, or NaN if it fails. It has passed vet, so it
// should not fail.
func number(machine *vm.VM, p *vm.Program, env *environment) float64 {
	if x, err := machine.Run(p, env); err == nil {
		if x, ok := x.(float64); ok {
			return x
		}
	}
	return math.NaN()
}

// holds reports whether p yields true.
func holds(machine *vm.VM, p *vm.Program, env *environment) bool {
	x, err := machine.Run(p, env)
	return err == nil && x == true
}

// parse returns the typed tree of source, accepted by vet, and its
// configuration.
func (j *Compiled) parse(source string) (*parser.Tree, *conf.Config, error) {
	if len(source) > maxExpr {
		return nil, nil, fmt.Errorf("%d bytes, at most %d", len(source), maxExpr)
	}
	c := conf.New(environment{})
	c.MaxNodes = maxExprNodes
	c.Visitors = []ast.Visitor{floats{}}
	for name := range c.Builtins {
		if !slices.Contains(functions, name) {
			delete(c.Builtins, name)
			c.Disabled[name] = true
		}
	}
	tree, err := parser.ParseWithConfig(source, c)
	if err != nil {
		return nil, nil, err
	}
	if err := checkSize(tree); err != nil {
		return nil, nil, err
	}
	if fault := oldName(tree); fault != nil {
		return nil, nil, fault.Bind(tree.Source)
	}
	if _, err := new(checker.Checker).PatchAndCheck(tree, c); err != nil {
		return nil, nil, err
	}
	if fault := j.vet(tree.Node); fault != nil {
		return nil, nil, fault.Bind(tree.Source)
	}
	return tree, c, nil
}

// checkSize returns an error if a walk over the tree takes too long. A part
// written once can be visited several times: x of x ?: y, and y of x < y < z,
// are in the tree twice, and each nesting of these doubles them again.
func checkSize(tree *parser.Tree) (err error) {
	tooLong := &file.Error{Message: "too many nodes, counting twice what ?: and a chain of comparisons repeat"}
	defer func() {
		if r := recover(); r == tooLong {
			err = tooLong.Bind(tree.Source)
		} else if r != nil {
			panic(r)
		}
	}()
	met := 0
	ast.Walk(&tree.Node, visitor(func(*ast.Node) {
		if met++; met > maxExprNodes {
			panic(tooLong) // there is no other way to end a walk
		}
	}))
	return nil
}

// renamedVars are former names of fields of r and me, with their present names.
var renamedVars = map[string]string{"believed": "trust", "lot": "hash", "children_free": "fanout_free"}

// oldName returns an error for the first field with a former name.
func oldName(tree *parser.Tree) (fault *file.Error) {
	ast.Walk(&tree.Node, visitor(func(n *ast.Node) {
		m, ok := (*n).(*ast.MemberNode)
		if !ok || fault != nil {
			return
		}
		base, of := m.Node.(*ast.IdentifierNode)
		field, constant := m.Property.(*ast.StringNode)
		if !of || !constant || base.Value != "r" && base.Value != "me" {
			return
		}
		if now, old := renamedVars[field.Value]; old {
			fault = &file.Error{Location: field.Location(), Message: fmt.Sprintf("%s.%s is called %s.%s now", base.Value, field.Value, base.Value, now)}
		}
	}))
	return fault
}

type visitor func(*ast.Node)

func (v visitor) Visit(node *ast.Node) { v(node) }

// floats makes all numbers floating point, like the fields: then both branches
// of a choice have the same type.
type floats struct{}

func (floats) Visit(node *ast.Node) {
	if n, ok := (*node).(*ast.IntegerNode); ok {
		ast.Patch(node, &ast.FloatNode{Value: float64(n.Value)})
	}
}

var (
	records     = []string{"r", "q", "me"}
	functions   = []string{"abs", "ceil", "floor", "max", "min", "round"}
	comparisons = map[string]bool{"==": true, "!=": true, "in": true}
	operators   = []string{
		"+", "-", "*", "/", "**", "^", "==", "!=", "<", ">", "<=", ">=",
		"and", "&&", "or", "||", "in", "contains", "startsWith", "endsWith",
	}
)

// vet returns an error for everything except plain arithmetic, comparison or
// choice over fields: anything that could loop, build data, or have no known
// type.
func (j *Compiled) vet(node ast.Node) *file.Error {
	at := func(format string, args ...any) *file.Error {
		return &file.Error{Location: node.Location(), Message: fmt.Sprintf(format, args...)}
	}
	var parts []ast.Node
	switch n := node.(type) {
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.StringNode:
		return nil
	case *ast.IdentifierNode:
		if !scalar(n) {
			return at("%s is not a value: name one of its fields", n.Value)
		}
		return nil
	case *ast.MemberNode:
		base, ok := n.Node.(*ast.IdentifierNode)
		field, constant := n.Property.(*ast.StringNode)
		if !ok || !constant || n.Optional || !slices.Contains(records, base.Value) {
			return at("only fields of r, q and me can be named")
		}
		if field.Value == "node" {
			j.nodeNames = true
		}
		return nil
	case *ast.UnaryNode:
		parts = []ast.Node{n.Node}
	case *ast.BinaryNode:
		if !slices.Contains(operators, n.Operator) {
			return at("operator %s cannot be used here", n.Operator)
		}
		if n.Operator != "in" {
			parts = []ast.Node{n.Left, n.Right}
			break
		}
		parts = []ast.Node{n.Left}
		if list, ok := n.Right.(*ast.ArrayNode); ok {
			parts = append(parts, list.Nodes...)
		} else if !n.Right.Nature().IsArray() {
			return at("in wants a list on its right")
		} else if err := j.vet(n.Right); err != nil {
			return err
		}
	case *ast.ConditionalNode:
		parts = []ast.Node{n.Cond, n.Exp1, n.Exp2}
	case *ast.BuiltinNode:
		if !slices.Contains(functions, n.Name) {
			return at("%s cannot be used here", n.Name)
		}
		parts = n.Arguments
	default:
		return at("this cannot be used here; there are numbers, strings, fields, operators, ?: and the functions %v", functions)
	}
	for _, p := range parts {
		if err := j.vet(p); err != nil {
			return err
		}
		if !scalar(p) {
			return &file.Error{Location: p.Location(), Message: "want a number, a string or a condition"}
		}
	}
	if n, ok := node.(*ast.BinaryNode); ok && comparisons[n.Operator] {
		// The checker lets a list of mixed types pass.
		for _, p := range parts[1:] {
			if p.Nature().Kind != parts[0].Nature().Kind {
				return &file.Error{Location: p.Location(), Message: "compares a " + parts[0].Nature().String() + " with a " + p.Nature().String()}
			}
		}
		if err := known(parts); err != nil {
			return err
		}
	}
	if !scalar(node) {
		return at("the type of this is unknown: both branches of a choice must have the same")
	}
	return nil
}

// known returns an error if a field with a fixed set of values is compared with
// another string: a typo would silently be false.
func known(parts []ast.Node) *file.Error {
	for _, p := range parts {
		m, ok := p.(*ast.MemberNode)
		if !ok {
			continue
		}
		var names []string
		switch field, _ := m.Property.(*ast.StringNode); field.Value {
		case "state":
			names = capacity.StateNames()
		case "purpose":
			names = capacity.PurposeNames()
		default:
			continue
		}
		for _, p := range parts {
			if s, ok := p.(*ast.StringNode); ok && !slices.Contains(names, s.Value) {
				return &file.Error{Location: s.Location(), Message: fmt.Sprintf("%q is none of %s", s.Value, strings.Join(names, ", "))}
			}
		}
	}
	return nil
}

// scalar says whether node is known to yield a number, string or bool.
func scalar(node ast.Node) bool {
	n := node.Nature()
	return n.IsNumber() || n.IsString() || n.IsBool()
}
