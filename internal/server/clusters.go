package server

import (
	"sync"

	"github.com/plumb-gitops/plumb/internal/apply"
	"github.com/plumb-gitops/plumb/internal/cluster"
	"github.com/plumb-gitops/plumb/internal/engine"
	"github.com/plumb-gitops/plumb/internal/observe"
)

// clusters gives the engine what it works with: for each identity a client that
// acts in its name, and one observer for all of them. It implements
// engine.Clusters.
type clusters struct {
	connection *cluster.Connection
	observer   *observe.Observer
	// applier makes the applier that works with a client.
	applier func(*cluster.Client) *apply.Applier

	mu sync.Mutex
	// byUser is guarded by mu; the empty user is the operator itself.
	byUser map[string]*engine.Cluster
}

func newClusters(connection *cluster.Connection, observer *observe.Observer, applier func(*cluster.Client) *apply.Applier) *clusters {
	return &clusters{connection: connection, observer: observer, applier: applier, byUser: map[string]*engine.Cluster{}}
}

// Cluster implements engine.Clusters.
func (c *clusters) Cluster(access engine.Access) (*engine.Cluster, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.byUser[access.User]; known != nil {
		return known, nil
	}
	client := c.connection.Own()
	if access.User != "" {
		var err error
		if client, err = c.connection.As(access.User); err != nil {
			return nil, err
		}
	}
	made := &engine.Cluster{Client: client, Applier: c.applier(client), Observer: c.observer}
	c.byUser[access.User] = made
	return made, nil
}

// Subscribe implements engine.Clusters.
func (c *clusters) Subscribe(f func(string, observe.Observation)) {
	c.observer.Subscribe(func(o observe.Observation) { f("", o) })
}

// Invalidate implements engine.Clusters.
func (c *clusters) Invalidate(string) { c.connection.Own().Invalidate() }
