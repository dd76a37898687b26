package observe

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

func TestJoinedDemands(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		demands []demand
		want    demand
	}{
		"none":                        {nil, demand{}},
		"the newest version":          {[]demand{{version: "v1beta2"}, {version: "v1"}, {version: "v1beta1"}}, demand{version: "v1"}},
		"health, if anybody asks":     {[]demand{{version: "v1"}, {version: "v1", full: true}, {version: "v1"}}, demand{version: "v1", full: true}},
		"every move, if anybody asks": {[]demand{{version: "v1"}, {version: "v1", moves: true}}, demand{version: "v1", moves: true}},
		"health of an older client":   {[]demand{{version: "v2"}, {version: "v1", full: true}}, demand{version: "v2", full: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := &watcher{owners: map[gitops.OwnerRef]demand{}}
			for i, d := range row.demands {
				w.owners[gitops.OwnerRef{Name: string(rune('a' + i))}] = d
			}
			if got := w.joined(); got != row.want {
				t.Errorf("joined = %+v, want %+v", got, row.want)
			}
		})
	}
}

// stopped is a clock whose delayed calls are made by the test. Timers run.
type stopped struct {
	clock.RealClock
	calls chan func()
}

func (c stopped) AfterFunc(d time.Duration, f func()) clock.Timer {
	if d != openWithin {
		c.calls <- f
	}
	return clock.RealClock{}.AfterFunc(time.Hour, func() {})
}

func TestWatchesEndWithTheirLastOwner(t *testing.T) {
	t.Parallel()
	cluster := testenv.Get(t)
	later := stopped{calls: make(chan func(), 10)}
	o, err := New(Options{Config: rest.CopyConfig(cluster.REST), Resources: resources, Keys: testKeys(), Clock: later})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	kind := gitops.GroupKind{Group: "apps", Kind: "Deployment"}
	markers, health := Need{Kind: kind, Version: "v1"}, Need{Kind: kind, Version: "v1", Health: true}
	a, b := gitops.OwnerRef{Name: "a"}, gitops.OwnerRef{Name: "b"}
	sync := func(owner gitops.OwnerRef, needs ...Need) {
		t.Helper()
		o.Need(owner, needs, nil)
		if err := o.WaitSynced(deadline(t), needs, nil); err != nil {
			t.Fatal(err)
		}
	}
	sync(a, health)
	sync(b, markers)
	first := o.watchers[key{kind: kind}]

	o.Need(a, nil, nil)
	(<-later.calls)()
	f := &fixture{Observer: o, t: t}
	f.reach("watched without health", func() bool { return o.knows(markers) && !o.knows(health) })

	o.Need(b, nil, nil)
	if !o.knows(markers) {
		t.Error("the watch ended before the grace period did")
	}
	sync(b, markers)
	(<-later.calls)()
	if !o.knows(markers) || o.watchers[key{kind: kind}] != first {
		t.Error("the watch ended though an owner came back")
	}

	o.Need(b, nil, nil)
	(<-later.calls)()
	if o.knows(markers) || o.table(key{kind: kind}) != nil {
		t.Error("the watch outlives its owners")
	}
	if err := o.WaitSynced(deadline(t), []Need{markers}, nil); err == nil {
		t.Error("WaitSynced waits for what nobody needs")
	}
	if diff := cmp.Diff(0, len(later.calls)); diff != "" {
		t.Errorf("delayed calls left (-want +got):\n%s", diff)
	}
}
