package flux

import (
	"context"
	"fmt"
	"strings"

	"github.com/fluxcd/pkg/apis/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// packed are the artifacts for consumers outside of the process, with the
// address at which they find them.
type packed struct {
	store *artifact.Store
	// baseURL is scheme and host, without a slash at the end.
	baseURL string
}

// file is the name of the file that holds a revision, after its commit.
func (packed) file(revision string) string {
	if _, hash, ok := strings.Cut(revision, "sha1:"); ok {
		revision = hash
	}
	return revision + ".tar.gz"
}

// pack writes the files of a snapshot.
func (p packed) pack(ctx context.Context, snapshot gitops.Snapshot) (gitops.Artifact, error) {
	return p.store.Pack(ctx, snapshot.Artifact, p.file(snapshot.Artifact.Revision), snapshot.Files)
}

// describe is the API's form of an artifact.
func (p packed) describe(a gitops.Artifact) (*meta.Artifact, error) {
	path, err := artifact.Path(a.Source, p.file(a.Revision))
	if err != nil {
		return nil, fmt.Errorf("name artifact: %w", err)
	}
	size := a.Size
	return &meta.Artifact{
		Path:           path,
		URL:            p.baseURL + "/" + path,
		Revision:       a.Revision,
		Digest:         a.Digest,
		LastUpdateTime: metav1.Time{Time: a.Time}.Rfc3339Copy(),
		Size:           &size,
		Metadata:       a.Metadata,
	}, nil
}
