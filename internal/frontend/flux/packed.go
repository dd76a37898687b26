package flux

import (
	"context"
	"fmt"
	"io"
	"path"

	"github.com/fluxcd/pkg/apis/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// packed are the artifacts for consumers outside of the process, with the
// address at which they find them.
type packed struct {
	store *artifact.Store
	// rooms bound what is kept for each namespace; nil for no bound.
	rooms *artifact.Rooms
	// baseURL is scheme and host, without a slash at the end.
	baseURL string
}

// artifactOf is the artifact that a status advertises; describe is the way back.
func artifactOf(source gitops.OwnerRef, told *meta.Artifact) gitops.Artifact {
	a := gitops.Artifact{Source: source, Revision: told.Revision, Digest: told.Digest, Time: told.LastUpdateTime.Time, Metadata: told.Metadata}
	if told.Size != nil {
		a.Size = *told.Size
	}
	return a
}

// load unpacks a stored file for consumers in the artifact's namespace. The caller releases it.
func (p packed) load(ctx context.Context, cache *artifact.Cache, a gitops.Artifact, file string) (artifact.Unpacked, error) {
	return cache.Load(ctx, artifact.Packed{
		Digest: a.Digest, Scope: artifact.NamespaceScope(a.Source.Namespace), Own: true,
		Open: func(context.Context) (io.ReadCloser, error) { return p.store.Open(a.Source, file) },
	})
}

// describe is the API's form of an artifact that is stored under a file name.
func (p packed) describe(a gitops.Artifact, file string) (*meta.Artifact, error) {
	at, err := artifact.Path(a.Source, file)
	if err != nil {
		return nil, fmt.Errorf("name artifact: %w", err)
	}
	size := a.Size
	return &meta.Artifact{
		Path:           at,
		URL:            p.baseURL + "/" + at,
		Revision:       a.Revision,
		Digest:         a.Digest,
		LastUpdateTime: metav1.Time{Time: a.Time}.Rfc3339Copy(),
		Size:           &size,
		Metadata:       a.Metadata,
	}, nil
}

// lasting is the address at which the newest artifact of a source is always found.
func (p packed) lasting(source gitops.OwnerRef, name string) string {
	at, err := artifact.Path(source, name)
	if err != nil {
		return ""
	}
	return p.baseURL + "/" + path.Clean(at)
}
