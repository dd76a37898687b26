package generate_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/generate"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
)

// sources are those that the rules of the tests copy from: each line is a file, with
// its content after a colon where that is not its name.
func sources(texts map[string]string) map[string]generate.Source {
	all := map[string]generate.Source{}
	for alias, text := range texts {
		files := map[string]string{}
		for _, line := range strings.Split(text, "\n") {
			if name, content, ok := strings.Cut(line, ": "); ok {
				files[name] = content
			} else if line != "" {
				files[line] = alias + "/" + line
			}
		}
		all[alias] = generate.Source{ID: alias, Files: sourcetest.Memory(files)}
	}
	return all
}

// unpacker unpacks as the operator does.
func unpacker(t testing.TB) generate.Unpack {
	cache, err := artifact.OpenCache(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return func(ctx context.Context, digest string, open func() (io.ReadCloser, error)) (gitops.Tree, func(), error) {
		unpacked, err := cache.Load(ctx, artifact.Packed{Digest: digest, Open: func(context.Context) (io.ReadCloser, error) { return open() }})
		return unpacked.Files, unpacked.Release, err
	}
}

// archived is a gzipped tar of entries, of which the names that end with a slash are
// directories.
func archived(t testing.TB, entries ...tar.Header) string {
	t.Helper()
	var packed bytes.Buffer
	zipped := gzip.NewWriter(&packed)
	archive := tar.NewWriter(zipped)
	for _, h := range entries {
		content := "in " + h.Name
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
			if strings.HasSuffix(h.Name, "/") {
				h.Typeflag = tar.TypeDir
			}
		}
		if h.Typeflag != tar.TypeReg {
			content = ""
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			h = tar.Header{Typeflag: h.Typeflag, PAXRecords: map[string]string{"comment": "none"}}
		} else {
			h.Mode, h.Size = 0o644, int64(len(content))
		}
		if err := archive.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := archive.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(archive.Close(), zipped.Close()); err != nil {
		t.Fatal(err)
	}
	return packed.String()
}

func rule(from, to string, exclude ...string) generate.Copy {
	return generate.Copy{From: from, To: to, Exclude: exclude}
}

func with(strategy generate.Strategy, r generate.Copy) generate.Copy {
	r.Strategy = strategy
	return r
}

// TestCompose holds the results that Flux's source-watcher has for the same rules.
func TestCompose(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		sources map[string]string
		rules   []generate.Copy
		want    []string
	}{
		"a file into the artifact":                    {map[string]string{"s": "a.yaml\nb.yaml"}, []generate.Copy{rule("@s/a.yaml", "@artifact/")}, []string{"a.yaml=s/a.yaml"}},
		"a file into a directory":                     {map[string]string{"s": "d/a.yaml"}, []generate.Copy{rule("@s/d/a.yaml", "@artifact/x/y/")}, []string{"x/y/a.yaml=s/d/a.yaml"}},
		"a file under another name":                   {map[string]string{"s": "a.yaml"}, []generate.Copy{rule("@s/a.yaml", "@artifact/x/b.yaml")}, []string{"x/b.yaml=s/a.yaml"}},
		"a file to a path that is a directory by now": {map[string]string{"s": "f.txt\nsub/g.txt"}, []generate.Copy{rule("@s/sub/", "@artifact/"), rule("@s/f.txt", "@artifact/sub")}, []string{"sub/f.txt=s/f.txt", "sub/g.txt=s/sub/g.txt"}},
		"a file to a directory without a file left": {
			map[string]string{"s": "f.txt\nsub/g.md"}, []generate.Copy{rule("@s/sub", "@artifact/", "*.md"), rule("@s/f.txt", "@artifact/sub")}, []string{"sub/f.txt=s/f.txt"}},
		"a file that is excluded is left out":       {map[string]string{"s": "a.yaml\nsecret.yaml"}, []generate.Copy{rule("@s/secret.yaml", "@artifact/a.yaml", "secret.yaml")}, nil},
		"a path is cleaned":                         {map[string]string{"s": "d/a.yaml"}, []generate.Copy{rule("@s/./d//x/../a.yaml", "@artifact/x/../y/./b.yaml")}, []string{"y/b.yaml=s/d/a.yaml"}},
		"a source as a whole":                       {map[string]string{"s": "a\nd/b"}, []generate.Copy{rule("@s/", "@artifact/")}, []string{"a=s/a", "d/b=s/d/b"}},
		"a source as a whole into a directory":      {map[string]string{"s": "a\nd/b"}, []generate.Copy{rule("@s/", "@artifact/x")}, []string{"x/a=s/a", "x/d/b=s/d/b"}},
		"a directory keeps its name":                {map[string]string{"s": "conf/a\nconf/d/b"}, []generate.Copy{rule("@s/conf", "@artifact/dest")}, []string{"dest/conf/a=s/conf/a", "dest/conf/d/b=s/conf/d/b"}},
		"with slashes too":                          {map[string]string{"s": "conf/a"}, []generate.Copy{rule("@s/conf/", "@artifact/dest/")}, []string{"dest/conf/a=s/conf/a"}},
		"the last element of it only":               {map[string]string{"s": "x/conf/a"}, []generate.Copy{rule("@s/x/conf", "@artifact/")}, []string{"conf/a=s/x/conf/a"}},
		"what is in a directory":                    {map[string]string{"s": "conf/a\nconf/d/b\nother"}, []generate.Copy{rule("@s/conf/**", "@artifact/dest/")}, []string{"dest/a=s/conf/a", "dest/d/b=s/conf/d/b"}},
		"what is in a source":                       {map[string]string{"s": "a\nd/b"}, []generate.Copy{rule("@s/**", "@artifact/")}, []string{"a=s/a", "d/b=s/d/b"}},
		"two stars are one star in the middle":      {map[string]string{"s": "a/x.yaml\na/b/x.yaml\na/b/c/x.yaml"}, []generate.Copy{rule("@s/a/**/x.yaml", "@artifact/")}, []string{"a/b/x.yaml=s/a/b/x.yaml"}},
		"a glob keeps the path":                     {map[string]string{"s": "d/a.yaml\nd/b.yaml\nd/c.json"}, []generate.Copy{rule("@s/d/*.yaml", "@artifact/x")}, []string{"x/d/a.yaml=s/d/a.yaml", "x/d/b.yaml=s/d/b.yaml"}},
		"a glob matches directories":                {map[string]string{"s": "d/x/a\nd/y/b\nd/c"}, []generate.Copy{rule("@s/d/*", "@artifact/")}, []string{"d/c=s/d/c", "d/x/a=s/d/x/a", "d/y/b=s/d/y/b"}},
		"the content of globbed directories":        {map[string]string{"s": "d/x/a\nd/y/b"}, []generate.Copy{rule("@s/d/*/**", "@artifact/")}, []string{"d/x/a=s/d/x/a", "d/y/b=s/d/y/b"}},
		"a class":                                   {map[string]string{"s": "a1\na2\na3"}, []generate.Copy{rule("@s/a[12]", "@artifact/")}, []string{"a1=s/a1", "a2=s/a2"}},
		"braces are no glob":                        {map[string]string{"s": "{a,b}/c\na/c"}, []generate.Copy{rule("@s/{a,b}/c", "@artifact/")}, []string{"c=s/{a,b}/c"}},
		"two sources":                               {map[string]string{"a": "x", "b": "y"}, []generate.Copy{rule("@a/x", "@artifact/m/"), rule("@b/y", "@artifact/c/")}, []string{"c/y=b/y", "m/x=a/x"}},
		"a later copy wins, and the rest stays":     {map[string]string{"a": "c/x\nc/y", "b": "c/x\nc/z"}, []generate.Copy{rule("@a/**", "@artifact/"), rule("@b/**", "@artifact/")}, []string{"c/x=b/c/x", "c/y=a/c/y", "c/z=b/c/z"}},
		"a whole source over another":               {map[string]string{"a": "c/d/x\nc/y", "b": "c/d/x\nz"}, []generate.Copy{rule("@a/", "@artifact/"), rule("@b/", "@artifact/")}, []string{"c/d/x=b/c/d/x", "c/y=a/c/y", "z=b/z"}},
		"a file over one of a directory as a whole": {map[string]string{"chart": "p/Chart.yaml\np/values.yaml", "repo": "prod.yaml"}, []generate.Copy{rule("@chart/", "@artifact/"), rule("@repo/prod.yaml", "@artifact/p/values.yaml")}, []string{"p/Chart.yaml=chart/p/Chart.yaml", "p/values.yaml=repo/prod.yaml"}},
		"a directory over itself":                   {map[string]string{"s": "d/a"}, []generate.Copy{rule("@s/d", "@artifact/"), rule("@s/d/", "@artifact/")}, []string{"d/a=s/d/a"}},

		"names at any depth are excluded":     {map[string]string{"s": "a.md\nb\nd/c.md\nd/e"}, []generate.Copy{rule("@s/**", "@artifact/", "*.md")}, []string{"b=s/b", "d/e=s/d/e"}},
		"directories are excluded":            {map[string]string{"s": "a\nd/testdata/b\ntestdata/c"}, []generate.Copy{rule("@s/**", "@artifact/", "**/testdata/**")}, []string{"a=s/a"}},
		"several patterns":                    {map[string]string{"s": "a\nb.tmp\n.c\nd/e\ntests/f"}, []generate.Copy{rule("@s/**", "@artifact/", "*.tmp", "**/.*", "**/tests/**")}, []string{"a=s/a", "d/e=s/d/e"}},
		"seen from the root of the source":    {map[string]string{"s": "i/c/d/a\ni/c/e/b"}, []generate.Copy{rule("@s/i/**", "@artifact/", "i/c/d/**")}, []string{"c/e/b=s/i/c/e/b"}},
		"or from where the glob begins":       {map[string]string{"s": "i/c/d/a\ni/c/e/b"}, []generate.Copy{rule("@s/i/**", "@artifact/", "c/d/**")}, []string{"c/e/b=s/i/c/e/b"}},
		"but not from anywhere else":          {map[string]string{"s": "i/d/a\ni/c/d/b"}, []generate.Copy{rule("@s/i/**", "@artifact/", "d/**")}, []string{"c/d/b=s/i/c/d/b"}},
		"or from the directory that is named": {map[string]string{"s": "i/c/d/a\ni/c/e/b"}, []generate.Copy{rule("@s/i", "@artifact/", "c/d/**")}, []string{"i/c/e/b=s/i/c/e/b"}},
		"with alternatives":                   {map[string]string{"s": "a.x\nb.y\nc.z"}, []generate.Copy{rule("@s/**", "@artifact/", "*.{x,y}")}, []string{"c.z=s/c.z"}},

		"what Flux ignores is not in it": {map[string]string{"s": "a.yaml\np.png\nd/x.jpg\nd/y\n.github/w.yaml\n.gitignore\n.sops.yaml"}, []generate.Copy{rule("@s/**", "@artifact/")}, []string{"a.yaml=s/a.yaml", "d/y=s/d/y"}},
		"ignore files do not count":      {map[string]string{"s": "a.yaml\n.sourceignore: *.yaml"}, []generate.Copy{rule("@s/**", "@artifact/")}, []string{".sourceignore=*.yaml", "a.yaml=s/a.yaml"}},
		"merging without a file there":   {map[string]string{"s": "a.yaml"}, []generate.Copy{with(generate.Merge, rule("@s/a.yaml", "@artifact/b.yaml"))}, []string{"b.yaml=s/a.yaml"}},
		"a directory is never merged":    {map[string]string{"a": "d/x: a: 1", "b": "d/x: b: 2"}, []generate.Copy{rule("@a/d", "@artifact/"), with(generate.Merge, rule("@b/d", "@artifact/"))}, []string{"d/x=b: 2"}},
		"files of a glob are merged": {
			map[string]string{"a": "x: a: 1\nd/y: a: 1", "b": "x: b: 2\nd/y: b: 2"},
			[]generate.Copy{rule("@a/**", "@artifact/"), with(generate.Merge, rule("@b/**", "@artifact/"))}, []string{"d/y=b: 2", "x=a: 1\nb: 2\n"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := generate.New(sources(tt.sources), unpacker(t)).Compose(t.Context(), tt.rules)
			if err != nil {
				t.Fatal(err)
			}
			defer got.Release()
			want := map[string]string{}
			for _, line := range tt.want {
				name, content, _ := strings.Cut(line, "=")
				want[name] = content
			}
			sourcetest.CheckTree(t, got.Files, want)
			packed, read := &bytes.Buffer{}, gitops.Tree(nil)
			if err := artifact.Write(t.Context(), packed, got.Files); err != nil {
				t.Fatal(err)
			}
			if read, err = artifact.Read(packed); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, sourcetest.Contents(t, read)); diff != "" {
				t.Errorf("packed files (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMerge(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ base, over, want string }{
		"maps are merged, lists and values replaced": {
			"name: app\nports: [80, 443]\nlabels:\n  env: dev\n  keep: me\nreplicas: 3\n",
			"replicas: 5 # more\nports: [8080]\nlabels:\n  env: prod\nenv: production\n",
			"env: production\nlabels:\n  env: prod\n  keep: me\nname: app\nports:\n- 8080\nreplicas: 5\n",
		},
		"JSON is YAML":                           {"a: b\n", `{"c": {"d": "e"}, "a": "x"}`, "a: x\nc:\n  d: e\n"},
		"a map takes the place of a value":       {"a: b\n", "a: {c: d}\n", "a:\n  c: d\n"},
		"a value takes the place of a map":       {"a: {c: d}\n", "a: b\n", "a: b\n"},
		"null takes the place of a value":        {"a: b\n", "a: null\n", "a: null\n"},
		"documents are merged in order":          {"a: 1\n---\nb: 1\n", "---\na: 2\n---\na: 3\nc: 1\n", "a: 3\nb: 1\nc: 1\n"},
		"an empty file changes nothing but form": {"b: 1\na:   2 # two\n", "", "a: 2\nb: 1\n"},
		"aliases are written out":                {"a: &x {b: 1}\nc: *x\n", "d: 1\n", "a:\n  b: 1\nc:\n  b: 1\nd: 1\n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from := map[string]generate.Source{
				"a": {ID: "a", Files: sourcetest.Memory(map[string]string{"values.yaml": tt.base})},
				"b": {ID: "b", Files: sourcetest.Memory(map[string]string{"prod.yaml": tt.over})},
			}
			got, err := generate.New(from, nil).Compose(t.Context(), []generate.Copy{
				rule("@a/values.yaml", "@artifact/chart/"), with(generate.Merge, rule("@b/prod.yaml", "@artifact/chart/values.yaml"))})
			if err != nil {
				t.Fatal(err)
			}
			sourcetest.CheckTree(t, got.Files, map[string]string{"chart/values.yaml": tt.want})
		})
	}
}

func TestExtract(t *testing.T) {
	t.Parallel()
	first := archived(t, tar.Header{Name: "./chart/"}, tar.Header{Name: "./chart/a.yaml"}, tar.Header{Name: "chart/d/b.yaml"})
	second := archived(t, tar.Header{Name: "chart/a.yaml"}, tar.Header{Name: "other/c.yaml"}, tar.Header{Name: "pax_global_header", Typeflag: tar.TypeXGlobalHeader})
	files := map[string]string{"first.tgz": first, "deep/er/second.TAR.GZ": second, "notes.txt": "no archive", "dir/x": "x"}
	tests := map[string]struct {
		rules []generate.Copy
		want  map[string]string
	}{
		"an archive":           {[]generate.Copy{rule("@s/first.tgz", "@artifact/")}, map[string]string{"chart/a.yaml": "in ./chart/a.yaml", "chart/d/b.yaml": "in chart/d/b.yaml"}},
		"into a directory":     {[]generate.Copy{rule("@s/first.tgz", "@artifact/x")}, map[string]string{"x/chart/a.yaml": "in ./chart/a.yaml", "x/chart/d/b.yaml": "in chart/d/b.yaml"}},
		"a later one wins":     {[]generate.Copy{rule("@s/first.tgz", "@artifact/"), rule("@s/deep/er/second.TAR.GZ", "@artifact/")}, map[string]string{"chart/a.yaml": "in chart/a.yaml", "chart/d/b.yaml": "in chart/d/b.yaml", "other/c.yaml": "in other/c.yaml"}},
		"all at any depth":     {[]generate.Copy{rule("@s/**", "@artifact/")}, map[string]string{"chart/a.yaml": "in ./chart/a.yaml", "chart/d/b.yaml": "in chart/d/b.yaml", "other/c.yaml": "in other/c.yaml"}},
		"those of a glob":      {[]generate.Copy{rule("@s/*.tgz", "@artifact/y/")}, map[string]string{"y/chart/a.yaml": "in ./chart/a.yaml", "y/chart/d/b.yaml": "in chart/d/b.yaml"}},
		"but those excluded":   {[]generate.Copy{rule("@s/**", "@artifact/", "second*", "first.txt")}, map[string]string{"chart/a.yaml": "in ./chart/a.yaml", "chart/d/b.yaml": "in chart/d/b.yaml"}},
		"with alternatives":    {[]generate.Copy{rule("@s/{deep,dir}/**/*", "@artifact/")}, map[string]string{"chart/a.yaml": "in chart/a.yaml", "other/c.yaml": "in other/c.yaml"}},
		"no archive in a glob": {[]generate.Copy{rule("@s/dir/*", "@artifact/")}, map[string]string{}},
		"the same archive twice": {[]generate.Copy{rule("@s/first.tgz", "@artifact/a"), rule("@s/first.tgz", "@artifact/b")}, map[string]string{
			"a/chart/a.yaml": "in ./chart/a.yaml", "a/chart/d/b.yaml": "in chart/d/b.yaml", "b/chart/a.yaml": "in ./chart/a.yaml", "b/chart/d/b.yaml": "in chart/d/b.yaml"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for i := range tt.rules {
				tt.rules[i].Strategy = generate.Extract
			}
			from := map[string]generate.Source{"s": {ID: "s", Files: sourcetest.Memory(files)}}
			got, err := generate.New(from, unpacker(t)).Compose(t.Context(), tt.rules)
			if err != nil {
				t.Fatal(err)
			}
			defer got.Release()
			sourcetest.CheckTree(t, got.Files, tt.want)
		})
	}
}

// TestSums shows that what an artifact does not copy does not change its sum, that what
// it copies does, and that a change of one file leaves the sums of its neighbours.
func TestSums(t *testing.T) {
	t.Parallel()
	rules := []generate.Copy{
		rule("@s/apps/**", "@artifact/"), rule("@s/other", "@artifact/x/", "*.md"),
		rule("@t/v.yaml", "@artifact/values.yaml"), with(generate.Merge, rule("@s/v.yaml", "@artifact/values.yaml")),
	}
	compose := func(change string) gitops.Tree {
		s := sources(map[string]string{"s": "apps/a/1\napps/b/2\nother/c\nother/d.md\nv.yaml: a: 1\nnot/copied\n" + change, "t": "v.yaml: b: 2"})
		got, err := generate.New(s, unpacker(t)).Compose(t.Context(), rules)
		if err != nil {
			t.Fatal(err)
		}
		return got.Files
	}
	before := compose("")
	sourcetest.CheckSums(t, before, compose("not/copied: x"), ".", "a", "b", "x", "values.yaml")
	sourcetest.CheckSums(t, before, compose("other/d.md: x"), ".")
	sourcetest.CheckSums(t, before, compose("apps/a/1: x"), "b", "b/2", "x", "x/other/c", "values.yaml")
	sourcetest.CheckSums(t, before, compose("v.yaml: a: 2"), "a", "b", "x")
	for _, change := range []string{"apps/a/1: x", "apps/new: x", "other/c: x", "v.yaml: a: 2"} {
		one, err := before.Sum(".")
		two, errTwo := compose(change).Sum(".")
		if err != nil || errTwo != nil || one == two {
			t.Errorf("after %q the sum is %q, %v, and was %q, %v", change, two, errTwo, one, err)
		}
	}
}

// TestNumber compares with a number that Flux's source-watcher gives.
func TestNumber(t *testing.T) {
	t.Parallel()
	got, err := generate.New(sources(map[string]string{"git": "1.yaml: ---\n.sops.yaml: x"}), nil).Compose(t.Context(), []generate.Copy{rule("@git/**", "@artifact/")})
	if err != nil {
		t.Fatal(err)
	}
	first, err := got.Number(t.Context(), "git-artifact")
	if err != nil {
		t.Fatal(err)
	}
	// The adler32 of "790079  git-artifact/.sops.yaml\n1110088  git-artifact/1.yaml\n".
	if want := "1062736634"; first != want {
		t.Errorf("the number is %s, want %s", first, want)
	}
	if second, err := got.Number(t.Context(), "oci-artifact"); err != nil || second == first {
		t.Errorf("under another name the number is %s, %v, as before", second, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := got.Number(ended, "git-artifact"); !errors.Is(err, context.Canceled) {
		t.Errorf("all files are read for nobody: %v", err)
	}
}
