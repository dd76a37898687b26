package health

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// maxObject is how big an object may be that a rule looks at, in bytes. No API
// server stores a bigger one; others may serve it.
const maxObject = 4 << 20

// Expressions are a rule as people write it. They are asked in the order InProgress,
// Failed, Current; the first that is true decides, and an object of which none is
// true is InProgress.
type Expressions struct {
	// Current is needed.
	Current            string
	InProgress, Failed string
}

// Rule tells how objects are in place of the rules of kstatus. It is never changed
// and may be used by many goroutines. Nil stands for the rules of kstatus.
type Rule struct {
	digest gitops.Digest
	asked  []asked
}

// asked is one expression of a rule and what it says where it is true.
type asked struct {
	name       string
	status     gitops.HealthStatus
	expression *Expression
}

// Rule reads a rule. The error names the expression at fault and quotes it.
func (l *Language) Rule(e Expressions) (*Rule, error) {
	r := &Rule{digest: sha256.Sum256(fmt.Appendf(nil, "%q %q %q", e.InProgress, e.Failed, e.Current))}
	for _, one := range []struct {
		name, text string
		status     gitops.HealthStatus
	}{
		{"inProgress", e.InProgress, gitops.HealthInProgress},
		{"failed", e.Failed, gitops.HealthFailed},
		{"current", e.Current, gitops.HealthCurrent},
	} {
		if one.text == "" {
			continue
		}
		expression, err := l.Compile(one.text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", one.name, err)
		}
		r.asked = append(r.asked, asked{one.name, one.status, expression})
	}
	if e.Current == "" {
		return nil, errors.New("current: is missing; say when an object is as it should be")
	}
	return r, nil
}

// Same tells whether two rules say the same of every object.
func (r *Rule) Same(other *Rule) bool {
	if r == nil || other == nil {
		return r == other
	}
	return r == other || r.digest == other.digest
}

// Assess is the health of a whole object by the rule, as decoded by apimachinery.
// An object that is being deleted is Terminating, and one whose newest generation
// its controller has not seen is InProgress, whatever the expressions say. An
// expression that cannot be answered makes the health Unknown, as in Flux; one that
// needs too much work, Failed: it is not going to be answered later either.
func (r *Rule) Assess(object *unstructured.Unstructured) gitops.Health {
	if r == nil {
		return Assess(object)
	}
	if object.GetDeletionTimestamp() != nil {
		return OfMetadata(true)
	}
	if h, stale := unobserved(object); stale {
		return h
	}
	if left := maxObject; !fits(object.Object, &left) {
		return gitops.Health{Status: gitops.HealthFailed, Message: fmt.Sprintf("object is bigger than %d MiB: health expressions are not asked", maxObject>>20)}
	}
	for _, a := range r.asked {
		holds, err := a.expression.Holds(object.Object)
		switch {
		case errors.Is(err, errTooMuch):
			return gitops.Health{Status: gitops.HealthFailed, Message: fmt.Sprintf("health expression %q %v", a.name, err)}
		case err != nil:
			return gitops.Health{Status: gitops.HealthUnknown, Message: fmt.Sprintf("health expression %q %v", a.name, err)}
		case holds:
			return gitops.Health{Status: a.status, Message: fmt.Sprintf("health expression %q is true", a.name)}
		}
	}
	return gitops.Health{Status: gitops.HealthInProgress, Message: `health expression "current" is not true`}
}

// unobserved tells whether an object's controller has still to look at its newest
// generation. Where the field is no number, nothing is known of that.
func unobserved(object *unstructured.Unstructured) (gitops.Health, bool) {
	observed, found, err := unstructured.NestedInt64(object.Object, "status", "observedGeneration")
	if err != nil || !found {
		return gitops.Health{}, false
	}
	generation, found, err := unstructured.NestedInt64(object.Object, "metadata", "generation")
	if err != nil || !found || generation == observed {
		return gitops.Health{}, false
	}
	return gitops.Health{Status: gitops.HealthInProgress, Message: fmt.Sprintf(
		"%s generation is %d, but latest observed generation is %d", object.GetKind(), generation, observed)}, true
}

// fits takes the size of a decoded value from what is left; false once nothing is.
func fits(value any, left *int) bool {
	*left -= 8
	switch v := value.(type) {
	case string:
		*left -= len(v)
	case []any:
		for _, e := range v {
			if !fits(e, left) {
				return false
			}
		}
	case map[string]any:
		for key, e := range v {
			*left -= len(key)
			if !fits(e, left) {
				return false
			}
		}
	}
	return *left > 0
}

// Rules are the rules of one owner, by kind. A kind without name stands for all
// kinds of its group that have no rule of their own. Nil has no rules.
type Rules struct {
	of     map[gitops.GroupKind]*Rule
	digest gitops.Digest
}

// NewRules makes the rules of an owner; nil where there are none.
func NewRules(of map[gitops.GroupKind]*Rule) *Rules {
	if len(of) == 0 {
		return nil
	}
	kinds := slices.SortedFunc(maps.Keys(of), func(a, b gitops.GroupKind) int { return strings.Compare(a.String(), b.String()) })
	sum := sha256.New()
	for _, kind := range kinds {
		fmt.Fprintf(sum, "%s %s\n", kind, of[kind].digest)
	}
	return &Rules{of: of, digest: gitops.Digest(sum.Sum(nil))}
}

// For is the rule for a kind; nil where it is that of kstatus.
func (r *Rules) For(kind gitops.GroupKind) *Rule {
	if r == nil {
		return nil
	}
	if own := r.of[kind]; own != nil {
		return own
	}
	return r.of[gitops.GroupKind{Group: kind.Group}]
}

// Digest is equal for rules that say the same of every object; zero for none.
func (r *Rules) Digest() gitops.Digest {
	if r == nil {
		return gitops.Digest{}
	}
	return r.digest
}

// Digest is that of the rule's text; zero for the rules of kstatus.
func (r *Rule) Digest() gitops.Digest {
	if r == nil {
		return gitops.Digest{}
	}
	return r.digest
}
