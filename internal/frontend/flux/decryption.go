package flux

import (
	"errors"
	"fmt"
	"maps"
	"path"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"

	"github.com/plumb-gitops/plumb/internal/build"
)

const (
	// sopsProvider is the only provider of decryption there is.
	sopsProvider = "sops"
	// ageKeys is how entries with age identities end: the only ones that are taken
	// from the Secret for all Kustomizations.
	ageKeys = ".agekey"
)

// referred are the ConfigMaps and Secrets that a Kustomization is worked on with.
func referred(obj *kustomizev1.Kustomization, options KustomizationOptions) []reference {
	var refs []reference
	if obj.Spec.PostBuild != nil {
		for _, from := range obj.Spec.PostBuild.SubstituteFrom {
			refs = append(refs, variablesIn(obj, from, options))
		}
	}
	if ref, _ := decryptionSecret(obj, options); ref.name != "" {
		refs = append(refs, ref)
	}
	if ref := remoteReference(obj, options); ref.name != "" {
		refs = append(refs, ref)
	}
	return refs
}

func variablesIn(obj *kustomizev1.Kustomization, from kustomizev1.SubstituteReference, options KustomizationOptions) reference {
	return options.ownReference(obj, from.Kind, from.Name)
}

// ownReference is an object of the Kustomization's namespace, to be read with the
// operator's rights or, where that is asked for, with those of its service account. A
// service account that is named beside a remote cluster is one of that cluster.
func (o KustomizationOptions) ownReference(obj *kustomizev1.Kustomization, kind, name string) reference {
	ref := reference{kind: kind, namespace: obj.Namespace, name: name}
	account := obj.Spec.ServiceAccountName
	if obj.Spec.KubeConfig != nil || account == "" {
		account = o.DefaultServiceAccount
	}
	if o.ReferencesAsOwner && account != "" {
		ref.as = userOf(obj.Namespace, account)
	}
	return ref
}

// decryptionSecret is where the keys of a Kustomization are: in the Secret that it
// names itself or, where it names none, in the operator's. The reference has no name
// where there is no Secret.
func decryptionSecret(obj *kustomizev1.Kustomization, options KustomizationOptions) (ref reference, shared bool) {
	switch d := obj.Spec.Decryption; {
	case d == nil:
		return reference{}, false
	case d.SecretRef != nil:
		return options.ownReference(obj, secretKind, d.SecretRef.Name), false
	default:
		return reference{kind: secretKind, namespace: options.AgeSecret.Namespace, name: options.AgeSecret.Name}, true
	}
}

// decryption gives the keys for what a Kustomization builds; nil where it asks for
// no decryption.
func (k *kustomizations) decryption(obj *kustomizev1.Kustomization) (*build.Decryption, error) {
	if obj.Spec.Decryption == nil {
		return nil, nil
	}
	ref, shared := decryptionSecret(obj, k.options)
	if ref.name == "" {
		return &build.Decryption{}, nil
	}
	data, err := k.references.read(ref)
	from := fmt.Sprintf("Secret '%s/%s'", ref.namespace, ref.name)
	switch {
	case errors.Is(err, errReferenceUnread):
		return nil, &blocked{reason: meta.BuildFailedReason, waiting: true, quiet: true, retry: k.options.RequeueDependency,
			cause: fmt.Errorf("decryption keys in %s: %w", from, err)}
	case errors.Is(err, errReferenceDenied):
		return nil, &blocked{reason: meta.BuildFailedReason, retry: obj.GetRetryInterval(), cause: fmt.Errorf("decryption keys in %s: %w", from, err)}
	case err != nil && shared:
		return nil, &blocked{reason: meta.BuildFailedReason, retry: obj.GetRetryInterval(),
			cause: fmt.Errorf("decryption keys in %s, which the operator's --sops-age-secret names: %w; create it, or name a Secret in spec.decryption.secretRef", from, err)}
	case err != nil:
		return nil, &blocked{reason: meta.BuildFailedReason, retry: obj.GetRetryInterval(),
			cause: fmt.Errorf("decryption keys in %s: %w; create it, or correct spec.decryption.secretRef", from, err)}
	}
	if shared {
		data = maps.Clone(data)
		maps.DeleteFunc(data, func(name string, _ []byte) bool { return path.Ext(name) != ageKeys })
	}
	return &build.Decryption{Keys: data, From: from}, nil
}
