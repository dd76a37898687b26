package engine

import (
	"github.com/plumb-gitops/plumb/internal/apply"
	"github.com/plumb-gitops/plumb/internal/cluster"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/observe"
)

// Access says with whose rights the work for an owner is done.
type Access struct {
	// User is impersonated for everything that is done for the owner, such as
	// system:serviceaccount:apps:deployer. Empty for an owner without an identity of
	// its own: its work is done with the operator's rights.
	User string
}

// Cluster is a cluster as the identity of an owner may work on it. Owners of one
// cluster share its Observer, whatever their identities: a marker holds no content.
type Cluster struct {
	// Name tells clusters apart; empty for the one that the operator belongs to.
	Name     string
	Client   *cluster.Client
	Applier  *apply.Applier
	Observer *observe.Observer
}

// Clusters finds what the work for an owner is done with. An owner with an identity
// is never given anything that works with the operator's rights.
type Clusters interface {
	// Cluster gives the same value for the same Access as long as it is in use.
	Cluster(Access) (*Cluster, error)
	// Subscribe has f called for what the observers of all clusters see.
	Subscribe(f func(clusterName string, o observe.Observation))
	// Invalidate has the kinds of a cluster asked for again when they are needed next.
	Invalidate(clusterName string)
}

// place is an object in one of the clusters.
type place struct {
	cluster string
	ref     gitops.ObjectRef
}
