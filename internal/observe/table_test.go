package observe

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/health"
)

func marker(uid, resourceVersion string, fields byte) gitops.Live {
	return gitops.Live{UID: uid, ResourceVersion: resourceVersion, Fields: gitops.Digest{fields}, Owner: gitops.OwnerRef{Name: "o"}}
}

// kstatus says that no owner has a rule of its own.
func kstatus(gitops.OwnerRef) *health.Rule { return nil }

// step is what happens to a table; told is what is told because of it.
type step func(t *table)

func TestTable(t *testing.T) {
	t.Parallel()
	n := name{"ns", "a"}
	put := func(live gitops.Live) step { return func(t *table) { t.put(n, record{live: live}) } }
	remove := func(uid, rv string) step { return func(t *table) { t.remove(n, uid, rv) } }
	wrote := func(live gitops.Live) step { return func(t *table) { t.wrote(n, live, nil) } }
	deleted := func(uid string) step { return func(t *table) { t.deleted(n, uid) } }
	hold, release := func(t *table) { t.hold(n) }, func(t *table) { t.release(n) }
	begin := func(t *table) { t.begin() }
	moves := func(t *table) { t.moves.Store(true) }
	complete := func(rv string) step { return func(t *table) { t.complete(rv, false) } }
	synced := func(lives ...gitops.Live) []step {
		steps := []step{begin}
		for _, live := range lives {
			steps = append(steps, put(live))
		}
		return append(steps, complete("10"))
	}
	healthy := func(live gitops.Live, status gitops.HealthStatus) gitops.Live {
		live.Health.Status = status
		return live
	}
	deleting := func(live gitops.Live) gitops.Live { live.Deleting = true; return live }
	one, two := marker("u", "5", 1), marker("u", "11", 2)

	type told struct{ Before, After string }
	for title, row := range map[string]struct {
		steps []step
		live  gitops.Live
		want  []told
	}{
		"what the first list finds is no change": {synced(one), one, nil},
		"a change":                               {append(synced(one), put(two)), two, []told{{"5", "11"}}},
		"a new object":                           {append(synced(), put(two)), two, []told{{"", "11"}}},
		"an object that is gone":                 {append(synced(one), remove("u", "12")), gitops.Live{}, []told{{"5", ""}}},
		"an event that says nothing new, where every move is told": {append(synced(one), moves, put(marker("u", "12", 1))), marker("u", "12", 1), []told{{"5", "12"}}},
		"the same event again, where every move is told":           {append(synced(one), moves, put(marker("u", "12", 1)), put(marker("u", "12", 1))), marker("u", "12", 1), []told{{"5", "12"}}},
		"an echo, where every move is told":                        {append(synced(one), moves, hold, put(two), wrote(two), release), two, nil},
		"a move after our write, where every move is told":         {append(synced(one), moves, hold, wrote(two), put(marker("u", "12", 2)), release), marker("u", "12", 2), []told{{"11", "12"}}},
		"an event that says nothing new":                           {append(synced(one), put(marker("u", "12", 1))), marker("u", "12", 1), nil},
		"an event that is older than our write":                    {append(synced(one), wrote(marker("u", "20", 3)), put(two)), marker("u", "20", 3), nil},
		"the echo of our write":                                    {append(synced(one), wrote(two), put(two)), two, nil},
		"a change after our write":                                 {append(synced(one), wrote(two), put(marker("u", "12", 3))), marker("u", "12", 3), []told{{"11", "12"}}},
		"an answer that is older than what is known":               {append(synced(one), put(marker("u", "12", 3)), wrote(two)), marker("u", "12", 3), []told{{"5", "12"}}},
		"an old deletion of an object that we made again":          {append(synced(one), wrote(marker("v", "20", 3)), remove("u", "15")), marker("v", "20", 3), nil},
		"our deletion":                                      {append(synced(one), deleted("u"), remove("u", "12")), gitops.Live{}, nil},
		"an older event after our deletion":                 {append(synced(one), deleted("u"), put(two), remove("u", "12")), gitops.Live{}, nil},
		"our deletion of another object of the name":        {append(synced(one), deleted("v")), one, nil},
		"our deletion, and made again by somebody":          {append(synced(one), deleted("u"), put(marker("v", "12", 2))), marker("v", "12", 2), []told{{"", "12"}}},
		"our deletion, kept by a finalizer":                 {append(synced(one), deleted("u"), put(deleting(two))), deleting(two), []told{{"", "11"}}},
		"our deletion, known to be under way":               {append(synced(one), put(deleting(two)), deleted("u")), deleting(two), []told{{"5", "11"}}},
		"an echo that comes before its answer":              {append(synced(one), hold, put(two), wrote(two), release), two, nil},
		"an echo that comes after its answer":               {append(synced(one), hold, wrote(two), put(two), release), two, nil},
		"a change before our write that we did not make":    {append(synced(one), hold, put(two), release), two, []told{{"5", "11"}}},
		"a change after our write, both before the answer":  {append(synced(one), hold, put(two), put(marker("u", "12", 3)), wrote(two), release), marker("u", "12", 3), []told{{"11", "12"}}},
		"a write that two make":                             {append(synced(one), hold, hold, put(two), release, wrote(two), release), two, nil},
		"a deletion by another during our write":            {append(synced(one), hold, remove("u", "12"), release), gitops.Live{}, []told{{"5", ""}}},
		"our deletion, told before its answer":              {append(synced(one), hold, remove("u", "12"), deleted("u"), release), gitops.Live{}, nil},
		"our deletion under a finalizer, before its answer": {append(synced(one), hold, put(deleting(two)), deleted("u"), release), deleting(two), nil},
		"a release without hold":                            {append(synced(one), release), one, nil},
		"health that changes":                               {append(synced(healthy(one, "Current")), put(healthy(marker("u", "12", 1), "Failed"))), healthy(marker("u", "12", 1), "Failed"), []told{{"5", "12"}}},
		"health that a second list adds":                    {append(synced(one), begin, put(healthy(one, "Current")), complete("11")), healthy(one, "Current"), nil},
		"health that is not looked at any more":             {append(synced(healthy(one, "Current")), put(marker("u", "12", 1))), marker("u", "12", 1), nil},
		"a cluster that was set back":                       {append(synced(two), func(t *table) { t.rewind() }, begin, put(one), complete("7")), one, []told{{"", "5"}}},
		"a cluster that was set back before the object":     {append(synced(two), func(t *table) { t.rewind() }, begin, complete("7")), gitops.Live{}, []told{{"", ""}}},
		"health of a recorded object":                       {append(synced(one), wrote(two), put(healthy(two, "InProgress"))), healthy(two, "InProgress"), []told{{"11", "11"}}},
		"an answer without health to what is known":         {append(synced(one), put(healthy(two, "InProgress")), wrote(two)), healthy(two, "InProgress"), []told{{"5", "11"}}},
		"a second list without the object":                  {append(synced(one), begin, complete("12")), gitops.Live{}, []told{{"5", ""}}},
		"a second list older than our write":                {append(synced(one), begin, wrote(marker("u", "20", 3)), complete("12")), marker("u", "20", 3), nil},
		"a second list with a change":                       {append(synced(one), begin, put(two), complete("12")), two, []told{{"5", "11"}}},
		"a first list without what we wrote before":         {[]step{wrote(marker("u", "20", 1)), begin, complete("12")}, marker("u", "20", 1), nil},
		"a first list with a change of what we wrote":       {[]step{wrote(marker("u", "6", 1)), begin, put(two), complete("12")}, two, []told{{"6", "11"}}},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			var got []told
			tb := newTable(gitops.GroupKind{Kind: "X"}, false, func(o Observation) {
				got = append(got, told{o.Before.ResourceVersion, o.After.ResourceVersion})
			})
			for _, do := range row.steps {
				do(tb)
			}
			live, known := tb.live(n, kstatus)
			if diff := cmp.Diff(row.live, live); diff != "" || !known {
				t.Errorf("live, known = %v (-want +got):\n%s", known, diff)
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("told (-want +got):\n%s", diff)
			}
			if len(tb.gone) > 0 {
				t.Errorf("a mark of a deletion was left: %v", tb.gone)
			}
		})
	}
}

func TestTableIsKnownOnlyWhileInStep(t *testing.T) {
	t.Parallel()
	tb := newTable(gitops.GroupKind{Kind: "X"}, false, func(Observation) {})
	n := name{"ns", "a"}
	known := func() bool { _, known := tb.live(n, kstatus); return known }
	if known() {
		t.Error("known before the first list")
	}
	tb.begin()
	tb.put(n, record{live: marker("u", "1", 1)})
	if known() {
		t.Error("known before the first list has ended")
	}
	tb.complete("2", true)
	if !known() {
		t.Error("not known after the first list")
	}
	tb.fail(errors.New("cut"), false)
	if !known() {
		t.Error("not known after the connection was cut")
	}
	tb.fail(errors.New("forbidden"), true)
	if known() {
		t.Error("known though it may not be watched")
	}
}

func TestOwnEntryIsKeptWhileItHolds(t *testing.T) {
	t.Parallel()
	n, own := name{"ns", "a"}, &ownFields{}
	healthy := marker("u", "6", 1)
	healthy.Health.Status = gitops.HealthCurrent
	for title, row := range map[string]struct {
		do   step
		kept bool
	}{
		"nothing":            {func(*table) {}, true},
		"a change of health": {func(t *table) { t.put(n, record{live: healthy}) }, true},
		"a second list":      {func(t *table) { t.begin(); t.put(n, record{live: healthy, own: own}); t.complete("7", true) }, true},
		"a changed field":    {func(t *table) { t.put(n, record{live: marker("u", "6", 2)}) }, false},
		"another object":     {func(t *table) { t.put(n, record{live: marker("v", "6", 1)}) }, false},
		"our write":          {func(t *table) { t.wrote(n, marker("u", "6", 1), nil) }, false},
		"the answer is yes":  {func(t *table) { t.dropOwn(n) }, false},
		"a lasting failure":  {func(t *table) { t.fail(errors.New("forbidden"), true) }, false},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			tb := newTable(gitops.GroupKind{Kind: "X"}, false, func(Observation) {})
			tb.begin()
			tb.put(n, record{live: marker("u", "5", 1), own: own})
			tb.complete("5", true)
			row.do(tb)
			if _, got := tb.ownEntry(n); (got != nil) != row.kept {
				t.Errorf("kept = %v, want %v", got != nil, row.kept)
			}
		})
	}
}

func TestRoom(t *testing.T) {
	t.Parallel()
	tb := newTable(gitops.GroupKind{Kind: "X"}, false, func(Observation) {})
	for i := range 3 {
		tb.objects[name{name: string(rune('a' + i))}] = &record{}
	}
	for n, want := range map[string]bool{"a": true, "new": false} {
		if got := tb.hasRoom(name{name: n}, 3); got != want {
			t.Errorf("%s: room is %t", n, got)
		}
	}
	if !tb.hasRoom(name{name: "new"}, 4) {
		t.Error("there is room for one more")
	}
}
