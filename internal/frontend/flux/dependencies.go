package flux

import (
	"context"
	"errors"
	"fmt"
	"sigs.k8s.io/controller-runtime/pkg/client"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/plumb-gitops/plumb/internal/health"
)

// checkDependencies says which dependency is not ready, and nil where all are.
// A dependency of the same source must have applied the same revision.
func (k *kustomizations) checkDependencies(ctx context.Context, obj *kustomizev1.Kustomization, revision string) error {
	if cycle := k.dependencyCycle(ctx, obj); cycle != "" {
		return &blocked{reason: meta.DependencyNotReadyReason, retry: k.options.RequeueDependency,
			cause: fmt.Errorf("dependency cycle: %s; remove one of these dependsOn entries", cycle)}
	}
	for i, ref := range obj.Spec.DependsOn {
		key := dependencyKey(obj, ref)
		// Whether another one is ready may be known; what is in it may not.
		if k.options.NoCrossNamespaceRefs && key.Namespace != obj.Namespace && ref.ReadyExpr != "" {
			return &blocked{reason: accessDeniedReason, stalled: true, cause: fmt.Errorf(
				"spec.dependsOn[%d].readyExpr can't access '%s', cross-namespace references have been blocked", i, key)}
		}
		dep, err := k.objects.get(ctx, key)
		switch {
		case apierrors.IsNotFound(err):
			return k.notReady("dependency '%s' not found", key)
		case err != nil:
			return fmt.Errorf("read dependency '%s': %w", key, err)
		}
		if ref.ReadyExpr != "" {
			ready, err := k.evaluateReady(ref.ReadyExpr, obj, dep)
			if err != nil {
				return err
			}
			if !ready {
				return k.notReady("dependency '%s' is not ready according to readyExpr eval", key)
			}
			if !k.options.AdditiveDependencyCheck {
				continue
			}
		}
		if dep.Generation != dep.Status.ObservedGeneration || !apimeta.IsStatusConditionTrue(dep.Status.Conditions, meta.ReadyCondition) {
			return k.notReady("dependency '%s' is not ready", key)
		}
		if sourceRef(dep) == sourceRef(obj) && dep.Status.LastAppliedRevision != revision {
			return k.notReady("dependency '%s' revision is not up to date", key)
		}
	}
	return nil
}

func (k *kustomizations) notReady(format string, key types.NamespacedName) *blocked {
	return &blocked{reason: meta.DependencyNotReadyReason, waiting: true, retry: k.options.RequeueDependency, cause: fmt.Errorf(format, key)}
}

func dependencyKey(obj *kustomizev1.Kustomization, ref kustomizev1.DependencyReference) types.NamespacedName {
	key := types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}
	if key.Namespace == "" {
		key.Namespace = obj.Namespace
	}
	return key
}

// dependencyCycle names a cycle that goes through the object, as in
// "a/x -> a/y -> a/x", and is empty where there is none. The walk is bounded:
// each object is visited once.
func (k *kustomizations) dependencyCycle(ctx context.Context, obj *kustomizev1.Kustomization) string {
	if len(obj.Spec.DependsOn) == 0 {
		return ""
	}
	start := client.ObjectKeyFromObject(obj)
	visited := map[types.NamespacedName]bool{}
	var walk func(at *kustomizev1.Kustomization, path string) string
	walk = func(at *kustomizev1.Kustomization, path string) string {
		for _, ref := range at.Spec.DependsOn {
			key := dependencyKey(at, ref)
			if key == start {
				return path + " -> " + key.String()
			}
			if visited[key] {
				continue
			}
			visited[key] = true
			next, err := k.objects.get(ctx, key)
			if err != nil {
				continue // a missing dependency is reported as such
			}
			if cycle := walk(next, path+" -> "+key.String()); cycle != "" {
				return cycle
			}
		}
		return ""
	}
	return walk(obj, start.String())
}

// evaluateReady evaluates a readyExpr over self and dep. An expression that
// does not compile or does not give a boolean stalls the object.
func (k *kustomizations) evaluateReady(text string, self, dep *kustomizev1.Kustomization) (bool, error) {
	invalid := func(err error) error {
		return &blocked{reason: meta.InvalidCELExpressionReason, stalled: true,
			cause: fmt.Errorf("readyExpr of dependency '%s': %w", client.ObjectKeyFromObject(dep), err)}
	}
	expression, err := k.rules.language.Compile(text, "self", "dep")
	if err != nil {
		return false, invalid(err)
	}
	variables := map[string]any{}
	for name, obj := range map[string]*kustomizev1.Kustomization{"self": self, "dep": dep} {
		if variables[name], err = runtime.DefaultUnstructuredConverter.ToUnstructured(obj); err != nil {
			return false, fmt.Errorf("convert %s for readyExpr: %w", name, err)
		}
	}
	ready, err := expression.Holds(variables)
	switch {
	case errors.Is(err, health.ErrNotBool):
		return false, invalid(err)
	case err != nil:
		// A field that is not there yet is a state, not a mistake.
		return false, &blocked{reason: meta.DependencyNotReadyReason, waiting: true, retry: k.options.RequeueDependency,
			cause: fmt.Errorf("dependency '%s': readyExpr %w", client.ObjectKeyFromObject(dep), err)}
	}
	return ready, nil
}
