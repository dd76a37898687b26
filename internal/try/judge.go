package try

import (
	"fmt"
	"strings"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// Outcome is what has become of a repository.
type Outcome string

// The outcomes. All but Pending are final for a try that ends by itself.
const (
	// Pending says that something is still to come.
	Pending Outcome = "pending"
	// Succeeded says that every Kustomization is ready at the newest revision
	// and every object of theirs current.
	Succeeded Outcome = "ready"
	// Failed says that something is wrong that will not become right by itself,
	// or that the time ran out.
	Failed Outcome = "failed"
	// OnlyNotServed says that all is ready but for what needs a kind that this
	// version does not serve.
	OnlyNotServed Outcome = "not served"
)

// Verdict is an outcome with what stands in the way of a better one.
type Verdict struct {
	Outcome Outcome
	// Why are sentences, in the order of the state.
	Why []string
}

// judge decides what has become of a repository. Head is the revision that the root
// source has to be at, empty where any will do.
func judge(s State, head string) Verdict {
	j := judgement{state: s, blocked: s.notServedBy(), revisions: map[SourceRef]string{}}
	j.sources(head)
	j.kustomizations()
	j.objects()
	switch {
	case len(j.waiting) > 0:
		return Verdict{Pending, append(j.failed, j.waiting...)}
	case len(j.failed) > 0:
		return Verdict{Failed, j.failed}
	case len(j.notServed) > 0:
		return Verdict{OnlyNotServed, j.notServed}
	}
	return Verdict{Outcome: Succeeded}
}

type judgement struct {
	state   State
	blocked map[string]bool
	// revisions are those of the sources' artifacts.
	revisions map[SourceRef]string
	// failed is what stays as it is until somebody changes something; waiting is
	// everything else that is not ready.
	failed, waiting, notServed []string
}

// put files one thing that is not ready.
func (j *judgement) put(name string, r Ready) {
	text := name + ": " + describe(r)
	if r.Stalled {
		j.failed = append(j.failed, text)
	} else {
		j.waiting = append(j.waiting, text)
	}
}

func describe(r Ready) string {
	switch {
	case r.Message != "":
		return firstLine(r.Message)
	case r.Reason != "":
		return r.Reason
	default:
		return "nothing is known of it yet"
	}
}

func firstLine(text string) string {
	line, _, more := strings.Cut(strings.TrimSpace(text), "\n")
	if more {
		line += " …"
	}
	return line
}

func (j *judgement) sources(head string) {
	root := false
	for _, s := range j.state.Sources {
		j.revisions[SourceRef{s.Kind, s.Namespace, s.Name, true}] = s.Revision
		isRoot := s.isRoot()
		root = root || isRoot
		name := s.ID()
		switch {
		case s.Suspended:
		case s.Status != "True":
			j.put(name, s.Ready)
		case isRoot && head != "" && s.Revision != head:
			j.waiting = append(j.waiting, fmt.Sprintf("%s: is at %q, not yet at %q", name, s.Revision, head))
		}
	}
	if !root {
		j.waiting = append(j.waiting, "the source is not there yet")
	}
}

func (j *judgement) kustomizations() {
	root := false
	for _, k := range j.state.Kustomizations {
		root = root || (k.Namespace == rootName && k.Name == rootName)
		name := "kustomization " + k.ID()
		want, known := j.revisions[k.Source]
		switch {
		case k.Suspended:
		case j.blocked[k.ID()]:
			j.notServed = append(j.notServed, name+": "+describe(k.Ready))
		case k.Status != "True":
			j.put(name, k.Ready)
		case known && k.Revision != want:
			j.waiting = append(j.waiting, fmt.Sprintf("%s: has applied %q, not yet %q", name, k.Revision, want))
		}
	}
	if !root {
		j.waiting = append(j.waiting, "the Kustomization is not there yet")
	}
}

func (j *judgement) objects() {
	for _, o := range j.state.NotServed {
		j.notServed = append(j.notServed, o.Name+": its kind is not served")
	}
	for _, o := range j.state.Objects {
		// What a custom resource of ours is like is judged by its own rows.
		if o.NotServed || o.Health == gitops.HealthCurrent || (ours(o.Ref) && o.Health != gitops.HealthNotFound) {
			continue
		}
		if o.Undefined && j.blocked[o.Owner] {
			j.notServed = append(j.notServed, o.Name+": "+o.Message+"; a release that is not served may define it")
			continue
		}
		j.waiting = append(j.waiting, fmt.Sprintf("%s is %s: %s", o.Name, o.Health, firstLine(o.Message)))
	}
}

// ours tells whether an object is a custom resource of a served group.
func ours(ref gitops.ObjectRef) bool {
	return ref.Group == kustomizeGroup || ref.Group == sourceGroup || ref.Group == generatorGroup
}
