package observe

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/health"
	"github.com/plumb-gitops/plumb/internal/ownership"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

func ruleOf(t testing.TB, current string) *health.Rule {
	t.Helper()
	language, err := health.NewLanguage()
	if err != nil {
		t.Fatal(err)
	}
	rule, err := language.Rule(health.Expressions{Current: current})
	if err != nil {
		t.Fatal(err)
	}
	return rule
}

func TestTableOfRules(t *testing.T) {
	t.Parallel()
	n := name{"ns", "a"}
	one, again, two := ruleOf(t, "true"), ruleOf(t, "true"), ruleOf(t, "false")
	seen := func(rv string, status gitops.HealthStatus, rule *health.Rule, others ...judged) step {
		live := marker("u", rv, 1)
		live.Health.Status = status
		return func(t *table) { t.put(n, record{live: live, rule: rule, others: others}) }
	}
	list := func(rv string, steps ...step) []step {
		steps = append([]step{func(t *table) { t.begin() }}, steps...)
		return append(steps, func(t *table) { t.complete(rv, true) })
	}
	other := func(rule *health.Rule, status gitops.HealthStatus) judged {
		return judged{rule, gitops.Health{Status: status}}
	}
	known := func(rule *health.Rule, status gitops.HealthStatus) step {
		return func(tb *table) {
			if live, _ := tb.live(n, func(gitops.OwnerRef) *health.Rule { return rule }); live.Health.Status != status {
				t.Errorf("health is %q, want %q", live.Health.Status, status)
			}
		}
	}
	for title, row := range map[string]struct {
		steps [][]step
		told  int
	}{
		"health by the owner's rule":             {[][]step{list("10", seen("5", "Current", one)), {known(again, "Current")}}, 0},
		"health by another rule is not known":    {[][]step{list("10", seen("5", "Current", one)), {known(two, ""), known(nil, "")}}, 0},
		"another rule that finds the same":       {[][]step{list("10", seen("5", "Current", one)), list("11", seen("5", "Current", two)), {known(two, "Current")}}, 1},
		"another rule that finds something else": {[][]step{list("10", seen("5", "Current", one)), list("11", seen("5", "InProgress", two)), {known(two, "InProgress")}}, 1},
		"a rule of the same text":                {[][]step{list("10", seen("5", "Current", one)), list("11", seen("5", "Current", again))}, 0},
		"a rule where there was none":            {[][]step{list("10", seen("5", "Current", nil)), list("11", seen("5", "Current", one)), {known(one, "Current"), known(nil, "")}}, 1},
		"a rule where there was no health":       {[][]step{list("10", seen("5", "", nil)), list("11", seen("5", "Current", one)), {known(one, "Current")}}, 0},
		"metadata of what was assessed":          {[][]step{list("10", seen("5", "Current", one)), list("11", seen("5", "", nil)), {known(one, "Current")}}, 0},
		"an answer of ours, by the owner's rule": {[][]step{list("10", seen("5", "Current", one)), {func(t *table) {
			live := marker("u", "11", 1)
			live.Health.Status = "InProgress"
			t.wrote(n, live, one)
		}, known(one, "InProgress")}}, 0},
		"others look at it by rules of theirs": {[][]step{list("10", seen("5", "Current", nil, other(one, "Failed"), other(two, "InProgress"))),
			{known(nil, "Current"), known(one, "Failed"), known(two, "InProgress")}}, 0},
		"health by the rule of another changes": {[][]step{list("10", seen("5", "Current", nil, other(one, "Failed"))), {seen("11", "Current", nil, other(one, "Current")), known(one, "Current")}}, 1},
		"another comes to look":                 {[][]step{list("10", seen("5", "Current", nil)), list("11", seen("5", "Current", nil, other(one, "Failed"))), {known(one, "Failed")}}, 1},
		"nothing of it changes":                 {[][]step{list("10", seen("5", "Current", nil, other(one, "Failed"))), {seen("11", "Current", nil, other(again, "Failed"))}}, 0},
	} {
		t.Run(title, func(t *testing.T) {
			told := 0
			tb := newTable(gitops.GroupKind{Kind: "X"}, true, func(Observation) { told++ })
			for _, steps := range row.steps {
				for _, do := range steps {
					do(tb)
				}
			}
			if told != row.told {
				t.Errorf("told %d times, want %d", told, row.told)
			}
		})
	}
}

// ownedBy applies a manifest with the labels of an owner.
func (f *fixture) ownedBy(owner, manifest string) *unstructured.Unstructured {
	f.t.Helper()
	text := strings.Replace(string(f.owned(manifest)), `"example.test/name":"o"`, `"example.test/name":"`+owner+`"`, 1)
	return f.patch(f.object(manifest), types.ApplyPatchType, text, "applier")
}

// health waits until an object's health is known to be so.
func (f *fixture) health(ref gitops.ObjectRef, want gitops.HealthStatus) {
	f.t.Helper()
	ctx := deadline(f.t)
	for {
		if live, _ := f.Live(ref); live.Health.Status == want {
			return
		}
		select {
		case <-f.seen:
		case <-ctx.Done():
			live, _ := f.Live(ref)
			f.t.Fatalf("%s has health %+v, want %s", ref, live.Health, want)
		}
	}
}

func config2(name, state string) string {
	return fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":%q},"data":{"state":%q}}`, name, state)
}

// begun leaves out that watches end.
func begun(requests []testenv.Request) []testenv.Request {
	return slices.DeleteFunc(requests, func(r testenv.Request) bool { return r.Verb == "watch" && r.Stage != "ResponseStarted" })
}

func TestOwnersHaveRulesOfTheirOwn(t *testing.T) {
	t.Parallel()
	const agent = "plumb-test/rules"
	cluster := testenv.Start(t)
	f := fixtureOf(t, cluster, agent)
	a, b := f.ownedBy("a", config2("a", "on")), f.ownedBy("b", config2("b", "on"))
	plain := f.ownedBy("c", config2("c", "on"))
	owner := func(name string) gitops.OwnerRef {
		return gitops.OwnerRef{Group: "example.test", Kind: "Owner", Namespace: f.namespace, Name: name}
	}
	need := func(name, current string) {
		t.Helper()
		n := Need{Kind: gitops.GroupKind{Kind: "ConfigMap"}, Version: "v1", Health: true}
		if current != "" {
			n.Rule = ruleOf(t, current)
		}
		f.Need(owner(name), []Need{n}, nil)
		if err := f.WaitSynced(deadline(t), []Need{n}, nil); err != nil {
			t.Fatal(err)
		}
	}
	asked := func(want int) {
		t.Helper()
		requests := begun(cluster.Requests(t, agent))
		if len(requests) > want {
			t.Errorf("%d requests so far, want at most %d: %v", len(requests), want, requests)
		}
		for _, r := range requests {
			if r.Verb != "watch" {
				t.Errorf("asked %s %s, want watches only", r.Verb, r.RequestURI)
			}
		}
	}
	// A kind without status is watched whole as soon as a rule reads it.
	need("c", "")
	f.health(refOf(plain), gitops.HealthCurrent)
	asked(1)
	need("a", "data.state == 'on'")
	f.health(refOf(a), gitops.HealthCurrent)
	asked(2)
	// The second owner's objects were read before its rule was known.
	need("b", "data.state == 'off'")
	f.health(refOf(b), gitops.HealthInProgress)
	f.health(refOf(a), gitops.HealthCurrent)
	f.health(refOf(plain), gitops.HealthCurrent)
	asked(3)

	// Each change is assessed by the rule of the object's owner.
	f.ownedBy("a", config2("a", "off"))
	f.ownedBy("b", config2("b", "off"))
	f.health(refOf(a), gitops.HealthInProgress)
	f.health(refOf(b), gitops.HealthCurrent)
	asked(3)

	// Another rule is asked at once; the same one again is not.
	need("a", "data.state != 'on'")
	f.health(refOf(a), gitops.HealthCurrent)
	asked(4)
	need("a", "data.state != 'on'")
	need("b", "data.state == 'off'")
	asked(4)

	// What we write ourselves comes with its health.
	answer := f.ownedBy("a", config2("a", "on"))
	live := ownership.Observe(answer, testKeys())
	live.Health = ruleOf(t, "data.state != 'on'").Assess(answer)
	f.Record(refOf(a), live)
	if got, _ := f.Live(refOf(a)); got.Health.Status != gitops.HealthInProgress {
		t.Errorf("recorded health is %+v, want InProgress", got.Health)
	}
	need("a", "")
	f.health(refOf(a), gitops.HealthCurrent)
	asked(5)
	// Idleness can only be seen by letting time go by.
	time.Sleep(2 * time.Second)
	asked(5)
}

func TestManyRulesAreFewLists(t *testing.T) {
	t.Parallel()
	const agent, owners = "plumb-test/many", 50
	cluster := testenv.Start(t)
	f := fixtureOf(t, cluster, agent)
	for i := range owners {
		f.ownedBy(fmt.Sprint("o", i), config2(fmt.Sprint("c", i), "on"))
	}
	kind := gitops.GroupKind{Kind: "ConfigMap"}
	f.sync(Need{Kind: kind, Version: "v1", Health: true, Rule: ruleOf(t, "true")})
	before, began := len(begun(cluster.Requests(t, agent))), time.Now()
	for i := range owners {
		owner := f.owner
		owner.Name = fmt.Sprint("o", i)
		f.Need(owner, []Need{{Kind: kind, Version: "v1", Health: true, Rule: ruleOf(t, fmt.Sprintf("data.state == 'on' && %d == %d", i, i))}}, nil)
	}
	for i := range owners {
		f.health(gitops.ObjectRef{Kind: "ConfigMap", Namespace: f.namespace, Name: fmt.Sprint("c", i)}, gitops.HealthCurrent)
	}
	took := time.Since(began)
	if lists := len(begun(cluster.Requests(t, agent))) - before; lists > 2+int(took/judgePause) {
		t.Errorf("%d lists for %d owners in %v, want one a second", lists, owners, took)
	}
}

func TestNamedObjectByRulesOfSeveral(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	object := f.object(config2("shared", "on"))
	f.patch(object, types.ApplyPatchType, config2("shared", "on"), "somebody")
	ref := gitops.ObjectRef{Kind: "ConfigMap", Namespace: f.namespace, Name: "shared"}
	owner := func(name string) gitops.OwnerRef { return gitops.OwnerRef{Name: name} }
	look := func(name string, rule *health.Rule) {
		t.Helper()
		objects := []Object{{Ref: ref, Version: "v1", Rule: rule}}
		f.Need(owner(name), nil, objects)
		if err := f.WaitSynced(deadline(t), nil, objects); err != nil {
			t.Fatal(err)
		}
	}
	look("plain", nil)
	look("on", ruleOf(t, "data.state == 'on'"))
	look("off", ruleOf(t, "data.state == 'off'"))
	look("on too", ruleOf(t, "data.state == 'on'"))
	healths := func() map[string]gitops.HealthStatus {
		got := map[string]gitops.HealthStatus{}
		for _, name := range []string{"plain", "on", "off", "on too"} {
			live, _ := f.Named(owner(name), ref)
			got[name] = live.Health.Status
		}
		return got
	}
	reach := func(want map[string]gitops.HealthStatus) {
		t.Helper()
		for !cmp.Equal(want, healths()) {
			if o := f.observation(); !o.Named {
				t.Errorf("told %+v, want the named object", o)
			}
		}
	}
	reach(map[string]gitops.HealthStatus{"plain": gitops.HealthCurrent, "on": gitops.HealthCurrent, "off": gitops.HealthInProgress, "on too": gitops.HealthCurrent})
	f.patch(object, types.MergePatchType, `{"data":{"state":"off"}}`, "somebody")
	reach(map[string]gitops.HealthStatus{"plain": gitops.HealthCurrent, "on": gitops.HealthInProgress, "off": gitops.HealthCurrent, "on too": gitops.HealthInProgress})
	if watches := len(f.watchers); watches != 1 {
		t.Errorf("%d watches for one object", watches)
	}
}
