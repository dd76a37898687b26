package engine

import (
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// TestClaimOfOtherRights: an owner with other rights than ours may declare what it is not
// allowed to take over. Its claim keeps an object from being pruned for a time, and one
// with the same rights for as long as it lasts.
func TestClaimOfOtherRights(t *testing.T) {
	t.Parallel()
	start := time.Unix(1000, 0)
	ref := gitops.ObjectRef{Kind: "ConfigMap", Namespace: "ns", Name: "a"}
	own, foreign := &Cluster{}, &Cluster{}
	for name, test := range map[string]struct {
		works    *Cluster
		removing bool
		// kept is how long the object is kept, a day standing for ever.
		kept time.Duration
	}{
		"the same rights":                          {works: own, kept: 24 * time.Hour},
		"other rights":                             {works: foreign, kept: claimLimit},
		"other rights, while ours is deleted":      {works: foreign, removing: true, kept: handOverLimit},
		"not run yet, so its rights are not known": {kept: claimLimit},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := clocktesting.NewFakePassiveClock(start)
			other := &owner{}
			if test.works != nil {
				other.works.Store(test.works)
			}
			rival := gitops.OwnerRef{Kind: "Kustomization", Namespace: "ns", Name: "rival"}
			e := &Engine{
				Parts:    Parts{Clock: now, Metrics: noMetrics{}},
				owners:   map[gitops.OwnerRef]*owner{rival: other},
				declared: map[place]map[gitops.OwnerRef]bool{{ref: ref}: {rival: true}},
			}
			us := &owner{}
			kept := time.Duration(0)
			for ; kept < 24*time.Hour; kept += 5 * time.Second {
				now.SetTime(start.Add(kept))
				r := &run{Engine: e, Cluster: own, owner: us, removing: test.removing}
				claims := map[gitops.ObjectRef]time.Time{}
				honoured := r.honours(ref, claims)
				us.claims = claims
				if !honoured {
					break
				}
				if test.works != own && !r.report.Next.Equal(start.Add(test.kept)) {
					t.Fatalf("it is looked at again at %v, want %v", r.report.Next, start.Add(test.kept))
				}
			}
			if kept != test.kept {
				t.Errorf("it is kept for %v, want %v", kept, test.kept)
			}
		})
	}
}
