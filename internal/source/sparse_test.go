package source_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/source"
)

func TestSparseDirs(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ dirs, want []string }{
		"none":                          {},
		"one":                           {[]string{"a"}, []string{"a"}},
		"twice the same":                {[]string{"a/", "./a"}, []string{"a"}},
		"one in another":                {[]string{"a/b", "a"}, []string{"a"}},
		"deep in another":               {[]string{"a/b/c/d", "a/b"}, []string{"a/b"}},
		"between them in order":         {[]string{"a/b", "a-b", "a"}, []string{"a", "a-b"}},
		"with the same beginning":       {[]string{"ab", "a/b"}, []string{"a/b", "ab"}},
		"the root":                      {[]string{"a", "."}, nil},
		"beside, not in":                {[]string{"a/b", "a/bc", "a/c"}, []string{"a/b", "a/bc", "a/c"}},
		"in one that is in another one": {[]string{"a/b/c", "a/b", "a", "b"}, []string{"a", "b"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := source.SparseDirs(test.dirs)
			if err != nil || !slices.Equal(got, test.want) {
				t.Errorf("got %q, error %v, want %q", got, err, test.want)
			}
		})
	}
	base := tree("a/x", "a-b/x", "a/b/y", "ab/z", "b/a/x")
	for name, test := range map[string]struct{ dirs, want []string }{
		"above one that others stand before": {[]string{"a/b", "a-b"}, []string{"a/b/y", "a-b/x"}},
		"above one":                          {[]string{"b/a"}, []string{"b/a/x"}},
	} {
		got, err := source.Sparse(base, test.dirs)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{"a/x", "a-b/x", "a/b/y", "ab/z", "b/a/x"} {
			if _, err := got.Stat(file); (err == nil) != slices.Contains(test.want, file) {
				t.Errorf("%s: %q: %v", name, file, err)
			}
		}
		if entries, err := got.ReadDir("."); err != nil || len(entries) != len(test.dirs) {
			t.Errorf("%s: the root has %v, %v", name, entries, err)
		}
	}
}

// TestVeryManySparseDirs: an object may name as many as fit into it.
func TestVeryManySparseDirs(t *testing.T) {
	t.Parallel()
	dirs := make([]string, 200_000)
	for i := range dirs {
		dirs[i] = fmt.Sprintf("d%d/x", i)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if got, err := source.SparseDirs(dirs); err != nil || len(got) != len(dirs) {
			t.Errorf("%d directories, error %v", len(got), err)
		}
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("each is compared with each")
	}
}
