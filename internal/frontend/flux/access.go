package flux

import (
	"context"
	"fmt"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plumb-gitops/plumb/internal/engine"
)

// access says with whose rights a Kustomization is applied: those of the service
// account of its own namespace that it names, or of the one that the operator's
// configuration names for all that name none.
func (k *kustomizations) access(obj *kustomizev1.Kustomization) engine.Access {
	name := k.serviceAccount(obj)
	if name == "" {
		return engine.Access{}
	}
	return engine.Access{User: fmt.Sprintf("system:serviceaccount:%s:%s", obj.Namespace, name)}
}

func (k *kustomizations) serviceAccount(obj *kustomizev1.Kustomization) string {
	if obj.Spec.ServiceAccountName != "" {
		return obj.Spec.ServiceAccountName
	}
	return k.options.DefaultServiceAccount
}

// lostIdentity tells whether the service account of a Kustomization is gone for
// certain: nobody has the rights then to delete what was applied with them. Whoever
// cannot find out gets the error, and has to ask again.
func (k *kustomizations) lostIdentity(ctx context.Context, obj *kustomizev1.Kustomization) (bool, error) {
	name := k.serviceAccount(obj)
	if name == "" {
		return false, nil
	}
	_, err := k.references.client.CoreV1().ServiceAccounts(obj.Namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for service account %q: %w", name, err)
	}
	return false, nil
}
