// Package substitute replaces variables of the bash form ${name} in objects, as
// Flux's post-build substitution does: on the YAML text of an object, so that a
// value may become a number, a boolean or a whole mapping.
//
// Each object is substituted on its own. The size of the result is bounded
// before anything is replaced. The composition root hands a Substituter to
// package build.
package substitute

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/fluxcd/pkg/envsubst"
	"github.com/fluxcd/pkg/envsubst/parse"
	"sigs.k8s.io/yaml"

	"github.com/plumb-gitops/plumb/internal/build"
)

// DefaultMaxBytes is the length that one substituted object may have: 16 MiB.
const DefaultMaxBytes = 16 << 20

const (
	// maxExpressions bounds the dollar signs of one object: the expression
	// parser recurses once for each.
	maxExpressions = 20_000
	// maxTrimBytes bounds a value off which a pattern is cut, which takes
	// quadratic time.
	maxTrimBytes = 64 << 10
)

// namePattern is the form of a variable's name, as Flux checks it.
const namePattern = `^[_[:alpha:]][_[:alpha:][:digit:]]*$`

// Substituter implements build.Substituter. It is safe for concurrent use.
type Substituter struct {
	// maxBytes bounds the YAML text of one object after substitution.
	maxBytes int
	name     *regexp.Regexp
}

// New makes a Substituter. A maxBytes of 0 is DefaultMaxBytes.
func New(maxBytes int) *Substituter {
	if maxBytes == 0 {
		maxBytes = DefaultMaxBytes
	}
	return &Substituter{maxBytes: maxBytes, name: regexp.MustCompile(namePattern)}
}

// Substitute replaces the variables in one object. Errors name the variable and
// never show a value.
func (s *Substituter) Substitute(object []byte, substitution build.Substitution) ([]byte, error) {
	for _, name := range sortedNames(substitution.Variables) {
		if !s.name.MatchString(name) {
			return nil, fmt.Errorf("variable name %q is not valid: it must match %s", name, namePattern)
		}
	}
	text, err := yaml.JSONToYAML(object)
	if err != nil {
		return nil, fmt.Errorf("print as YAML: %w", err)
	}
	if n := bytes.Count(text, []byte("$")); n > maxExpressions {
		return nil, fmt.Errorf("%d dollar signs in one object, the limit is %d: exclude the object from substitution", n, maxExpressions)
	}
	lookup := func(name string) (string, bool) {
		value, found := substitution.Variables[name]
		return strings.ReplaceAll(value, "\n", ""), found
	}
	if err := s.check(string(text), lookup, substitution.Strict); err != nil {
		return nil, err
	}
	result, err := eval(string(text), func(name string) (string, bool) {
		value, found := lookup(name)
		return value, found || !substitution.Strict
	})
	if err != nil {
		return nil, fmt.Errorf("variable substitution failed: %w", err)
	}
	replaced, err := yaml.YAMLToJSON([]byte(result))
	if err != nil {
		// The parser's text may quote a value.
		return nil, errors.New("variable substitution does not leave valid YAML: check quotes and colons in the values of variables")
	}
	return replaced, nil
}

// eval turns a panic of the expression library, such as for a substring whose
// end overflows, into an error.
func eval(text string, mapping func(string) (string, bool)) (result string, err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("an expression is out of range")
		}
	}()
	return envsubst.Eval(text, mapping)
}

// check refuses an expression that does not parse, a variable that is not set,
// and a result that could be longer than allowed.
func (s *Substituter) check(text string, lookup func(string) (string, bool), strict bool) error {
	tree, err := parse.Parse(text)
	if err != nil {
		return fmt.Errorf("variable expression cannot be read: %w; write $${ for a literal ${", err)
	}
	estimate := estimator{lookup: lookup, strict: strict, max: s.maxBytes}
	if size := estimate.node(tree.Root); size > s.maxBytes {
		return fmt.Errorf("variable substitution could make more than %d bytes of one object", s.maxBytes)
	}
	if estimate.slow != "" {
		return fmt.Errorf("variable %q is longer than %d bytes, too long to cut a pattern off", estimate.slow, maxTrimBytes)
	}
	if estimate.missing != "" {
		return fmt.Errorf("variable %q is not set and has no default: set it in postBuild, or write ${%s:=default}", estimate.missing, estimate.missing)
	}
	return nil
}

func sortedNames(variables map[string]string) []string {
	names := make([]string, 0, len(variables))
	for name := range variables {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
