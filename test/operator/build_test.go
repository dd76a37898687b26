package operator_test

import (
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"

	"github.com/plumb-gitops/plumb/internal/testenv"
)

// badFiles is one way of breaking a folder of a repository.
type badFiles struct {
	// spec changes the Kustomization that is to fail.
	spec func(*kustomizev1.Kustomization)
	// files is the commit that breaks the folder "bad".
	files testenv.Files
	// mend is the commit after which it is Ready again.
	mend testenv.Files
	// reason and words are what the condition and the event say.
	reason, words string
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

func badBuilds() map[string]badFiles {
	return map[string]badFiles{
		"a path that is gone": {
			files:  testenv.Files{"bad": testenv.Delete},
			mend:   testenv.Files{"bad/kept.yaml": configMap("kept", "3")},
			reason: "ArtifactFailed", words: `there is no directory "bad"|correct spec.path, or add the directory`,
		},
		"malformed YAML": {
			files:  testenv.Files{"bad/broken.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\n   wrong: [\n"},
			mend:   testenv.Files{"bad/broken.yaml": testenv.Delete},
			reason: "BuildFailed", words: "bad/broken.yaml:|malformed YAML",
		},
		"one object declared in two files": {
			files:  testenv.Files{"bad/again.yaml": "# a comment\n---\n" + configMap("kept", "2")},
			mend:   testenv.Files{"bad/again.yaml": testenv.Delete},
			reason: "BuildFailed", words: "ConfigMap|kept|bad/again.yaml:|bad/kept.yaml:1|remove one",
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
		"a huge file": {
			files:  testenv.Files{"bad/huge.yaml": configMap("huge", strings.Repeat("x", 11<<20))},
			mend:   testenv.Files{"bad/huge.yaml": testenv.Delete},
			reason: "BuildFailed", words: "bad/huge.yaml|MiB",
		},
		"a variable without a value": {
			spec: func(k *kustomizev1.Kustomization) {
				k.Spec.PostBuild = &kustomizev1.PostBuild{Substitute: map[string]string{"known": "1"}}
			},
			files:  testenv.Files{"bad/variable.yaml": "# here\n" + configMap("variable", "${unknown}")},
			mend:   testenv.Files{"bad/variable.yaml": configMap("variable", "${known}")},
			reason: "BuildFailed", words: "unknown|bad/variable.yaml:2|ConfigMap|variable|substitute",
		},
	}
}

// maxHeap is what the whole test binary may hold in memory, operator, Git
// servers and tests together.
const maxHeap = 400 << 20

func TestBadBuild(t *testing.T) {
	t.Parallel()
	for name, row := range badBuilds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			most := heap(t)
			first := w.push(testenv.Files{"bad/kept.yaml": configMap("kept", "1"), "other/other.yaml": configMap("other", "1")})
			w.source()
			change := row.spec
			if change == nil {
				change = func(*kustomizev1.Kustomization) {}
			}
			w.kustomization("bad", change)
			w.kustomization("other")
			w.ready("bad", first)
			w.ready("other", first)
			kept := w.data("kept", "1")

			files := testenv.Files{"other/other.yaml": configMap("other", "2")}
			for path, content := range row.files {
				files[path] = content
			}
			second := w.push(files)
			failed := w.notReady("bad", row.reason, row.words)
			if failed.Status.LastAppliedRevision != first || failed.Status.LastAttemptedRevision != second {
				t.Errorf("applied %q, attempted %q", failed.Status.LastAppliedRevision, failed.Status.LastAttemptedRevision)
			}
			w.ready("other", second)
			w.data("other", "2")
			w.same(kept)
			// What was applied before is kept in order, although it cannot be built any more.
			w.patch(w.namedConfig("kept"), `{"data":{"key":"drift"}}`)
			w.data("kept", "1")
			w.same(kept)

			third := w.push(row.mend)
			w.ready("bad", third)
			if most() > maxHeap {
				t.Errorf("%d MiB were in use", most()>>20)
			}
		})
	}
}
