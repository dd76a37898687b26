package flux

import (
	"context"
	"errors"
	"fmt"
	"strings"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fluxcd/pkg/apis/meta"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source"
)

// gitRepositories is the kind GitRepository.
type gitRepositories struct {
	client  client.Client
	secrets sourceSecrets
	sources *sources
	packed  packed
	clock   clock.PassiveClock
	options SourceOptions
}

func (gitRepositories) name() string                   { return sourcev1.GitRepositoryKind }
func (gitRepositories) empty() *sourcev1.GitRepository { return &sourcev1.GitRepository{} }
func (gitRepositories) latest() string                 { return artifact.LatestArchive }

// settled is false: what is newer, only the server knows.
func (gitRepositories) settled(*sourcev1.GitRepository, pursuit[GitRequest]) bool { return false }

func (gitRepositories) status(obj *sourcev1.GitRepository) sourceStatus {
	s := &obj.Status
	return sourceStatus{artifact: &s.Artifact, conditions: &s.Conditions, generation: &s.ObservedGeneration, request: &s.ReconcileRequestStatus}
}

func (gitRepositories) settings(obj *sourcev1.GitRepository) sourceSettings {
	return sourceSettings{suspended: obj.Spec.Suspend, timeout: obj.Spec.Timeout, address: redactedURL(obj.Spec.URL)}
}

// refuse names a URL that cannot be used, or a login that is not switched on.
func (g gitRepositories) refuse(obj *sourcev1.GitRepository) *blocked {
	if b := g.options.gated(obj.Spec.Provider, obj.Spec.ServiceAccountName); b != nil {
		return b
	}
	if n := len(obj.Spec.Include); n > mostIncludes {
		return &blocked{reason: includeCopyFailure, stalled: true,
			cause: fmt.Errorf("spec.include has %d entries, at most %d are allowed; keep files that go together in one folder, and include that", n, mostIncludes)}
	}
	return unsafeURL(obj.Spec.URL, "http", "https", "ssh")
}

const (
	// mostIncludes is how many entries spec.include has at most.
	mostIncludes = 100
	// mostParts is of how many repositories one may be made, with submodules and with those
	// that are included in included ones, counted again wherever they are.
	mostParts = 2000
	// deepestInclude is how deep they may stand in one another: each file is looked at once
	// more for each level.
	deepestInclude = 10
)

// follow translates what is to be fetched.
func (g gitRepositories) follow(obj *sourcev1.GitRepository) (pursuit[GitRequest], error) {
	request, err := g.request(obj)
	if err != nil {
		return pursuit[GitRequest]{}, err
	}
	included, err := g.includes(obj)
	if err != nil {
		return pursuit[GitRequest]{}, err
	}
	p := pursuit[GitRequest]{request: request, parts: included, content: gitContent(obj, request.Verification, included)}
	if len(included) > 0 {
		p.terms = contentOf(request)
	}
	p.compose = func(files gitops.Tree) (gitops.Tree, error) { return composeIncludes(obj, files, included) }
	return p, nil
}

func (g gitRepositories) request(obj *sourcev1.GitRepository) (GitRequest, error) {
	spec, owner := &obj.Spec, sourceOwner(obj, g.name())
	request := GitRequest{
		URL:               rewritten(g.options.Rewrites, spec.URL),
		RecurseSubmodules: spec.RecurseSubmodules,
		Sparse:            spec.SparseCheckout,
		Follower:          client.ObjectKeyFromObject(obj).String(),
	}
	if ref := spec.Reference; ref != nil {
		request.Ref = GitRef{Branch: ref.Branch, Tag: ref.Tag, SemVer: ref.SemVer, Name: ref.Name, Commit: ref.Commit}
	}
	if !asked(obj, obj.Status.LastHandledReconcileAt, obj.Status.ObservedGeneration) {
		// A poll that is due takes what was said to another within the interval.
		request.NotBefore = g.clock.Now().Add(-obj.GetRequeueAfter())
	}
	wanted := []*meta.LocalObjectReference{spec.SecretRef, spec.ProxySecretRef}
	if spec.Verification != nil {
		wanted = append(wanted, &spec.Verification.SecretRef)
	}
	if err := g.secrets.want(owner, wanted...); err != nil {
		return request, err
	}
	return request, g.credentials(obj, owner, &request)
}

// asked tells whether somebody wants an object to be looked at now: by a request, or by a
// change of its specification.
func asked(obj client.Object, handled string, observed int64) bool {
	return obj.GetGeneration() != observed || obj.GetAnnotations()[meta.ReconcileRequestAnnotation] != handled
}

// credentials reads what the object refers to.
func (g gitRepositories) credentials(obj *sourcev1.GitRepository, owner gitops.OwnerRef, request *GitRequest) error {
	spec := &obj.Spec
	if spec.SecretRef != nil {
		data, err := g.secrets.secret(owner, spec.SecretRef.Name)
		if err != nil {
			return err
		}
		isApp := len(data["githubAppID"]) > 0
		switch {
		case spec.Provider == sourcev1.GitProviderGitHub && !isApp:
			return misplacedApp(owner, spec.SecretRef.Name, "has no key 'githubAppID', which spec.provider: github needs")
		case spec.Provider == sourcev1.GitProviderGitHub:
			request.Auth, err = gitHubApp(owner, spec.SecretRef.Name, data)
		case isApp && loginOf(spec.Provider, "", "").Provider == "":
			return misplacedApp(owner, spec.SecretRef.Name, "has the keys of a GitHub App; set spec.provider: github")
		default:
			request.Auth, err = gitCredential(owner, spec.SecretRef.Name, request.URL, data)
		}
		if err != nil {
			return err
		}
	}
	switch spec.Provider {
	case sourcev1.GitProviderAzure, sourcev1.GitProviderAWS:
		request.Login = g.options.login(spec.Provider, obj.Namespace, spec.ServiceAccountName)
		if b := ownLogin(request.Login, map[string]bool{"a certificate in spec.secretRef": len(request.Auth.CA) > 0, "an URL without https": !strings.HasPrefix(spec.URL, "https://")}); b != nil {
			return b
		}
	case sourcev1.GitProviderGitHub:
		if spec.SecretRef == nil {
			return &blocked{reason: sourcev1.InvalidProviderConfigurationReason, stalled: true,
				cause: errors.New("spec.provider: github needs spec.secretRef, with the keys of a GitHub App")}
		}
	}
	var err error
	if request.Proxy, err = g.secrets.proxy(owner, spec.ProxySecretRef); err != nil {
		return err
	}
	if v := spec.Verification; v != nil {
		request.Verification = &GitVerification{Head: v.VerifyHEAD(), Tag: v.VerifyTag()}
		request.Verification.Keys, err = g.secrets.trust(owner, v.SecretRef.Name)
	}
	return err
}

// gitHubApp reads the keys of a GitHub App.
func gitHubApp(owner gitops.OwnerRef, name string, data map[string][]byte) (GitAuth, error) {
	app := &GitHubApp{
		ID: string(data["githubAppID"]), InstallationOwner: string(data["githubAppInstallationOwner"]),
		InstallationID: string(data["githubAppInstallationID"]), PrivateKey: data["githubAppPrivateKey"], BaseURL: string(data["githubAppBaseURL"]),
	}
	auth := GitAuth{App: app}
	switch {
	case len(app.PrivateKey) == 0:
		return auth, badSecret(owner, name, "needs 'githubAppID' and 'githubAppPrivateKey'")
	case (app.InstallationOwner == "") == (app.InstallationID == ""):
		return auth, badSecret(owner, name, "needs one of 'githubAppInstallationOwner' and 'githubAppInstallationID'")
	}
	tls, err := certificates(owner, name, data)
	auth.CA, auth.Certificate, auth.Key = tls.CA, tls.Certificate, tls.Key
	return auth, err
}

// misplacedApp is a Secret that does not go with the provider: a GitHub App or none.
func misplacedApp(owner gitops.OwnerRef, name, what string) *blocked {
	b := badSecret(owner, name, what)
	b.reason = sourcev1.InvalidProviderConfigurationReason
	return b
}

// gitCredential reads the keys that Flux documents. What does not go with the URL's scheme
// is an error rather than an anonymous request.
func gitCredential(owner gitops.OwnerRef, name, url string, data map[string][]byte) (GitAuth, error) {
	if strings.HasPrefix(url, "ssh://") {
		auth := GitAuth{Identity: data["identity"], Passphrase: string(data["password"]), KnownHosts: data["known_hosts"]}
		switch {
		case len(auth.Identity) == 0:
			return auth, badSecret(owner, name, "has no key 'identity' with the private SSH key")
		case len(auth.KnownHosts) == 0:
			return auth, badSecret(owner, name, "has no key 'known_hosts' with the host's public key")
		}
		return auth, nil
	}
	auth := GitAuth{BearerToken: string(data["bearerToken"])}
	if auth.BearerToken != "" && len(data["username"]) > 0 {
		return auth, badSecret(owner, name, "has both 'bearerToken' and 'username': keep one of them")
	}
	var err error
	if auth.Username, auth.Password, err = basic(owner, name, data); err != nil {
		return auth, err
	}
	tls, err := certificates(owner, name, data)
	auth.CA, auth.Certificate, auth.Key = tls.CA, tls.Certificate, tls.Key
	return auth, err
}

// includes takes the newest snapshots of what the object includes.
func (g gitRepositories) includes(obj *sourcev1.GitRepository) (parts, error) {
	var in parts
	for i := range obj.Spec.Include {
		name := obj.Spec.Include[i].GitRepositoryRef.Name
		ref := gitops.OwnerRef{Group: sourceGroup, Kind: sourcev1.GitRepositoryKind, Namespace: obj.Namespace, Name: name}
		snapshot, ok := g.sources.acquire(ref)
		if ok {
			in = append(in, snapshot)
			continue
		}
		in.release()
		b := &blocked{reason: includeNoArtifact, waiting: true, retry: g.options.RequeueDependency,
			cause: fmt.Errorf("no artifact available for include '%s'", name)}
		included := &sourcev1.GitRepository{}
		err := g.client.Get(context.Background(), client.ObjectKey{Namespace: obj.Namespace, Name: name}, included)
		if err == nil && included.Status.Artifact != nil {
			b.hush(g.sources.missing(ref, g.clock.Now()))
		}
		switch {
		case apierrors.IsNotFound(err):
			b.reason, b.cause = includeNotFound, fmt.Errorf("include '%s' not found in namespace %q", name, obj.Namespace)
		case err != nil:
			b.reason, b.cause = includeNotFound, fmt.Errorf("could not get resource for include '%s': %w", name, err)
		}
		return nil, b
	}
	return in, nil
}

// gitContent identifies everything beside the commit that decides on the files.
func gitContent(obj *sourcev1.GitRepository, verification *GitVerification, in parts) string {
	spec := &obj.Spec
	included := make([]string, 0, len(in))
	for _, snapshot := range in {
		sum, err := snapshot.Sum()
		if err != nil {
			sum = snapshot.Artifact.Revision
		}
		included = append(included, sum)
	}
	return contentOf(spec.URL, spec.Reference, spec.Ignore, spec.Include, spec.SparseCheckout, spec.RecurseSubmodules, verification, included)
}

// composeIncludes joins the fetched files with the included ones and leaves out what is to
// be ignored.
func composeIncludes(obj *sourcev1.GitRepository, files gitops.Tree, in parts) (gitops.Tree, error) {
	var mounts []source.Mount
	total := source.Parts(files)
	for i, snapshot := range in {
		include := &obj.Spec.Include[i]
		if total += source.Parts(snapshot.Files); total > mostParts {
			return nil, &gitops.Error{Stage: gitops.StageFetch, Kind: gitops.Invalid, Reason: includeCopyFailure, Cause: fmt.Errorf(
				"include %q: with what is included in it, the source is made of more than %d repositories, which is the most that is allowed", include.GitRepositoryRef.Name, mostParts)}
		}
		if source.Depth(snapshot.Files) >= deepestInclude {
			return nil, &gitops.Error{Stage: gitops.StageFetch, Kind: gitops.Invalid, Reason: includeCopyFailure, Cause: fmt.Errorf(
				"include %q: what is included in it is nested %d deep already, which is the most that is allowed; include those repositories here", include.GitRepositoryRef.Name, deepestInclude)}
		}
		mounts = append(mounts, source.Mount{Tree: snapshot.Files, From: include.GetFromPath(), At: include.GetToPath()})
	}
	files, err := source.Overlay(files, mounts...)
	if err != nil {
		reason := includeCopyFailure
		if errors.Is(err, source.ErrOutside) {
			reason = includeIllegalPath
		}
		return nil, &gitops.Error{Stage: gitops.StageFetch, Kind: gitops.Invalid, Reason: reason, Cause: err}
	}
	return filtered(files, obj.Spec.Ignore)
}

// filtered leaves out what a spec ignores.
func filtered(files gitops.Tree, ignore *string) (gitops.Tree, error) {
	patterns := ""
	if ignore != nil {
		patterns = *ignore
	}
	files, err := source.Filter(files, patterns)
	if err != nil {
		return nil, &gitops.Error{Stage: gitops.StageFetch, Kind: gitops.Invalid, Reason: "SourceIgnoreError", Cause: err}
	}
	return files, nil
}

func (g gitRepositories) observe(after, started *sourcev1.GitRepository, f fetched) {
	status := &after.Status
	status.IncludedArtifacts = nil
	for _, part := range f.parts {
		if part.Digest == "" {
			continue // it has moved on before it was packed, and is not served
		}
		if included, err := g.packed.describe(part, g.file(part.Revision, nil)); err == nil {
			status.IncludedArtifacts = append(status.IncludedArtifacts, included)
		}
	}
	status.ObservedIgnore = started.Spec.Ignore
	status.ObservedInclude = started.Spec.Include
	status.ObservedRecurseSubmodules = started.Spec.RecurseSubmodules
	status.ObservedSparseCheckout = started.Spec.SparseCheckout
	status.SourceVerificationMode = nil
	if v := started.Spec.Verification; v != nil && f.verified != "" {
		mode := v.GetMode()
		status.SourceVerificationMode = &mode
	}
}

func (gitRepositories) words(_ *sourcev1.GitRepository, f fetched) (condition, news string) {
	return fmt.Sprintf("stored artifact for revision '%s'", f.revision), fmt.Sprintf("stored artifact for commit '%s'", f.metadata["message"])
}

func (gitRepositories) reasons(fetched) (success, failure string) {
	return meta.SucceededReason, sourcev1.GitOperationFailedReason
}

func (gitRepositories) annotations(map[string]string) map[string]string { return nil }

// file is named after the commit.
func (gitRepositories) file(revision string, _ map[string]string) string {
	if _, hash, ok := strings.Cut(revision, "sha1:"); ok {
		revision = hash
	}
	return revision + ".tar.gz"
}

// dependents are the repositories that include another.
func (g gitRepositories) dependents(of gitops.OwnerRef) []client.ObjectKey {
	if of.Kind != sourcev1.GitRepositoryKind {
		return nil
	}
	var list sourcev1.GitRepositoryList
	err := g.client.List(context.Background(), &list,
		client.MatchingFields{indexInclude: of.Namespace + "/" + of.Name}, client.UnsafeDisableDeepCopy)
	if err != nil {
		return nil // the cache is stopping
	}
	keys := make([]client.ObjectKey, 0, len(list.Items))
	for i := range list.Items {
		keys = append(keys, client.ObjectKeyFromObject(&list.Items[i]))
	}
	return keys
}
