package engine

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/plumb-gitops/plumb/internal/build"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/health"
)

// Task is what a front end wants to be true for one owner.
type Task struct {
	Owner gitops.OwnerRef
	// Access says with whose rights everything of this task is done.
	Access Access
	// Snapshot holds the files to build. Nil leaves the last applied build in
	// force: the run only repairs drift and looks at health.
	Snapshot *gitops.Snapshot
	Build    build.Spec
	// Inventory is the one that is stored with the owner.
	Inventory gitops.Inventory
	// Unreadable is why Inventory could not be read. Nothing is written for an
	// owner of whose objects it is not known which they are.
	Unreadable error
	// Prune deletes objects that are no longer declared.
	Prune bool
	// Approved is the revision whose deletions somebody has confirmed; empty for none.
	Approved string
	// Held is why deletions are held, as the owner's status says; empty for none.
	Held gitops.HoldReason
	// Isolate applies the rest where the cluster refuses an object.
	Isolate bool
	// Force recreates objects whose immutable fields changed.
	Force bool
	// Compare, where it is not empty, has every object dry-run once for each
	// new value: nothing that is remembered is trusted then.
	Compare string
	Checks  Checks
	// Timeout bounds one run's writes, and how long objects may take to
	// become healthy.
	Timeout time.Duration
	// Retry is how long a build that the cluster refused is not tried again.
	Retry time.Duration
	// RetryLimit is the longest pause between two repairs of a field that
	// somebody else keeps changing.
	RetryLimit time.Duration
	// Last is what the owner's status remembers of its last success.
	Last Success
	// Generation is that of the owner's specification.
	Generation int64
	// Siblings are the owners that follow the same source. It is asked only
	// where objects are to be deleted; nil for none.
	Siblings func() []Sibling
	// WriteAhead stores the union of the old and the planned inventory, and that
	// the owner is not Ready. It is called before the first write of a run that
	// needs it: one that writes what is not in the inventory, or another build
	// than that of Last while Last is Ready.
	WriteAhead func(context.Context, gitops.Inventory) error
}

// Sibling is an owner that follows the same source, with the generation of its
// specification that it is to be built for.
type Sibling struct {
	Owner      gitops.OwnerRef
	Generation int64
}

// Checks says which objects have to be healthy.
type Checks struct {
	// All asks for the health of every applied object.
	All bool
	// Objects are looked at beside, or instead of, the applied ones.
	Objects []gitops.InventoryEntry
	// Rules say how objects are in place of the rules of kstatus; nil for none.
	Rules *health.Rules
}

// None tells whether nothing has to be healthy.
func (c Checks) None() bool { return !c.All && len(c.Objects) == 0 }

// digest is equal for checks that ask for the same.
func (c Checks) digest() gitops.Digest {
	sum := sha256.New()
	fmt.Fprintf(sum, "%t %s\n", c.All, c.Rules.Digest())
	for _, e := range c.Objects {
		fmt.Fprintf(sum, "%s %s\n", e.Ref.ID(), e.Version)
	}
	return gitops.Digest(sum.Sum(nil))
}

// Success is what is known of the last time everything went well.
type Success struct {
	// Revision is the revision that was applied in full, health included;
	// empty where there was none.
	Revision string
	// Digest is that of the build that was applied, as in a status.
	Digest string
	// Generation is that of the specification that it was reached with; what a
	// newer one asks to be healthy has not been found to be so.
	Generation int64
	// At is when it was applied.
	At time.Time
	// Ready is set where nothing has gone wrong, and no other build been begun,
	// since.
	Ready bool
}
