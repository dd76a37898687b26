package gitops

import (
	"cmp"
	"fmt"
	"strings"
)

// OwnerRef names the custom resource that work is done for.
type OwnerRef struct {
	Group     string
	Kind      string
	Namespace string
	Name      string
	// UID tells an owner from a later one of the same name. It is empty where
	// the owner is only referred to, such as in a dependency.
	UID string
}

// Key is the owner without its UID, for use as a map key.
func (o OwnerRef) Key() OwnerRef { o.UID = ""; return o }

// String is Kind/namespace/name.
func (o OwnerRef) String() string { return o.Kind + "/" + o.Namespace + "/" + o.Name }

// ObjectRef names an object in a cluster, whatever version its API is served in.
type ObjectRef struct {
	Group     string
	Kind      string
	Namespace string // empty for cluster-scoped objects
	Name      string
}

// String is Kind/namespace/name, or Kind/name without a namespace: the form in
// which Flux prints objects in conditions and events.
func (r ObjectRef) String() string {
	if r.Namespace == "" {
		return r.Kind + "/" + r.Name
	}
	return r.Kind + "/" + r.Namespace + "/" + r.Name
}

const (
	idSeparator   = "_"
	colonEncoding = "__"
)

// ID is the inventory id namespace_name_group_kind of Flux and cli-utils.
// Colons, which only RBAC names may contain, are written as two underscores.
func (r ObjectRef) ID() string {
	name := r.Name
	if strings.Contains(name, ":") {
		name = strings.ReplaceAll(name, ":", colonEncoding)
	}
	return r.Namespace + idSeparator + name + idSeparator + r.Group + idSeparator + r.Kind
}

// ParseID is the inverse of ObjectRef.ID.
func ParseID(id string) (ObjectRef, error) {
	namespace, rest, ok := strings.Cut(id, idSeparator)
	if !ok {
		return ObjectRef{}, fmt.Errorf("inventory id %q has no namespace part", id)
	}
	rest, kind, ok := cutLast(rest, idSeparator)
	if !ok {
		return ObjectRef{}, fmt.Errorf("inventory id %q has no kind part", id)
	}
	name, group, ok := cutLast(rest, idSeparator)
	if !ok {
		return ObjectRef{}, fmt.Errorf("inventory id %q has no group part", id)
	}
	name = strings.ReplaceAll(name, colonEncoding, ":")
	if name == "" || kind == "" || strings.Contains(name, idSeparator) {
		return ObjectRef{}, fmt.Errorf("inventory id %q is not namespace_name_group_kind", id)
	}
	return ObjectRef{Group: group, Kind: kind, Namespace: namespace, Name: name}, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// CompareRefs orders refs by namespace, name, group and kind, as an inventory
// is ordered.
func CompareRefs(a, b ObjectRef) int {
	return cmp.Or(
		cmp.Compare(a.Namespace, b.Namespace),
		cmp.Compare(a.Name, b.Name),
		cmp.Compare(a.Group, b.Group),
		cmp.Compare(a.Kind, b.Kind),
	)
}

// GroupKind names a kind, whatever its version.
type GroupKind struct {
	Group string
	Kind  string
}

// GroupKind is the kind of the object.
func (r ObjectRef) GroupKind() GroupKind { return GroupKind{Group: r.Group, Kind: r.Kind} }

// String is kind.group, or the kind alone for the core group.
func (k GroupKind) String() string {
	if k.Group == "" {
		return k.Kind
	}
	return k.Kind + "." + k.Group
}
