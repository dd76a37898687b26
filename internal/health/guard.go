package health

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"

	"github.com/google/cel-go/common/decls"
	"github.com/google/cel-go/common/functions"
	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	"github.com/google/cel-go/interpreter"
)

const (
	// maxCost bounds what the calls of one evaluation cost together: one for each
	// call, and one for each ten bytes or elements that it handles. It is spent in
	// some ten milliseconds.
	maxCost = 200_000
	// maxLoops bounds how often the bodies of all loops together are evaluated.
	maxLoops = 50_000
	// maxValue bounds what one call may handle or make, in bytes and elements.
	maxValue = 1 << 20
	// maxPattern bounds the text of a regular expression, in bytes.
	maxPattern = 1000
	// purse is the name under which an evaluation keeps what it may still spend.
	// No expression can name it.
	purse = "@purse"
	// tooBig is the text of the error of a call that is not made.
	tooBig = "a call would handle too much"
)

// spending is what an evaluation may still spend. CEL counts costs too, but in time
// that grows with the square of the steps, and a call's when it has returned: one
// replace() of every character of a long text by that text takes all memory before
// it costs anything. And it takes lists and maps for as big as they look: two that
// hold each other's elements again and again are small, and endless to whoever
// compares them. So each call is weighed here before it is made.
type spending struct {
	left int
	over bool
}

// take spends something; false where there is not so much left.
func (s *spending) take(cost int) bool {
	if cost > s.left {
		s.left, s.over = 0, true
		return false
	}
	s.left -= cost
	return true
}

// guards know what functions do.
type guards struct {
	calls map[string]functions.FunctionOp
}

func newGuards(known map[string]*decls.FunctionDecl) (*guards, error) {
	g := &guards{calls: map[string]functions.FunctionOp{}}
	for name, declared := range known {
		call, err := implementation(name, declared)
		if err != nil {
			return nil, err
		}
		if call != nil {
			g.calls[name] = call
		}
	}
	g.calls[operators.Equals] = func(v ...ref.Val) ref.Val { return types.Equal(v[0], v[1]) }
	g.calls[operators.NotEquals] = func(v ...ref.Val) ref.Val { return types.Bool(types.Equal(v[0], v[1]) != types.True) }
	return g, nil
}

// implementation is what a function does with arguments of any type; nil for one
// that is part of the language and looks at the errors of its arguments.
func implementation(name string, declared *decls.FunctionDecl) (functions.FunctionOp, error) {
	bindings, err := declared.Bindings()
	if err != nil {
		return nil, err
	}
	for _, b := range bindings {
		if b.Operator != name || b.NonStrict {
			continue
		}
		return func(values ...ref.Val) ref.Val {
			switch {
			case len(values) == 0 || (b.OperandTrait != 0 && !values[0].Type().HasTrait(b.OperandTrait)):
			case b.Unary != nil && len(values) == 1:
				return b.Unary(values[0])
			case b.Binary != nil && len(values) == 2:
				return b.Binary(values[0], values[1])
			case b.Function != nil:
				return b.Function(values...)
			}
			return types.NoSuchOverloadErr()
		}, nil
	}
	return nil, nil
}

// decorate puts the guard before each call. A regular expression that does not
// depend on the object is read here, once.
func (g *guards) decorate(i interpreter.InterpretableV2) (interpreter.InterpretableV2, error) {
	if made, ok := i.(interpreter.InterpretableConstructor); ok {
		return &guardedConstructor{made}, nil
	}
	call, ok := i.(interpreter.InterpretableCall)
	if !ok {
		return i, nil
	}
	guarded := &guardedCall{InterpretableCall: call, do: g.calls[call.Function()]}
	if call.Function() != "matches" {
		return guarded, nil
	}
	if text, ok := constant(call); ok {
		var err error
		if guarded.pattern, err = readPattern(text); err != nil {
			return nil, err
		}
	}
	return guarded, nil
}

// constant is the second argument of a call, where it is a text in the expression.
func constant(call interpreter.InterpretableCall) (string, bool) {
	args := call.Args()
	if len(args) != 2 {
		return "", false
	}
	c, ok := args[1].(interpreter.InterpretableConst)
	if !ok {
		return "", false
	}
	text, ok := c.Value().(types.String)
	return string(text), ok
}

// guardedCall is a call that is weighed before it is made.
type guardedCall struct {
	interpreter.InterpretableCall
	// do is what the function does; nil where the call does it itself.
	do functions.FunctionOp
	// pattern is that of a search for a constant one.
	pattern *pattern
}

// Eval makes the call.
func (c *guardedCall) Eval(variables interpreter.Activation) ref.Val {
	return c.Exec(interpreter.AsFrame(variables))
}

// guardedConstructor is a list or a map in the expression, which is made anew in each
// turn of a loop.
type guardedConstructor struct {
	interpreter.InterpretableConstructor
}

// Eval makes the list or map.
func (c *guardedConstructor) Eval(variables interpreter.Activation) ref.Val {
	return c.Exec(interpreter.AsFrame(variables))
}

// Exec makes the list or map, if it can be paid.
func (c *guardedConstructor) Exec(frame *interpreter.ExecutionFrame) ref.Val {
	found, _ := frame.ResolveName(purse)
	spent, ok := found.(*spending)
	if !ok || !spent.take(1+len(c.InitVals())) {
		return types.NewErrFromString(tooBig)
	}
	return c.InterpretableConstructor.Exec(frame)
}

// Exec makes the call, if it can be paid.
func (c *guardedCall) Exec(frame *interpreter.ExecutionFrame) ref.Val {
	found, _ := frame.ResolveName(purse)
	spent, ok := found.(*spending)
	if !ok || !spent.take(1) {
		return types.NewErrFromString(tooBig)
	}
	if c.do == nil {
		return c.InterpretableCall.Exec(frame)
	}
	args := c.Args()
	values := make([]ref.Val, len(args))
	for i, arg := range args {
		if values[i] = arg.Exec(frame); types.IsUnknownOrError(values[i]) {
			return values[i]
		}
	}
	if c.Function() == "matches" {
		return types.LabelErrNode(c.ID(), c.search(values, spent))
	}
	if !spent.take(weight(c.Function(), values)) {
		return types.NewErrFromString(tooBig)
	}
	return types.LabelErrNode(c.ID(), c.do(values...))
}

// search looks for a pattern in a text.
func (c *guardedCall) search(values []ref.Val, spent *spending) ref.Val {
	text, ok := values[0].(types.String)
	if !ok || len(values) != 2 {
		return types.NoSuchOverloadErr()
	}
	p := c.pattern
	if p == nil {
		wanted, ok := values[1].(types.String)
		if !ok {
			return types.NoSuchOverloadErr()
		}
		var err error
		if p, err = readPattern(string(wanted)); err != nil {
			return types.NewErrFromString("no regular expression")
		}
		if !spent.take(p.states) {
			return types.NewErrFromString(tooBig)
		}
	}
	if !spent.take(product(p.states, len(text)) / 10) {
		return types.NewErrFromString(tooBig)
	}
	return types.Bool(p.expression.MatchString(string(text)))
}

// tooMuch is a weight that nobody can pay.
const tooMuch = maxCost + 1

// weight is what a call costs beside being made.
func weight(function string, values []ref.Val) int {
	size := 0
	switch function {
	case operators.Add:
		size = shallow(values...)
		if _, list := values[0].(traits.Lister); list && size < maxValue {
			return 0 // the elements of lists are not copied
		}
	case operators.Equals, operators.NotEquals, operators.In, "format":
		size = measure(values...)
	case "join":
		size = measure(values...)
		if len(values) == 2 {
			size += product(shallow(values[0]), shallow(values[1]))
		}
	case "replace":
		size = replaced(values)
	case "indexOf", "lastIndexOf":
		size = product(shallow(values[0]), shallow(values[1]))
	case "sets.contains", "sets.equivalent", "sets.intersects":
		size = product(measure(values[0]), measure(values[1]))
	default:
		size = shallow(values...)
	}
	if size >= maxValue {
		return tooMuch
	}
	return size / 10
}

// product multiplies what may be big.
func product(a, b int) int {
	if a > maxValue || b > maxValue {
		return maxValue
	}
	return min(a*b, maxValue*10)
}

// replaced is how long a text and what it becomes are together.
func replaced(values []ref.Val) int {
	texts := [3]string{}
	for i := range texts {
		if i >= len(values) {
			return 0
		}
		text, ok := values[i].(types.String)
		if !ok {
			return 0 // no call of replace that there is
		}
		texts[i] = string(text)
	}
	return 2*len(texts[0]) + product(strings.Count(texts[0], texts[1]), len(texts[2]))
}

// shallow is the number of bytes or elements of values, whatever the elements are.
func shallow(values ...ref.Val) int {
	size := 0
	for _, v := range values {
		switch of := v.(type) {
		case types.String:
			size += len(of)
		case types.Bytes:
			size += len(of)
		case traits.Sizer:
			n, _ := of.Size().(types.Int)
			size += int(min(n, maxValue))
		default:
			size++
		}
	}
	return size
}

// perElement is what a value counts beside its bytes: so much longer it takes to
// look at.
const perElement = 16

// measure is the size of values with all that they hold, each as often as it can be
// reached; it stops counting at maxValue.
func measure(values ...ref.Val) int {
	left := maxValue
	for _, v := range values {
		if !count(v, &left) {
			break
		}
	}
	return maxValue - left
}

// count takes the size of a value from what is left; false once nothing is.
func count(v ref.Val, left *int) bool {
	size := perElement
	switch text := v.(type) {
	case types.String:
		size += len(text)
	case types.Bytes:
		size += len(text)
	}
	if *left -= min(size, *left); *left == 0 {
		return false
	}
	switch of := v.(type) {
	case *types.Optional:
		return !of.HasValue() || count(of.GetValue(), left)
	case traits.Mapper:
		for it := of.Iterator(); it.HasNext() == types.True; {
			key := it.Next()
			if !count(key, left) || !count(of.Get(key), left) {
				return false
			}
		}
	case traits.Lister:
		for it := of.Iterator(); it.HasNext() == types.True; {
			if !count(it.Next(), left) {
				return false
			}
		}
	}
	return true
}

// pattern is a regular expression and the number of its states.
type pattern struct {
	expression *regexp.Regexp
	states     int
}

func readPattern(text string) (*pattern, error) {
	if len(text) > maxPattern {
		return nil, fmt.Errorf("regular expression is longer than %d bytes", maxPattern)
	}
	tree, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return nil, err
	}
	program, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return nil, err
	}
	expression, err := regexp.Compile(text)
	if err != nil {
		return nil, err
	}
	return &pattern{expression: expression, states: len(program.Inst)}, nil
}
