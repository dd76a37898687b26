package source_test

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"path"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing/format/gitignore"
	"github.com/google/go-cmp/cmp"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
)

// tree makes a tree in which each file holds its own name.
func tree(names ...string) gitops.Tree { return sourcetest.Memory(contents(names...)) }

func contents(names ...string) map[string]string {
	files := map[string]string{}
	for _, name := range names {
		name, content, ok := strings.Cut(name, "=")
		if !ok {
			content = name
		}
		files[name] = content
	}
	return files
}

func TestFilter(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		files  []string
		ignore string
		want   []string
	}{
		"built-in patterns leave out pictures, CI and git's own files": {
			files: []string{"a.yaml", "pic.jpg", "docs/pic.png", ".github/workflows/x.yml", ".gitignore", "x/.gitattributes", ".sops.yaml", "x/.sops.yaml", "x/b.yaml", "c.tar.gz", "appveyor.yml"},
			want:  []string{"a.yaml", "x/b.yaml"},
		},
		"given patterns replace the built-in ones but git's own": {
			files: []string{"a.yaml", "pic.jpg", ".gitmodules", "docs/x.md"}, ignore: "docs/\n",
			want: []string{"a.yaml", "pic.jpg"},
		},
		"an ignore file anywhere replaces the built-in patterns": {
			files: []string{"a.yaml", "pic.jpg", "deep/er/.sourceignore=*.md\n", "deep/er/x.md", "deep/x.md"},
			want:  []string{"a.yaml", "pic.jpg", "deep/er/.sourceignore=*.md\n", "deep/x.md"},
		},
		"an ignore file holds for its directory only": {
			files: []string{"a/.sourceignore=/x\n", "a/x", "a/b/x", "x"},
			want:  []string{"a/.sourceignore=/x\n", "a/b/x", "x"},
		},
		"an empty ignore file changes nothing": {
			files: []string{".sourceignore=# nothing\n\n", "pic.jpg", "a"},
			want:  []string{".sourceignore=# nothing\n\n", "a"},
		},
		"given patterns come after those of files": {
			files: []string{".sourceignore=*.md\n", "a.md", "b.md"}, ignore: "!b.md",
			want: []string{".sourceignore=*.md\n", "b.md"},
		},
		"a file of an excluded directory can be included again": {
			files: []string{"docs/a", "docs/b"}, ignore: "/docs/\n!/docs/b\n",
			want: []string{"docs/b"},
		},
		"only what is named": {
			files: []string{"a", "deploy/x.yaml", "deploy/y/z.yaml"}, ignore: "/*\n!/deploy\n",
			want: []string{"deploy/x.yaml", "deploy/y/z.yaml"},
		},
		"a directory without a file left is gone": {
			files: []string{"a", "pics/b.png", "pics/more/c.png"},
			want:  []string{"a"},
		},
		"nothing is left": {files: []string{"pics/b.png"}, want: nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := source.Filter(tree(test.files...), test.ignore)
			if err != nil {
				t.Fatal(err)
			}
			sourcetest.CheckTree(t, got, contents(test.want...))
		})
	}
}

// TestFilterMatchesAsFlux compares random patterns on random trees with the
// matcher that Flux uses.
func TestFilterMatchesAsFlux(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(words ...string) string { return words[random.IntN(len(words))] }
	for range 3000 {
		var lines []string
		for range 1 + random.IntN(4) {
			line := pick("", "!", "", "") + pick("", "/", "", "**/")
			for i := range 1 + random.IntN(3) {
				if i > 0 {
					line += "/"
				}
				line += pick("a", "b", "c", "*", "a*", "**", "?", "[ab]", "a**", "[")
			}
			lines = append(lines, line+pick("", "/", "", "/**", " "))
		}
		var names []string
		for range 8 {
			name := pick("a", "b", "c", "ab")
			for range random.IntN(4) {
				name = path.Join(name, pick("a", "b", "c", "ab", "d"))
			}
			names = append(names, name+"/"+pick("f", "a", "b"))
		}
		ignore := strings.Join(lines, "\n")
		base := tree(names...)
		filtered, err := source.Filter(base, ignore)
		if err != nil {
			t.Fatal(err)
		}
		var patterns []gitignore.Pattern
		for _, line := range lines {
			patterns = append(patterns, gitignore.ParsePattern(line, nil))
		}
		matcher := gitignore.NewMatcher(patterns)
		want := map[string]string{}
		for name, content := range sourcetest.Contents(t, base) {
			if !matcher.Match(strings.Split(name, "/"), false) {
				want[name] = content
			}
		}
		if diff := cmp.Diff(want, sourcetest.Contents(t, filtered)); diff != "" {
			t.Fatalf("patterns %q (-flux +ours):\n%s", lines, diff)
		}
	}
}

func TestFilterSums(t *testing.T) {
	t.Parallel()
	filter := func(ignore string, files ...string) gitops.Tree {
		f, err := source.Filter(tree(files...), ignore)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	same := []string{"a/x", "a/y.md", "b/x", "b/y.md"}
	sourcetest.CheckSums(t, filter("", same...), filter("", same...), ".", "a", "b")
	sourcetest.CheckSums(t, filter("", same...), filter("", append(same, "c")...), "a", "b")
	sourcetest.CheckSums(t, filter("*.md", same...), filter("", same...))
	sourcetest.CheckSums(t, filter("/a/y.md", same...), filter("/b/y.md", same...))
	sourcetest.CheckSums(t, filter("", same...), filter("", append(same, "c/.sourceignore=zzz")...))
	sourcetest.CheckSums(t,
		filter("", append(same, "a/.sourceignore=y.md", "b/.sourceignore=zz")...),
		filter("", append(same, "a/.sourceignore=x", "b/.sourceignore=zz")...), "b")
	// A pattern above reaches into equal directories.
	sourcetest.CheckSums(t,
		filter("", append(same, ".sourceignore=/a/x")...),
		filter("", append(same, ".sourceignore=/a/y.md")...))
}

func TestSparse(t *testing.T) {
	t.Parallel()
	base := tree("top", "a/x", "a/b/y", "a/bc/z", "d/w")
	tests := map[string]struct {
		dirs    []string
		want    []string
		wantErr error
	}{
		"no directories show everything":  {want: []string{"top", "a/x", "a/b/y", "a/bc/z", "d/w"}},
		"one directory":                   {dirs: []string{"a/b"}, want: []string{"a/b/y"}},
		"several, written as people do":   {dirs: []string{"./a/b/", "/d"}, want: []string{"a/b/y", "d/w"}},
		"one inside another":              {dirs: []string{"a", "a/b"}, want: []string{"a/x", "a/b/y", "a/bc/z"}},
		"the root":                        {dirs: []string{"."}, want: []string{"top", "a/x", "a/b/y", "a/bc/z", "d/w"}},
		"a missing directory is an error": {dirs: []string{"a", "e"}, wantErr: fs.ErrNotExist},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := source.Sparse(base, test.dirs)
			if test.wantErr != nil {
				if !errors.Is(err, test.wantErr) {
					t.Fatalf("error %v, want %v", err, test.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			sourcetest.CheckTree(t, got, contents(test.want...))
		})
	}
	for _, dir := range []string{"top", "../x", "a/../../x"} {
		if _, err := source.Sparse(base, []string{dir}); err == nil {
			t.Errorf("directory %q: no error", dir)
		}
	}
}

func TestOverlay(t *testing.T) {
	t.Parallel()
	base := tree("top", "a/x")
	other := tree("k", "sub/l", "sub/m/n")
	mount := func(at, from string) source.Mount { return source.Mount{At: at, From: from, Tree: other} }
	tests := map[string]struct {
		mounts []source.Mount
		want   map[string]string
		fails  bool
		// outside is set for an error of a path that leads out.
		outside bool
	}{
		"a whole tree at a new path": {
			mounts: []source.Mount{mount("inc", "")},
			want:   map[string]string{"top": "top", "a/x": "a/x", "inc/k": "k", "inc/sub/l": "sub/l", "inc/sub/m/n": "sub/m/n"},
		},
		"a part of a tree inside a directory that exists": {
			mounts: []source.Mount{mount("a/deep/er", "sub/m")},
			want:   map[string]string{"top": "top", "a/x": "a/x", "a/deep/er/n": "sub/m/n"},
		},
		"one inside another": {
			mounts: []source.Mount{mount("inc", "sub/m"), mount("inc/more", "sub/m")},
			want:   map[string]string{"top": "top", "a/x": "a/x", "inc/n": "sub/m/n", "inc/more/n": "sub/m/n"},
		},
		"a file under another name": {
			mounts: []source.Mount{mount("a/copy", "sub/l"), mount("deep/er/k", "k")},
			want:   map[string]string{"top": "top", "a/x": "a/x", "a/copy": "sub/l", "deep/er/k": "k"},
		},
		"a path in use":         {mounts: []source.Mount{mount("a", "")}, fails: true},
		"a path below a file":   {mounts: []source.Mount{mount("top/x", "")}, fails: true},
		"the same path twice":   {mounts: []source.Mount{mount("i", ""), mount("i", "sub")}, fails: true},
		"the root":              {mounts: []source.Mount{mount(".", "")}, fails: true},
		"a path above the root": {mounts: []source.Mount{mount("../x", "")}, fails: true, outside: true},
		"a part that leads out": {mounts: []source.Mount{mount("i", "../k")}, fails: true, outside: true},
		"a missing part":        {mounts: []source.Mount{mount("i", "nope")}, fails: true},
		"a file over a file": {
			mounts: []source.Mount{mount("top", "k"), mount("a/x", "k"), mount("a/x", "sub/l")},
			want:   map[string]string{"top": "k", "a/x": "sub/l"},
		},
		"a file over one that is included": {
			mounts: []source.Mount{mount("i", "sub"), mount("i/l", "k")},
			want:   map[string]string{"top": "top", "a/x": "a/x", "i/l": "k", "i/m/n": "sub/m/n"},
		},
		"a file over a folder": {mounts: []source.Mount{mount("a", "k")}, fails: true},
		"a folder over a file": {mounts: []source.Mount{mount("top", "sub")}, fails: true},
		"below a file":         {mounts: []source.Mount{mount("i", "k"), mount("i/sub", "sub")}, fails: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := source.Overlay(base, test.mounts...)
			if test.fails {
				if err == nil || errors.Is(err, source.ErrOutside) != test.outside {
					t.Fatalf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			sourcetest.CheckTree(t, got, test.want)
		})
	}
}

func TestSumsOfOverlayAndSparse(t *testing.T) {
	t.Parallel()
	over := func(base, inner gitops.Tree) gitops.Tree {
		o, err := source.Overlay(base, source.Mount{At: "a/inc", Tree: inner})
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	sourcetest.CheckSums(t, over(tree("a/x", "b/y"), tree("i")), over(tree("a/x", "b/y"), tree("i")), ".", "a", "a/inc", "b")
	sourcetest.CheckSums(t, over(tree("a/x", "b/y"), tree("i")), over(tree("a/x", "b/y"), tree("i=other")), "b", "a/x")
	sparse := func(base gitops.Tree, dirs ...string) gitops.Tree {
		s, err := source.Sparse(base, dirs)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	sourcetest.CheckSums(t, sparse(tree("a/b/x", "a/c"), "a/b"), sparse(tree("a/b/x", "a/c=other"), "a/b"), ".", "a", "a/b")
	sourcetest.CheckSums(t, sparse(tree("a/b/x", "a/d/c"), "a/b"), sparse(tree("a/b/x", "a/d/c"), "a/b", "a/d"), "a/b")
}
