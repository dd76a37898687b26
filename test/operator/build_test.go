package operator_test

import (
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"

	"github.com/plumb-gitops/plumb/internal/testenv"
)

// badInput is one way of breaking a folder of a repository. NAMESPACE in files
// and words stands for the test's namespace.
type badInput struct {
	// spec changes the Kustomization that is to fail.
	spec func(*kustomizev1.Kustomization)
	// given are files beside those that every test begins with.
	given testenv.Files
	// before is done once the good revision is live.
	before func(*world)
	// files is the commit that breaks the folder "bad".
	files testenv.Files
	// mend is the commit after which it is Ready again.
	mend testenv.Files
	// after is done beside that commit.
	after func(*world)
	// reason and words are what the condition and the event say, hides what
	// they must not say.
	reason, words, hides string
}

// bomb is a YAML document of a few hundred bytes that expands to billions of nodes.
func bomb() string {
	var b strings.Builder
	b.WriteString("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: bomb\nx0: &x0 [a, a, a, a, a, a, a, a, a, a]\n")
	for i := range 9 {
		from, to := string(rune('0'+i)), string(rune('1'+i))
		b.WriteString("x" + to + ": &x" + to + " [" + strings.TrimSuffix(strings.Repeat("*x"+from+", ", 10), ", ") + "]\n")
	}
	return b.String()
}

// bases is a chain of folders of which each includes the next one twice.
func bases() testenv.Files {
	files := testenv.Files{"bad/kustomization.yaml": "resources:\n- kept.yaml\n- base/0/a\n- base/0/b\n"}
	for i := range 30 {
		for _, side := range []string{"a", "b"} {
			next := fmt.Sprintf("resources:\n- ../../%d/a\n- ../../%d/b\nnamePrefix: %s\n", i+1, i+1, side)
			if i == 29 {
				next = "resources:\n- leaf.yaml\n"
				files[fmt.Sprintf("bad/base/%d/%s/leaf.yaml", i, side)] = configMap("leaf"+side, "1")
			}
			files[fmt.Sprintf("bad/base/%d/%s/kustomization.yaml", i, side)] = next
		}
	}
	return files
}

func badBuilds() map[string]badInput {
	return map[string]badInput{
		"a path that is gone": {
			files:  testenv.Files{"bad": testenv.Delete},
			mend:   testenv.Files{"bad/kept.yaml": keptMap("kept", "3")},
			reason: "ArtifactFailed", words: `there is no directory "bad"|correct spec.path, or add the directory`,
		},
		"malformed YAML": {
			files:  testenv.Files{"bad/broken.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\n   wrong: [\n"},
			mend:   testenv.Files{"bad/broken.yaml": testenv.Delete},
			reason: "BuildFailed", words: "bad/broken.yaml:|malformed YAML",
		},
		"an object without a name": {
			files:  testenv.Files{"bad/nameless.yaml": keptMap("x", "1") + "---\n# here\napiVersion: v1\nkind: ConfigMap\nmetadata: {labels: {a: b}}\n"},
			mend:   testenv.Files{"bad/nameless.yaml": testenv.Delete},
			reason: "BuildFailed", words: "bad/nameless.yaml:10|ConfigMap has no metadata.name|give it one",
		},
		"a document that is no object": {
			files:  testenv.Files{"bad/values.yaml": "replicas: 1\nimage: a\n"},
			mend:   testenv.Files{"bad/values.yaml": testenv.Delete},
			reason: "BuildFailed", words: "bad/values.yaml:1|not a Kubernetes object|kustomization.yaml",
		},
		"a patch without a target": {
			files:  testenv.Files{"bad/kustomization.yaml": "resources:\n- kept.yaml\npatches:\n- path: patch.yaml\n", "bad/patch.yaml": configMap("nobody", "1")},
			mend:   testenv.Files{"bad/kustomization.yaml": testenv.Delete, "bad/patch.yaml": testenv.Delete},
			reason: "BuildFailed", words: "bad/kustomization.yaml|nobody",
		},
		"one object declared in two files": {
			files:  testenv.Files{"bad/again.yaml": "# a comment\n---\n" + keptMap("kept", "2")},
			mend:   testenv.Files{"bad/again.yaml": testenv.Delete},
			reason: "BuildFailed", words: "ConfigMap|kept|bad/again.yaml:3|bad/kept.yaml:1|remove one",
		},
		"a resource that leads out of the repository": {
			files:  testenv.Files{"bad/kustomization.yaml": "resources:\n- kept.yaml\n- ../../outside.yaml\n"},
			mend:   testenv.Files{"bad/kustomization.yaml": "resources:\n- kept.yaml\n"},
			reason: "BuildFailed", words: `bad/kustomization.yaml:3|"../../outside.yaml"|only files of the source can be used`,
		},
		"an absolute path": {
			files:  testenv.Files{"bad/kustomization.yaml": "resources:\n- kept.yaml\n- /etc/passwd\n"},
			mend:   testenv.Files{"bad/kustomization.yaml": "resources:\n- kept.yaml\n"},
			reason: "BuildFailed", words: `bad/kustomization.yaml:3|"/etc/passwd"|only files of the source can be used`,
		},
		"a symbolic link out of the repository": {
			files: testenv.Files{
				"bad/kustomization.yaml": "resources:\n- kept.yaml\n- link.yaml\n",
				"bad/link.yaml":          testenv.Symlink("/etc/passwd"),
			},
			mend:   testenv.Files{"bad/kustomization.yaml": "resources:\n- kept.yaml\n", "bad/link.yaml": testenv.Delete},
			reason: "BuildFailed", words: `bad/kustomization.yaml:3|"link.yaml"|symbolic link`,
		},
		"a remote base": {
			files:  testenv.Files{"bad/kustomization.yaml": "resources:\n- kept.yaml\n- https://example.com/org/repo//base?ref=v1\n"},
			mend:   testenv.Files{"bad/kustomization.yaml": "resources:\n- kept.yaml\n"},
			reason: "BuildFailed", words: "bad/kustomization.yaml:3|https://example.com/org/repo//base?ref=v1|--no-remote-bases",
		},
		"an alias bomb": {
			files:  testenv.Files{"bad/bomb.yaml": bomb()},
			mend:   testenv.Files{"bad/bomb.yaml": testenv.Delete},
			reason: "BuildFailed", words: "bad/bomb.yaml:|alias",
		},
		"bases that multiply": {
			files:  bases(),
			mend:   testenv.Files{"bad/kustomization.yaml": testenv.Delete, "bad/base": testenv.Delete},
			reason: "BuildFailed", words: "bad/|kustomization",
		},
		"a file that is nested too deeply": {
			files:  testenv.Files{"bad/deep.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: deep\ndata: " + strings.Repeat("[", 100_000)},
			mend:   testenv.Files{"bad/deep.yaml": testenv.Delete},
			reason: "BuildFailed", words: "bad/deep.yaml|nested",
		},
		"a huge file": {
			files:  testenv.Files{"bad/huge.yaml": configMap("huge", strings.Repeat("x", 11<<20))},
			mend:   testenv.Files{"bad/huge.yaml": testenv.Delete},
			reason: "BuildFailed", words: "bad/huge.yaml|11534406 bytes|split it",
		},
		"a variable without a value": {
			spec: func(k *kustomizev1.Kustomization) {
				k.Spec.PostBuild = &kustomizev1.PostBuild{Substitute: map[string]string{"known": "abc"}}
			},
			files:  testenv.Files{"bad/variable.yaml": "# here\n" + configMap("variable", "${unknown}")},
			mend:   testenv.Files{"bad/variable.yaml": configMap("variable", "${known}")},
			reason: "BuildFailed", words: `ConfigMap/NAMESPACE/variable (bad/variable.yaml:2)|"unknown"|set it in postBuild, or write ${unknown:=default}`,
		},
	}
}

// maxHeap is what the whole test binary may hold in memory, operator, Git
// servers and tests together. Tables of bad input run before the tests that are
// parallel to each other, one table after the other: what is counted is theirs.
const maxHeap = 250 << 20

func TestBadBuild(t *testing.T) {
	for name, row := range badBuilds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			row.run(newWorld(t))
		})
	}
}

// run breaks a folder that was good and mends it again, beside another folder of
// the same repository.
func (row badInput) run(w *world) {
	t := w.t
	t.Helper()
	most := heap(t)
	first := w.push(row.fill(w, row.given, testenv.Files{
		"bad/kept.yaml": keptMap("kept", "1"), "bad/dropped.yaml": keptMap("dropped", "1"), "other/other.yaml": configMap("other", "1"),
	}))
	w.source()
	if row.spec == nil {
		row.spec = func(*kustomizev1.Kustomization) {}
	}
	w.kustomization("bad", row.spec)
	w.kustomization("other")
	w.ready("bad", first)
	w.ready("other", first)
	kept, dropped := w.data("kept", "1"), w.data("dropped", "1")
	if row.before != nil {
		row.before(w)
	}

	// The commit also drops an object, which must not be pruned now.
	second := w.push(row.fill(w, testenv.Files{"bad/dropped.yaml": testenv.Delete, "other/other.yaml": configMap("other", "2")}, row.files))
	failed := w.notReady("bad", row.reason, strings.ReplaceAll(row.words, "NAMESPACE", w.namespace))
	if failed.Status.LastAppliedRevision != first || failed.Status.LastAttemptedRevision != second {
		t.Errorf("applied %q, attempted %q", failed.Status.LastAppliedRevision, failed.Status.LastAttemptedRevision)
	}
	if row.hides != "" && (strings.Contains(conditionOf(failed.Status.Conditions, "Ready").Message, row.hides) ||
		len(w.events("Kustomization", "bad", row.hides)) > 0 || len(operator.log.lines(row.hides)) > 0) {
		t.Errorf("%q can be read in a condition, an event or the log", row.hides)
	}
	w.ready("other", second)
	w.data("other", "2")
	w.same(kept)
	w.same(dropped)
	// What was applied before is kept in order.
	w.patch(w.namedConfig("kept"), `{"data":{"key":"drift"}}`)
	w.data("kept", "1")
	w.same(kept)
	w.same(dropped)

	if row.after != nil {
		row.after(w)
	}
	third := w.push(row.fill(w, row.mend))
	w.ready("bad", third)
	w.same(kept)
	w.gone(dropped)
	if most() > maxHeap {
		t.Errorf("%d MiB were in use", most()>>20)
	}
}

// fill joins sets of files, with the test's namespace in them.
func (badInput) fill(w *world, sets ...testenv.Files) testenv.Files {
	all := testenv.Files{}
	for _, files := range sets {
		for path, content := range files {
			all[path] = strings.ReplaceAll(content, "NAMESPACE", w.namespace)
		}
	}
	return all
}

// keptMap is a manifest of a ConfigMap that says its namespace.
func keptMap(name, value string) string {
	return strings.Replace(configMap(name, value), "metadata:\n", "metadata:\n  namespace: NAMESPACE\n", 1)
}

// TestHugeBlob commits a file of 256 MiB that is a few hundred kilobytes
// as Git stores it.
func TestHugeBlob(t *testing.T) {
	w := newWorld(t)
	most := heap(t)
	first := w.push(testenv.Files{"app/a.yaml": configMap("a", "1"), "other/other.yaml": configMap("other", "1")})
	w.source()
	w.kustomization("app")
	w.kustomization("other")
	w.ready("app", first)
	w.ready("other", first)
	a := w.data("a", "1")

	add := exec.CommandContext(t.Context(), "git", "-C", w.repo.Dir, "hash-object", "-w", "--stdin")
	add.Stdin = io.LimitReader(zeros{}, 256<<20)
	blob, err := add.Output()
	w.check(err)
	w.push(testenv.Files{"other/other.yaml": configMap("other", "2")})
	w.repo.Git(t, "read-tree", "main")
	w.repo.Git(t, "update-index", "--add", "--cacheinfo", "100644,"+strings.TrimSpace(string(blob))+",app/zeros.yaml")
	tree := strings.TrimSpace(w.repo.Git(t, "write-tree"))
	commit := strings.TrimSpace(w.repo.Git(t, "-c", "user.name=Ann", "-c", "user.email=ann@example.com", "commit-tree", "-p", "main", "-m", "zeros", tree))
	w.repo.Branch(t, "main", commit)
	w.fetch()
	w.notReady("app", "BuildFailed", "app/zeros.yaml|268435456 bytes|split it")
	w.ready("other", "main@sha1:"+commit)
	w.data("other", "2")
	w.same(a)
	third := w.push(testenv.Files{"app/zeros.yaml": testenv.Delete, "app/a.yaml": configMap("a", "3")})
	w.ready("app", third)
	w.sourceReady(third)
	w.same(a)
	t.Logf("at most %d MiB were in use", most()>>20)
	if most() > maxHeap {
		t.Errorf("%d MiB were in use", most()>>20)
	}
}

// zeros is an endless file.
type zeros struct{}

// Read gives zero bytes.
func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestPathOutside names a folder that is not in the repository.
func TestPathOutside(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.push(testenv.Files{"app/a.yaml": configMap("a", "1")})
	w.source()
	w.kustomization("app", func(k *kustomizev1.Kustomization) { k.Spec.Path = "../../../etc" })
	w.notReady("app", "ArtifactFailed", `no directory "etc" in the source|spec.path "../../../etc" leads out of the source|correct spec.path`)
	w.patch(w.named("app"), `{"spec":{"path":"./app"}}`)
	w.data("a", "1")
}
