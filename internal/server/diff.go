package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"k8s.io/client-go/rest"

	"github.com/plumb-gitops/plumb/internal/apply"
	"github.com/plumb-gitops/plumb/internal/cluster"
	"github.com/plumb-gitops/plumb/internal/frontend/flux"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/ownership"
	"github.com/plumb-gitops/plumb/internal/plan"
)

// diffReads is how many objects are read at the same time.
const diffReads = 8

// DiffOptions are for Diff.
type DiffOptions struct {
	// Version is the program's version, as in its user agent.
	Version string
	// RemoteBases allows bases that are URLs.
	RemoteBases bool
	// DeletionGuard is whether the operator holds unlikely deletions back.
	DeletionGuard bool
	// Revision is that of the files, where they are of the source; empty for others.
	Revision string
	// Declares tells whether an owner exists and has an object in its inventory.
	Declares func(gitops.OwnerRef, gitops.ObjectRef) bool
}

// Diff tells what the next apply of a Kustomization would change if its source had
// these files. It builds and plans as the operator does, and lets the API server try
// every object without changing anything. Differences that could be found are
// given beside the error about the others.
func Diff(ctx context.Context, rc *rest.Config, preview flux.Preview, files gitops.Tree, options DiffOptions) ([]apply.Difference, error) {
	built, _, err := NewBuilder(options.RemoteBases).Build(ctx, gitops.Snapshot{Files: files}, preview.Build, nil)
	if err != nil {
		return nil, fmt.Errorf("build: %w", err)
	}
	at := cluster.Options{Version: options.Version, Part: "diff", QPS: -1}
	if r := preview.Remote; r != nil {
		rc, at.Remote = cluster.Foreign(r.Config, true), r.Name
	}
	connection, err := cluster.Connect(rc, at)
	if err != nil {
		return nil, err
	}
	c := connection.Own()
	manifests, err := resolve(ctx, c, built.Manifests)
	if err != nil {
		return nil, err
	}
	live, err := observeOnce(ctx, c, manifests, preview.Inventory)
	if err != nil {
		return nil, err
	}
	p, err := plan.Compute(plan.Input{
		Owner: preview.Owner, Manifests: manifests, Inventory: preview.Inventory,
		Live: func(ref gitops.ObjectRef) (gitops.Live, bool) {
			l, known := live[ref]
			return l, known
		},
		OwnedBy: options.Declares,
		Options: plan.Options{Prune: preview.Prune, Force: preview.Force, TrustNone: true},
	})
	if err != nil {
		return nil, err
	}
	guard := plan.Guard{Enabled: options.DeletionGuard, Confirmed: options.Revision != "" && options.Revision == preview.Approved}
	p = guard.Hold(p, len(manifests), preview.Inventory)
	applier := &apply.Applier{Cluster: c, Keys: flux.Keys(), Parallel: diffReads}
	found, err := applier.Diff(ctx, apply.Request{
		Owner: preview.Owner, Plan: p, Force: preview.Force, OwnedBy: options.Declares,
		Live: func(ref gitops.ObjectRef) gitops.Live { return live[ref] },
	})
	for _, ref := range p.Held.Refs {
		found = append(found, apply.Difference{Ref: ref, Action: gitops.ActionHold})
	}
	return found, err
}

// resolve gives the manifests the refs under which the cluster knows them.
func resolve(ctx context.Context, c *cluster.Client, manifests []gitops.Manifest) ([]gitops.Manifest, error) {
	versions := map[gitops.GroupKind]string{}
	for _, m := range manifests {
		versions[m.Ref.GroupKind()] = m.Version
	}
	return plan.Resolve(manifests, func(kind gitops.GroupKind) plan.Scope {
		resource, err := c.Resource(ctx, kind, versions[kind])
		switch {
		case err != nil:
			return plan.ScopeUnknown // its objects' own dry-run says why
		case resource.Namespaced:
			return plan.ScopeNamespaced
		default:
			return plan.ScopeCluster
		}
	})
}

// observeOnce reads the markers of all objects that are declared or in the inventory.
func observeOnce(ctx context.Context, c *cluster.Client, manifests []gitops.Manifest, inventory gitops.Inventory) (map[gitops.ObjectRef]gitops.Live, error) {
	entries := slices.Clone(inventory)
	for _, m := range manifests {
		entries = append(entries, gitops.InventoryEntry{Ref: m.Ref, Version: m.Version})
	}
	entries = gitops.NewInventory(entries)
	var (
		mu      sync.Mutex
		errs    []error
		live    = make(map[gitops.ObjectRef]gitops.Live, len(entries))
		work    = make(chan gitops.InventoryEntry)
		running sync.WaitGroup
	)
	for range diffReads {
		running.Go(func() {
			for entry := range work {
				l, known, err := observeObject(ctx, c, entry)
				mu.Lock()
				if err != nil {
					errs = append(errs, err)
				} else if known {
					live[entry.Ref] = l
				}
				mu.Unlock()
			}
		})
	}
	for _, entry := range entries {
		work <- entry
	}
	close(work)
	running.Wait()
	return live, errors.Join(errs...)
}

// observeObject reads one marker; the zero one for an object that does not exist.
func observeObject(ctx context.Context, c *cluster.Client, entry gitops.InventoryEntry) (live gitops.Live, known bool, err error) {
	resource, err := c.Resource(ctx, entry.Ref.GroupKind(), entry.Version)
	if err != nil {
		return gitops.Live{}, false, nil // a kind that is not served has no objects
	}
	object, err := c.Get(ctx, resource, entry.Ref.Namespace, entry.Ref.Name)
	switch {
	case cluster.IsNotFound(err):
		return gitops.Live{}, true, nil
	case err != nil:
		return gitops.Live{}, false, fmt.Errorf("read %s: %w", entry.Ref, err)
	}
	return ownership.Observe(object, flux.Keys()), true, nil
}
