package flux

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// buckets is the kind Bucket.
type buckets struct {
	secrets sourceSecrets
	options SourceOptions
}

func (buckets) name() string            { return sourcev1.BucketKind }
func (buckets) empty() *sourcev1.Bucket { return &sourcev1.Bucket{} }
func (buckets) latest() string          { return artifact.LatestArchive }

// settled is false: what is newer, only the server knows.
func (buckets) settled(*sourcev1.Bucket, pursuit[BucketRequest]) bool { return false }

func (buckets) status(obj *sourcev1.Bucket) sourceStatus {
	s := &obj.Status
	return sourceStatus{artifact: &s.Artifact, conditions: &s.Conditions, generation: &s.ObservedGeneration, request: &s.ReconcileRequestStatus, url: &s.URL}
}

func (buckets) settings(obj *sourcev1.Bucket) sourceSettings {
	return sourceSettings{suspended: obj.Spec.Suspend, timeout: obj.Spec.Timeout, address: redactedURL(obj.Spec.Endpoint) + "/" + obj.Spec.BucketName}
}

func (b buckets) refuse(obj *sourcev1.Bucket) *blocked {
	return b.options.gated(obj.Spec.Provider, obj.Spec.ServiceAccountName)
}

// follow translates what is to be fetched.
func (b buckets) follow(obj *sourcev1.Bucket) (pursuit[BucketRequest], error) {
	spec, owner := &obj.Spec, sourceOwner(obj, b.name())
	p := pursuit[BucketRequest]{
		request: BucketRequest{
			Provider: spec.Provider, Bucket: spec.BucketName, Endpoint: rewritten(b.options.Rewrites, spec.Endpoint),
			Region: spec.Region, Prefix: spec.Prefix, Insecure: spec.Insecure,
		},
		content: contentOf(spec.Provider, spec.Endpoint, spec.BucketName, spec.Prefix, spec.Ignore),
	}
	if spec.Ignore != nil {
		p.request.Ignore = *spec.Ignore
	}
	return p, b.credentials(obj, owner, &p.request)
}

// credentials reads what the object refers to. Without a Secret the cloud is logged in to.
func (b buckets) credentials(obj *sourcev1.Bucket, owner gitops.OwnerRef, request *BucketRequest) error {
	spec := &obj.Spec
	wanted := []*meta.LocalObjectReference{spec.SecretRef, spec.CertSecretRef, spec.ProxySecretRef}
	if spec.STS != nil {
		wanted = append(wanted, spec.STS.SecretRef, spec.STS.CertSecretRef)
	}
	if err := b.secrets.want(owner, wanted...); err != nil {
		return err
	}
	var err error
	if spec.SecretRef != nil {
		if request.Secret, err = b.secrets.secret(owner, spec.SecretRef.Name); err != nil {
			return err
		}
		if needs := bucketKeys(spec.Provider, request.Secret); needs != "" {
			return badSecret(owner, spec.SecretRef.Name, needs)
		}
		if client := managedIdentity(spec.Provider, request.Secret); client != "" {
			if b.options.ServiceAccountLogins && b.options.DefaultServiceAccount != "" {
				return badSecret(owner, spec.SecretRef.Name, "names a managed identity of the machine by 'clientId', and this operator logs in for objects as service accounts only (--default-service-account)")
			}
			request.Login = Login{Provider: spec.Provider, Namespace: obj.Namespace, Client: client}
		}
	} else if spec.Provider != sourcev1.BucketProviderGeneric {
		request.Login = b.options.login(strings.ToLower(spec.Provider), obj.Namespace, spec.ServiceAccountName)
	}
	if b := ownLogin(request.Login, map[string]bool{"spec.insecure": spec.Insecure, "spec.certSecretRef": spec.CertSecretRef != nil}); b != nil {
		return b
	}
	if b := ownEndpoint(request.Login, spec.Endpoint); b != nil {
		return b
	}
	if request.TLS, err = b.secrets.tls(owner, spec.CertSecretRef); err != nil {
		return err
	}
	if request.Proxy, err = b.secrets.proxy(owner, spec.ProxySecretRef); err != nil {
		return err
	}
	if spec.STS != nil {
		request.STS, err = b.sts(spec.STS, owner)
	}
	return err
}

// bucketKeys says what is missing of the Secret of a provider, "" where it can be used.
// Nobody who names a Secret wants to be anonymous.
func bucketKeys(provider string, secret map[string][]byte) string {
	has := func(keys ...string) bool {
		return !slices.ContainsFunc(keys, func(key string) bool { return len(secret[key]) == 0 })
	}
	switch provider {
	case sourcev1.BucketProviderGoogle:
		if !has("serviceaccount") {
			return "has no key 'serviceaccount' with the key file"
		}
	case sourcev1.BucketProviderAzure:
		if !has("clientId") && !has("accountKey") && !has("sasKey") {
			return "needs 'tenantId', 'clientId', and 'clientSecret' or 'clientCertificate'; or 'accountKey'; or 'sasKey'"
		}
	default:
		if !has("accesskey", "secretkey") {
			return "needs both 'accesskey' and 'secretkey'"
		}
	}
	return ""
}

// managedIdentity is that of the machine which a Secret names for Azure, where it has
// nothing to log in with as an application; "" for none.
func managedIdentity(provider string, secret map[string][]byte) string {
	if provider != sourcev1.BucketProviderAzure {
		return ""
	}
	if len(secret["tenantId"]) > 0 && (len(secret["clientSecret"]) > 0 || len(secret["clientCertificate"]) > 0) {
		return ""
	}
	return string(secret["clientId"])
}

func (b buckets) sts(spec *sourcev1.BucketSTSSpec, owner gitops.OwnerRef) (*STS, error) {
	sts := &STS{Provider: spec.Provider, Endpoint: rewritten(b.options.Rewrites, spec.Endpoint)}
	if spec.SecretRef != nil {
		data, err := b.secrets.secret(owner, spec.SecretRef.Name)
		if err != nil {
			return nil, err
		}
		if sts.Username, sts.Password, err = basic(owner, spec.SecretRef.Name, data); err != nil {
			return nil, err
		}
		if sts.Username == "" && spec.Provider == sourcev1.STSProviderLDAP {
			return nil, badSecret(owner, spec.SecretRef.Name, "needs both 'username' and 'password'")
		}
	}
	var err error
	sts.TLS, err = b.secrets.tls(owner, spec.CertSecretRef)
	return sts, err
}

func (buckets) observe(after, started *sourcev1.Bucket, _ fetched) {
	after.Status.ObservedIgnore = started.Spec.Ignore
}

func (buckets) words(started *sourcev1.Bucket, f fetched) (condition, news string) {
	return fmt.Sprintf("stored artifact: revision '%s'", f.revision),
		fmt.Sprintf("stored artifact with %s fetched files from '%s' bucket", f.metadata[BucketFiles], started.Spec.BucketName)
}

// BucketFiles is the key of a bucket's metadata for how many files were fetched.
const BucketFiles = "files"

func (buckets) reasons(fetched) (success, failure string) {
	return meta.SucceededReason, sourcev1.BucketOperationFailedReason
}

func (buckets) annotations(map[string]string) map[string]string { return nil }

// file is named after the sum of what is in the bucket.
func (buckets) file(revision string, _ map[string]string) string {
	return strings.TrimPrefix(revision, "sha256:") + ".tar.gz"
}

func (buckets) dependents(gitops.OwnerRef) []client.ObjectKey { return nil }
