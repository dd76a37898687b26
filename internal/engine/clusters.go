package engine

import (
	"k8s.io/client-go/rest"

	"github.com/plumb-gitops/plumb/internal/apply"
	"github.com/plumb-gitops/plumb/internal/cluster"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/observe"
)

// Access says in which cluster and with whose rights the work for an owner is done.
type Access struct {
	// Remote is the cluster that the owner brings with it, with the rights in it; nil
	// for the operator's own cluster.
	Remote *Remote
	// User is impersonated for everything that is done for the owner, such as
	// system:serviceaccount:apps:deployer. Empty for an owner without an identity of
	// its own: its work is done with the operator's rights, or with those of Remote.
	User string
}

// Remote is a cluster that is not the operator's own.
type Remote struct {
	// Name is its address, for people. Whoever writes a configuration can name any.
	Name string
	// Key is the same for configurations that are the same. It tells clusters apart: what
	// is seen by one configuration is nobody else's.
	Key    string
	Config *rest.Config
}

// ID is the same for accesses that are the same.
func (a Access) ID() AccessID {
	id := AccessID{User: a.User}
	if a.Remote != nil {
		id.Remote = a.Remote.Key
	}
	return id
}

// AccessID identifies an Access.
type AccessID struct {
	// Remote is the key of the remote cluster; empty for the operator's own.
	Remote string
	User   string
}

// Cluster is a cluster as the identity of an owner may work on it. Owners of one
// cluster that come with the same configuration share its Observer, whatever their
// identities: a marker holds no content.
type Cluster struct {
	// Name tells clusters apart, and Address is where one is; both are empty for the one
	// that the operator belongs to.
	Name     string
	Address  string
	Client   *cluster.Client
	Applier  *apply.Applier
	Observer *observe.Observer
}

// Clusters finds what the work for an owner is done with. An owner with an identity
// is never given anything that works with the operator's rights.
type Clusters interface {
	// Acquire gives the same value for the same Access as long as somebody holds
	// it. It has to be released.
	Acquire(Access) (*Cluster, error)
	// Release gives a Cluster back, once for each Acquire.
	Release(*Cluster)
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
