package kustomize

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"

	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/yaml"
)

// amplifier estimates what the vars and replacements of a build can add to it,
// from the files read so far. kustomize puts values in only once it has read
// everything, so the estimate is complete before the first one is.
type amplifier struct {
	vars         map[string]types.Var
	replacements []types.Replacement
	// files are those that hold replacements.
	files map[string]bool
	// seen is how many of the files read are in the numbers below.
	seen int
	// uses counts where each variable is used.
	uses map[string]int
	// sizes are the bytes of the longest document of each kind and name.
	sizes map[string]int
	// kinds counts documents by kind, and all of them under "".
	kinds map[string]int
	// longest is the length of the longest file.
	longest int
}

// maxAppends is how many targets of replacements may append to objects that are
// sources themselves: each can double a value.
const maxAppends = 16

// nameBytes is the length of the longest name of an object.
const nameBytes = 253

// add notes what a kustomization file does.
func (a *amplifier) add(vars []types.Var, fields []types.ReplacementField) {
	for _, v := range vars {
		if a.vars == nil {
			a.vars = map[string]types.Var{}
		}
		a.vars[v.Name] = v
	}
	for _, field := range fields {
		a.replacements = append(a.replacements, field.Replacement)
	}
}

// addFile notes the replacements in a file of its own.
func (a *amplifier) addFile(content []byte) {
	var list []types.Replacement
	if yaml.Unmarshal(content, &list) == nil {
		a.replacements = append(a.replacements, list...)
		return
	}
	var one types.Replacement
	if yaml.Unmarshal(content, &one) == nil {
		a.replacements = append(a.replacements, one)
	}
}

// check refuses a build that could grow by more than the limit in bytes.
func (a *amplifier) check(fsys *snapshotFS, limit int) error {
	if len(a.vars)+len(a.replacements) == 0 {
		return nil
	}
	for ; a.seen < len(fsys.order); a.seen++ {
		a.count(fsys.read[fsys.order[a.seen]])
	}
	total := 0
	for name, v := range a.vars {
		total += a.uses[name] * a.size(v.ObjRef.Kind, v.ObjRef.Name, v.FieldRef.FieldPath)
	}
	appends, sources := 0, map[string]bool{}
	for _, r := range a.replacements {
		if r.Source != nil {
			sources[r.Source.Kind] = true
		}
	}
	for _, r := range a.replacements {
		size := nameBytes
		if r.SourceValue != nil {
			size = max(size, len(*r.SourceValue))
		}
		if r.Source != nil {
			size = a.size(r.Source.Kind, r.Source.Name, r.Source.FieldPath)
		}
		for _, target := range r.Targets {
			if target == nil || target.Select == nil {
				continue
			}
			paths := max(1, len(target.FieldPaths))
			total += size * paths * a.matching(target.Select)
			if target.Options != nil && target.Options.Delimiter != "" && selectsAny(target.Select.Kind, sources) {
				appends += paths
			}
		}
	}
	switch {
	case total > limit:
		return fmt.Errorf("vars and replacements could add %d bytes to the build, the limit is %d: use them in fewer places, or for shorter values", total, limit)
	case appends > maxAppends:
		return fmt.Errorf("%d replacements with a delimiter change objects that are sources of replacements, the limit is %d", appends, maxAppends)
	}
	return nil
}

// count takes a file into the numbers.
func (a *amplifier) count(content []byte) {
	if a.uses == nil {
		a.uses, a.sizes, a.kinds = map[string]int{}, map[string]int{}, map[string]int{}
	}
	a.longest = max(a.longest, len(content))
	for rest := content; ; {
		_, after, found := bytes.Cut(rest, []byte("$("))
		if !found {
			break
		}
		rest = after
		if name, _, closed := bytes.Cut(after[:min(len(after), 256)], []byte(")")); closed {
			a.uses[string(name)]++
		}
	}
	for _, p := range split(content) {
		doc, ok := skim(p)
		docs := []document{doc}
		if !ok || strings.HasSuffix(doc.kind, "List") {
			docs = parseDocument(p)
		}
		for _, doc := range docs {
			key := doc.kind + "/" + doc.name
			a.sizes[key] = max(a.sizes[key], len(p.text))
			a.kinds[doc.kind]++
			a.kinds[""]++
		}
	}
}

// size is the length that a value of an object can have.
func (a *amplifier) size(kind, name, field string) int {
	switch field {
	case "", "metadata.name", "metadata.namespace":
		return nameBytes
	}
	if size, known := a.sizes[kind+"/"+name]; known {
		return size
	}
	return a.longest
}

// matching is how many documents a selector can match, 1 at least: objects can
// be generated.
func (a *amplifier) matching(selector *types.Selector) int {
	switch {
	case selector.Name != "" && regexp.QuoteMeta(selector.Name) == selector.Name && selector.Kind != "":
		return 1
	case regexp.QuoteMeta(selector.Kind) == selector.Kind:
		return max(1, a.kinds[selector.Kind])
	}
	return max(1, a.kinds[""])
}

// selectsAny tells whether a pattern for kinds matches one of them.
func selectsAny(pattern string, kinds map[string]bool) bool {
	match, err := regexp.Compile("^(?:" + pattern + ")$")
	for kind := range kinds {
		if pattern == "" || kind == "" || err != nil || match.MatchString(kind) {
			return true
		}
	}
	return false
}
