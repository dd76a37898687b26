package engine

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/health"
	"github.com/plumb-gitops/plumb/internal/observe"
	"github.com/plumb-gitops/plumb/internal/plan"
)

// remotePatience bounds the wait for the first lists of a remote cluster.
const remotePatience = 5 * time.Second

// watch has the observer watch the kinds of everything that is declared, in the
// inventory or checked, and waits for their first lists. It does nothing where
// that is what is watched already.
func (r *run) watch(ctx context.Context, inventory gitops.Inventory) error {
	needs := map[gitops.GroupKind]observe.Need{}
	rules := r.task.Checks.Rules
	add := func(ref gitops.ObjectRef, version string, health bool) {
		kind := ref.GroupKind()
		need := needs[kind]
		if need.Version == "" || version != "" {
			need.Version = version
		}
		// Whole objects are for the operator's own eyes: see read.
		need.Kind, need.Health, need.Moves = kind, need.Health || health && !r.reads(), need.Moves || health && r.reads()
		if need.Health || need.Moves {
			need.Rule = rules.For(kind)
		}
		needs[kind] = need
	}
	for _, e := range inventory {
		add(e.Ref, e.Version, false)
	}
	for _, m := range r.manifests {
		kind := m.Ref.GroupKind()
		add(m.Ref, m.Version, r.task.Checks.All && r.needsStatus(kind) && !r.settings.NoHealth[kind])
	}
	list, found := make([]observe.Need, 0, len(needs)), make([]observe.Need, 0, len(needs))
	for _, need := range needs {
		_, err := r.Client.Resource(ctx, need.Kind, need.Version)
		if isNotServed(err) {
			continue // nothing of a kind that is not served can be in the cluster
		}
		list = append(list, need)
		if err == nil {
			// A kind that cannot be found out about has no list to wait for.
			found = append(found, need)
		}
	}
	sum := sha256.New()
	for _, some := range [][]observe.Need{list, found} {
		slices.SortFunc(some, func(a, b observe.Need) int { return compareKinds(a.Kind, b.Kind) })
		for _, need := range some {
			fmt.Fprintf(sum, "%s %s %t %t %s\n", need.Kind, need.Version, need.Health, need.Moves, need.Rule.Digest())
		}
		fmt.Fprintln(sum)
	}
	var objects, served []observe.Object
	var refs []gitops.ObjectRef
	r.checks = nil
	for _, e := range r.task.Checks.Objects {
		e, known := r.checked(ctx, e)
		r.checks = append(r.checks, e)
		rule := rules.For(e.Ref.GroupKind())
		fmt.Fprintf(sum, "%s %s %s\n", e.Ref.ID(), e.Version, rule.Digest())
		objects = append(objects, observe.Object{Ref: e.Ref, Version: e.Version, Rule: rule, Moves: r.reads()})
		if known {
			// What is not served is not waited for: it wakes the owner when it comes.
			served = append(served, objects[len(objects)-1])
		}
		refs = append(refs, e.Ref)
	}
	digest := gitops.Digest(sum.Sum(nil))
	if digest == r.owner.needs {
		return nil
	}
	r.Observer.Need(r.task.Owner, list, objects)
	r.lookAt(refs)
	// What cannot be watched is compared instead of trusted.
	patience := r.settings.SyncTimeout
	if r.Cluster.Name != "" {
		patience = min(patience, remotePatience) // it may be away
	}
	syncCtx, cancel := context.WithTimeout(ctx, patience)
	_ = r.Observer.WaitSynced(syncCtx, found, served)
	cancel()
	if err := ctx.Err(); err != nil {
		return err
	}
	r.owner.needs = digest
	return nil
}

// checked is an object that the owner names to be healthy, as the cluster knows it:
// without namespace where its kind has none, and in the version that the server
// prefers where it does not serve the one that is named, as in Flux. It is false
// where the kind is not served.
func (r *run) checked(ctx context.Context, e gitops.InventoryEntry) (gitops.InventoryEntry, bool) {
	resource, err := r.Client.Resource(ctx, e.Ref.GroupKind(), e.Version)
	if isNotServed(err) && e.Version != "" {
		e.Version = ""
		resource, err = r.Client.Resource(ctx, e.Ref.GroupKind(), "")
	}
	if err == nil && !resource.Namespaced {
		e.Ref.Namespace = ""
	}
	return e, err == nil
}

// needsStatus tells whether the health of a kind's objects depends, by the owner's
// rules, on more than their metadata.
func (r *run) needsStatus(kind gitops.GroupKind) bool {
	return r.task.Checks.Rules.For(kind) != nil || health.NeedsStatus(kind)
}

// lookAt has the owner woken by objects that it does not declare.
func (r *run) lookAt(refs []gitops.ObjectRef) {
	r.setRefs(r.watchers, r.task.Owner.Key(), r.Cluster.Name, r.owner.watched, refs)
	r.owner.watched = refs
}

// trust takes objects over as they are after a restart: where the build is the
// one that was applied last with success, nothing else was begun since, and an
// object's own fields are exactly the rendered ones, it is as we left it.
// Everything else is compared.
//
// That nothing else was begun is what Ready says: a run that is about to write
// another build than that of the success takes Ready away first (see writeAhead).
// Times cannot tell: they are whole seconds, of two clocks.
func (r *run) trust() {
	if r.owner.left != nil || r.keeping {
		return
	}
	r.owner.left = map[gitops.ObjectRef]plan.Applied{}
	// The status is here and the objects are elsewhere: the other cluster may be another
	// one by now, or be as a backup remembers it.
	if r.Cluster.Name != "" {
		return
	}
	if !r.task.Last.Ready || r.task.Last.Digest != r.target.Digest.String() {
		return
	}
	for _, m := range r.manifests {
		live, known := r.Observer.Live(m.Ref)
		if !known || !live.Exists() || live.Owner.Key() != r.task.Owner.Key() {
			continue
		}
		// An apply that came after the success was a repair of ours, or somebody
		// wrote in our name while we were not there.
		if live.AppliedAt > r.task.Last.At.Unix() {
			continue
		}
		if live, exact := r.Observer.NamesExactly(m.Ref, m.JSON); exact {
			r.owner.left[m.Ref] = applied(m.Digest, live)
		}
	}
}
