package flux

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
)

// summed counts how often it is asked for a sum.
type summed struct {
	gitops.Tree
	asked *int
}

func (s summed) Sum(name string) (string, error) {
	*s.asked++
	return s.Tree.Sum(name)
}

func including(times int) *sourcev1.GitRepository {
	obj := &sourcev1.GitRepository{}
	obj.Namespace, obj.Spec.URL = "a", "https://example.com/a"
	for i := range times {
		include := sourcev1.GitRepositoryInclude{ToPath: fmt.Sprint("in/", i)}
		include.GitRepositoryRef.Name = "lib"
		obj.Spec.Include = append(obj.Spec.Include, include)
	}
	return obj
}

func TestManyIncludes(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		times int
		want  string
	}{
		"as many as are allowed": {100, ""},
		"one more":               {101, "spec.include has 101 entries, at most 100 are allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			switch b := (gitRepositories{}).refuse(including(test.times)); {
			case test.want == "" && b != nil:
				t.Errorf("refused: %v", b)
			case test.want != "" && (b == nil || !b.stalled || !strings.Contains(b.Error(), test.want)):
				t.Errorf("got %v, want stalled with %q", b, test.want)
			}
		})
	}
}

// TestDeepIncludes: however few repositories there are, they are not nested without an end.
func TestDeepIncludes(t *testing.T) {
	t.Parallel()
	g := gitRepositories{sources: newSources()}
	lib := gitops.OwnerRef{Group: sourceGroup, Kind: sourcev1.GitRepositoryKind, Namespace: "a", Name: "lib"}
	files := sourcetest.Memory(map[string]string{"a": "1"})
	for level := range deepestInclude + 1 {
		g.sources.publish(lib, gitops.Snapshot{Files: files, Release: func() {}})
		obj := including(2)
		in, err := g.includes(obj)
		if err != nil {
			t.Fatal(err)
		}
		composed, err := composeIncludes(obj, sourcetest.Memory(map[string]string{"b": "1"}), in[:1])
		in.release()
		if level < deepestInclude {
			if err != nil {
				t.Fatalf("%d deep: %v", level, err)
			}
			files = composed
			continue
		}
		const want = `include "lib": what is included in it is nested 10 deep already`
		var failed *gitops.Error
		if !errors.As(err, &failed) || failed.Kind != gitops.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%d deep: error %v, want %q", level, err, want)
		}
	}
}

// TestNestedIncludes: an included snapshot is asked once for its sum, however often it is
// included, and what is included in included ones counts.
func TestNestedIncludes(t *testing.T) {
	t.Parallel()
	asked := 0
	files := gitops.Tree(summed{sourcetest.Memory(map[string]string{"a": "1"}), &asked})
	g := gitRepositories{sources: newSources()}
	lib := gitops.OwnerRef{Group: sourceGroup, Kind: sourcev1.GitRepositoryKind, Namespace: "a", Name: "lib"}
	publish := func(files gitops.Tree) { g.sources.publish(lib, gitops.Snapshot{Files: files, Release: func() {}}) }
	publish(files)
	contents := map[string]bool{}
	for range 3 {
		obj := including(50)
		in, err := g.includes(obj)
		if err != nil {
			t.Fatal(err)
		}
		contents[gitContent(obj, nil, in)] = true
		in.release()
	}
	if asked != 1 || len(contents) != 1 {
		t.Errorf("the included one was asked %d times for its sum, want once; what was followed is %v", asked, contents)
	}
	for i, step := range []struct {
		times, parts int
		err          string
	}{
		{30, 31, ""},
		{60, 1861, ""},
		{2, 0, `include "lib": with what is included in it, the source is made of more than 2000 repositories`},
	} {
		obj := including(step.times)
		in, err := g.includes(obj)
		if err != nil {
			t.Fatal(err)
		}
		composed, err := composeIncludes(obj, sourcetest.Memory(map[string]string{"b": "1"}), in)
		in.release()
		switch {
		case step.err == "" && err != nil || step.err != "" && (err == nil || !strings.Contains(err.Error(), step.err)):
			t.Errorf("level %d: error %v, want %q", i, err, step.err)
		case err == nil && source.Parts(composed) != step.parts:
			t.Errorf("level %d: made of %d, want %d", i, source.Parts(composed), step.parts)
		}
		if err == nil {
			publish(composed)
		}
	}
}
