package try

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plumb-gitops/plumb/internal/config"
)

func sourceAt(kind, name string, urls ...string) Source {
	return Source{Kind: kind, Namespace: "apps", Name: name, urls: urls}
}

func TestRewritten(t *testing.T) {
	t.Parallel()
	state := State{Sources: []Source{
		sourceAt("GitRepository", "web", "https://git.test/org/web", "", ""),
		sourceAt("GitRepository", "organisation", "https://git.test/organisation", "", ""),
		sourceAt("Bucket", "files", "", "s3.test", "https://sts.test"),
		sourceAt("ArtifactGenerator", "parts", "", "", ""),
	}}
	for name, row := range map[string]struct {
		rules []config.Rewrite
		want  []string
	}{
		"none": {},
		"a prefix": {
			[]config.Rewrite{{From: "https://git.test/org", To: "http://mirror.test"}},
			[]string{"Sources at https://git.test/org were looked for at http://mirror.test: gitrepository apps/web."},
		},
		"the first that fits is used": {
			[]config.Rewrite{{From: "https://git.test/", To: "http://a.test/"}, {From: "https://git.test/org", To: "http://b.test"}},
			[]string{
				"Sources at https://git.test/ were looked for at http://a.test/: gitrepository apps/web, gitrepository apps/organisation.",
				"There was no source at https://git.test/org; it would have been looked for at http://b.test.",
			},
		},
		"endpoints": {
			[]config.Rewrite{{From: "s3.test", To: "127.0.0.1:1"}, {From: "https://sts.test", To: "http://127.0.0.1:2"}},
			[]string{"Sources at s3.test were looked for at 127.0.0.1:1: bucket apps/files.", "Sources at https://sts.test were looked for at http://127.0.0.1:2: bucket apps/files."},
		},
		"with a password": {
			[]config.Rewrite{{From: "https://git.test/org", To: "http://ann:canary@mirror.test"}},
			[]string{"Sources at https://git.test/org were looked for at http://***@mirror.test: gitrepository apps/web."},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, one := range state.rewritten(row.rules) {
				got = append(got, one.String())
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestManyRewritten(t *testing.T) {
	t.Parallel()
	names := strings.Fields("a b c d e f g")
	if got := (Rewritten{From: "x", To: "y", Sources: names}).String(); got != "Sources at x were looked for at y: a, b, c, d, e and 2 more." {
		t.Error(got)
	}
}

// What else is called flux-system is not what was made for the repository.
func TestSummary(t *testing.T) {
	t.Parallel()
	const revision = "main@sha1:22222222222222222222"
	good := ready("True", "Succeeded", "fine")
	state := State{Sources: []Source{{Kind: "ArtifactGenerator", Namespace: rootName, Name: rootName, Ready: good}, gitSource(good, revision)}}
	root := kustomization(rootName, good, revision)
	root.Current, root.Total = 1, 1
	state.Kustomizations = []Kustomization{root}
	if got := state.rootRevision(); got != revision {
		t.Errorf("the repository is at %q", got)
	}
	rules := []config.Rewrite{{From: "https://a", To: "https://b"}}
	summary := Summary{Outcome: Succeeded, Seconds: 7.1, Repository: "/fleet", Revision: state.rootRevision(), Rewrites: state.rewritten(rules), State: state}
	var out bytes.Buffer
	if err := summary.Print(&out); err != nil {
		t.Fatal(err)
	}
	const want = `ready after 7.1s: /fleet, main@sha1:22222222
1 Kustomizations, 1 of 1 objects current. Workloads are simulated: nothing ran in the pods.
There was no source at https://a; it would have been looked for at https://b.

SOURCE                                     READY  REVISION            MESSAGE
artifactgenerator flux-system/flux-system  True                       fine
gitrepository flux-system/flux-system      True   main@sha1:22222222  fine

KUSTOMIZATION            READY  OBJECTS  REVISION            MESSAGE
flux-system/flux-system  True   1/1      main@sha1:22222222  fine
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
