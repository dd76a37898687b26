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

// helmRepositories is the kind HelmRepository. Those of type oci have no index: they are
// only read by HelmCharts.
type helmRepositories struct {
	secrets sourceSecrets
	options SourceOptions
}

func (helmRepositories) name() string                    { return sourcev1.HelmRepositoryKind }
func (helmRepositories) empty() *sourcev1.HelmRepository { return &sourcev1.HelmRepository{} }
func (helmRepositories) latest() string                  { return artifact.LatestIndex }

// settled is false: what is newer, only the server knows.
func (helmRepositories) settled(*sourcev1.HelmRepository, pursuit[HelmRepositoryRequest]) bool {
	return false
}

func (helmRepositories) status(obj *sourcev1.HelmRepository) sourceStatus {
	s := &obj.Status
	return sourceStatus{artifact: &s.Artifact, conditions: &s.Conditions, generation: &s.ObservedGeneration, request: &s.ReconcileRequestStatus, url: &s.URL}
}

func (helmRepositories) settings(obj *sourcev1.HelmRepository) sourceSettings {
	return sourceSettings{
		suspended: obj.Spec.Suspend, timeout: obj.Spec.Timeout, address: redactedURL(obj.Spec.URL),
		static: obj.Spec.Type == sourcev1.HelmRepositoryTypeOCI,
	}
}

func (helmRepositories) refuse(obj *sourcev1.HelmRepository) *blocked {
	if strings.HasPrefix(obj.Spec.URL, "oci://") {
		return &blocked{reason: sourcev1.URLInvalidReason, stalled: true,
			cause: fmt.Errorf("an oci:// URL needs spec.type: oci; this HelmRepository is of type default")}
	}
	return unsafeURL(obj.Spec.URL, "http", "https")
}

// follow translates what is to be fetched.
func (h helmRepositories) follow(obj *sourcev1.HelmRepository) (pursuit[HelmRepositoryRequest], error) {
	owner := sourceOwner(obj, h.name())
	if err := h.secrets.want(owner, obj.Spec.SecretRef, obj.Spec.CertSecretRef); err != nil {
		return pursuit[HelmRepositoryRequest]{}, err
	}
	request, err := h.request(obj)
	return pursuit[HelmRepositoryRequest]{request: request, content: contentOf(obj.Spec.URL)}, err
}

// request translates how a repository is reached. Its Secrets are wanted already.
func (h helmRepositories) request(obj *sourcev1.HelmRepository) (HelmRepositoryRequest, error) {
	spec, owner := &obj.Spec, sourceOwner(obj, h.name())
	request := HelmRepositoryRequest{
		URL: rewritten(h.options.Rewrites, spec.URL), Insecure: spec.Insecure, PassCredentials: spec.PassCredentials,
	}
	oci := spec.Type == sourcev1.HelmRepositoryTypeOCI
	if oci && spec.SecretRef == nil {
		// As in Flux it is the operator itself that logs in, whoever does for others: there is
		// no field for a service account.
		request.Login = loginOf(spec.Provider, obj.Namespace, "")
	}
	if b := ownLogin(request.Login, map[string]bool{"spec.insecure": spec.Insecure, "spec.certSecretRef": spec.CertSecretRef != nil}); b != nil {
		return request, b
	}
	if ref := spec.SecretRef; ref != nil {
		data, err := h.secrets.secret(owner, ref.Name)
		if err != nil {
			return request, err
		}
		if config := data[".dockerconfigjson"]; oci && len(config) > 0 {
			request.Auth.DockerConfigs = [][]byte{config}
		} else if request.Auth.Username, request.Auth.Password, err = basic(owner, ref.Name, data); err != nil {
			return request, err
		}
		// Certificates were in this Secret before there was one of their own.
		if request.TLS, err = certificates(owner, ref.Name, data); err != nil {
			return request, err
		}
	}
	if spec.CertSecretRef != nil {
		var err error
		if request.TLS, err = h.secrets.tls(owner, spec.CertSecretRef); err != nil {
			return request, err
		}
	}
	return request, nil
}

func (helmRepositories) observe(*sourcev1.HelmRepository, *sourcev1.HelmRepository, fetched) {}

func (helmRepositories) words(started *sourcev1.HelmRepository, f fetched) (condition, news string) {
	condition = fmt.Sprintf("stored artifact: revision '%s'", f.revision)
	news = fmt.Sprintf("stored fetched index of size %s from '%s'", humanSize(f.artifact.Size), redactedURL(started.Spec.URL))
	if warning := f.metadata[IndexWarning]; warning != "" {
		condition, news = condition+"; "+warning, news+"; "+warning
	}
	return condition, news
}

// IndexWarning is the key of an index's metadata for what was left out of it.
const IndexWarning = "warning"

// humanSize is a size as Flux writes it: in units of a thousand.
func humanSize(bytes int64) string {
	size, units := float64(bytes), []string{"B", "kB", "MB", "GB"}
	for size >= 1000 && len(units) > 1 {
		size, units = size/1000, units[1:]
	}
	return fmt.Sprintf("%.4g%s", size, units[0])
}

func (helmRepositories) reasons(fetched) (success, failure string) {
	return meta.SucceededReason, meta.FailedReason
}

func (helmRepositories) annotations(map[string]string) map[string]string { return nil }

func (helmRepositories) file(revision string, _ map[string]string) string {
	return "index-" + revision[strings.IndexByte(revision, ':')+1:] + ".yaml"
}

func (helmRepositories) dependents(gitops.OwnerRef) []client.ObjectKey { return nil }
