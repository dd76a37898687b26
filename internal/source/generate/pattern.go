package generate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// Template is an artifact as it is declared: with a path pattern, name and rules may have
// placeholders in braces.
type Template struct {
	Name string
	Copy []Copy
}

// Output is an artifact to be made.
type Output struct {
	// Template is the index of what it was made from.
	Template int
	Name     string
	Copy     []Copy
	// Captures are what the placeholders stand for, in lower case; nil without a pattern.
	Captures map[string]string
}

// Expand makes the artifacts of templates: one of each for every directory that the
// pattern @alias/a/{b} finds, or just one where there is no pattern. Errors are
// *gitops.Error; those about what a pattern says or finds stay until somebody changes it.
func (c *Composer) Expand(ctx context.Context, pattern string, templates []Template) ([]Output, error) {
	var outputs []Output
	if pattern == "" {
		if len(templates) > mostOutputs {
			return nil, stalled(fmt.Errorf("more than %d artifacts are declared", mostOutputs))
		}
		for i, t := range templates {
			outputs = append(outputs, Output{Template: i, Name: t.Name, Copy: t.Copy})
		}
		return outputs, nil
	}
	rules := 0
	for _, t := range templates {
		rules += len(t.Copy)
	}
	copies, length := 0, 0
	err := c.expand(ctx, pattern, func(dir string, captures map[string]string) error {
		if len(outputs)+len(templates) > mostOutputs {
			return fmt.Errorf("it finds directories for more than %d artifacts", mostOutputs)
		}
		if copies += rules; copies > mostCopies {
			return tooManyRules()
		}
		lower := map[string]string{}
		for _, name := range slices.Sorted(maps.Keys(captures)) {
			lower[name] = strings.ToLower(captures[name])
			if errs := content.IsLabelValue(lower[name]); len(errs) > 0 {
				return fmt.Errorf("in directory %q, {%s} stands for %q, which is no value of a label: %s", dir, name, lower[name], strings.Join(errs, "; "))
			}
		}
		for i, t := range templates {
			output, err := t.fill(i, lower, captures)
			if err != nil {
				return fmt.Errorf("artifact %q for directory %q: %w", t.Name, dir, err)
			}
			for _, rule := range output.Copy {
				length += len(rule.From) + len(rule.To)
			}
			if length > mostRuleBytes {
				return fmt.Errorf("the copy rules have more than %d bytes once their placeholders are filled in", mostRuleBytes)
			}
			outputs = append(outputs, output)
		}
		return nil
	})
	if err == nil {
		err = unique(outputs)
	}
	switch {
	case err == nil:
		return outputs, nil
	case ctx.Err() != nil:
		return nil, &gitops.Error{Stage: gitops.StageFetch, Kind: gitops.Transient, Reason: buildFailed, Cause: ctx.Err()}
	}
	return nil, stalled(fmt.Errorf("path pattern %q: %w", pattern, err))
}

// stalled is an error that stays until the generator changes.
func stalled(err error) error {
	return &gitops.Error{Stage: gitops.StageFetch, Kind: gitops.Stalled, Reason: buildFailed, Cause: err}
}

// unique refuses two artifacts of one name, and names that are none.
func unique(outputs []Output) error {
	seen := map[string]bool{}
	for _, o := range outputs {
		if errs := validation.IsDNS1123Subdomain(o.Name); len(errs) > 0 {
			return fmt.Errorf("the artifact %q would have a name that is none: %s", o.Name, strings.Join(errs, "; "))
		}
		if seen[o.Name] {
			return fmt.Errorf("two directories make an artifact %q; names do not tell upper from lower case", o.Name)
		}
		seen[o.Name] = true
	}
	return nil
}

// expand calls found for each directory that a pattern finds, in order.
func (c *Composer) expand(ctx context.Context, pattern string, found func(dir string, captures map[string]string) error) error {
	src, text, err := c.source(pattern)
	if err != nil {
		return err
	}
	elements, err := parsePattern(text)
	if err != nil {
		return err
	}
	s := &search{ctx: ctx, composer: c, files: src.Files, elements: elements, found: found, captures: map[string]string{}}
	return s.below(".", 0)
}

// search goes down the directories that a pattern matches, and into no others.
type search struct {
	ctx      context.Context
	composer *Composer
	files    gitops.Tree
	elements []*regexp.Regexp
	found    func(dir string, captures map[string]string) error
	// captures are those of the directories above.
	captures map[string]string
}

func (s *search) below(dir string, depth int) error {
	entries, err := s.files.ReadDir(dir)
	if err != nil {
		return err
	}
	if err := s.composer.look(s.ctx, len(entries)); err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		match := s.elements[depth].FindStringSubmatch(e.Name())
		if match == nil {
			continue
		}
		for i, name := range s.elements[depth].SubexpNames()[1:] {
			s.captures[name] = match[i+1]
		}
		at := join(dir, e.Name())
		if depth+1 < len(s.elements) {
			err = s.below(at, depth+1)
		} else {
			err = s.found(at, s.captures)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// captureName is what a placeholder may be called.
var captureName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// parsePattern makes an expression for each element of a path pattern.
func parsePattern(text string) ([]*regexp.Regexp, error) {
	elements := []string{""}
	seen := map[string]bool{}
	literal := func(text string) {
		for i, part := range strings.Split(text, "/") {
			if i > 0 {
				elements = append(elements, "")
			}
			elements[len(elements)-1] += regexp.QuoteMeta(part)
		}
	}
	err := placeholders(text, literal, func(name string) error {
		if seen[name] {
			return fmt.Errorf("{%s} is in it twice", name)
		}
		seen[name] = true
		if errs := content.IsLabelKey(name); len(errs) > 0 {
			return fmt.Errorf("{%s} is no key of a label: %s", name, strings.Join(errs, "; "))
		}
		elements[len(elements)-1] += "(?P<" + name + ">.+)"
		return nil
	})
	if err != nil {
		return nil, err
	}
	var expressions []*regexp.Regexp
	for _, element := range elements {
		compiled, err := regexp.Compile("(?s)^" + element + "$")
		if err != nil {
			return nil, fmt.Errorf("%q cannot be matched: %w", element, err)
		}
		expressions = append(expressions, compiled)
	}
	return expressions, nil
}

// placeholders takes a text with names in braces apart.
func placeholders(text string, literal func(string), placeholder func(name string) error) error {
	for text != "" {
		at := strings.IndexAny(text, "{}")
		switch {
		case at < 0:
			literal(text)
			return nil
		case text[at] == '}':
			return errors.New("it has a closing brace without an opening one")
		}
		literal(text[:at])
		name, rest, ok := strings.Cut(text[at+1:], "}")
		switch {
		case !ok:
			return errors.New("it has an opening brace without a closing one")
		case !captureName.MatchString(name):
			return fmt.Errorf("{%s} is no placeholder: its name has to match %s", name, captureName)
		}
		if err := placeholder(name); err != nil {
			return err
		}
		text = rest
	}
	return nil
}

// fill makes an artifact of a template. Its name and labels have the captures in lower
// case, its rules as they are.
func (t Template) fill(index int, lower, captures map[string]string) (Output, error) {
	name, err := fill(t.Name, lower)
	if err != nil {
		return Output{}, err
	}
	output := Output{Template: index, Name: name, Captures: lower}
	for _, rule := range t.Copy {
		if rule.From, err = fill(rule.From, captures); err != nil {
			return Output{}, err
		}
		if rule.To, err = fill(rule.To, captures); err != nil {
			return Output{}, err
		}
		output.Copy = append(output.Copy, rule)
	}
	return output, nil
}

// fill replaces the placeholders of a text.
func fill(text string, values map[string]string) (string, error) {
	var filled strings.Builder
	err := placeholders(text, func(literal string) { filled.WriteString(literal) }, func(name string) error {
		value, ok := values[name]
		if !ok {
			return fmt.Errorf("the path pattern has no placeholder {%s}", name)
		}
		filled.WriteString(value)
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("%q: %w", text, err)
	}
	return filled.String(), nil
}
