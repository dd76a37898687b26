package build

import (
	"fmt"
	"regexp"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/ownership"
)

// IgnoreRule leaves fields of objects to others once the objects exist.
type IgnoreRule struct {
	// Paths are JSON pointers (RFC 6901) to the fields.
	Paths []string
	// Target says in which objects; nil is all.
	Target *Selector
}

// Check tells what is wrong with the rule.
func (r IgnoreRule) Check() error {
	_, err := r.compile()
	return err
}

// ignored is a rule that can be asked.
type ignored struct {
	paths               []string
	fields              [5]*regexp.Regexp
	labels, annotations labels.Selector
}

func (r IgnoreRule) compile() (ignored, error) {
	c := ignored{paths: r.Paths, labels: labels.Everything(), annotations: labels.Everything()}
	for _, path := range r.Paths {
		if err := ownership.CheckPointer(path); err != nil {
			return c, fmt.Errorf("path %q: %w", path, err)
		}
	}
	t := r.Target
	if t == nil {
		return c, nil
	}
	for i, pattern := range []string{t.Group, t.Version, t.Kind, t.Namespace, t.Name} {
		if pattern == "" {
			continue
		}
		var err error
		if c.fields[i], err = regexp.Compile("^(?:" + pattern + ")$"); err != nil {
			return c, fmt.Errorf("target: %q is no regular expression: %w", pattern, err)
		}
	}
	var err error
	if c.labels, err = labels.Parse(t.LabelSelector); err != nil {
		return c, fmt.Errorf("target: labelSelector %q: %w", t.LabelSelector, err)
	}
	if c.annotations, err = labels.Parse(t.AnnotationSelector); err != nil {
		return c, fmt.Errorf("target: annotationSelector %q: %w", t.AnnotationSelector, err)
	}
	return c, nil
}

func compileIgnored(rules []IgnoreRule) ([]ignored, error) {
	var out []ignored
	for i, rule := range rules {
		c, err := rule.compile()
		if err != nil {
			return nil, fmt.Errorf("ignore rule %d: %w", i+1, err)
		}
		out = append(out, c)
	}
	return out, nil
}

// ignoredIn are the fields of an object that are left to others.
func ignoredIn(rules []ignored, ref gitops.ObjectRef, version string, annotations, marks map[string]string) []string {
	var paths []string
	for _, rule := range rules {
		matches := rule.labels.Matches(labels.Set(marks)) && rule.annotations.Matches(labels.Set(annotations))
		for i, text := range []string{ref.Group, version, ref.Kind, ref.Namespace, ref.Name} {
			matches = matches && (rule.fields[i] == nil || rule.fields[i].MatchString(text))
		}
		if matches {
			paths = append(paths, rule.paths...)
		}
	}
	return paths
}
