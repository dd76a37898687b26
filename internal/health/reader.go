package health

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/cel-go/common"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/decls"
	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/types"
)

// reader finds in a parsed expression what can never be right, whatever the values
// are: functions and variables that do not exist, and a result that is no boolean.
// It looks at each part once.
type reader struct {
	language *Language
	of       *ast.AST
	// variables are the names that values have; empty for any.
	variables []string

	// local are the variables of macros, spaces the names before a function's own,
	// as in sets.contains.
	local, spaces map[string]bool
	err           error
}

func (r *reader) read() error {
	r.local, r.spaces = map[string]bool{}, map[string]bool{}
	root := r.of.Expr()
	ast.PreOrderVisit(root, ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.ComprehensionKind:
			c := e.AsComprehension()
			r.local[c.IterVar()], r.local[c.IterVar2()], r.local[c.AccuVar()] = true, true, true
		case ast.CallKind:
			r.call(e)
		}
	}))
	if len(r.variables) > 0 {
		ast.PreOrderVisit(root, ast.NewExprVisitor(r.name))
	}
	if r.err == nil && r.neverBool(root) {
		return ErrNotBool
	}
	return r.err
}

// fail keeps the first mistake.
func (r *reader) fail(at ast.Expr, format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("does not compile: %s%s", place(r.of.SourceInfo().GetStartLocation(at.ID())), fmt.Sprintf(format, args...))
	}
}

// place says where something stands in an expression.
func place(at common.Location) string {
	if at.Line() < 1 {
		return ""
	}
	return fmt.Sprintf("line %d, column %d: ", at.Line(), at.Column()+1)
}

// call looks for the function of a call.
func (r *reader) call(e ast.Expr) {
	c := e.AsCall()
	name := c.FunctionName()
	if c.IsMemberFunction() {
		if space := qualified(c.Target()); space != "" && r.language.functions[space+"."+name] != nil {
			first, _, _ := strings.Cut(space, ".")
			r.spaces[first] = true
			return
		}
	}
	if r.language.functions[name] == nil {
		r.fail(e, "there is no function %s", name)
	}
}

// qualified is the name that identifiers and dots make; empty for anything else.
func qualified(e ast.Expr) string {
	switch e.Kind() {
	case ast.IdentKind:
		return e.AsIdent()
	case ast.SelectKind:
		if of := qualified(e.AsSelect().Operand()); of != "" {
			return of + "." + e.AsSelect().FieldName()
		}
	}
	return ""
}

// name looks for the variable of a name.
func (r *reader) name(e ast.Expr) {
	if e.Kind() != ast.IdentKind {
		return
	}
	name := e.AsIdent()
	_, isType := r.language.env.CELTypeProvider().FindIdent(name)
	if !isType && !r.local[name] && !r.spaces[name] && !slices.Contains(r.variables, name) {
		r.fail(e, "there is no variable %s, only %s", name, strings.Join(r.variables, ", "))
	}
}

// neverBool tells whether an expression gives another value than a boolean, whatever
// its variables are.
func (r *reader) neverBool(e ast.Expr) bool {
	switch e.Kind() {
	case ast.LiteralKind:
		return e.AsLiteral().Type() != types.BoolType
	case ast.ListKind, ast.MapKind, ast.StructKind:
		return true
	case ast.ComprehensionKind:
		c := e.AsComprehension()
		if result := c.Result(); result.Kind() != ast.IdentKind {
			return r.neverBool(result)
		}
		return r.neverBool(c.AccuInit())
	case ast.CallKind:
		c := e.AsCall()
		if c.FunctionName() == operators.Conditional {
			return r.neverBool(c.Args()[1]) && r.neverBool(c.Args()[2])
		}
		name := c.FunctionName()
		if c.IsMemberFunction() && r.language.functions[name] == nil {
			name = qualified(c.Target()) + "." + name
		}
		declared := r.language.functions[name]
		return declared != nil && !slices.ContainsFunc(declared.OverloadDecls(), func(o *decls.OverloadDecl) bool {
			return o.ResultType().Kind() == types.BoolKind || o.ResultType().Kind() == types.DynKind || o.ResultType().Kind() == types.TypeParamKind
		})
	}
	return false
}
