package flux

import (
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

const (
	// kustomizeManager is the field manager of applied objects: that of Flux's
	// kustomize-controller, so that ownership goes on when a cluster switches.
	kustomizeManager = "kustomize-controller"
	// kustomizeStatusManager writes statuses of Kustomizations.
	kustomizeStatusManager = "gotk-kustomize-controller"
	// sourceManager writes statuses of sources.
	sourceManager = "source-controller"

	kustomizeGroup = "kustomize.toolkit.fluxcd.io"
	sourceGroup    = "source.toolkit.fluxcd.io"
	generatorGroup = "source.extensions.fluxcd.io"

	// watcherManager is the field manager of generated objects, and says in their label
	// managedByLabel who works on them.
	watcherManager = "source-watcher"
	managedByLabel = "app.kubernetes.io/managed-by"

	// orphanAnnotation releases an object that is being deleted without
	// deleting what it manages.
	orphanAnnotation = "plumb.dev/orphan"

	// ApproveAnnotation confirms the held deletions of a revision, which is its value.
	ApproveAnnotation = "plumb.dev/approve-deletion"
	// guardAnnotation of an object lets its deletion need no confirmation, where it
	// is "disabled".
	guardAnnotation = "plumb.dev/deletion-guard"
	// isolationAnnotation of a Kustomization, where it is "enabled", applies the rest
	// of a build where the cluster refuses an object.
	isolationAnnotation = "plumb.dev/failure-isolation"
	// HeldCondition is our own condition: deletions wait for a confirmation. It is
	// also the reason of the event about them.
	HeldCondition = "DeletionHeld"

	// contestedCondition is our own condition: a field of a managed object is
	// changed again and again by somebody else.
	contestedCondition = "Contested"

	// OwnedByOtherCondition is our own condition: objects are left alone because they
	// belong to another owner, which declares them too. It is there only while some are.
	OwnedByOtherCondition = "OwnedByOther"

	// progressDelay is how long a run waits before it writes a status that only
	// says that it waits: most waits are over by then.
	progressDelay = time.Second
)

// Keys are the names that Flux's kustomize-controller uses on managed objects.
// The override managers are taken over like kubectl's.
func Keys(overrideManagers ...string) gitops.Keys {
	return gitops.Keys{
		OwnerGroup:          kustomizeGroup,
		OwnerKind:           kustomizev1.KustomizationKind,
		OwnerNameLabel:      kustomizeGroup + "/name",
		OwnerNamespaceLabel: kustomizeGroup + "/namespace",
		Apply:               kustomizeGroup + "/ssa",
		Force:               kustomizeGroup + "/force",
		Prune:               kustomizeGroup + "/prune",
		Reconcile:           kustomizeGroup + "/reconcile",
		Substitute:          kustomizeGroup + "/substitute",
		DeletionGuard:       guardAnnotation,
		Decrypt:             kustomizeGroup + "/decrypt",
		Manager:             kustomizeManager,
		TakeOver:            append([]string{"kubectl", "before-first-apply"}, overrideManagers...),
		KeepFields: []string{
			"kubectl.kubernetes.io/restartedAt",
			meta.ReconcileRequestAnnotation,
			meta.ForceRequestAnnotation,
			"reconcile.fluxcd.io/resetAt",
		},
		DropAnnotations: []string{
			"kubectl.kubernetes.io/last-applied-configuration",
			kustomizeGroup + "/checksum",
			"fluxcd.io/sync-checksum",
		},
		DropLabels: []string{"fluxcd.io/sync-gc-mark"},
	}
}

// kustomizationRef names a Kustomization as the owner of work.
func kustomizationRef(obj *kustomizev1.Kustomization) gitops.OwnerRef {
	return gitops.OwnerRef{
		Group: kustomizeGroup, Kind: kustomizev1.KustomizationKind,
		Namespace: obj.Namespace, Name: obj.Name, UID: string(obj.UID),
	}
}

// sourceOwner names an object of a kind as a source.
func sourceOwner(obj client.Object, kind string) gitops.OwnerRef {
	return gitops.OwnerRef{Group: sourceGroup, Kind: kind, Namespace: obj.GetNamespace(), Name: obj.GetName(), UID: string(obj.GetUID())}
}

// sourceRef names the source that a Kustomization follows.
func sourceRef(obj *kustomizev1.Kustomization) gitops.OwnerRef {
	namespace := obj.Spec.SourceRef.Namespace
	if namespace == "" {
		namespace = obj.Namespace
	}
	return gitops.OwnerRef{Group: sourceGroup, Kind: obj.Spec.SourceRef.Kind, Namespace: namespace, Name: obj.Spec.SourceRef.Name}
}

const (
	// SessionSuffix ends the names of the sessions in which service accounts are at AWS.
	SessionSuffix = "fluxcd.io"
	// GoogleProviderAnnotation of a service account names a workload identity provider of
	// Google Cloud, for clusters outside of it.
	GoogleProviderAnnotation = "gcp.auth.fluxcd.io/workload-identity-provider"
)
