package try

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/terminal"
)

const notServedWord = "not served"

// shown is the word for what a custom resource says of itself.
func (r Ready) shown(notServed bool) string {
	switch {
	case r.Suspended:
		return "Suspended"
	case notServed:
		return notServedWord
	case r.Status == "":
		return "Unknown"
	default:
		return r.Status
	}
}

func colours(word string) terminal.Colour {
	switch word {
	case "True", string(gitops.HealthCurrent):
		return terminal.Green
	case "False", string(gitops.HealthFailed), string(gitops.HealthNotFound):
		return terminal.Red
	case "Unknown", "Suspended", notServedWord, string(gitops.HealthInProgress), string(gitops.HealthTerminating):
		return terminal.Yellow
	}
	return ""
}

// withAges adds a column before the last one where now is set.
func withAges(t terminal.Table, now time.Time, changed []time.Time) terminal.Table {
	if now.IsZero() {
		return t
	}
	t.Header = slices.Insert(t.Header, len(t.Header)-1, "CHANGED")
	for i, at := range changed {
		t.Rows[i] = slices.Insert(t.Rows[i], len(t.Rows[i])-1, ago(now, at))
	}
	return t
}

// ago is a time span in its largest unit.
func ago(now, at time.Time) string {
	span := now.Sub(at)
	switch {
	case at.IsZero():
		return ""
	case span < time.Minute:
		return fmt.Sprintf("%ds", max(0, int(span.Seconds())))
	case span < time.Hour:
		return fmt.Sprintf("%dm", int(span.Minutes()))
	default:
		return fmt.Sprintf("%dh", int(span.Hours()))
	}
}

// sourceTable lists the sources; with the time since their last change where now is set.
func sourceTable(s State, now time.Time) terminal.Table {
	t := terminal.Table{Header: []string{"SOURCE", "READY", "REVISION", "MESSAGE"}, Colours: colours}
	var changed []time.Time
	for _, source := range s.Sources {
		t.Rows = append(t.Rows, []string{
			source.ID(),
			source.shown(false), shortRevision(source.Revision), terminal.OneLine(source.Message),
		})
		changed = append(changed, source.Changed)
	}
	return withAges(t, now, changed)
}

// kustomizationTable lists the Kustomizations.
func kustomizationTable(s State, now time.Time) terminal.Table {
	t := terminal.Table{Header: []string{"KUSTOMIZATION", "READY", "OBJECTS", "REVISION", "MESSAGE"}, Colours: colours}
	blocked := s.notServedBy()
	var changed []time.Time
	for _, k := range s.Kustomizations {
		t.Rows = append(t.Rows, []string{
			k.ID(), k.shown(blocked[k.ID()]), fmt.Sprintf("%d/%d", k.Current, k.Total), shortRevision(k.Revision), terminal.OneLine(k.Message),
		})
		changed = append(changed, lastChange(s, k))
	}
	return withAges(t, now, changed)
}

// lastChange is when a Kustomization or one of its objects changed last.
func lastChange(s State, k Kustomization) time.Time {
	last := k.Changed
	for _, o := range s.Objects {
		if o.Owner == k.ID() && o.Changed.After(last) {
			last = o.Changed
		}
	}
	return last
}

// objectTable lists the objects: what is not current first, then what changed last.
func objectTable(s State, now time.Time) terminal.Table {
	t := terminal.Table{Header: []string{"OBJECT", "HEALTH", "MESSAGE"}, Colours: colours}
	objects := slices.Clone(s.Objects)
	known := map[gitops.ObjectRef]bool{}
	for _, o := range objects {
		known[o.Ref] = true
	}
	for _, o := range s.NotServed {
		if !known[o.Ref] {
			objects = append(objects, o)
		}
	}
	slices.SortStableFunc(objects, func(a, b Object) int {
		return cmp.Or(cmp.Compare(urgency(a), urgency(b)), b.Changed.Compare(a.Changed))
	})
	var changed []time.Time
	for _, o := range objects {
		health, message := string(o.Health), o.Message
		if o.NotServed {
			health, message = notServedWord, "this version of Plumb does not work on its kind"
		}
		if o.Health == gitops.HealthCurrent && !o.NotServed {
			message = ""
		}
		t.Rows = append(t.Rows, []string{o.Name, health, terminal.OneLine(message)})
		changed = append(changed, o.Changed)
	}
	return withAges(t, now, changed)
}

// urgency orders what is to be seen first.
func urgency(o Object) int {
	switch {
	case o.NotServed:
		return 1
	case o.Health == gitops.HealthCurrent:
		return 2
	default:
		return 0
	}
}

// shortRevision cuts the hash of a revision such as main@sha1:… to eight digits.
func shortRevision(revision string) string {
	const digits = 8
	i := strings.LastIndex(revision, ":")
	if i < 0 || len(revision) <= i+1+digits {
		return revision
	}
	return revision[:i+1+digits]
}
