package plan

import (
	"cmp"
	"slices"
	"strings"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// The stages in the order in which they are carried out.
const (
	// StageDefinitions are CustomResourceDefinitions, Namespaces and ClusterRoles.
	StageDefinitions = "definitions"
	// StageClasses are kinds whose name ends in Class.
	StageClasses = "classes"
	// StageCustom are the kinds that the operator's configuration names.
	StageCustom = "custom"
	// StageRest is everything else.
	StageRest = "rest"
	// StagePrune are the deletions.
	StagePrune = "prune"
)

// first and last are kinds that are applied before and after all others of their
// stage, in this order. It is the order of Flux's apply engine.
func first() []string {
	return []string{
		"CustomResourceDefinition", "Namespace", "ClusterRole",
		"ClusterClass", "RuntimeClass", "PriorityClass", "StorageClass", "VolumeSnapshotClass", "IngressClass", "GatewayClass",
		"ClusterRoleBinding", "ResourceQuota", "ServiceAccount", "Role", "RoleBinding", "ConfigMap", "Secret", "Service",
		"LimitRange", "Deployment", "StatefulSet", "CronJob", "PodDisruptionBudget",
	}
}

func last() []string {
	return []string{"MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"}
}

// Rank orders kinds within a stage: lower ranks are applied first and deleted
// last, objects of one rank at the same time.
func Rank(kind string) int {
	if i := slices.Index(first(), kind); i >= 0 {
		return i - len(first())
	}
	return 1 + slices.Index(last(), kind)
}

// Wave is a coarser Rank, for writing: kinds of one wave are written at the same
// time, because none of them needs another one of its wave to be accepted or to
// come up. A RoleBinding needs its Role, what runs needs what it mounts and the
// limits that it is admitted under, and webhooks come when all else is there.
func Wave(kind string) int {
	switch kind {
	case "ClusterRoleBinding", "ResourceQuota", "ServiceAccount", "Role", "ConfigMap", "Secret", "Service", "LimitRange":
		return -2
	case "RoleBinding":
		return -1
	case "Deployment", "StatefulSet", "CronJob", "PodDisruptionBudget":
		return 0
	}
	if rank := Rank(kind); rank >= 0 {
		return rank
	}
	return Rank(kind) - len(first())
}

// IsDefinition tells whether objects of a kind have to be there before others
// can be applied.
func IsDefinition(kind gitops.GroupKind) bool {
	return IsCustomResourceDefinition(kind) || IsNamespace(kind) ||
		kind == gitops.GroupKind{Group: "rbac.authorization.k8s.io", Kind: "ClusterRole"}
}

func stageOf(kind gitops.GroupKind, custom []gitops.GroupKind) string {
	switch {
	case IsDefinition(kind):
		return StageDefinitions
	case strings.HasSuffix(kind.Kind, "Class"):
		return StageClasses
	case slices.Contains(custom, kind):
		return StageCustom
	}
	return StageRest
}

// stages sorts changes into stages without empty ones.
func stages(changes []gitops.Change, custom []gitops.GroupKind) []gitops.Stage {
	byName := map[string][]gitops.Change{}
	for _, c := range changes {
		name := stageOf(c.Ref.GroupKind(), custom)
		byName[name] = append(byName[name], c)
	}
	var out []gitops.Stage
	for _, name := range []string{StageDefinitions, StageClasses, StageCustom, StageRest} {
		if changes := byName[name]; len(changes) > 0 {
			slices.SortFunc(changes, compareChanges)
			out = append(out, gitops.Stage{Name: name, Changes: changes})
		}
	}
	return out
}

// compareChanges is the order of applying; its reverse is that of deleting.
func compareChanges(a, b gitops.Change) int {
	return cmp.Or(
		cmp.Compare(Rank(a.Ref.Kind), Rank(b.Ref.Kind)),
		cmp.Compare(a.Ref.Group, b.Ref.Group),
		cmp.Compare(a.Ref.Kind, b.Ref.Kind),
		cmp.Compare(a.Ref.Namespace, b.Ref.Namespace),
		cmp.Compare(a.Ref.Name, b.Ref.Name),
	)
}
