package flux

import (
	"context"
	"fmt"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plumb-gitops/plumb/internal/engine"
)

// access says where a Kustomization is applied and with whose rights: those of the
// service account of its own namespace that it names, or of the one that the
// operator's configuration names for all that name none. In a remote cluster the
// account is one of that cluster.
func (k *kustomizations) access(obj *kustomizev1.Kustomization) (engine.Access, error) {
	remote, err := k.remote(obj)
	if err != nil {
		return engine.Access{}, err
	}
	access := engine.Access{Remote: remote}
	if name := k.serviceAccount(obj); name != "" {
		access.User = userOf(obj.Namespace, name)
	}
	return access, nil
}

func (k *kustomizations) serviceAccount(obj *kustomizev1.Kustomization) string {
	if obj.Spec.ServiceAccountName != "" {
		return obj.Spec.ServiceAccountName
	}
	return k.options.DefaultServiceAccount
}

// userOf is the user that a service account is.
func userOf(namespace, account string) string {
	return fmt.Sprintf("system:serviceaccount:%s:%s", namespace, account)
}

// lostAccess says what is gone for certain of that with which a Kustomization was
// applied, "" for nothing: nobody can delete then what was applied with it. Whoever
// cannot find out gets the error, and has to ask again.
func (k *kustomizations) lostAccess(ctx context.Context, obj *kustomizev1.Kustomization) (string, error) {
	if obj.Spec.KubeConfig != nil {
		ref := remoteReference(obj, k.options)
		lost, err := k.lostRemote(ctx, ref)
		if err != nil || !lost {
			return "", err
		}
		return fmt.Sprintf("%s '%s/%s', with which the cluster was reached that they are in, does not exist any more", ref.kind, ref.namespace, ref.name), nil
	}
	name := k.serviceAccount(obj)
	if name == "" {
		return "", nil
	}
	_, err := k.references.client.CoreV1().ServiceAccounts(obj.Namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Sprintf("service account '%s/%s', with whose rights they were applied, does not exist any more", obj.Namespace, name), nil
	case err != nil:
		return "", fmt.Errorf("look for service account %q: %w", name, err)
	}
	return "", nil
}
