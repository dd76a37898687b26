package engine

import (
	"cmp"

	"github.com/plumb-gitops/plumb/internal/cluster"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// isNotServed tells a kind that the API server does not serve from one of which
// it could not be found out.
func isNotServed(err error) bool { return err != nil && cluster.IsNotServed(err) }

func compareKinds(a, b gitops.GroupKind) int {
	return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Kind, b.Kind))
}
