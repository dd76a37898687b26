package repotest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func root(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func report(t *testing.T, rule string, wrong []string) {
	t.Helper()
	for _, w := range wrong {
		t.Errorf("%s: %s", rule, w)
	}
}

func TestPackagesFollowTheRules(t *testing.T) {
	t.Parallel()
	packages, err := Load(root(t))
	if err != nil {
		t.Fatal(err)
	}
	ours := 0
	for _, p := range packages {
		if p.Path() != "" {
			ours++
		}
	}
	if ours < 3 || len(packages) == ours {
		t.Fatalf("go list shows %d packages, %d of them ours: the rules would look at nothing", len(packages), ours)
	}
	report(t, "direction of imports", Direction(packages))
	report(t, "pure packages", Pure(packages))
	report(t, "heavy libraries", Heavy(packages))
	report(t, "programs", Programs(packages))
	report(t, "package comments", Comments(packages))
	report(t, "package names", Names(packages))
}

func TestFilesFollowTheRules(t *testing.T) {
	t.Parallel()
	files := os.DirFS(root(t))
	foreign, err := ForeignGroups(files)
	if err != nil {
		t.Fatal(err)
	}
	report(t, "API groups below the front ends", foreign)
	undecided, err := Conflicts(files)
	if err != nil {
		t.Fatal(err)
	}
	report(t, "merges", undecided)
	tooLong, long, err := Lengths(files)
	if err != nil {
		t.Fatal(err)
	}
	report(t, "length of files", tooLong)
	for _, l := range long {
		t.Log(l)
	}
}

func TestGeneratorUsesTheSameAPIModules(t *testing.T) {
	t.Parallel()
	var mods [2]string
	for i, name := range []string{"go.mod", "tools/go.mod"} {
		data, err := os.ReadFile(filepath.Join(root(t), name))
		if err != nil {
			t.Fatal(err)
		}
		mods[i] = string(data)
	}
	report(t, "API modules", APIVersions(mods[0], mods[1]))
}

func pkg(path string, imports ...string) Package {
	p := Package{ImportPath: path, Doc: "Package has a comment.", GoFiles: []string{"a.go"}, Imports: imports}
	if strings.HasPrefix(path, "internal/") || strings.HasPrefix(path, "cmd/") {
		p.ImportPath = Module + "/" + path
	}
	for i, imported := range p.Imports {
		if strings.HasPrefix(imported, "internal/") {
			p.Imports[i] = Module + "/" + imported
		}
	}
	return p
}

func tested(p Package, imports ...string) Package { p.XTestImports = imports; return p }

// TestRulesFindBadExamples shows of every rule that it can fail, and that it
// leaves the good neighbour alone.
func TestRulesFindBadExamples(t *testing.T) {
	t.Parallel()
	uncommented := pkg("internal/plan")
	uncommented.Doc = ""
	tests := map[string]struct {
		rule     func([]Package) []string
		packages []Package
		want     string // part of the one sentence expected; "" for none
	}{
		"the engine may import a stage":               {Direction, []Package{pkg("internal/engine", "internal/apply", "internal/gitops")}, ""},
		"a stage may not import the engine":           {Direction, []Package{pkg("internal/apply", "internal/engine")}, "engine stands above apply"},
		"a stage may not import a stage":              {Direction, []Package{pkg("internal/apply", "internal/observe")}, "stand in one row"},
		"the vocabulary imports nothing":              {Direction, []Package{pkg("internal/gitops", "internal/plan")}, "plan stands above gitops"},
		"a pure package may not import a service":     {Direction, []Package{pkg("internal/ownership", "internal/cluster")}, "cluster stands above ownership"},
		"a service may import a pure package":         {Direction, []Package{pkg("internal/gitserver", "internal/health")}, ""},
		"the engine may not import a front end":       {Direction, []Package{pkg("internal/engine", "internal/frontend/flux")}, "frontend/flux stands above engine"},
		"a front end's parts may import each other":   {Direction, []Package{pkg("internal/frontend/flux", "internal/frontend/flux/crds")}, ""},
		"two front ends may not":                      {Direction, []Package{pkg("internal/frontend/argo", "internal/frontend/flux")}, "stand in one row"},
		"the server may import an adapter":            {Direction, []Package{pkg("internal/server", "internal/source/git")}, ""},
		"the engine may not import an adapter":        {Direction, []Package{pkg("internal/engine", "internal/source/git")}, "an adapter is imported by server"},
		"a stage may not import its own adapter":      {Direction, []Package{pkg("internal/build", "internal/build/kustomize")}, "an adapter is imported by server"},
		"an adapter may not import a sibling":         {Direction, []Package{pkg("internal/build/sops", "internal/build/kustomize")}, "an adapter is imported by server"},
		"an adapter's parts may import each other":    {Direction, []Package{pkg("internal/source/git", "internal/source/git/pack"), pkg("internal/source/git/wire", "internal/source/git/pack")}, ""},
		"a part of an adapter is the adapter's own":   {Direction, []Package{pkg("internal/artifact", "internal/source/git/pack")}, "an adapter is imported by server"},
		"an adapter may import its parent":            {Direction, []Package{pkg("internal/build/sops", "internal/build")}, ""},
		"an adapter may not import another stage":     {Direction, []Package{pkg("internal/build/sops", "internal/source")}, "stand in one row"},
		"a front end may import a transformation":     {Direction, []Package{pkg("internal/frontend/flux", "internal/source/generate")}, ""},
		"a transformation may not import an adapter":  {Direction, []Package{pkg("internal/source/generate", "internal/source/git")}, "an adapter is imported by server"},
		"a program may not import the test set-up":    {Direction, []Package{pkg("internal/server", "internal/testenv")}, "only tests may import it"},
		"the test set-up may import anything":         {Direction, []Package{pkg("internal/testenv/api", "internal/server", "internal/source/git")}, ""},
		"an unknown package has no place":             {Direction, []Package{pkg("internal/scratch")}, "stands in no row"},
		"the command line may import the server":      {Direction, []Package{pkg("internal/cli", "internal/server"), pkg("cmd/plumb", "internal/cli")}, ""},
		"the server may not import the command line":  {Direction, []Package{pkg("internal/server", "internal/cli")}, "cli stands above server"},
		"plan may not import an API group":            {Pure, []Package{pkg("internal/plan", "k8s.io/api/apps/v1")}, "knows no API group"},
		"health may not link a client through others": {Pure, []Package{pkg("internal/health", "example.org/x"), pkg("example.org/x", "k8s.io/client-go/rest")}, "example.org/x → k8s.io/client-go/rest"},
		"health may link apimachinery":                {Pure, []Package{pkg("internal/health", "k8s.io/apimachinery/pkg/runtime")}, ""},
		"a stage may link a client":                   {Pure, []Package{pkg("internal/apply", "k8s.io/client-go/rest")}, ""},
		"the engine may not link go-git":              {Heavy, []Package{pkg("internal/engine", "github.com/go-git/go-git/v5")}, "links go-git"},
		"nor through another module":                  {Heavy, []Package{pkg("internal/engine", "example.org/x"), pkg("example.org/x", "github.com/go-git/go-git/v5")}, "example.org/x → github.com/go-git/go-git/v5"},
		"nor in its tests":                            {Heavy, []Package{tested(pkg("internal/engine"), "github.com/go-git/go-git/v5")}, "a test of internal/engine links go-git"},
		"an adapter may link its library":             {Heavy, []Package{pkg("internal/build/kustomize", "sigs.k8s.io/kustomize/api/krusty"), pkg("internal/build/kustomize/x", "sigs.k8s.io/kustomize/api/krusty")}, ""},
		"who imports the adapter may too":             {Heavy, []Package{pkg("internal/server", "internal/build/kustomize"), pkg("internal/build/kustomize", "sigs.k8s.io/kustomize/api/krusty")}, ""},
		"go-git is an oracle of tests":                {Heavy, []Package{tested(pkg("internal/source"), "github.com/go-git/go-git/v5")}, ""},
		"and not of the Git adapter":                  {Heavy, []Package{pkg("internal/source/git", "github.com/go-git/go-git/v5")}, "links go-git"},
		"Flux's build is an oracle of tests":          {Heavy, []Package{tested(pkg("internal/build/kustomize"), "github.com/fluxcd/pkg/kustomize")}, ""},
		"and of no program":                           {Heavy, []Package{pkg("internal/build/kustomize", "github.com/fluxcd/pkg/kustomize")}, "links Flux's build"},
		"the engine may not import Flux's types":      {Heavy, []Package{pkg("internal/engine", "github.com/fluxcd/source-controller/api/v1")}, "links Flux's API modules"},
		"nor their common part":                       {Heavy, []Package{pkg("internal/engine", "github.com/fluxcd/pkg/apis/meta")}, "links Flux's API modules"},
		"the front end may":                           {Heavy, []Package{pkg("internal/frontend/flux/source", "github.com/fluxcd/source-watcher/api/v2/v1beta1")}, ""},
		"the operator starts no programs":             {Programs, []Package{pkg("internal/server", "internal/source/git"), pkg("internal/source/git", "os/exec")}, "internal/server → internal/source/git"},
		"an operator that is not found is an error":   {Programs, []Package{pkg("internal/source/git", "os/exec")}, "internal/server is not there"},
		"who is not linked by it may":                 {Programs, []Package{pkg("internal/server", "internal/source/git"), pkg("internal/source/git"), pkg("internal/gitserver", "os/exec")}, ""},
		"a library of others is not looked at":        {Programs, []Package{pkg("internal/server", "example.org/x"), pkg("example.org/x", "os/exec")}, ""},
		"a package needs a comment":                   {Comments, []Package{uncommented}, "internal/plan has no package comment"},
		"one that has it is fine":                     {Comments, []Package{pkg("internal/plan")}, ""},
		"a name must hold an idea":                    {Names, []Package{pkg("internal/util")}, `the name "util" holds no idea`},
		"one that does is fine":                       {Names, []Package{pkg("internal/plan")}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := tt.rule(tt.packages)
			switch {
			case tt.want == "" && len(got) > 0:
				t.Errorf("found %q, want nothing", got)
			case tt.want != "" && (len(got) != 1 || !strings.Contains(got[0], tt.want)):
				t.Errorf("found %q, want one sentence with %q", got, tt.want)
			}
		})
	}
}

func TestFileRulesFindBadExamples(t *testing.T) {
	t.Parallel()
	lines := func(n int) *fstest.MapFile { return &fstest.MapFile{Data: []byte(strings.Repeat("//\n", n))} }
	text := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	files := fstest.MapFS{
		"internal/engine/a.go":               text("package a\n\nconst key = \"x.fluxcd.io/y\"\n"),
		"internal/engine/a_test.go":          text("const key = \"x.fluxcd.io/y\"\n"),
		"internal/build/kustomize/b.go":      text("// argoproj.io\n"),
		"internal/frontend/flux/c.go":        text("const key = \"x.fluxcd.io/y\"\n"),
		"internal/gitops/d.go":               text("import \"github.com/fluxcd/x\"\n"),
		"internal/plan/short.go":             lines(SoftLines),
		"internal/plan/long.go":              lines(SoftLines + 1),
		"internal/plan/toolong.go":           lines(HardLines + 1),
		"internal/plan/generated.go":         text("// Code generated by x. DO NOT EDIT.\n" + strings.Repeat("//\n", HardLines)),
		"internal/plan/testdata/toolong.go":  lines(HardLines + 1),
		"localcluster/internal/etcd/long.go": lines(HardLines + 1),
	}
	foreign, err := ForeignGroups(files)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`internal/build/kustomize/b.go:1 names "argoproj.io": only a front end knows it; pass it in as data`,
		`internal/engine/a.go:3 names "fluxcd.io": only a front end knows it; pass it in as data`,
	}
	if diff := cmp.Diff(want, foreign); diff != "" {
		t.Errorf("API groups found differ (-want +got):\n%s", diff)
	}
	tooLong, long, err := Lengths(files)
	if err != nil {
		t.Fatal(err)
	}
	got := [][]string{tooLong, long}
	wantLong := [][]string{
		{"internal/plan/toolong.go has 601 lines; look for the second idea in it", "localcluster/internal/etcd/long.go has 601 lines; look for the second idea in it"},
		{"internal/plan/long.go has 401 lines; look for the second idea in it"},
	}
	if diff := cmp.Diff(wantLong, got); diff != "" {
		t.Errorf("long files found differ (-want +got):\n%s", diff)
	}
}

func TestAPIVersionsFindsAnotherVersion(t *testing.T) {
	t.Parallel()
	operator := "require (\n\tgithub.com/fluxcd/source-controller/api v1.9.6 // indirect\n\tgithub.com/fluxcd/pkg/apis/meta v1.2.0\n)\n"
	if got := APIVersions(operator, "require github.com/fluxcd/source-controller/api v1.9.6\n"); len(got) != 0 {
		t.Errorf("the same version is reported: %q", got)
	}
	got := APIVersions(operator, "require github.com/fluxcd/source-controller/api v1.9.5\n")
	want := []string{`github.com/fluxcd/source-controller/api is v1.9.6 in go.mod and "v1.9.5" in tools/go.mod: the CRDs would not fit the types`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("versions found differ (-want +got):\n%s", diff)
	}
}

func TestConflictsFindsWhatAMergeLeft(t *testing.T) {
	t.Parallel()
	files := fstest.MapFS{
		"docs/a.md": {Data: []byte("a\n" + strings.Repeat("<", 7) + " HEAD\nb\n" + strings.Repeat("=", 7) + "\n" + strings.Repeat(">", 7) + " other\n")},
		"docs/b.md": {Data: []byte("Title\n" + strings.Repeat("=", 7) + "\n")},
		"bin/c.md":  {Data: []byte(strings.Repeat("<", 7) + " x\n")},
	}
	wrong, err := Conflicts(files)
	if err != nil || len(wrong) != 2 || !strings.HasPrefix(wrong[0], "docs/a.md:2:") {
		t.Errorf("found %q, %v", wrong, err)
	}
}
