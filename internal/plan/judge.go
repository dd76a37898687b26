package plan

import (
	"strings"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// verdict is what is to be done with one declared object.
type verdict struct {
	change gitops.Change
	// foreign is the other owner that keeps the object; the zero value where
	// there is none.
	foreign gitops.OwnerRef
}

// judge decides on one declared object. The manifest may be changed: it becomes
// part of the plan with the policy that the live object asks for.
func (in Input) judge(m *gitops.Manifest) verdict {
	live, known := in.Live(m.Ref)
	m.Policy = EffectivePolicy(m.Policy, live.Policy)
	m.Policy.Force = m.Policy.Force || in.Options.Force
	if in.isForeign(live.Owner, m.Ref) {
		return verdict{foreign: live.Owner.Key()}
	}
	if reason := SkipReason(m.Policy, live); reason != "" {
		return skip(m, reason)
	}
	applied, wasApplied := in.Applied[m.Ref]
	sameDigest := wasApplied && applied.Digest == m.Digest
	switch {
	case !known && wasApplied && !sameDigest:
		return write(m, gitops.ActionConfigure, gitops.BasisChanged, reasonChanged)
	case !known:
		return write(m, gitops.ActionConfigure, gitops.BasisCompare, "not known how it is in the cluster")
	case !live.Exists() && sameDigest:
		return write(m, gitops.ActionCreate, gitops.BasisRepair, "deleted in the cluster")
	case !live.Exists():
		return write(m, gitops.ActionCreate, gitops.BasisChanged, "not in the cluster")
	case wasApplied && !sameDigest:
		return write(m, gitops.ActionConfigure, gitops.BasisChanged, reasonChanged)
	case in.hasOther(live.Owner):
		return write(m, gitops.ActionConfigure, repairIf(sameDigest), "taken over from "+live.Owner.String()+", which does not declare it")
	case live.Fields == (gitops.Digest{}) && !wasApplied:
		return write(m, gitops.ActionConfigure, gitops.BasisChanged, "in the cluster, but not applied from here")
	}
	if sameDigest && live.Deleting {
		// Nothing that is written now would last; its end brings the repair.
		return verdict{change: gitops.Change{Ref: m.Ref, Action: gitops.ActionUnchanged}}
	}
	if sameDigest {
		if reason := drifted(applied, live, m.Policy.Apply); reason != "" {
			return write(m, gitops.ActionConfigure, gitops.BasisRepair, reason)
		}
		if !in.Options.TrustNone {
			return verdict{change: gitops.Change{Ref: m.Ref, Action: gitops.ActionUnchanged}}
		}
		return write(m, gitops.ActionConfigure, gitops.BasisCompare, "a comparison was asked for")
	}
	return write(m, gitops.ActionConfigure, gitops.BasisCompare, "not known whether it is as it was applied")
}

const reasonChanged = "the declaration changed"

func repairIf(sameDigest bool) gitops.Basis {
	if sameDigest {
		return gitops.BasisRepair
	}
	return gitops.BasisChanged
}

// EffectivePolicy adds to what a manifest asks for what the live object asks
// for. Of the latter only wishes to be left alone, and to be made anew where it
// cannot be changed, count, as in Flux.
func EffectivePolicy(policy, live gitops.ObjectPolicy) gitops.ObjectPolicy {
	policy.Paused = policy.Paused || live.Paused
	policy.Force = policy.Force || live.Force
	switch {
	case live.Apply == gitops.ApplyIgnore:
		policy.Apply = gitops.ApplyIgnore
	case live.Apply == gitops.ApplyMerge && policy.Apply == gitops.ApplyOverride:
		policy.Apply = gitops.ApplyMerge
	}
	return policy
}

// SkipReason says why an object's policy keeps it from being written; "" where
// it does not. Whoever compares an object of which nothing was known asks it
// again with what it found.
func SkipReason(policy gitops.ObjectPolicy, live gitops.Live) string {
	switch {
	case policy.Paused:
		return "reconciliation is disabled for it"
	case policy.Apply == gitops.ApplyIgnore:
		return "it asks to be ignored"
	case policy.Apply == gitops.ApplyIfNotPresent && live.Exists():
		return "it exists and asks to be created only"
	}
	return ""
}

// drifted says what happened to an object since the last apply; "" where nothing did.
func drifted(applied Applied, live gitops.Live, mode gitops.ApplyMode) string {
	switch {
	case live.UID != applied.UID:
		return "replaced in the cluster"
	case live.Fields == (gitops.Digest{}):
		return "ownership of its fields was removed in the cluster"
	case live.Fields != applied.Fields:
		return "changed in the cluster"
	case live.AppliedAt != applied.At:
		return "applied by somebody else in our name"
	case mode != gitops.ApplyMerge && len(live.TakeOver) > 0:
		return "changed in the cluster by " + strings.Join(live.TakeOver, ", ")
	}
	return ""
}

// hasOther tells whether the labels of an object name another owner.
func (in Input) hasOther(owner gitops.OwnerRef) bool {
	return owner != (gitops.OwnerRef{}) && owner.Key() != in.Owner.Key()
}

// isForeign tells whether another owner keeps an object.
func (in Input) isForeign(owner gitops.OwnerRef, ref gitops.ObjectRef) bool {
	return in.hasOther(owner) && in.OwnedBy(owner.Key(), ref)
}

func write(m *gitops.Manifest, action gitops.Action, basis gitops.Basis, reason string) verdict {
	return verdict{change: gitops.Change{
		Ref: m.Ref, Version: m.Version, Action: action, Reason: reason, Manifest: m, Basis: basis,
	}}
}

func skip(m *gitops.Manifest, reason string) verdict {
	return verdict{change: gitops.Change{
		Ref: m.Ref, Version: m.Version, Action: gitops.ActionSkip, Reason: reason, Manifest: m,
	}}
}
