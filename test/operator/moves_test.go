package operator_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/plumb-gitops/plumb/internal/testenv"
)

// child is a manifest of a Kustomization that builds a folder.
func child(w *world, name, path string, dependsOn ...string) string {
	text := fmt.Sprintf(`apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata:
  name: %s
  namespace: %s
spec:
  interval: 1h
  prune: true
  path: ./%s
  targetNamespace: %[2]s
  sourceRef: {kind: GitRepository, name: repo}
`, name, w.namespace, path)
	if len(dependsOn) > 0 {
		text += "  dependsOn:\n"
	}
	for _, on := range dependsOn {
		text += "  - name: " + on + "\n"
	}
	return text
}

// TestReorganisations changes in one commit which Kustomization declares what. No
// object is deleted on its way, whoever has to wait for whom.
func TestReorganisations(t *testing.T) {
	t.Parallel()
	folder := func(name string, objects ...string) testenv.Files {
		files := testenv.Files{name + "/own.yaml": configMap("own-"+name, "1")}
		for _, object := range objects {
			files[name+"/"+object+".yaml"] = configMap(object, "1")
		}
		return files
	}
	type owners map[string][]string // name of a Kustomization, and those that it waits for
	tests := map[string]struct {
		before, after owners
		// given and change are files of the folders that have the names of the owners.
		given, change []testenv.Files
		// between is a commit of its own before the change.
		between testenv.Files
		// goes are the objects that the change asks to delete.
		goes []string
	}{
		"a split into two new ones": {
			before: owners{"all": nil}, given: []testenv.Files{folder("all", "a", "b")},
			after: owners{"left": nil, "right": nil}, change: []testenv.Files{{"all": testenv.Delete}, folder("left", "a"), folder("right", "b")},
			goes: []string{"own-all"},
		},
		"a split into two new ones, one after the other": {
			before: owners{"all": nil}, given: []testenv.Files{folder("all", "a", "b")},
			after: owners{"left": {"right"}, "right": nil}, change: []testenv.Files{{"all": testenv.Delete}, folder("left", "a"), folder("right", "b")},
			goes: []string{"own-all"},
		},
		"a split into two new ones, the other after the one": {
			before: owners{"all": nil}, given: []testenv.Files{folder("all", "a", "b")},
			after: owners{"left": nil, "right": {"left"}}, change: []testenv.Files{{"all": testenv.Delete}, folder("left", "a"), folder("right", "b")},
			goes: []string{"own-all"},
		},
		"a part that is split off": {
			before: owners{"all": nil}, given: []testenv.Files{folder("all", "a", "b")},
			after: owners{"all": nil, "right": nil}, change: []testenv.Files{{"all/b.yaml": testenv.Delete}, folder("right", "b")},
		},
		"a part that is split off, and waits for the rest": {
			before: owners{"all": nil}, given: []testenv.Files{folder("all", "a", "b")},
			after: owners{"all": nil, "right": {"all"}}, change: []testenv.Files{{"all/b.yaml": testenv.Delete}, folder("right", "b")},
		},
		"a part that is split off, and the rest waits for it": {
			before: owners{"all": nil}, given: []testenv.Files{folder("all", "a", "b")},
			after: owners{"all": {"right"}, "right": nil}, change: []testenv.Files{{"all/b.yaml": testenv.Delete}, folder("right", "b")},
		},
		"a part that is split off, and is declared by both for a commit": {
			before: owners{"all": nil, "right": nil}, given: []testenv.Files{folder("all", "a", "b"), folder("right")},
			between: testenv.Files{"right/b.yaml": configMap("b", "1")},
			after:   owners{"all": nil, "right": nil}, change: []testenv.Files{{"all/b.yaml": testenv.Delete}},
		},
		"a merge into a new one": {
			before: owners{"left": nil, "right": nil}, given: []testenv.Files{folder("left", "a"), folder("right", "b")},
			after: owners{"all": nil}, change: []testenv.Files{{"left": testenv.Delete, "right": testenv.Delete}, folder("all", "a", "b")},
			goes: []string{"own-left", "own-right"},
		},
		"a merge into one of the two": {
			before: owners{"left": nil, "right": nil}, given: []testenv.Files{folder("left", "a"), folder("right", "b")},
			after: owners{"left": nil}, change: []testenv.Files{{"right": testenv.Delete}, folder("left", "b")},
			goes: []string{"own-right"},
		},
		"a merge into one that waited for the other": {
			before: owners{"left": {"right"}, "right": nil}, given: []testenv.Files{folder("left", "a"), folder("right", "b")},
			after: owners{"left": nil}, change: []testenv.Files{{"right": testenv.Delete}, folder("left", "b")},
			goes: []string{"own-right"},
		},
		"a merge into one that the other waited for": {
			before: owners{"left": nil, "right": {"left"}}, given: []testenv.Files{folder("left", "a"), folder("right", "b")},
			after: owners{"left": nil}, change: []testenv.Files{{"right": testenv.Delete}, folder("left", "b")},
			goes: []string{"own-right"},
		},
		"a merge into a new one, of two of which one waited for the other": {
			before: owners{"left": {"right"}, "right": nil}, given: []testenv.Files{folder("left", "a"), folder("right", "b")},
			after: owners{"all": nil}, change: []testenv.Files{{"left": testenv.Delete, "right": testenv.Delete}, folder("all", "a", "b")},
			goes: []string{"own-left", "own-right"},
		},
		"a merge of what is declared by both for a commit": {
			before: owners{"left": nil, "right": nil}, given: []testenv.Files{folder("left", "a"), folder("right", "b")},
			between: testenv.Files{"left/b.yaml": configMap("b", "1")},
			after:   owners{"left": nil}, change: []testenv.Files{{"right": testenv.Delete}},
			goes: []string{"own-right"},
		},
		"a swap": {
			before: owners{"left": nil, "right": nil}, given: []testenv.Files{folder("left", "a"), folder("right", "b")},
			after: owners{"left": nil, "right": nil}, change: []testenv.Files{{"left/a.yaml": testenv.Delete, "right/b.yaml": testenv.Delete}, {"left/b.yaml": configMap("b", "1"), "right/a.yaml": configMap("a", "1")}},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			fleet := func(owners owners, files ...testenv.Files) testenv.Files {
				all := testenv.Files{"fleet/fleet.yaml": configMap("fleet", "1")}
				for _, more := range files {
					for name, content := range more {
						all[name] = content
					}
				}
				for owner, on := range owners {
					all["fleet/"+owner+".yaml"] = child(w, owner, owner, on...)
				}
				return all
			}
			first := w.push(fleet(tt.before, tt.given...))
			w.source()
			w.kustomization("fleet")
			for owner := range tt.before {
				w.ready(owner, first)
			}
			a, b := w.data("a", "1"), w.data("b", "1")
			if tt.between != nil {
				revision := w.push(tt.between)
				for owner := range tt.before {
					w.ready(owner, revision)
				}
				w.same(a)
				w.same(b)
			}
			change := fleet(tt.after, tt.change...)
			for owner := range tt.before {
				if _, stays := tt.after[owner]; !stays {
					change["fleet/"+owner+".yaml"] = testenv.Delete
				}
			}
			second := w.push(change)
			for owner := range tt.after {
				w.ready(owner, second)
			}
			for owner := range tt.before {
				if _, stays := tt.after[owner]; !stays {
					w.gone(w.named(owner))
				}
			}
			for _, name := range tt.goes {
				w.gone(w.namedConfig(name))
			}
			w.ready("fleet", second)
			w.same(a)
			w.same(b)
			deleted := w.deletions()
			slices.Sort(deleted)
			if strings.Join(deleted, " ") != strings.Join(tt.goes, " ") {
				t.Errorf("deleted %v, want %v", deleted, tt.goes)
			}
			for owner := range tt.after {
				w.quiet(owner)
			}
		})
	}
}

// TestRename gives a Kustomization another name, another path or both, in one commit or
// in several. Its objects stay what they are.
func TestRename(t *testing.T) {
	t.Parallel()
	at := func(folder, b string) testenv.Files {
		return testenv.Files{folder + "/a.yaml": configMap("a", "1"), folder + "/b.yaml": configMap("b", b)}
	}
	gone := testenv.Files{"app": testenv.Delete}
	// declared is where the Kustomizations old and new build from; "" for one that is not.
	type declared struct{ old, new string }
	type step struct {
		declared
		files []testenv.Files
		// fails is said of the old one where the step leaves it nothing to build.
		fails string
	}
	for name, steps := range map[string][]step{
		"its name":                    {{declared: declared{new: "app"}}},
		"its path":                    {{declared: declared{old: "to"}, files: []testenv.Files{gone, at("to", "2")}}},
		"its path, and a copy stays":  {{declared: declared{old: "to"}, files: []testenv.Files{at("to", "2")}}},
		"both":                        {{declared: declared{new: "to"}, files: []testenv.Files{gone, at("to", "2")}}},
		"both, and a copy stays":      {{declared: declared{new: "to"}, files: []testenv.Files{at("to", "2")}}},
		"both, into the folder above": {{declared: declared{new: "."}, files: []testenv.Files{{"kustomization.yaml": "resources: [app/a.yaml, app/b.yaml]\n"}}}},
		"both, after the files": {
			{declared: declared{old: "app"}, files: []testenv.Files{gone, at("to", "1")}, fails: `there is no directory "app"`},
			{declared: declared{new: "to"}},
		},
		"both, and the files are there before": {
			{declared: declared{old: "app"}, files: []testenv.Files{at("to", "1")}},
			{declared: declared{new: "to"}, files: []testenv.Files{gone}},
		},
		"both, and the new one is there before": {
			{declared: declared{old: "app", new: "to"}, files: []testenv.Files{at("to", "1")}},
			{declared: declared{new: "to"}, files: []testenv.Files{gone}},
		},
		"its path after its name": {
			{declared: declared{new: "app"}},
			{declared: declared{new: "to"}, files: []testenv.Files{gone, at("to", "2")}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			fleet := func(d declared, files ...testenv.Files) testenv.Files {
				all := testenv.Files{"fleet/fleet.yaml": configMap("fleet", "1"), "fleet/old.yaml": testenv.Delete, "fleet/new.yaml": testenv.Delete}
				for name, path := range map[string]string{"old": d.old, "new": d.new} {
					if path != "" {
						all["fleet/"+name+".yaml"] = child(w, name, path)
					}
				}
				for _, more := range files {
					maps.Copy(all, more)
				}
				return all
			}
			first := w.push(fleet(declared{old: "app"}, at("app", "1")))
			w.source()
			w.kustomization("fleet")
			w.ready("old", first)
			a, b := w.data("a", "1"), w.data("b", "1")
			last := ""
			for _, s := range steps {
				revision := w.push(fleet(s.declared, s.files...))
				w.ready("fleet", revision)
				for name, path := range map[string]string{"old": s.old, "new": s.new} {
					switch {
					case path == "":
						w.gone(w.named(name))
					case s.fails != "":
						w.notReady(name, "ArtifactFailed", s.fails)
					default:
						w.ready(name, revision)
						last = name
					}
				}
				w.same(a)
				w.same(b)
			}
			for _, file := range steps[len(steps)-1].files {
				if file["to/b.yaml"] == configMap("b", "2") {
					w.data("b", "2")
				}
			}
			if deleted := w.deletions(); len(deleted) > 0 {
				t.Errorf("deleted: %v", deleted)
			}
			waitFor(w, w.namedConfig("a"), "labelled for "+last, func(c *corev1.ConfigMap) bool {
				return c.Labels["kustomize.toolkit.fluxcd.io/name"] == last
			})
			waitFor(w, w.named(last), "with both in its inventory", func(k *kustomizev1.Kustomization) bool {
				return k.Status.Inventory != nil && len(k.Status.Inventory.Entries) == 2
			})
		})
	}
}
