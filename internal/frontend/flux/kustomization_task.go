package flux

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"strings"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	apikustomize "github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/apis/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/plumb-gitops/plumb/internal/build"
	"github.com/plumb-gitops/plumb/internal/engine"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/health"
)

// refuseKustomization names the first thing that the spec asks for and that
// this version does not do. A refused object is left exactly as it is.
func refuseKustomization(obj *kustomizev1.Kustomization, options KustomizationOptions) *blocked {
	spec := &obj.Spec
	unserved := map[string]bool{
		"spec.decryption.provider":                      spec.Decryption != nil && spec.Decryption.Provider != sopsProvider,
		"spec.sourceRef of kind " + spec.SourceRef.Kind: !options.followsKind(spec.SourceRef.Kind),
	}
	for _, field := range sortedKeys(unserved) {
		if unserved[field] {
			return refused(field)
		}
	}
	if b := refuseIdentity(obj); b != nil {
		return b
	}
	if b := refuseDecryption(spec.Decryption, options); b != nil {
		return b
	}
	if ns := spec.SourceRef.Namespace; options.NoCrossNamespaceRefs && ns != "" && ns != obj.Namespace {
		return &blocked{reason: accessDeniedReason, stalled: true, cause: fmt.Errorf(
			"can't access '%s/%s/%s', cross-namespace references have been blocked", spec.SourceRef.Kind, ns, spec.SourceRef.Name)}
	}
	return nil
}

// refuseIdentity says why nothing can be done for the object in any cluster.
func refuseIdentity(obj *kustomizev1.Kustomization) *blocked {
	if name := obj.Spec.ServiceAccountName; name != "" && len(validation.IsDNS1123Subdomain(name)) > 0 {
		return &blocked{reason: accessDeniedReason, stalled: true, cause: fmt.Errorf("spec.serviceAccountName %q is no name of a service account", name)}
	}
	return nil
}

const accessDeniedReason = "AccessDenied"

// refused says that a field asks for something that is not served yet.
func refused(field string) *blocked {
	return &blocked{reason: meta.FeatureGateDisabledReason, stalled: true, cause: fmt.Errorf(
		"%s is not served by this version of Plumb; the object is left as it is until the field is removed", field)}
}

// snapshot gives the newest revision of the source that the object follows.
func (k *kustomizations) snapshot(obj *kustomizev1.Kustomization) (gitops.Snapshot, error) {
	source := sourceRef(obj)
	err := k.sources.failure(source)
	if errors.Is(err, errNoArtifact) {
		return gitops.Snapshot{}, &blocked{reason: meta.ArtifactFailedReason, retry: k.options.RequeueDependency, waiting: true,
			cause: fmt.Errorf("source artifact not found, waiting for %s '%s/%s'", source.Kind, source.Namespace, source.Name)}
	}
	if err != nil {
		return gitops.Snapshot{}, &blocked{reason: meta.ArtifactFailedReason, retry: retryOf(obj),
			cause: fmt.Errorf("get the artifact of %s '%s/%s': %w; it is tried again, and at once when the source is reconciled", source.Kind, source.Namespace, source.Name, err)}
	}
	if snapshot, ok := k.sources.acquire(source); ok {
		return snapshot, nil
	}
	b := &blocked{reason: meta.ArtifactFailedReason, retry: k.options.RequeueDependency, waiting: true}
	if k.sourceExists(source) {
		b.cause = fmt.Errorf("source artifact not found, waiting for %s '%s/%s'", source.Kind, source.Namespace, source.Name)
		if obj.Status.LastAppliedRevision != "" {
			b.hush(k.sources.missing(source, k.clock.Now()))
		}
	} else {
		b.cause = fmt.Errorf("source '%s/%s/%s' not found", source.Kind, source.Namespace, source.Name)
	}
	return gitops.Snapshot{}, b
}

// maintenance is the task of keeping what was applied before.
func (k *kustomizations) maintenance(obj *kustomizev1.Kustomization, access engine.Access) engine.Task {
	inventory, err := fromInventory(obj.Status.Inventory)
	// What is watched stays the same. Checks that are wrong are told of by the task.
	watched, _ := checks(obj)
	watched.Rules, _ = k.rules.of(obj)
	return engine.Task{
		Checks:     watched,
		Owner:      kustomizationRef(obj),
		Access:     access,
		Generation: obj.Generation,
		WriteAhead: k.writeAhead(obj, obj.Status.LastAttemptedRevision),
		Inventory:  inventory,
		Unreadable: err,
		Force:      obj.Spec.Force,
		Isolate:    strings.EqualFold(obj.Annotations[isolationAnnotation], kustomizev1.EnabledValue),
		Timeout:    obj.GetTimeout(),
		Retry:      retryOf(obj),
		RetryLimit: obj.Spec.Interval.Duration,
	}
}

// task translates the object into what the engine is to do.
func (k *kustomizations) task(obj *kustomizev1.Kustomization, access engine.Access, snapshot gitops.Snapshot, rules *health.Rules) (engine.Task, error) {
	spec, err := k.buildSpec(obj)
	if err != nil {
		return engine.Task{}, err
	}
	task := k.maintenance(obj, access)
	task.Snapshot = &snapshot
	task.Build = spec
	task.Prune = obj.Spec.Prune
	task.Approved = obj.Annotations[ApproveAnnotation]
	if c := conditionsOf(obj).get(HeldCondition); c.Status == "True" {
		task.Held = gitops.HoldReason(c.Reason)
	}
	if requested(obj.Annotations, obj.Status.ReconcileRequestStatus) || obj.Status.ObservedGeneration != obj.Generation {
		task.Compare = fmt.Sprintf("%d %s", obj.Generation, obj.Annotations[meta.ReconcileRequestAnnotation])
	}
	task.Checks, err = checks(obj)
	if err != nil {
		return engine.Task{}, err
	}
	task.Checks.Rules = rules
	task.Last = lastSuccess(obj)
	task.Siblings = func() []engine.Sibling { return k.siblings(obj) }
	task.WriteAhead = k.writeAhead(obj, snapshot.Artifact.Revision)
	return task, nil
}

// writeAhead stores an inventory before objects are written that may not be in
// the stored one.
func (k *kustomizations) writeAhead(obj *kustomizev1.Kustomization, revision string) func(context.Context, gitops.Inventory) error {
	return func(ctx context.Context, inventory gitops.Inventory) error {
		before, err := k.objects.get(ctx, client.ObjectKeyFromObject(obj))
		if err != nil {
			return fmt.Errorf("store inventory: %w", err)
		}
		after := before.DeepCopy()
		describeProgress(conditioned{list: &after.Status.Conditions, generation: obj.Generation}, revision, obj.GetTimeout())
		after.Status.Inventory = toInventory(inventory, before.Status.Inventory)
		if _, err := k.objects.patchStatus(ctx, before, after); err != nil {
			return fmt.Errorf("store inventory: %w", err)
		}
		return nil
	}
}

// siblings are the Kustomizations that follow the same source and are worked on.
func (k *kustomizations) siblings(obj *kustomizev1.Kustomization) []engine.Sibling {
	var list kustomizev1.KustomizationList
	err := k.objects.client.List(context.Background(), &list,
		client.MatchingFields{indexSource: sourceRef(obj).String()}, client.UnsafeDisableDeepCopy)
	if err != nil {
		return nil // the cache is stopping
	}
	var siblings []engine.Sibling
	for i := range list.Items {
		sibling := &list.Items[i]
		if sibling.Spec.Suspend || !sibling.DeletionTimestamp.IsZero() || !serves(k.selector, sibling) || refuseKustomization(sibling, k.options) != nil {
			continue
		}
		siblings = append(siblings, engine.Sibling{Owner: kustomizationRef(sibling), Generation: sibling.Generation})
	}
	return siblings
}

// lastSuccess is what the status remembers of the last run that succeeded.
func lastSuccess(obj *kustomizev1.Kustomization) engine.Success {
	latest := obj.Status.History.Latest()
	if latest == nil || latest.LastReconciledStatus != meta.ReconciliationSucceededReason {
		return engine.Success{}
	}
	return engine.Success{
		Revision: obj.Status.LastAppliedRevision,
		Digest:   latest.Digest,
		At:       latest.LastReconciled.Time,
		// It moves with success, and with what only another specification can mend.
		Generation: obj.Status.ObservedGeneration,
		// What is contested is found again by comparing, not remembered.
		Ready: conditionsOf(obj).is(meta.ReadyCondition, "True") && !conditionsOf(obj).is(contestedCondition, "True"),
	}
}

// maxNamedChecks bounds the objects that one Kustomization names to be healthy.
const maxNamedChecks = 500

// checks translates wait and healthChecks. With wait, healthChecks are ignored,
// as in Flux.
func checks(obj *kustomizev1.Kustomization) (engine.Checks, error) {
	if obj.Spec.Wait {
		return engine.Checks{All: true}, nil
	}
	var c engine.Checks
	if n := len(obj.Spec.HealthChecks); n > maxNamedChecks {
		return c, &blocked{reason: meta.HealthCheckFailedReason, stalled: true,
			cause: fmt.Errorf("spec.healthChecks names %d objects, each of which is watched; at most %d are served: use wait, or several Kustomizations", n, maxNamedChecks)}
	}
	for _, check := range obj.Spec.HealthChecks {
		gv, err := schema.ParseGroupVersion(check.APIVersion)
		if err != nil {
			return c, &blocked{reason: meta.HealthCheckFailedReason, stalled: true, cause: fmt.Errorf("read spec.healthChecks: %w", err)}
		}
		namespace := check.Namespace
		if namespace == "" {
			namespace = obj.Namespace
		}
		if check.Kind == kustomizev1.KustomizationKind && check.Name == obj.Name && namespace == obj.Namespace {
			continue // an object cannot wait for itself
		}
		c.Objects = append(c.Objects, gitops.InventoryEntry{
			Ref:     gitops.ObjectRef{Group: gv.Group, Kind: check.Kind, Namespace: namespace, Name: check.Name},
			Version: gv.Version,
		})
	}
	return c, nil
}

// buildSpec translates what concerns the build.
func (k *kustomizations) buildSpec(obj *kustomizev1.Kustomization) (build.Spec, error) {
	s := obj.Spec
	spec := build.Spec{
		Owner:           kustomizationRef(obj),
		Path:            s.Path,
		TargetNamespace: s.TargetNamespace,
		NamePrefix:      s.NamePrefix,
		NameSuffix:      s.NameSuffix,
		Components:      s.Components,

		IgnoreMissingComponents: s.IgnoreMissingComponents,
	}
	ignore, err := ignoreRules(obj)
	if err != nil {
		return spec, err
	}
	spec.Ignore = ignore
	for _, option := range s.BuildMetadata {
		spec.Metadata = append(spec.Metadata, string(option))
	}
	if m := s.CommonMetadata; m != nil {
		spec.CommonLabels, spec.CommonAnnotations = m.Labels, m.Annotations
	}
	for _, p := range s.Patches {
		spec.Patches = append(spec.Patches, build.Patch{Patch: p.Patch, Target: selector(p.Target)})
	}
	for _, i := range s.Images {
		spec.Images = append(spec.Images, build.Image{Name: i.Name, NewName: i.NewName, NewTag: i.NewTag, Digest: i.Digest})
	}
	if spec.Decryption, err = k.decryption(obj); err != nil || s.PostBuild == nil {
		return spec, err
	}
	variables, secret, err := k.variables(obj)
	if err != nil {
		return spec, err
	}
	spec.Substitute = &build.Substitution{
		Variables: variables,
		Secret:    secret,
		Strict:    k.options.StrictSubstitution,
		Always:    obj.GetSubstituteStrategy() == kustomizev1.SubstituteStrategyAlways,
	}
	return spec, nil
}

// maxIgnoredPaths bounds the fields that one Kustomization leaves to others.
const maxIgnoredPaths = 1000

// ignoreRules translates spec.ignore.
func ignoreRules(obj *kustomizev1.Kustomization) ([]build.IgnoreRule, error) {
	wrong := func(err error) *blocked {
		return &blocked{reason: meta.ReconciliationFailedReason, stalled: true, cause: err}
	}
	var rules []build.IgnoreRule
	paths := 0
	for i, rule := range obj.Spec.Ignore {
		r := build.IgnoreRule{Paths: rule.Paths, Target: selector(rule.Target)}
		if err := r.Check(); err != nil {
			return nil, wrong(fmt.Errorf("spec.ignore[%d]: %w", i, err))
		}
		if paths += len(rule.Paths); paths > maxIgnoredPaths {
			return nil, wrong(fmt.Errorf("spec.ignore has more than %d paths: use several Kustomizations", maxIgnoredPaths))
		}
		rules = append(rules, r)
	}
	return rules, nil
}

func selector(s *apikustomize.Selector) *build.Selector {
	if s == nil {
		return nil
	}
	return &build.Selector{
		Group: s.Group, Version: s.Version, Kind: s.Kind, Name: s.Name, Namespace: s.Namespace,
		LabelSelector: s.LabelSelector, AnnotationSelector: s.AnnotationSelector,
	}
}

// variableName is what a variable may be called.
var variableName = regexp.MustCompile(`^[_a-zA-Z][_a-zA-Z0-9]*$`)

// variables are those of substituteFrom in order, a later one over an earlier
// one, and those of substitute over them all. Newlines are removed from values,
// as Flux does. Secret are the names of those that come from Secrets.
func (k *kustomizations) variables(obj *kustomizev1.Kustomization) (variables map[string]string, secret map[string]bool, err error) {
	variables, secret = map[string]string{}, map[string]bool{}
	for _, from := range obj.Spec.PostBuild.SubstituteFrom {
		data, err := k.references.read(variablesIn(obj, from, k.options))
		switch {
		case errors.Is(err, errReferenceMissing) && from.Optional:
			continue
		case errors.Is(err, errReferenceUnread):
			return nil, nil, &blocked{reason: meta.BuildFailedReason, waiting: true, quiet: true, retry: k.options.RequeueDependency,
				cause: fmt.Errorf("substitute from '%s/%s': %w", from.Kind, from.Name, err)}
		case errors.Is(err, errReferenceDenied):
			return nil, nil, &blocked{reason: meta.BuildFailedReason, retry: retryOf(obj),
				cause: fmt.Errorf("substitute from '%s/%s' in namespace %q: %w", from.Kind, from.Name, obj.Namespace, err)}
		case err != nil:
			return nil, nil, &blocked{reason: meta.BuildFailedReason, retry: retryOf(obj),
				cause: fmt.Errorf("substitute from '%s/%s' in namespace %q: %w; create it, or set optional: true on the reference", from.Kind, from.Name, obj.Namespace, err)}
		}
		for name, value := range data {
			if err := addVariable(variables, name, string(value)); err != nil {
				return nil, nil, badVariable(obj, fmt.Sprintf("%s %s/%s", from.Kind, obj.Namespace, from.Name), err)
			}
			secret[name] = from.Kind == secretKind
		}
	}
	for _, name := range sortedKeys(obj.Spec.PostBuild.Substitute) {
		if err := addVariable(variables, name, obj.Spec.PostBuild.Substitute[name]); err != nil {
			return nil, nil, badVariable(obj, "spec.postBuild.substitute", err)
		}
		delete(secret, name)
	}
	return variables, secret, nil
}

func addVariable(variables map[string]string, name, value string) error {
	if !variableName.MatchString(name) {
		return fmt.Errorf("%q is not a variable name: it must match %s", name, variableName)
	}
	variables[name] = strings.ReplaceAll(value, "\n", "")
	return nil
}

func badVariable(obj *kustomizev1.Kustomization, where string, err error) *blocked {
	return &blocked{reason: meta.BuildFailedReason, retry: retryOf(obj), cause: fmt.Errorf("%s: %w", where, err)}
}
