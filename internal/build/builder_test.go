package build_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plumb-gitops/plumb/internal/build"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

var keys = gitops.Keys{OwnerNameLabel: "owner/name", OwnerNamespaceLabel: "owner/namespace", Prune: "owner/prune", Substitute: "owner/substitute"}

func spec() build.Spec {
	return build.Spec{Owner: gitops.OwnerRef{Kind: "K", Namespace: "ns", Name: "own"}, Keys: keys}
}

// concatenating renders an object of what it finds in a folder: the content of
// "a", whether "b" exists, and the names in "dir".
func concatenating(_ context.Context, files build.Files, _ build.Spec) (build.Rendering, error) {
	var text strings.Builder
	if a, err := files.ReadFile("a"); err == nil {
		text.Write(a)
	}
	if info, err := files.Stat("b"); err == nil {
		fmt.Fprintf(&text, " b %v", info.IsDir())
	}
	entries, _ := files.ReadDir("dir")
	for _, e := range entries {
		text.WriteString(" " + e.Name())
	}
	if strings.Contains(text.String(), "bad") {
		return build.Rendering{}, errors.New("the content is bad")
	}
	object := fmt.Sprintf(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"x"},"data":"%s"}`, hex.EncodeToString([]byte(text.String())))
	return build.Rendering{Objects: []build.Object{{JSON: []byte(object)}}}, nil
}

func TestMemo(t *testing.T) {
	t.Parallel()
	first := treeOf("a", "one", "dir/x", "1", "other", "o")
	changedSpec := spec()
	changedSpec.Substitute = &build.Substitution{Variables: map[string]string{"secret": "value"}}
	tests := map[string]struct {
		next   tree
		spec   build.Spec
		reused bool
	}{
		"nothing changed":                        {treeOf("a", "one", "dir/x", "1", "other", "o"), spec(), true},
		"a file that was not read changed":       {treeOf("a", "one", "dir/x", "1", "other", "p", "new/file", "n"), spec(), true},
		"a file changed in a listed directory":   {treeOf("a", "one", "dir/x", "2", "other", "o"), spec(), true},
		"a file that was read changed":           {treeOf("a", "two", "dir/x", "1", "other", "o"), spec(), false},
		"a file that was read is gone":           {treeOf("dir/x", "1", "other", "o"), spec(), false},
		"a file that was read is a directory":    {treeOf("a/b", "one", "dir/x", "1", "other", "o"), spec(), false},
		"a file that was missing appeared":       {treeOf("a", "one", "dir/x", "1", "b", ""), spec(), false},
		"a name was added to a listed directory": {treeOf("a", "one", "dir/x", "1", "dir/y", "1"), spec(), false},
		"a listed directory is gone":             {treeOf("a", "one", "other", "o"), spec(), false},
		"a listed file became a directory":       {treeOf("a", "one", "dir/x/y", "1"), spec(), false},
		"a variable changed":                     {first, changedSpec, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			builder := builderOf(concatenating, build.Limits{})
			before, reused, err := builder.Build(context.Background(), snapshot(first), spec(), nil)
			if err != nil || reused {
				t.Fatalf("first build: reused %v, %v", reused, err)
			}
			if got := builder.Current(before.Trace, test.next, test.spec); got != test.reused {
				t.Errorf("Current = %v, want %v", got, test.reused)
			}
			after, reused, err := builder.Build(context.Background(), snapshot(test.next), test.spec, before)
			if err != nil || reused != test.reused || (after == before) != test.reused {
				t.Errorf("reused = %v, want %v; %v", reused, test.reused, err)
			}
		})
	}
}

func TestMemoCutsOffByDigest(t *testing.T) {
	t.Parallel()
	// The content of "a" moves to a file name: other reads, the same object.
	render := func(_ context.Context, files build.Files, _ build.Spec) (build.Rendering, error) {
		_, err := files.ReadFile("a")
		return build.Rendering{Objects: []build.Object{{JSON: []byte(`{"apiVersion":"v1","kind":"X","metadata":{"name":"x"}}`)}}}, err
	}
	builder := builderOf(render, build.Limits{})
	first, _, err := builder.Build(context.Background(), snapshot(treeOf("a", "1")), spec(), nil)
	if err != nil {
		t.Fatal(err)
	}
	second, reused, err := builder.Build(context.Background(), snapshot(treeOf("a", "2")), spec(), first)
	if err != nil || reused || second.Digest != first.Digest {
		t.Errorf("reused %v, digests %s and %s, %v", reused, first.Digest, second.Digest, err)
	}
}

func TestFailureIsTraced(t *testing.T) {
	t.Parallel()
	builder := builderOf(concatenating, build.Limits{})
	_, _, err := builder.Build(context.Background(), snapshot(treeOf("a", "bad", "other", "1")), spec(), nil)
	var failure *build.Failure
	if !errors.As(err, &failure) {
		t.Fatalf("error is %T: %v", err, err)
	}
	if gitops.KindOf(err) != gitops.Invalid || err.Error() != "the content is bad" {
		t.Errorf("kind %q: %v", gitops.KindOf(err), err)
	}
	if !builder.Current(failure.Trace, treeOf("a", "bad", "other", "2"), spec()) {
		t.Error("a file that was not read makes a failure worth another try")
	}
	for name, next := range map[string]tree{
		"the file that is mended": treeOf("a", "good"), "the file that is gone": treeOf("c", ""), "a file that was missing": treeOf("a", "bad", "b", ""),
	} {
		if builder.Current(failure.Trace, next, spec()) {
			t.Errorf("%s does not make a failure worth another try", name)
		}
	}
	other := spec()
	other.NamePrefix = "x"
	if builder.Current(failure.Trace, treeOf("a", "bad"), other) {
		t.Error("a changed spec does not make a failure worth another try")
	}
}

func TestErrorsOfOthers(t *testing.T) {
	t.Parallel()
	reading := func(_ context.Context, files build.Files, _ build.Spec) (build.Rendering, error) {
		_, err := files.ReadFile("broken")
		return build.Rendering{}, err
	}
	_, _, err := builderOf(reading, build.Limits{}).Build(context.Background(), snapshot(treeOf("broken", "")), spec(), nil)
	if !errors.Is(err, errBroken) || gitops.KindOf(err) != gitops.Transient {
		t.Errorf("a broken store: kind %q, %v", gitops.KindOf(err), err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, _, err = builderOf(reading, build.Limits{}).Build(ctx, snapshot(treeOf("broken", "")), spec(), nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled build: %v", err)
	}
	for name, err := range map[string]error{"broken store": err} {
		var failure *build.Failure
		if errors.As(err, &failure) {
			t.Errorf("%s is a failure of the files", name)
		}
	}
}

func TestUnrepeatable(t *testing.T) {
	t.Parallel()
	render := func(context.Context, build.Files, build.Spec) (build.Rendering, error) {
		return build.Rendering{Unrepeatable: true, Warnings: []string{"careful"}}, nil
	}
	builder := builderOf(render, build.Limits{})
	first, _, err := builder.Build(context.Background(), snapshot(treeOf()), spec(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, reused, err := builder.Build(context.Background(), snapshot(treeOf()), spec(), first); err != nil || reused {
		t.Errorf("reused %v, %v", reused, err)
	}
	if diff := cmp.Diff([]string{"careful"}, first.Warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

func TestManifests(t *testing.T) {
	t.Parallel()
	s := spec()
	s.CommonLabels, s.CommonAnnotations = map[string]string{"team": "a", "owner/name": "someone"}, map[string]string{"note": "n"}
	s.Substitute = &build.Substitution{Always: true}
	render := objectsOf(
		`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"b","namespace":"n","labels":{"x":"$y$","team":"old"}}}`,
		`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","annotations":{"owner/substitute":"disabled","owner/prune":"Disabled"}},"data":{"v":"$v$","n":9007199254740993}}`,
		`{"apiVersion":"kustomize.config.k8s.io/v1beta1","kind":"Kustomization","metadata":{"name":"k"}}`,
		`{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"apps/v1","kind":"X","metadata":{"name":"c"}},{"apiVersion":"v1","kind":"X","metadata":{"name":"c"}}]}`,
	)
	b, _, err := builderOf(render, build.Limits{}).Build(context.Background(), snapshot(treeOf()), s, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range b.Manifests {
		got = append(got, fmt.Sprintf("%s %s %v %v %s %s", m.Ref.ID(), m.APIVersion(), m.Sensitive, m.Policy.KeepOnPrune, m.Origin, m.JSON))
	}
	want := []string{
		`_a__ConfigMap v1 false true f.yaml:2 {"apiVersion":"v1","data":{"n":9007199254740993,"v":"$v$"},"kind":"ConfigMap","metadata":{"annotations":{"note":"n","owner/prune":"Disabled","owner/substitute":"disabled"},"labels":{"owner/name":"own","owner/namespace":"ns","team":"a"},"name":"a"}}`,
		`_c__X v1 false false f.yaml:4 {"apiVersion":"v1","kind":"X","metadata":{"annotations":{"note":"n"},"labels":{"owner/name":"own","owner/namespace":"ns","team":"a"},"name":"c"}}`,
		`_c_apps_X apps/v1 false false f.yaml:4 {"apiVersion":"apps/v1","kind":"X","metadata":{"annotations":{"note":"n"},"labels":{"owner/name":"own","owner/namespace":"ns","team":"a"},"name":"c"}}`,
		`n_b__Secret v1 true false f.yaml:1 {"apiVersion":"v1","kind":"Secret","metadata":{"annotations":{"note":"n"},"labels":{"owner/name":"own","owner/namespace":"ns","team":"a","x":"Y"},"name":"b","namespace":"n"}}`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestBadObjects(t *testing.T) {
	t.Parallel()
	object := func(rest string) string { return `{"apiVersion":"v1","kind":"X","metadata":` + rest + `}` }
	tests := map[string]struct {
		objects []string
		want    string
	}{
		"no object":                {[]string{`[]`}, `f.yaml:1: not an object: json: cannot unmarshal array into Go value of type map[string]interface {}`},
		"null":                     {[]string{`null`}, `f.yaml:1: not an object`},
		"no apiVersion":            {[]string{`{"kind":"X","metadata":{"name":"a"}}`}, `X/a (f.yaml:1): the object has no apiVersion: add it`},
		"an apiVersion of three":   {[]string{`{"apiVersion":"a/b/c","kind":"X","metadata":{"name":"a"}}`}, `X/a (f.yaml:1): apiVersion "a/b/c" is not group/version: correct it`},
		"no kind":                  {[]string{`{"apiVersion":"v1","metadata":{"name":"a"}}`}, `f.yaml:1: the object has no kind: add it`},
		"no name":                  {[]string{object(`{"generateName":"a-"}`)}, `f.yaml:1: the object of kind X has no metadata.name: add it (generateName cannot be reconciled)`},
		"metadata that is no map":  {[]string{object(`"a"`)}, `f.yaml:1: the object of kind X has no metadata.name: add it (generateName cannot be reconciled)`},
		"a name that is a path":    {[]string{object(`{"name":".."}`)}, `X/.. (f.yaml:1): metadata.name ".." is not valid: may not be '..'`},
		"a name with underscore":   {[]string{object(`{"name":"a_b"}`)}, `X/a_b (f.yaml:1): metadata.name "a_b" is not valid: an underscore cannot be kept in an inventory`},
		"an item that is no map":   {[]string{`{"apiVersion":"v1","kind":"List","items":[1]}`}, `f.yaml:1: item 0 of the list is not an object`},
		"twice":                    {[]string{object(`{"name":"a"}`), object(`{"name":"b"}`), object(`{"name":"a"}`)}, `X/a: declared twice, in f.yaml:1 and in f.yaml:3: remove one of them`},
		"a variable that is wrong": {[]string{object(`{"name":"$a"}`)}, `X/$a (f.yaml:1): a dollar sign is missing`},
		"too large":                {[]string{object(`{"name":"a","x":"` + strings.Repeat("x", 2000) + `"}`)}, `X/a (f.yaml:1): the object is 2114 bytes, the limit is 1000: an API server would refuse it`},
		"too many":                 {[]string{object(`{"name":"a"}`), object(`{"name":"b"}`), object(`{"name":"c"}`), object(`{"name":"d"}`)}, `more than 3 objects in one build: split it into several`},
		"too much":                 {[]string{object(`{"name":"a","x":"` + strings.Repeat("x", 700) + `"}`), object(`{"name":"b","x":"` + strings.Repeat("x", 700) + `"}`)}, `the objects are 1628 bytes together, the limit is 1500: split the build into several`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := spec()
			s.Substitute = &build.Substitution{Always: true}
			_, _, err := builderOf(objectsOf(test.objects...), build.Limits{Objects: 3, ObjectBytes: 1000, TotalBytes: 1500}).
				Build(context.Background(), snapshot(treeOf()), s, nil)
			var known *gitops.Error
			if !errors.As(err, &known) || known.Kind != gitops.Invalid || known.Reason != build.ReasonBuildFailed {
				t.Fatalf("error is %#v", err)
			}
			if diff := cmp.Diff(test.want, err.Error()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
