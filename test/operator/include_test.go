package operator_test

import (
	"testing"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"

	"github.com/plumb-gitops/plumb/internal/testenv"
)

// A file and a folder of another repository are included, and an include that cannot be
// made is a failure to store, as in Flux.
func TestInclude(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.push(testenv.Files{"app/a.yaml": configMap("a", "1")})
	elsewhere := testenv.NewGitServer(t, testenv.GitServerOptions{})
	elsewhere.Repository(t, "lib").Commit(t, "main", testenv.Files{"shared/b.yaml": configMap("b", "1"), "c.yaml": configMap("c", "1")})
	w.source(func(s *sourcev1.GitRepository) { s.Name, s.Spec.URL = "lib", elsewhere.URL("lib") })
	include := func(from, to string) sourcev1.GitRepositoryInclude {
		return sourcev1.GitRepositoryInclude{GitRepositoryRef: meta.LocalObjectReference{Name: "lib"}, FromPath: from, ToPath: to}
	}
	w.source(func(s *sourcev1.GitRepository) {
		s.Spec.Include = []sourcev1.GitRepositoryInclude{include("shared", "app/shared"), include("c.yaml", "app/other.yaml")}
	})
	source := w.namedSource("repo")
	w.kustomization("app")
	w.data("b", "1")
	w.data("c", "1")
	got := stored(w, source, "main@")
	if files := w.load(got.GetArtifact()); len(files) != 3 || files["app/shared/b.yaml"] == "" || files["app/other.yaml"] == "" {
		t.Errorf("the artifact has %v", files)
	}
	for patch, want := range map[string][2]string{
		`{"fromPath":"nowhere","toPath":"app/x"}`:     {"CopyFailure", `"nowhere"|does not exist`},
		`{"fromPath":"shared","toPath":"app/a.yaml"}`: {"CopyFailure", `"app/a.yaml"|exists already`},
		`{"toPath":"../x"}`:                           {"IllegalPath", `"../x"|leads out of the source`},
		`{"fromPath":"../../etc","toPath":"x"}`:       {"IllegalPath", `"../../etc"|leads out of the source`},
	} {
		w.patchSource(`{"spec":{"include":[` + patch[:1] + `"repository":{"name":"lib"},` + patch[1:] + `]}}`)
		failed := unstored(w, source, want[0], want[1]+"|stays in force")
		c := conditionOf(failed.Status.Conditions, "StorageOperationFailed")
		if c.Status != "True" || c.Reason != want[0] || apimeta.FindStatusCondition(failed.Status.Conditions, "FetchFailed") != nil {
			t.Errorf("%s: %+v", patch, failed.Status.Conditions)
		}
	}
	w.patchSource(`{"spec":{"include":[{"repository":{"name":"lib"},"fromPath":"shared","toPath":"app/shared"}]}}`)
	stored(w, source, "main@")
}
