package source_test

import (
	"fmt"
	"io/fs"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source"
)

// counted counts how often it is asked for a sum, and listed.
type counted struct {
	gitops.Tree
	sums, lists *atomic.Int64
}

func (c counted) ReadDir(name string) ([]fs.DirEntry, error) {
	c.lists.Add(1)
	return c.Tree.ReadDir(name)
}

func (c counted) Sum(name string) (string, error) {
	c.sums.Add(1)
	return c.Tree.Sum(name)
}

// nest joins a Tree with a number of others, filtered as those of sources are.
func nest(t *testing.T, base, inner gitops.Tree, times int) gitops.Tree {
	t.Helper()
	var mounts []source.Mount
	for i := range times {
		mounts = append(mounts, source.Mount{At: fmt.Sprint("deep/er/", i), Tree: inner})
	}
	joined, err := source.Overlay(base, mounts...)
	if err != nil {
		t.Fatal(err)
	}
	if joined, err = source.Filter(joined, ""); err != nil {
		t.Fatal(err)
	}
	return joined
}

// TestNestedOverlays: what is joined again and again of what is joined itself costs no more
// for each level than its own parts, and it is known of how many parts it is.
func TestNestedOverlays(t *testing.T) {
	t.Parallel()
	const each, levels = 10, 4
	sums, lists := &atomic.Int64{}, &atomic.Int64{}
	joined := gitops.Tree(counted{tree("a"), sums, lists})
	for range levels {
		joined = nest(t, tree("b"), joined, each)
	}
	if got, want := source.Parts(joined), 11_111; got != want {
		t.Errorf("%d parts, want %d", got, want)
	}
	// Once for what it is joined to, once for what that is joined to.
	if got := lists.Load(); got != 2*each {
		t.Errorf("the innermost was listed %d times to find ignore files, want %d", got, 2*each)
	}
	first, err := joined.Sum(".")
	if err != nil {
		t.Fatal(err)
	}
	second, err := joined.Sum(".")
	if err != nil || first != second {
		t.Errorf("the sum is %q and then %q, error %v", first, second, err)
	}
	if got := sums.Load(); got != each {
		t.Errorf("the innermost was asked %d times for its sum, want %d", got, each)
	}
	if data, err := joined.ReadFile("deep/er/1/deep/er/2/deep/er/3/deep/er/4/a"); err != nil || string(data) != "a" {
		t.Errorf("%q, error %v", data, err)
	}
}

// TestIgnoreFilesOfOverlays: those are found that a walk would find, and that of a directory
// before those below it.
func TestIgnoreFilesOfOverlays(t *testing.T) {
	t.Parallel()
	const name = source.IgnoreFile
	inner, err := source.Filter(tree("x/"+name+"=*.md", "x/y/"+name+"=*.txt", "x/y/z/"+name+"=a", "hidden/"+name+"=b", "k"), "hidden/")
	if err != nil {
		t.Fatal(err)
	}
	for title, test := range map[string]struct {
		mounts []source.Mount
		want   []string
	}{
		"a whole one":      {[]source.Mount{{At: "-in", Tree: inner}}, []string{name, "-in/x/" + name, "-in/x/y/" + name, "-in/x/y/z/" + name, "a/" + name}},
		"a part":           {[]source.Mount{{At: "a/in", From: "x/y", Tree: inner}}, []string{name, "a/" + name, "a/in/" + name, "a/in/z/" + name}},
		"a file":           {[]source.Mount{{At: "b/" + name, From: "k", Tree: inner}}, []string{name, "a/" + name, "b/" + name}},
		"a file over one":  {[]source.Mount{{At: "a/" + name, From: "k", Tree: inner}}, []string{name, "a/" + name}},
		"another name":     {[]source.Mount{{At: "b/k", From: "x/" + name, Tree: inner}}, []string{name, "a/" + name}},
		"one in another":   {[]source.Mount{{At: "p", From: "x", Tree: inner}, {At: "p/q", From: "x/y/z", Tree: inner}}, []string{name, "a/" + name, "p/" + name, "p/q/" + name, "p/y/" + name, "p/y/z/" + name}},
		"a name in a name": {[]source.Mount{{At: name + "x/in", From: "x/y/z", Tree: inner}}, []string{name, name + "x/in/" + name, "a/" + name}},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			joined, err := source.Overlay(tree(name, "a/"+name, "b/c"), test.mounts...)
			if err != nil {
				t.Fatal(err)
			}
			got, err := joined.(source.FileFinder).FindFiles(name)
			if err != nil || !slices.Equal(got, test.want) {
				t.Errorf("found %q, error %v, want %q", got, err, test.want)
			}
			var walked []string
			if err := fs.WalkDir(joined, ".", func(p string, d fs.DirEntry, err error) error {
				if err == nil && d.Name() == name {
					walked = append(walked, p)
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			slices.Sort(walked)
			if slices.Sort(got); !slices.Equal(got, walked) {
				t.Errorf("found %q, a walk finds %q", got, walked)
			}
		})
	}
	many := []string{}
	for i := range 1001 {
		many = append(many, fmt.Sprint(i, "/", name))
	}
	if inner, err = source.Filter(tree(many...), ""); err != nil {
		t.Fatal(err)
	}
	joined, err := source.Overlay(tree("k"), source.Mount{At: "in", Tree: inner})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := source.Filter(joined, ""); err == nil {
		t.Error("ignore files without an end are compared")
	}
}
