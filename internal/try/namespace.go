package try

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/build"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/plan"
	"github.com/plumb-gitops/plumb/internal/server"
)

// artifactWithin is how long the first artifact is waited for. After it the
// Kustomization is created as it is; it waits for the source by itself.
const artifactWithin = 10 * time.Second

// targetNamespace is the namespace that the folder's objects need: "default" where
// none of them names one, though some are in namespaces. Flux refuses to apply
// them as they are, kubectl puts them there. Repositories of a single app are
// like that. It is empty for all others, and where it cannot be told.
func (s *session) targetNamespace(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, artifactWithin)
	defer cancel()
	url, digest, err := awaitArtifact(ctx, s.client)
	if err != nil {
		return "", err
	}
	tree, err := artifact.Fetch(ctx, url, digest)
	if err != nil {
		return "", err
	}
	built, _, err := server.NewBuilder(false).Build(ctx, gitops.Snapshot{Files: tree}, build.Spec{
		Owner: gitops.OwnerRef{Group: kustomizeGroup, Kind: "Kustomization", Namespace: rootName, Name: rootName},
		Path:  s.origin.path, Patches: leftOut(),
	}, nil)
	if err != nil {
		return "", err
	}
	if !needsNamespace(built.Manifests, s.view.namespaced) {
		return "", nil
	}
	return metav1.NamespaceDefault, nil
}

// needsNamespace tells whether no object names a namespace and one at least is in one.
func needsNamespace(manifests []gitops.Manifest, namespaced func(gitops.GroupKind, string) bool) bool {
	defined := plan.Definitions(manifests)
	needs := false
	for _, m := range manifests {
		if m.Ref.Namespace != "" {
			return false
		}
		if d, ours := defined[m.Ref.GroupKind()]; ours {
			needs = needs || d.Scope == plan.ScopeNamespaced
		} else {
			needs = needs || namespaced(m.Ref.GroupKind(), m.Version)
		}
	}
	return needs
}

// namespaced tells whether the cluster has the objects of a kind in namespaces.
func (v *view) namespaced(kind gitops.GroupKind, version string) bool {
	mapping, err := v.mapper.RESTMapping(schema.GroupKind{Group: kind.Group, Kind: kind.Kind}, version)
	return err == nil && mapping.Scope.Name() == "namespace"
}

// awaitArtifact waits until the root source has an artifact.
func awaitArtifact(ctx context.Context, client dynamic.Interface) (url, digest string, err error) {
	for {
		object, err := client.Resource(gitRepositories).Namespace(rootName).Get(ctx, rootName, metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return "", "", err
		}
		if err == nil {
			url, digest := artifactOf(object)
			if url != "" {
				return url, digest, nil
			}
		}
		select {
		case <-ctx.Done():
			return "", "", fmt.Errorf("the source has no artifact yet: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func artifactOf(object *unstructured.Unstructured) (url, digest string) {
	var source struct {
		Status struct {
			Artifact struct {
				URL    string `json:"url"`
				Digest string `json:"digest"`
			} `json:"artifact"`
		} `json:"status"`
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &source); err != nil {
		return "", ""
	}
	return source.Status.Artifact.URL, source.Status.Artifact.Digest
}
