package flux

import (
	"fmt"
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
	// baseURL is scheme and host, without a slash at the end.
	baseURL string
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
