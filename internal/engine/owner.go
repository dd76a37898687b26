package engine

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/plumb-gitops/plumb/internal/build"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/plan"
)

// owner is what the engine remembers of one owner between runs.
type owner struct {
	// trace is what the newest build read, failed or not; nil before the first.
	// It is read without a lock.
	trace atomic.Pointer[gitops.Trace]

	// declares is what the newest declaration was made from; nil before the
	// first. It is read without a lock, as is reached.
	declares atomic.Pointer[declaration]
	// stuck is what the newest build that failed was made from; nil where it did
	// not. It is read without a lock.
	stuck atomic.Pointer[declaration]
	// reached is the revision that was applied last without error; its health
	// may still be waited for.
	reached atomic.Pointer[string]
	// works is cluster, to be read without a lock.
	works atomic.Pointer[Cluster]

	// running serialises the runs of the owner and guards every field below
	// but those of wake.
	running sync.Mutex

	uid string
	// cluster is what the work for the owner is done with, and access what it was
	// acquired for; nil before its first run. Declared and watched are places in it.
	cluster *Cluster
	access  AccessID
	// moved is set from when the owner went to another cluster until it was reported.
	moved *gitops.Move
	// claims are since when owners with other rights have kept this one from
	// deleting objects.
	claims map[gitops.ObjectRef]time.Time
	// built is the newest successful build, kept for its trace.
	built *gitops.Build
	// failed is the newest failed build; nil after a success.
	failed *build.Failure
	// rejected is the newest build that the cluster refused.
	rejected rejection
	// target is the build that was last applied without error; drift is
	// repaired towards it.
	target *gitops.Build
	// left is what the last apply left of each object.
	left map[gitops.ObjectRef]plan.Applied
	// made are the objects that were created and are not written any more, as they ask
	// for, until the target that they came with is healthy: as in Flux their health
	// does not count later.
	made map[gitops.ObjectRef]bool
	// declared and watched are the refs that the engine's tables hold of the owner.
	declared, watched []gitops.ObjectRef
	// compared is the Task.Compare for which every object has been compared.
	compared string
	// needs is what the observer was last asked to watch, as a digest.
	needs gitops.Digest
	// handsOver is the wait of deletions for other owners to be built.
	handsOver handOverWait
	// held is what was held back of the build that was planned last.
	held held
	// end is the wait for deleted objects to be gone.
	end ending
	// wanted is the newest Task.Compare, whether or not it was carried out.
	wanted string
	// begun is when the first run of those began that wait for health; zero
	// while none does.
	begun time.Time
	// health is the progress of the wait for target.
	health wait
	// readings are what an owner with an identity of its own has read of the
	// objects that it waits for.
	readings map[gitops.ObjectRef]reading
	// contests are the objects that had to be repaired lately.
	contests map[gitops.ObjectRef]*contest

	// wake guards audit, the objects that the audit wants to be compared.
	wake  sync.Mutex
	audit map[gitops.ObjectRef]bool
}

// worksIn tells whether the owner's objects are in a cluster.
func (o *owner) worksIn(clusterName string) bool {
	c := o.works.Load()
	return c != nil && c.Name == clusterName
}

func (o *owner) wantAudit(ref gitops.ObjectRef) {
	o.wake.Lock()
	defer o.wake.Unlock()
	if o.audit == nil {
		o.audit = map[gitops.ObjectRef]bool{}
	}
	o.audit[ref] = true
}

func (o *owner) takeAudit() map[gitops.ObjectRef]bool {
	o.wake.Lock()
	defer o.wake.Unlock()
	wanted := o.audit
	o.audit = nil
	return wanted
}

// reset forgets everything, for an owner that was deleted and made again.
func (o *owner) reset(uid string) {
	o.uid = uid
	o.built, o.failed, o.target = nil, nil, nil
	o.rejected, o.compared = rejection{}, ""
	o.left, o.made = nil, nil
	o.trace.Store(nil)
	o.needs = gitops.Digest{}
	o.health, o.begun, o.handsOver = wait{}, time.Time{}, handOverWait{}
	o.end, o.held = ending{}, held{}
	o.wanted = ""
	o.declares.Store(nil)
	o.stuck.Store(nil)
	o.reached.Store(nil)
	o.contests, o.readings, o.claims = nil, nil, nil
}

// rejection is a build that the cluster refused for a reason that another try
// at once does not change. Until it is tried again, what was applied before is
// kept in order.
type rejection struct {
	digest gitops.Digest
	err    error
	at     time.Time
	// isolated says that the rest of the build was applied.
	isolated bool
}

// rejected makes a rejection of an error of applying; none of errors that may
// go away by themselves.
func rejected(digest gitops.Digest, err error, isolated bool, now time.Time) rejection {
	switch gitops.KindOf(err) {
	case gitops.Invalid, gitops.Denied, gitops.Stalled, gitops.Waiting:
		return rejection{digest: digest, err: err, at: now, isolated: isolated}
	}
	return rejection{}
}

// still gives the error of a build that is not to be tried again yet.
func (r rejection) still(digest gitops.Digest, task Task, now time.Time) error {
	if r.err == nil || r.digest != digest || r.isolated != task.Isolate || now.Sub(r.at) >= task.Retry {
		return nil
	}
	return r.err
}

// want remembers that every object is to be compared, until that was done.
func (o *owner) want(compare string) {
	if compare != "" {
		o.wanted = compare
	}
}
