package gitops

import "strings"

// Keys are the names by which a front end recognises its objects and reads what
// they ask for. They are data, so that no stage has to know an API group.
type Keys struct {
	// OwnerGroup and OwnerKind are the group and kind of the owners that the
	// owner labels name.
	OwnerGroup string
	OwnerKind  string
	// OwnerNameLabel and OwnerNamespaceLabel are set on every applied object.
	OwnerNameLabel      string
	OwnerNamespaceLabel string

	// The following are looked for among an object's annotations first and
	// among its labels then. Values are compared without regard to case, but
	// for substitution.

	// Apply names the ApplyMode.
	Apply string
	// Force recreates the object on immutable fields when it is "enabled".
	Force string
	// Prune keeps the object from being pruned when it is "disabled".
	Prune string
	// Reconcile leaves the object alone when it is "disabled".
	Reconcile string
	// DeletionGuard has the object deleted without a confirmation, whatever it is
	// and however many others are, when it is "disabled".
	DeletionGuard string
	// Substitute keeps variables in the object when it is exactly "disabled".
	Substitute string
	// Decrypt leaves the object as it is, encrypted or not, when it is "disabled".
	Decrypt string

	// Manager is the field manager of our Apply operations.
	Manager string
	// TakeOver are the beginnings of the names of field managers whose fields
	// are taken over.
	TakeOver []string
	// KeepFields are annotations that a manager on the take-over list may hold
	// alone without being taken over, such as the one that a rollout restart sets.
	KeepFields []string
	// DropAnnotations and DropLabels are removed from an object when its fields are
	// taken over.
	DropAnnotations, DropLabels []string
}

// Owner is the owner that the labels name; the zero value where they name none.
func (k Keys) Owner(labels map[string]string) OwnerRef {
	name, namespace := labels[k.OwnerNameLabel], labels[k.OwnerNamespaceLabel]
	if name == "" || namespace == "" {
		return OwnerRef{}
	}
	return OwnerRef{Group: k.OwnerGroup, Kind: k.OwnerKind, Namespace: namespace, Name: name}
}

// Policy reads what an object asks for. An unknown value is no wish.
func (k Keys) Policy(annotations, labels map[string]string) ObjectPolicy {
	is := func(key, value string) bool {
		return strings.EqualFold(k.value(key, annotations, labels), value)
	}
	policy := ObjectPolicy{
		Force:       is(k.Force, "enabled"),
		KeepOnPrune: is(k.Prune, "disabled"),
		Paused:      is(k.Reconcile, "disabled"),
		Unguarded:   is(k.DeletionGuard, "disabled"),
	}
	for _, mode := range []ApplyMode{ApplyMerge, ApplyIfNotPresent, ApplyIgnore} {
		if is(k.Apply, string(mode)) {
			policy.Apply = mode
		}
	}
	return policy
}

// KeepsVariables tells whether an object asks for no substitution.
func (k Keys) KeepsVariables(annotations, labels map[string]string) bool {
	return k.value(k.Substitute, annotations, labels) == "disabled"
}

// StaysEncrypted tells whether an object asks not to be decrypted.
func (k Keys) StaysEncrypted(annotations, labels map[string]string) bool {
	return strings.EqualFold(k.value(k.Decrypt, annotations, labels), "disabled")
}

func (Keys) value(key string, annotations, labels map[string]string) string {
	if key == "" {
		return ""
	}
	if v, ok := annotations[key]; ok {
		return v
	}
	return labels[key]
}
