package health

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/decls"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/ext"
	"github.com/google/cel-go/interpreter"
)

// maxText is how long an expression may be, in characters.
const maxText = 16 << 10

// ErrNotBool is what an expression gives another value than true or false with.
var ErrNotBool = errors.New("gives no boolean")

// errTooMuch is that of an evaluation that was ended because of its cost.
var errTooMuch = errors.New("needs more work than an expression is given; let it look at less of the object")

// Language is the dialect of CEL that Flux's expressions are written in: the same
// functions and macros, no more, so that an expression that works here works there.
// It is made once and may be used by many goroutines.
type Language struct {
	env       *cel.Env
	functions map[string]*decls.FunctionDecl
	guards    *guards
}

// NewLanguage makes the language.
func NewLanguage() (*Language, error) {
	env, err := cel.NewEnv(
		cel.HomogeneousAggregateLiterals(),
		cel.EagerlyValidateDeclarations(true),
		cel.DefaultUTCTimeZone(true),
		cel.CrossTypeNumericComparisons(true),
		cel.OptionalTypes(),
		cel.ParserExpressionSizeLimit(maxText),
		ext.Strings(), ext.Sets(), ext.Encoders(),
	)
	if err != nil {
		return nil, fmt.Errorf("set up CEL: %w", err)
	}
	known := env.Functions()
	g, err := newGuards(known)
	if err != nil {
		return nil, fmt.Errorf("set up CEL: %w", err)
	}
	return &Language{env: env, functions: known, guards: g}, nil
}

// Expression is a condition that can be asked of values.
type Expression struct {
	text    string
	program cel.Program
}

// Compile reads a condition. Its variables may have any names where none are given,
// as for an object, whose top-level fields are the variables. The error quotes the
// expression.
//
// As in Flux, types are not checked: a field may be of any. It would also be
// dangerous: on types that are deep enough CEL's checker computes for minutes.
func (l *Language) Compile(text string, variables ...string) (*Expression, error) {
	fail := func(err error) (*Expression, error) { return nil, fmt.Errorf("expression %q %w", clip(text), err) }
	parsed, issues := l.env.Parse(text)
	if issues.Err() != nil {
		found := issues.Errors()[0]
		return fail(fmt.Errorf("does not compile: %s%s", place(found.Location), found.Message))
	}
	r := reader{language: l, of: parsed.NativeRep(), variables: variables}
	if err := r.read(); err != nil {
		return fail(err)
	}
	program, err := l.env.Program(parsed, cel.InterruptCheckFrequency(maxLoops), cel.CustomDecoratorV2(l.guards.decorate))
	if err != nil {
		return fail(fmt.Errorf("does not compile: %w", err))
	}
	return &Expression{text: text, program: program}, nil
}

// Holds tells whether the condition is true of some values. The error is ErrNotBool,
// or says why the condition could not be answered, and quotes nothing but the
// expression itself: values may be secret.
func (e *Expression) Holds(variables map[string]any) (bool, error) {
	// Loops look once in maxLoops times whether they are to end, and then they are:
	// the end does not depend on a clock.
	ended, end := context.WithCancel(context.Background())
	end()
	spent := &spending{left: maxCost}
	variables = maps.Clone(variables)
	variables[purse] = spent
	value, _, err := e.program.ContextEval(ended, variables)
	switch {
	case spent.over || (err != nil && errors.Is(err, interpreter.InterruptError{})):
		return false, errTooMuch
	case err != nil:
		return false, e.why(err)
	}
	answer, ok := value.(types.Bool)
	if !ok {
		return false, ErrNotBool
	}
	return bool(answer), nil
}

// why says why an evaluation failed.
func (e *Expression) why(err error) error {
	for _, beginning := range []string{"no such key: ", "no such attribute(s): "} {
		if name, missing := strings.CutPrefix(err.Error(), beginning); missing && strings.Contains(e.text, name) {
			return fmt.Errorf("reads %q, which is not there", name)
		}
	}
	return errors.New("reads something that is not there, or is of another type than it expects")
}

// clip cuts a text that is quoted to a length that can be read.
func clip(text string) string {
	const most = 200
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "..."
}
