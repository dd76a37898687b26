package server

import (
	"errors"
	"sync"

	"github.com/plumb-gitops/plumb/internal/apply"
	"github.com/plumb-gitops/plumb/internal/cluster"
	"github.com/plumb-gitops/plumb/internal/engine"
	"github.com/plumb-gitops/plumb/internal/observe"
)

// clusters gives the engine what it works with. It implements engine.Clusters.
//
// There is one connection with one observer for the operator's own cluster, and one
// for each configuration of a remote cluster while an owner uses it; and for each
// identity of an owner a client that acts in its name.
type clusters struct {
	// applier makes the applier that works with a client.
	applier func(*cluster.Client) *apply.Applier
	// open opens the way to a remote cluster.
	open func(*engine.Remote) (*cluster.Connection, *observe.Observer, error)

	mu sync.Mutex
	// closed is guarded by mu, as is all that follows.
	closed bool
	// byKey are the open connections; the own one has the empty key and is never closed.
	byKey map[string]*connected
	// held are the clusters that somebody holds.
	held map[engine.AccessID]*holding
	// told are called for what is observed.
	told []func(string, observe.Observation)
	// closing are the observers that end.
	closing sync.WaitGroup
}

// connected is a connection to one cluster.
type connected struct {
	// name tells it apart, and address is where it is; both are empty for the own one.
	name       string
	address    string
	connection *cluster.Connection
	observer   *observe.Observer
	// holders is how many of the held clusters work with it.
	holders int
}

// holding is a cluster in use.
type holding struct {
	cluster *engine.Cluster
	of      *connected
	holders int
}

func newClusters(own *cluster.Connection, observer *observe.Observer, applier func(*cluster.Client) *apply.Applier,
	open func(*engine.Remote) (*cluster.Connection, *observe.Observer, error)) *clusters {
	return &clusters{
		applier: applier,
		open:    open,
		byKey:   map[string]*connected{"": {connection: own, observer: observer, holders: 1}},
		held:    map[engine.AccessID]*holding{},
	}
}

// Acquire implements engine.Clusters.
func (c *clusters) Acquire(access engine.Access) (*engine.Cluster, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := access.ID()
	if h := c.held[id]; h != nil {
		h.holders++
		return h.cluster, nil
	}
	of, err := c.connected(access.Remote)
	if err != nil {
		return nil, err
	}
	client := of.connection.Own()
	if access.User != "" {
		if client, err = of.connection.As(access.User); err != nil {
			c.leave(id.Remote)
			return nil, err
		}
	}
	made := &engine.Cluster{Name: of.name, Address: of.address, Client: client, Applier: c.applier(client), Observer: of.observer}
	c.held[id] = &holding{cluster: made, of: of, holders: 1}
	return made, nil
}

// connected finds or opens a connection, for one more holder.
func (c *clusters) connected(remote *engine.Remote) (*connected, error) {
	if c.closed {
		return nil, errors.New("the operator is stopping")
	}
	key := ""
	if remote != nil {
		key = remote.Key
	}
	if known := c.byKey[key]; known != nil {
		known.holders++
		return known, nil
	}
	connection, observer, err := c.open(remote)
	if err != nil {
		return nil, err
	}
	made := &connected{name: remote.Key, address: remote.Name, connection: connection, observer: observer, holders: 1}
	for _, f := range c.told {
		made.tell(f)
	}
	c.byKey[key] = made
	return made, nil
}

// Release implements engine.Clusters.
func (c *clusters) Release(released *engine.Cluster) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, h := range c.held {
		if h.cluster != released {
			continue
		}
		if h.holders--; h.holders == 0 {
			delete(c.held, id)
			c.leave(id.Remote)
		}
		return
	}
}

// leave gives up a connection for one holder; called with mu held.
func (c *clusters) leave(key string) {
	of := c.byKey[key]
	if of.holders--; of.holders > 0 {
		return
	}
	delete(c.byKey, key)
	// Whoever is told at this moment may wait for the caller.
	c.closing.Go(of.observer.Close)
}

// Subscribe implements engine.Clusters.
func (c *clusters) Subscribe(f func(string, observe.Observation)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told = append(c.told, f)
	for _, of := range c.byKey {
		of.tell(f)
	}
}

func (of *connected) tell(f func(string, observe.Observation)) {
	of.observer.Subscribe(func(o observe.Observation) { f(of.name, o) })
}

// Invalidate implements engine.Clusters.
func (c *clusters) Invalidate(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, of := range c.byKey {
		if of.name == name {
			of.connection.Own().Invalidate()
		}
	}
}

// close ends all observers.
func (c *clusters) close() {
	c.mu.Lock()
	c.closed = true
	for _, of := range c.byKey {
		c.closing.Go(of.observer.Close)
	}
	c.mu.Unlock()
	c.closing.Wait()
}
