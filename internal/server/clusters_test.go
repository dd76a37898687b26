package server

import (
	"errors"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/plumb-gitops/plumb/internal/apply"
	"github.com/plumb-gitops/plumb/internal/cluster"
	"github.com/plumb-gitops/plumb/internal/engine"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/observe"
)

// opened is what a way to a cluster consists of; nothing of it sends anything.
func opened(t *testing.T) (*cluster.Connection, *observe.Observer) {
	t.Helper()
	config := &rest.Config{Host: "https://127.0.0.1:1"}
	connection, err := cluster.Connect(config, cluster.Options{})
	if err != nil {
		t.Fatal(err)
	}
	observer, err := observe.New(observe.Options{Config: config, Keys: gitops.Keys{}})
	if err != nil {
		t.Fatal(err)
	}
	return connection, observer
}

func TestClusters(t *testing.T) {
	t.Parallel()
	opens := map[string]int{}
	connection, observer := opened(t)
	c := newClusters(connection, observer, func(client *cluster.Client) *apply.Applier { return &apply.Applier{Cluster: client} },
		func(r *engine.Remote) (*cluster.Connection, *observe.Observer, error) {
			if r.Key == "bad" {
				return nil, nil, errors.New("no")
			}
			opens[r.Key]++
			connection, observer := opened(t)
			return connection, observer, nil
		})
	defer c.close()
	acquire := func(remote *engine.Remote, user string) *engine.Cluster {
		t.Helper()
		got, err := c.Acquire(engine.Access{Remote: remote, User: user})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	far, again := &engine.Remote{Name: "far", Key: "1"}, &engine.Remote{Name: "far", Key: "1"}
	own, a, b, someone := acquire(nil, ""), acquire(far, ""), acquire(again, ""), acquire(far, "someone")
	switch {
	case own.Name != "" || own.Observer != observer:
		t.Errorf("the own cluster is %+v", own)
	case a != b || opens["1"] != 1:
		t.Errorf("one configuration was opened %d times", opens["1"])
	case someone == a || someone.Observer != a.Observer || someone.Client == a.Client:
		t.Error("an identity has to have a client of its own, and the observer of all")
	case own.Client == a.Client:
		t.Error("the client of the own cluster was given for another one")
	}
	c.Release(a)
	c.Release(someone)
	if acquire(far, "") != b || opens["1"] != 1 {
		t.Error("a cluster that is in use was given up")
	}
	c.Release(b)
	c.Release(b)
	if acquire(far, ""); opens["1"] != 2 {
		t.Error("a cluster that nobody uses was kept")
	}
	if _, err := c.Acquire(engine.Access{Remote: &engine.Remote{Name: "far", Key: "bad"}}); err == nil {
		t.Error("a way that cannot be opened was given")
	}
	c.Release(own)
	if acquire(nil, "").Observer != observer {
		t.Error("the own cluster was given up")
	}
}
