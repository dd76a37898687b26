package flux

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source"
)

// refuseGitRepository names the first thing that the spec asks for and that
// this version does not do.
func refuseGitRepository(obj *sourcev1.GitRepository) *blocked {
	spec := &obj.Spec
	switch {
	case spec.Verification != nil:
		return refused("spec.verify")
	case spec.Provider != "" && spec.Provider != sourcev1.GitProviderGeneric:
		return refused("spec.provider: " + spec.Provider)
	case spec.ServiceAccountName != "":
		return refused("spec.serviceAccountName")
	}
	return nil
}

// request translates what is to be fetched, with the credentials that the
// object refers to.
func (g *gitRepositories) request(obj *sourcev1.GitRepository) (GitRequest, error) {
	spec := &obj.Spec
	request := GitRequest{
		URL:               spec.URL,
		RecurseSubmodules: spec.RecurseSubmodules,
		Sparse:            spec.SparseCheckout,
	}
	if ref := spec.Reference; ref != nil {
		request.Ref = GitRef{Branch: ref.Branch, Tag: ref.Tag, SemVer: ref.SemVer, Name: ref.Name, Commit: ref.Commit}
	}
	var wanted []reference
	for _, ref := range []*meta.LocalObjectReference{spec.SecretRef, spec.ProxySecretRef} {
		if ref != nil {
			wanted = append(wanted, reference{kind: secretKind, namespace: obj.Namespace, name: ref.Name})
		}
	}
	if err := g.references.want(gitRepositoryRef(obj), wanted); err != nil {
		return request, err
	}
	if spec.SecretRef != nil {
		data, err := g.secret(obj, spec.SecretRef.Name)
		if err != nil {
			return request, err
		}
		if request.Auth, err = credential(obj, data); err != nil {
			return request, err
		}
	}
	if spec.ProxySecretRef != nil {
		data, err := g.secret(obj, spec.ProxySecretRef.Name)
		if err != nil {
			return request, err
		}
		request.Proxy = GitProxy{Address: string(data["address"]), Username: string(data["username"]), Password: string(data["password"])}
		if request.Proxy.Address == "" {
			return request, badSecret(obj, spec.ProxySecretRef.Name, "has no key 'address' with the URL of the proxy")
		}
	}
	return request, nil
}

// secret reads a Secret of the object's own namespace.
func (g *gitRepositories) secret(obj *sourcev1.GitRepository, name string) (map[string][]byte, error) {
	data, err := g.references.read(reference{kind: secretKind, namespace: obj.Namespace, name: name})
	switch {
	case errors.Is(err, errReferenceUnread):
		return nil, &blocked{reason: meta.ProgressingReason, quiet: true, waiting: true, retry: g.options.RequeueDependency, cause: err}
	case err != nil:
		return nil, &blocked{reason: sourcev1.AuthenticationFailedReason, retry: g.options.RequeueDependency,
			cause: fmt.Errorf("failed to get secret '%s/%s': %w", obj.Namespace, name, err)}
	}
	return data, nil
}

func badSecret(obj *sourcev1.GitRepository, name, what string) *blocked {
	return &blocked{reason: sourcev1.AuthenticationFailedReason, cause: fmt.Errorf("secret '%s/%s' %s", obj.Namespace, name, what)}
}

// credential reads the keys that Flux documents. What does not go with the URL's
// scheme is an error rather than an anonymous request.
func credential(obj *sourcev1.GitRepository, data map[string][]byte) (GitAuth, error) {
	name := obj.Spec.SecretRef.Name
	first := func(keys ...string) []byte {
		for _, key := range keys {
			if v := data[key]; len(v) > 0 {
				return v
			}
		}
		return nil
	}
	if strings.HasPrefix(obj.Spec.URL, "ssh://") {
		auth := GitAuth{Identity: data["identity"], Passphrase: string(data["password"]), KnownHosts: data["known_hosts"]}
		switch {
		case len(auth.Identity) == 0:
			return auth, badSecret(obj, name, "has no key 'identity' with the private SSH key")
		case len(auth.KnownHosts) == 0:
			return auth, badSecret(obj, name, "has no key 'known_hosts' with the host's public key")
		}
		return auth, nil
	}
	auth := GitAuth{
		Username: string(data["username"]), Password: string(data["password"]), BearerToken: string(data["bearerToken"]),
		CA: first("ca.crt", "caFile"), Certificate: first("tls.crt", "certFile"), Key: first("tls.key", "keyFile"),
	}
	switch {
	case auth.BearerToken != "" && auth.Username != "":
		return auth, badSecret(obj, name, "has both 'bearerToken' and 'username': keep one of them")
	case (auth.Username == "") != (auth.Password == ""):
		return auth, badSecret(obj, name, "needs both 'username' and 'password'")
	case (len(auth.Certificate) == 0) != (len(auth.Key) == 0):
		return auth, badSecret(obj, name, "needs both 'tls.crt' and 'tls.key'")
	}
	return auth, nil
}

// includes are the snapshots of included repositories, in the order of the spec.
type includes []gitops.Snapshot

func (in includes) release() {
	for _, snapshot := range in {
		snapshot.Release()
	}
}

// includes takes the newest snapshots of what the object includes.
func (g *gitRepositories) includes(obj *sourcev1.GitRepository) (includes, error) {
	var in includes
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
		if err := g.objects.client.Get(context.Background(), client.ObjectKey{Namespace: obj.Namespace, Name: name}, &sourcev1.GitRepository{}); err != nil {
			b.reason, b.cause = includeNotFound, fmt.Errorf("could not get resource for include '%s': %w", name, client.IgnoreNotFound(err))
			if client.IgnoreNotFound(err) == nil {
				b.cause = fmt.Errorf("include '%s' not found in namespace %q", name, obj.Namespace)
			}
		}
		return nil, b
	}
	return in, nil
}

// contentKey identifies everything beside the commit that decides on the files.
func contentKey(obj *sourcev1.GitRepository, in includes) string {
	key := struct {
		URL        string
		Ref        *sourcev1.GitRepositoryRef
		Ignore     *string
		Include    []sourcev1.GitRepositoryInclude
		Sparse     []string
		Submodules bool
		Included   []string
	}{obj.Spec.URL, obj.Spec.Reference, obj.Spec.Ignore, obj.Spec.Include, obj.Spec.SparseCheckout, obj.Spec.RecurseSubmodules, nil}
	for _, snapshot := range in {
		sum, err := snapshot.Files.Sum(".")
		if err != nil {
			sum = snapshot.Artifact.Revision
		}
		key.Included = append(key.Included, sum)
	}
	data, err := json.Marshal(key)
	if err != nil {
		return "" // never: the fields are plain data
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// compose joins the fetched files with the included ones and leaves out what is
// to be ignored.
func compose(obj *sourcev1.GitRepository, files gitops.Tree, in includes) (gitops.Tree, error) {
	var mounts []source.Mount
	for i, snapshot := range in {
		include := &obj.Spec.Include[i]
		mounts = append(mounts, source.Mount{Tree: snapshot.Files, From: include.GetFromPath(), At: include.GetToPath()})
	}
	files, err := source.Overlay(files, mounts...)
	if err != nil {
		return nil, &gitops.Error{Stage: gitops.StageFetch, Kind: gitops.Invalid, Reason: "IllegalPath", Cause: err}
	}
	ignore := ""
	if obj.Spec.Ignore != nil {
		ignore = *obj.Spec.Ignore
	}
	if files, err = source.Filter(files, ignore); err != nil {
		return nil, &gitops.Error{Stage: gitops.StageFetch, Kind: gitops.Invalid, Reason: "SourceIgnoreError", Cause: err}
	}
	return files, nil
}

// publish hands the fetched files to the consumers in the process. The snapshot
// keeps what it includes until it is released itself.
func (g *gitRepositories) publish(obj *sourcev1.GitRepository, result source.Result, in includes) (fetched, error) {
	files, err := compose(obj, result.Files, in)
	if err != nil {
		result.Release()
		return fetched{}, err
	}
	next := fetched{
		revision: result.Revision,
		artifact: gitops.Artifact{Source: gitRepositoryRef(obj), Revision: result.Revision, Time: g.clock.Now()},
		metadata: result.Metadata, rewritten: result.Rewritten,
	}
	kept := make(includes, 0, len(in))
	for _, snapshot := range in {
		next.includes = append(next.includes, snapshot.Artifact)
		if again, ok := g.sources.acquire(snapshot.Artifact.Source); ok {
			kept = append(kept, again)
		}
	}
	snapshot := gitops.Snapshot{
		Artifact: next.artifact, Files: files,
		Release: func() { result.Release(); kept.release() },
	}
	g.sources.publish(next.artifact.Source, snapshot)
	return next, nil
}

// pack stores the files for consumers outside of the process.
func (g *gitRepositories) pack(ctx context.Context, obj *sourcev1.GitRepository, of gitops.Artifact) (gitops.Artifact, error) {
	snapshot, ok := g.sources.acquire(of.Source)
	if !ok {
		return of, context.Canceled // the source has been removed meanwhile
	}
	defer snapshot.Release()
	if snapshot.Artifact.Revision != of.Revision {
		return of, artifact.ErrSuperseded
	}
	packed, err := g.packed.pack(ctx, snapshot)
	if errors.Is(err, artifact.ErrSuperseded) {
		return of, err
	}
	if err != nil {
		return of, &gitops.Error{Stage: gitops.StageFetch, Kind: gitops.Transient, Reason: sourcev1.ArchiveOperationFailedReason,
			Cause: fmt.Errorf("store artifact of %s: %w", obj.Name, err)}
	}
	return packed, nil
}

// published has the repositories that include a source look at it again.
func (g *gitRepositories) published(of gitops.OwnerRef, _ gitops.Snapshot) { g.includersOf(of) }

// includersOf has the repositories that include a source reconciled.
func (g *gitRepositories) includersOf(of gitops.OwnerRef) {
	var list sourcev1.GitRepositoryList
	err := g.objects.client.List(context.Background(), &list,
		client.MatchingFields{indexInclude: of.Namespace + "/" + of.Name}, client.UnsafeDisableDeepCopy)
	if err != nil {
		return // the cache is stopping
	}
	for i := range list.Items {
		g.triggers.add(client.ObjectKeyFromObject(&list.Items[i]), following)
	}
}

// redactedURL is a URL without credentials.
func redactedURL(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "the repository"
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}
