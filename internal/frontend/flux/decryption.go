package flux

import (
	"errors"
	"fmt"
	"maps"
	"path"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"

	"github.com/plumb-gitops/plumb/internal/auth"
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
	if ref := options.vaultConfig(obj); ref.name != "" {
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

// vaultConfig is the operator's ConfigMap with Vaults, for a Kustomization that may need
// one; without name for others.
func (o KustomizationOptions) vaultConfig(obj *kustomizev1.Kustomization) reference {
	if obj.Spec.Decryption == nil || o.VaultConfig.Name == "" {
		return reference{}
	}
	return reference{kind: configMapKind, namespace: o.VaultConfig.Namespace, name: o.VaultConfig.Name}
}

// refuseDecryption refuses a service account that is none or may not log in.
func refuseDecryption(d *kustomizev1.Decryption, options KustomizationOptions) *blocked {
	switch {
	case d == nil || d.ServiceAccountName == "":
		return nil
	case len(validation.IsDNS1123Subdomain(d.ServiceAccountName)) > 0:
		return &blocked{reason: accessDeniedReason, stalled: true, cause: fmt.Errorf("spec.decryption.serviceAccountName %q is no name of a service account", d.ServiceAccountName)}
	case !options.ServiceAccountLogins:
		return &blocked{reason: meta.FeatureGateDisabledReason, stalled: true, cause: fmt.Errorf(
			"spec.decryption.serviceAccountName needs the operator's feature gate %s; the object is left as it is until the gate is on or the field is removed", auth.ObjectLevelGate)}
	}
	return nil
}

// decryption gives the keys for what a Kustomization builds, and as whom others are asked
// for; nil where it asks for no decryption.
func (k *kustomizations) decryption(obj *kustomizev1.Kustomization) (*build.Decryption, error) {
	if obj.Spec.Decryption == nil {
		return nil, nil
	}
	result := &build.Decryption{}
	account := obj.Spec.Decryption.ServiceAccountName
	if account == "" {
		account = k.options.DefaultDecryptionServiceAccount
	}
	if account != "" {
		result.Account = build.Account{Namespace: obj.Namespace, Name: account}
	}
	if err := k.vaults(obj, result); err != nil {
		return nil, err
	}
	ref, shared := decryptionSecret(obj, k.options)
	if ref.name == "" {
		return result, nil
	}
	data, err := k.references.read(ref)
	result.From = fmt.Sprintf("Secret '%s/%s'", ref.namespace, ref.name)
	if err != nil {
		return nil, k.noKeys(obj, result.From, shared, err)
	}
	if shared {
		data = maps.Clone(data)
		maps.DeleteFunc(data, func(name string, _ []byte) bool { return path.Ext(name) != ageKeys })
	}
	result.Keys = data
	return result, nil
}

// noKeys says why the keys of a Secret are not there.
func (k *kustomizations) noKeys(obj *kustomizev1.Kustomization, from string, shared bool, err error) *blocked {
	b := &blocked{reason: meta.BuildFailedReason, retry: retryOf(obj)}
	switch {
	case errors.Is(err, errReferenceUnread):
		b.waiting, b.quiet, b.retry = true, true, k.options.RequeueDependency
		b.cause = fmt.Errorf("decryption keys in %s: %w", from, err)
	case errors.Is(err, errReferenceDenied):
		b.cause = fmt.Errorf("decryption keys in %s: %w", from, err)
	case shared:
		b.cause = fmt.Errorf("decryption keys in %s, which the operator's --sops-age-secret names: %w; create it, or name a Secret in spec.decryption.secretRef", from, err)
	default:
		b.cause = fmt.Errorf("decryption keys in %s: %w; create it, or correct spec.decryption.secretRef", from, err)
	}
	return b
}

const (
	// vaultEntry is the entry of the ConfigMap with Vaults, as in Flux.
	vaultEntry = "config.yaml"
	// maxVaults is how many there may be.
	maxVaults = 1000
)

// vaults reads at which Vaults somebody may log in. What is wrong with that is told where
// it is needed: who has other keys does not care.
func (k *kustomizations) vaults(obj *kustomizev1.Kustomization, to *build.Decryption) error {
	ref := k.options.vaultConfig(obj)
	if ref.name == "" {
		return nil
	}
	from := fmt.Sprintf("ConfigMap '%s/%s', which the operator's --sops-vault-configmap names", ref.namespace, ref.name)
	data, err := k.references.read(ref)
	if errors.Is(err, errReferenceUnread) {
		return &blocked{reason: meta.BuildFailedReason, waiting: true, quiet: true, retry: k.options.RequeueDependency, cause: fmt.Errorf("%s: %w", from, err)}
	}
	if err == nil {
		to.VaultLogins, err = readVaults(data[vaultEntry])
	}
	if err != nil {
		to.VaultTrouble = fmt.Sprintf("%s: %v", from, err)
	}
	return nil
}

// readVaults reads the paths of logins by the addresses of Vaults.
func readVaults(content []byte) (map[string]string, error) {
	if len(content) == 0 {
		return nil, fmt.Errorf("it has no entry %q", vaultEntry)
	}
	var config kustomizev1.VaultConfig
	if err := yaml.Unmarshal(content, &config); err != nil {
		return nil, fmt.Errorf("entry %q is no YAML with instances, each of which has address and loginPath", vaultEntry)
	}
	if n := len(config.Instances); n > maxVaults {
		return nil, fmt.Errorf("entry %q has %d instances, the limit is %d", vaultEntry, n, maxVaults)
	}
	logins := map[string]string{}
	for i, instance := range config.Instances {
		if instance.Address == "" || instance.LoginPath == "" {
			return nil, fmt.Errorf("entry %q: instances[%d] needs address and loginPath", vaultEntry, i)
		}
		logins[instance.Address] = instance.LoginPath
	}
	return logins, nil
}
