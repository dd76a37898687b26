package ownership

import (
	"math/big"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// NamesExactly tells whether our own Apply entry names exactly the fields of the
// manifest, a JSON object: none more and none fewer. As the entry loses a field
// as soon as somebody else changes or removes it, an object of which this is true
// is as an apply of a manifest with the same fields left it.
//
// It works without the schema of the kind, so it is false in some cases where the
// fields are the same: an empty list, which an entry names or not by its type; a
// map of a custom resource that the entry names without its keys, which may be an
// atomic map or one whose keys were all lost; list items that differ only in
// defaulted keys; an entry of another API version; a Secret with stringData, which
// an entry keeps while its data is changed. It is never true where a field of the
// manifest is not in the entry.
func NamesExactly(managedFields []metav1.ManagedFieldsEntry, keys gitops.Keys, manifest []byte) bool {
	entry, ok := OwnEntry(managedFields, keys)
	if !ok {
		return false
	}
	return EntryNamesExactly(entry, manifest)
}

// EntryNamesExactly is NamesExactly for an entry that OwnEntry has given.
func EntryNamesExactly(entry metav1.ManagedFieldsEntry, manifest []byte) bool {
	fields, err := parseFields(rawFields(&entry))
	if err != nil {
		return false
	}
	var object map[string]any
	if err := decode(manifest, &object); err != nil {
		return false
	}
	apiVersion, _ := object["apiVersion"].(string)
	kind, _ := object["kind"].(string)
	if apiVersion == "" || apiVersion != entry.APIVersion {
		return false
	}
	group, _, grouped := strings.Cut(apiVersion, "/")
	if !grouped {
		group = ""
	}
	if _, has := object["stringData"]; has && group == "" && kind == "Secret" {
		return false
	}
	w := walker{builtIn: builtIn(group)}
	return w.object(fields, withoutIdentity(object))
}

// withoutIdentity leaves out the fields that managedFields never name.
func withoutIdentity(object map[string]any) map[string]any {
	rest := make(map[string]any, len(object))
	for key, value := range object {
		if key != "apiVersion" && key != "kind" {
			rest[key] = value
		}
	}
	meta, ok := rest["metadata"].(map[string]any)
	if !ok {
		return rest
	}
	named := make(map[string]any, len(meta))
	for key, value := range meta {
		if !neverNamed(key) {
			named[key] = value
		}
	}
	rest["metadata"] = named
	if len(named) == 0 {
		delete(rest, "metadata")
	}
	return rest
}

// neverNamed tells whether the API server keeps a field of metadata out of
// managedFields.
func neverNamed(metadata string) bool {
	switch metadata {
	case "name", "namespace", "creationTimestamp", "selfLink", "uid", "clusterName", "generation",
		"managedFields", "resourceVersion":
		return true
	}
	return false
}

// builtIn tells whether a group is compiled into the API server and has no map
// with objects or lists as values. In such a kind, a map or list that is named
// without its children is atomic: a granular one would not be named itself.
func builtIn(group string) bool {
	switch group {
	case "", "apps", "batch", "autoscaling", "policy", "networking.k8s.io", "rbac.authorization.k8s.io",
		"storage.k8s.io", "apiextensions.k8s.io", "admissionregistration.k8s.io", "scheduling.k8s.io",
		"coordination.k8s.io", "discovery.k8s.io", "node.k8s.io", "flowcontrol.apiserver.k8s.io",
		"apiregistration.k8s.io":
		return true
	}
	return false
}

// walker compares a set of fields with a value.
type walker struct {
	builtIn bool
}

// object compares a granular map: the same keys, and each below it the same.
func (w walker) object(n node, value map[string]any) bool {
	if n.children() != len(value) {
		return false
	}
	for key, v := range value {
		child, ok := n[fieldPrefix+key]
		if !ok || !w.field(child, v, value) {
			return false
		}
	}
	return true
}

// field compares what is named below a key of parent with the value there.
func (w walker) field(n node, value any, parent map[string]any) bool {
	switch v := value.(type) {
	case map[string]any:
		if len(v) == 0 {
			return n.leaf()
		}
		if n.leaf() {
			return w.builtIn
		}
		return w.object(n, v)
	case []any:
		if n.leaf() {
			return w.builtIn || len(v) == 0 || !allLists(parent)
		}
		return w.list(n, v)
	default:
		return n.leaf()
	}
}

// allLists tells whether all values of a map are lists. Such a map may have free
// keys with associative lists as values, which are named themselves; a map with
// another value beside a list has a schema for it, or an untyped list, and then a
// list that is named without its items is atomic.
func allLists(m map[string]any) bool {
	for _, v := range m {
		if _, ok := v.([]any); !ok && v != nil {
			return false
		}
	}
	return true
}

// list compares an associative list: each item is named by exactly one element.
// Items that hold all their keys choose first, so that an item with a defaulted
// key gets what is left.
func (w walker) list(n node, items []any) bool {
	if n.children() != len(items) {
		return false
	}
	free := make(map[string]any, len(n))
	for element := range n {
		if element != self {
			free[element] = nil
		}
	}
	var defaulted []any
	for _, item := range items {
		element, ok := exactElement(free, item)
		if !ok {
			defaulted = append(defaulted, item)
			continue
		}
		delete(free, element)
		if !w.item(n[element], item) {
			return false
		}
	}
	for _, item := range defaulted {
		element, ok := fittingElement(free, item)
		if !ok || !w.item(n[element], item) {
			return false
		}
		delete(free, element)
	}
	return len(free) == 0
}

// item compares what is named below a list element with the item.
func (w walker) item(n node, item any) bool {
	m, ok := item.(map[string]any)
	if !ok {
		return n.leaf()
	}
	if _, ok := n[self]; !ok || n.leaf() {
		return false
	}
	return w.object(n, m)
}

// exactElement finds the element all of whose keys the item holds; of several the
// one with the most keys.
func exactElement(elements map[string]any, item any) (string, bool) {
	found, most := "", 0
	for element := range elements {
		if present, all := matches(element, item); present == all && all > most {
			found, most = element, all
		}
	}
	return found, most > 0
}

// fittingElement finds the one element that the item does not contradict; false
// where there is none or more than one.
func fittingElement(elements map[string]any, item any) (string, bool) {
	found, count := "", 0
	for element := range elements {
		if present, _ := matches(element, item); present > 0 {
			found, count = element, count+1
		}
	}
	return found, count == 1
}

// matches tells how many keys an element has, and how many of them the item holds
// with the same value. A key that the item leaves out may have been defaulted; one
// that it holds with another value makes both numbers differ from any match: 0, 1.
func matches(element string, item any) (present, all int) {
	if raw, ok := strings.CutPrefix(element, valuePrefix); ok {
		var value any
		if decode([]byte(raw), &value) != nil || !sameScalar(value, item) {
			return 0, 1
		}
		return 1, 1
	}
	raw, ok := strings.CutPrefix(element, keyPrefix)
	m, isMap := item.(map[string]any)
	if !ok || !isMap {
		return 0, 1
	}
	var key map[string]any
	if decode([]byte(raw), &key) != nil {
		return 0, 1
	}
	for name, want := range key {
		have, ok := m[name]
		if !ok {
			continue
		}
		if !sameScalar(want, have) {
			return 0, len(key)
		}
		present++
	}
	return present, len(key)
}

// sameScalar compares two decoded JSON scalars; numbers by value.
func sameScalar(a, b any) bool {
	if x, ok := number(a); ok {
		y, ok := number(b)
		return ok && x.Cmp(y) == 0
	}
	switch x := a.(type) {
	case string:
		y, ok := b.(string)
		return ok && x == y
	case bool:
		y, ok := b.(bool)
		return ok && x == y
	case nil:
		return b == nil
	}
	return false
}

// number reads any form in which a decoder hands out a JSON number. Numbers of
// absurd size, whose exact value would take much memory, are none.
func number(v any) (*big.Rat, bool) {
	switch x := v.(type) {
	case interface{ Float64() (float64, error) }:
		text := v.(interface{ String() string }).String()
		if len(text) > maxDigits || strings.ContainsAny(text, "eE") {
			f, err := x.Float64()
			if err != nil {
				return nil, false
			}
			return new(big.Rat).SetFloat64(f), true
		}
		return new(big.Rat).SetString(text)
	case int64:
		return new(big.Rat).SetInt64(x), true
	case int:
		return new(big.Rat).SetInt64(int64(x)), true
	case float64:
		r := new(big.Rat).SetFloat64(x)
		return r, r != nil
	}
	return nil, false
}

// maxDigits bounds the length of a number that is compared exactly.
const maxDigits = 40
