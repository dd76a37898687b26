package flux

import (
	"fmt"
	"strings"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// ociRepositories is the kind OCIRepository.
type ociRepositories struct {
	secrets sourceSecrets
	options SourceOptions
}

func (ociRepositories) name() string                   { return sourcev1.OCIRepositoryKind }
func (ociRepositories) empty() *sourcev1.OCIRepository { return &sourcev1.OCIRepository{} }
func (ociRepositories) latest() string                 { return artifact.LatestArchive }

// settled is false: what is newer, only the server knows.
func (ociRepositories) settled(*sourcev1.OCIRepository, pursuit[OCIRequest]) bool { return false }

func (ociRepositories) status(obj *sourcev1.OCIRepository) sourceStatus {
	s := &obj.Status
	return sourceStatus{artifact: &s.Artifact, conditions: &s.Conditions, generation: &s.ObservedGeneration, request: &s.ReconcileRequestStatus, url: &s.URL}
}

func (ociRepositories) settings(obj *sourcev1.OCIRepository) sourceSettings {
	return sourceSettings{suspended: obj.Spec.Suspend, timeout: obj.Spec.Timeout, address: redactedURL(obj.Spec.URL)}
}

func (ociRepositories) refuse(obj *sourcev1.OCIRepository) *blocked {
	return unsafeURL(obj.Spec.URL, "oci")
}

// follow translates what is to be pulled.
func (o ociRepositories) follow(obj *sourcev1.OCIRepository) (pursuit[OCIRequest], error) {
	spec, owner := &obj.Spec, sourceOwner(obj, o.name())
	p := pursuit[OCIRequest]{
		request: OCIRequest{
			URL: rewritten(o.options.Rewrites, spec.URL), Insecure: spec.Insecure,
			Layer: OCILayer{MediaType: obj.GetLayerMediaType(), Copy: obj.GetLayerOperation() == sourcev1.OCILayerCopy},
		},
	}
	if ref := spec.Reference; ref != nil {
		p.request.Ref = OCIRef{Tag: ref.Tag, SemVer: ref.SemVer, SemVerFilter: ref.SemverFilter, Digest: ref.Digest}
	}
	if err := o.credentials(obj, owner, &p.request); err != nil {
		return p, err
	}
	p.content = contentOf(spec.URL, spec.Reference, spec.Ignore, spec.LayerSelector, p.request.Verification)
	if !p.request.Layer.Copy {
		p.compose = func(files gitops.Tree) (gitops.Tree, error) { return filtered(files, spec.Ignore) }
	}
	return p, nil
}

// credentials reads what the object refers to. Only without a docker configuration is the
// cloud logged in to.
func (o ociRepositories) credentials(obj *sourcev1.OCIRepository, owner gitops.OwnerRef, request *OCIRequest) error {
	spec := &obj.Spec
	wanted := []*meta.LocalObjectReference{spec.SecretRef, spec.CertSecretRef, spec.ProxySecretRef}
	if spec.Verify != nil {
		wanted = append(wanted, spec.Verify.SecretRef, spec.Verify.TrustedRootSecretRef)
	}
	var err error
	if spec.ServiceAccountName != "" {
		if request.Auth.DockerConfigs, err = o.secrets.pullSecrets(owner, spec.ServiceAccountName, wanted...); err != nil {
			return err
		}
	} else if err = o.secrets.want(owner, wanted...); err != nil {
		return err
	}
	if spec.SecretRef != nil {
		data, err := o.secrets.secret(owner, spec.SecretRef.Name)
		if err != nil {
			return err
		}
		config, err := dockerConfig(owner, spec.SecretRef.Name, data)
		if err != nil {
			return err
		}
		request.Auth.DockerConfigs = append([][]byte{config}, request.Auth.DockerConfigs...)
	}
	if len(request.Auth.DockerConfigs) == 0 {
		if b := o.options.gated(spec.Provider, spec.ServiceAccountName); b != nil {
			return b
		}
		request.Login = o.options.login(spec.Provider, obj.Namespace, spec.ServiceAccountName)
	}
	if b := ownLogin(request.Login, map[string]bool{"spec.insecure": spec.Insecure, "spec.certSecretRef": spec.CertSecretRef != nil}); b != nil {
		return b
	}
	if request.TLS, err = o.secrets.tls(owner, spec.CertSecretRef); err != nil {
		return err
	}
	if request.Proxy, err = o.secrets.proxy(owner, spec.ProxySecretRef); err != nil {
		return err
	}
	if v := spec.Verify; v != nil {
		request.Verification, err = o.secrets.verification(owner, v.Provider, v.SecretRef, v.TrustedRootSecretRef, v.MatchOIDCIdentity)
	}
	return err
}

// loginOf is the login that a provider means.
func loginOf(provider, namespace, account string) Login {
	switch provider {
	case "", sourcev1.GenericOCIProvider:
		return Login{}
	}
	return Login{Provider: provider, Namespace: namespace, ServiceAccount: account}
}

// verification reads whose signatures are asked for.
func (s sourceSecrets) verification(owner gitops.OwnerRef, provider string, secret, root *meta.LocalObjectReference, identities []sourcev1.OIDCIdentityMatch) (*Verification, error) {
	v := &Verification{Provider: provider}
	for _, identity := range identities {
		v.Identities = append(v.Identities, Identity{Issuer: identity.Issuer, Subject: identity.Subject})
	}
	if root != nil {
		data, err := s.trust(owner, root.Name)
		if err != nil {
			return nil, err
		}
		if v.TrustedRoot = data["trusted_root.json"]; len(v.TrustedRoot) == 0 {
			return nil, unverifiable(owner, root.Name, "has no key 'trusted_root.json'")
		}
	}
	if secret == nil {
		if provider == "notation" {
			return nil, &blocked{reason: sourcev1.VerificationError, cause: fmt.Errorf("verification with notation needs spec.verify.secretRef, with 'trustpolicy.json' and certificates")}
		}
		return v, nil
	}
	data, err := s.trust(owner, secret.Name)
	if err != nil {
		return nil, err
	}
	if provider == "notation" {
		return notationTrust(owner, secret.Name, data, v)
	}
	v.Keys = map[string][]byte{}
	for name, key := range data {
		if strings.HasSuffix(name, ".pub") {
			v.Keys[name] = key
		}
	}
	if len(v.Keys) == 0 {
		return nil, unverifiable(owner, secret.Name, "has no public key under a name that ends in '.pub'")
	}
	return v, nil
}

func notationTrust(owner gitops.OwnerRef, name string, data map[string][]byte, v *Verification) (*Verification, error) {
	if v.TrustPolicy = data["trustpolicy.json"]; len(v.TrustPolicy) == 0 {
		return nil, unverifiable(owner, name, "has no key 'trustpolicy.json'")
	}
	v.Certificates = map[string][]byte{}
	for file, certificate := range data {
		if strings.HasSuffix(file, ".crt") || strings.HasSuffix(file, ".pem") {
			v.Certificates[file] = certificate
		}
	}
	if len(v.Certificates) == 0 {
		return nil, unverifiable(owner, name, "has no certificate under a name that ends in '.crt' or '.pem'")
	}
	return v, nil
}

func unverifiable(owner gitops.OwnerRef, name, what string) *blocked {
	return &blocked{reason: sourcev1.VerificationError, cause: fmt.Errorf("secret '%s/%s' %s", owner.Namespace, name, what)}
}

func (ociRepositories) observe(after, started *sourcev1.OCIRepository, _ fetched) {
	after.Status.ObservedIgnore = started.Spec.Ignore
	after.Status.ObservedLayerSelector = started.Spec.LayerSelector
}

func (ociRepositories) words(started *sourcev1.OCIRepository, f fetched) (condition, news string) {
	news = fmt.Sprintf("stored artifact with revision '%s' from '%s'", f.revision, redactedURL(started.Spec.URL))
	from, revision := f.metadata["org.opencontainers.image.source"], f.metadata[originRevisionKey]
	if from != "" && revision != "" {
		news += fmt.Sprintf(", origin source '%s', origin revision '%s'", from, revision)
	}
	return fmt.Sprintf("stored artifact for digest '%s'", f.revision), news
}

func (ociRepositories) reasons(fetched) (success, failure string) {
	return meta.SucceededReason, sourcev1.OCIPullFailedReason
}

// annotations are those of the manifest.
func (ociRepositories) annotations(metadata map[string]string) map[string]string { return metadata }

// file is named after the digest, with its algorithm.
func (ociRepositories) file(revision string, _ map[string]string) string {
	return revision[strings.LastIndexByte(revision, '@')+1:] + ".tar.gz"
}

func (ociRepositories) dependents(gitops.OwnerRef) []client.ObjectKey { return nil }
