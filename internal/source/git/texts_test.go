package git

import (
	"fmt"
	"strings"
	"testing"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/git/pack"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// TestErrorsAreShort: whatever a repository has in names and URLs, an error of it can
// stand in a status.
func TestErrorsAreShort(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 50_000)
	module := func(path, url string) testenv.Files {
		return testenv.Files{".gitmodules": "[submodule \"x\"]\n\tpath = " + path + "\n\turl = " + url + "\n", "x": testenv.Submodule(strings.Repeat("1", 40))}
	}
	for name, files := range map[string]testenv.Files{
		"a path of a submodule":     module("../"+long, "../x"),
		"a URL of a submodule":      module("x", "../"+long),
		"a URL that is none":        module("x", long),
		"a scheme":                  module("x", long+"://host/x"),
		"a long file of submodules": {".gitmodules": strings.Repeat("# "+long+"\n", 30), "x": testenv.Submodule(strings.Repeat("1", 40))},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.NewGitServer(t, testenv.GitServerOptions{})
			server.Repository(t, "app").Commit(t, "main", files)
			_, err := store(t, Options{}).Fetch(t.Context(), Request{URL: server.URL("app"), Ref: Ref{Branch: "main"}, RecurseSubmodules: true})
			if gitops.KindOf(err) == "" || len(fmt.Sprint(err)) > 2000 {
				t.Errorf("error of %d bytes: %.300v", len(fmt.Sprint(err)), err)
			}
		})
	}
	var id pack.ID
	tree := "100644 .git:" + long + "\x00" + string(id[:])
	if _, err := parseTree(id, []byte(tree)); err == nil || len(err.Error()) > 2000 {
		t.Errorf("of a name in a directory: error of %d bytes", len(fmt.Sprint(err)))
	}
}
