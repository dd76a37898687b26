package build

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// Spec is what an owner asks to be rendered, and how. It must not be changed
// while a build is made of it.
type Spec struct {
	// Owner is who the build is for; its labels are set on every object.
	Owner gitops.OwnerRef
	// Path is the directory to render. It is resolved inside the snapshot: a
	// leading slash and leading ".." elements are of no effect. Empty is the root.
	Path string
	// TargetNamespace is the namespace of all namespaced objects; empty leaves
	// them where they are.
	TargetNamespace string
	// NamePrefix is put before all names.
	NamePrefix string
	// NameSuffix is put after all names.
	NameSuffix string
	// CommonLabels are set on every object. They do not replace owner labels.
	CommonLabels map[string]string
	// CommonAnnotations are set on every object.
	CommonAnnotations map[string]string
	// Patches come after those that the repository declares itself.
	Patches []Patch
	// Images are merged by name into those that the repository declares.
	Images []Image
	// Components are local directories, relative to Path.
	Components []string
	// IgnoreMissingComponents leaves out components that do not exist.
	IgnoreMissingComponents bool
	// Metadata is what is written about objects into their annotations: any of
	// originAnnotations and transformerAnnotations. Empty leaves it to the
	// repository.
	Metadata []string
	// Decryption opens what is encrypted; nil leaves everything as it is.
	Decryption *Decryption
	// Substitute replaces variables in the rendered objects; nil replaces none.
	Substitute *Substitution
	// Ignore leaves fields to others.
	Ignore []IgnoreRule
	// Keys names the labels and annotations of the front end.
	Keys gitops.Keys
}

// Patch changes rendered objects.
type Patch struct {
	// Patch is a strategic merge patch or a JSON 6902 patch, as YAML or JSON.
	Patch string
	// Target says which objects are patched; nil leaves it to the names in a
	// strategic merge patch.
	Target *Selector
}

// Selector selects objects. Empty fields match everything; Group, Version, Kind,
// Name and Namespace are anchored regular expressions.
type Selector struct {
	Group, Version, Kind string
	Name, Namespace      string
	LabelSelector        string
	AnnotationSelector   string
}

// Image replaces the name, the tag or the digest of an image.
type Image struct {
	// Name is the image to be replaced, without tag and digest.
	Name string
	// NewName replaces the name; empty keeps it.
	NewName string
	// NewTag and Digest replace tag and digest together; both empty keeps them.
	NewTag string
	Digest string
}

// Substitution replaces variables of the bash form ${name} in rendered objects.
type Substitution struct {
	// Variables are all variables, whatever they were read from. Newlines in
	// their values are dropped.
	Variables map[string]string
	// Secret are the names of variables whose values must not be shown.
	Secret map[string]bool
	// Strict makes a variable an error that is not set and has no default.
	Strict bool
	// Always substitutes even where there are no variables at all, so that
	// defaults in expressions take effect.
	Always bool
}

// active tells whether the substitution has anything to do.
func (s *Substitution) active() bool {
	return s != nil && (s.Always || len(s.Variables) > 0)
}

// leastSecret is the length, in bytes, from which on the value of a variable is hidden:
// a shorter one is in every text by chance, and easily guessed.
const leastSecret = 4

// secretsIn are the values of secret variables that are in the texts of an object, the
// longest first.
func (s *Substitution) secretsIn(object any) []string {
	var found []string
	for name := range s.Secret {
		if value := s.Variables[name]; len(value) >= leastSecret && holds(object, value) {
			found = append(found, value)
		}
	}
	slices.SortFunc(found, func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b)) })
	return slices.Compact(found)
}

// holds tells whether a text is in a value or below it, names of fields included.
func holds(value any, text string) bool {
	switch v := value.(type) {
	case map[string]any:
		for name, below := range v {
			if strings.Contains(name, text) || holds(below, text) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, func(below any) bool { return holds(below, text) })
	case string:
		return strings.Contains(v, text)
	case int64, float64:
		return strings.Contains(fmt.Sprint(v), text)
	}
	return false
}

// hide takes the values of secret variables out of a text.
func (s *Substitution) hide(text string) string {
	for name := range s.Secret {
		if value := s.Variables[name]; len(value) >= leastSecret {
			text = gitops.Hide(text, value)
		}
	}
	return text
}

// key identifies the spec without showing it: values of variables may be secret
// and keys are, so it is keyed with a secret of the process.
func (s Spec) key(secret []byte) (string, error) {
	text, err := json.Marshal(s)
	if err != nil {
		return "", fmt.Errorf("encode build spec: %w", err)
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write(text)
	return hex.EncodeToString(mac.Sum(nil)[:16]), nil
}
