package generate_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source"
	"github.com/plumb-gitops/plumb/internal/source/generate"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
)

// TestComposeRefuses holds rules that cannot be followed, hostile ones among them.
func TestComposeRefuses(t *testing.T) {
	t.Parallel()
	s := map[string]string{"s": "a.yaml\nd/b\nd/c.tgz\nfile\nlist.yaml: [1]\nbad.yaml: a: {\nx.tgz/y: z"}
	merge := func(from string) []generate.Copy {
		return []generate.Copy{rule("@s/a.yaml", "@artifact/x"), with(generate.Merge, rule(from, "@artifact/x"))}
	}
	tests := map[string]struct {
		rules []generate.Copy
		want  string
	}{
		"an unknown source":               {[]generate.Copy{rule("@t/a", "@artifact/")}, `no source has the alias "t"`},
		"no source":                       {[]generate.Copy{rule("a", "@artifact/")}, "has to be @alias/path"},
		"no artifact":                     {[]generate.Copy{rule("@s/a.yaml", "@s/a")}, "has to be @artifact/path"},
		"a file that is missing":          {[]generate.Copy{rule("@s/no.yaml", "@artifact/")}, `the source has no file or directory "no.yaml"`},
		"a glob without a match":          {[]generate.Copy{rule("@s/*.json", "@artifact/")}, "no file of the source matches"},
		"a glob that is none":             {[]generate.Copy{rule("@s/[", "@artifact/")}, "syntax error"},
		"only excluded files":             {[]generate.Copy{rule("@s/*.yaml", "@artifact/", "*.yaml")}, "every file that matches is excluded"},
		"an exclusion that is none":       {[]generate.Copy{rule("@s/**", "@artifact/", "[*.md")}, "syntax error in the pattern"},
		"an exclusion with many meanings": {[]generate.Copy{rule("@s/**", "@artifact/", strings.Repeat("{a,a}", 100)+"b")}, "more than 1000 alternatives"},
		"a glob with many meanings":       {[]generate.Copy{with(generate.Extract, rule("@s/"+strings.Repeat("{d,d}", 100)+"*", "@artifact/"))}, "more than 1000 alternatives"},
		"from above the source":           {[]generate.Copy{rule("@s/../a", "@artifact/")}, "outside of the source"},
		"from above it in the middle":     {[]generate.Copy{rule("@s/d/../../a", "@artifact/")}, "outside of the source"},
		"from the root of the machine":    {[]generate.Copy{rule("@s//etc/passwd", "@artifact/")}, "outside of the source"},
		"a glob above the source":         {[]generate.Copy{rule("@s/../*", "@artifact/")}, "no file of the source matches"},
		"a glob of the machine":           {[]generate.Copy{rule("@s//etc/*", "@artifact/")}, "no file of the source matches"},
		"archives above the source":       {[]generate.Copy{with(generate.Extract, rule("@s/../**", "@artifact/"))}, "no file of the source matches"},
		"to above the artifact":           {[]generate.Copy{rule("@s/a.yaml", "@artifact/../x")}, "outside of the artifact"},
		"to above it in the middle":       {[]generate.Copy{rule("@s/*", "@artifact/x/../../")}, "outside of the artifact"},
		"to the root of the machine":      {[]generate.Copy{rule("@s/a.yaml", "@artifact//etc/x")}, "outside of the artifact"},
		"a file over a directory":         {[]generate.Copy{rule("@s/d", "@artifact/"), rule("@s/*", "@artifact/"), rule("@s/x.tgz/y", "@artifact/d/b/")}, `"d/b" is a file in the artifact already`},
		"a directory over a file":         {[]generate.Copy{rule("@s/a.yaml", "@artifact/d"), rule("@s/d", "@artifact/")}, `"d" is a file in the artifact already`},
		"a globbed file over a directory": {[]generate.Copy{rule("@s/d", "@artifact/file/"), rule("@s/fil*", "@artifact/")}, `"file" is a directory in the artifact already`},
		"to extract a directory":          {[]generate.Copy{with(generate.Extract, rule("@s/d", "@artifact/"))}, `"d" is a directory`},
		"to extract a globbed directory":  {[]generate.Copy{with(generate.Extract, rule("@s/*.tgz", "@artifact/"))}, `"x.tgz" is a directory`},
		"to extract what is no archive":   {[]generate.Copy{with(generate.Extract, rule("@s/a.yaml", "@artifact/"))}, `"a.yaml" is no archive`},
		"to extract what only says so":    {[]generate.Copy{with(generate.Extract, rule("@s/d/c.tgz", "@artifact/"))}, `archive "d/c.tgz": it is no gzipped tar`},
		"to merge a list":                 {merge("@s/list.yaml"), `merge into "x": it is no YAML with a map in it`},
		"to merge what is broken":         {[]generate.Copy{rule("@s/bad.yaml", "@artifact/x"), with(generate.Merge, rule("@s/bad.yaml", "@artifact/x"))}, "it is no YAML"},
		"to merge with a directory":       {[]generate.Copy{rule("@s/d", "@artifact/list.yaml/"), with(generate.Merge, rule("@s/li*", "@artifact/"))}, `"list.yaml" is a directory in the artifact already, and cannot be merged`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := generate.New(sources(s), unpacker(t)).Compose(t.Context(), tt.rules)
			var e *gitops.Error
			if !errors.As(err, &e) || e.Kind != gitops.Invalid || e.Reason != "BuildFailed" {
				t.Fatalf("the error is %#v", err)
			}
			if !strings.HasPrefix(err.Error(), "copy from ") || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("the error is %q, want it to say %q", err, tt.want)
			}
			_, again := generate.New(sources(s), unpacker(t)).Compose(t.Context(), tt.rules)
			if again == nil || again.Error() != err.Error() {
				t.Errorf("the second time the error is %q, and was %q", again, err)
			}
		})
	}
}

// endless is a file that goes on for as long as it is read, as zeros do when compressed.
type endless struct{}

func (endless) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// bomb is a small archive of one large file.
func bomb(t testing.TB, size int64) string {
	var packed bytes.Buffer
	zipped, err := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	archive := tar.NewWriter(zipped)
	err = archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "big", Size: size, Mode: 0o644})
	if err == nil {
		_, err = io.CopyN(archive, endless{}, size)
	}
	if err = errors.Join(err, archive.Close(), zipped.Close()); err != nil {
		t.Fatal(err)
	}
	return packed.String()
}

func TestExtractRefuses(t *testing.T) {
	t.Parallel()
	file := func(name string) string { return archived(t, tar.Header{Name: "ok"}, tar.Header{Name: name}) }
	special := func(kind byte) string {
		return archived(t, tar.Header{Name: "x", Typeflag: kind, Linkname: "/etc/passwd"})
	}
	many := make([]tar.Header, 100_001)
	for i := range many {
		many[i] = tar.Header{Name: "d/", Typeflag: tar.TypeDir}
	}
	whole := file("a")
	tests := map[string]struct{ archive, want string }{
		"a name that goes up":               {file("../x"), `"../x" is outside of it`},
		"a name that goes up in the middle": {file("a/../../x"), `"a/../../x" is outside of it`},
		"a name that goes up and down":      {file("a/../x"), `"a/../x" is outside of it`},
		"a name that only goes up":          {archived(t, tar.Header{Name: ".."}), `".." is outside of it`},
		"an absolute name":                  {file("/etc/x"), `"/etc/x" is outside of it`},
		"a name with a backslash":           {file(`a\b`), "is outside of it, or is no name"},
		"a name that is not UTF-8":          {file("a\xff"), "is outside of it, or is no name"},
		"a name of 10,000 bytes":            {file(strings.Repeat("x", 10_000)), "more than 4096 bytes"},
		"a name 200 directories deep":       {file(strings.Repeat("x/", 200) + "x"), "100 directories"},
		"a file that is the root":           {archived(t, tar.Header{Name: ".", Typeflag: tar.TypeReg}), "is in it twice"},
		"a symbolic link":                   {special(tar.TypeSymlink), `"x" is neither a file nor a directory`},
		"a hard link":                       {special(tar.TypeLink), `"x" is neither a file nor a directory`},
		"a device":                          {special(tar.TypeBlock), `"x" is neither a file nor a directory`},
		"a pipe":                            {special(tar.TypeFifo), `"x" is neither a file nor a directory`},
		"a file that is twice in it":        {archived(t, tar.Header{Name: "x"}, tar.Header{Name: "./x"}), `"x" is in it twice`},
		"a file that is a directory later":  {archived(t, tar.Header{Name: "x"}, tar.Header{Name: "x/y"}), `"x" is a file and a directory`},
		"a directory that is a file later":  {archived(t, tar.Header{Name: "x/y"}, tar.Header{Name: "x"}), `"x" is in it twice`},
		"too many entries":                  {archived(t, many...), "more than 100000 entries"},
		"too many bytes":                    {bomb(t, 101<<20), "more than 104857600 bytes"},
		"a truncated archive":               {whole[:len(whole)-20], "it is no gzipped tar, or is truncated"},
		"a sparse file":                     {sparse(t), "is a sparse file"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from := map[string]generate.Source{"s": {ID: "s", Files: sourcetest.Memory(map[string]string{"a.tgz": tt.archive})}}
			unpack := func(context.Context, string, func() (io.ReadCloser, error)) (gitops.Tree, func(), error) {
				return nil, nil, errors.New("it is unpacked")
			}
			_, err := generate.New(from, unpack).Compose(t.Context(), []generate.Copy{with(generate.Extract, rule("@s/a.tgz", "@artifact/"))})
			if err == nil || !strings.Contains(err.Error(), `archive "a.tgz": `) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("the error is %v, want it to say %q", err, tt.want)
			}
			if gitops.KindOf(err) != gitops.Invalid {
				t.Errorf("the error is %s", gitops.KindOf(err))
			}
		})
	}
}

// sparse is an archive of a file with holes, of 8 EiB in a few bytes.
func sparse(t testing.TB) string {
	var packed bytes.Buffer
	zipped := gzip.NewWriter(&packed)
	archive := tar.NewWriter(zipped)
	record := func(key, value string) string {
		for n := 3; ; n++ {
			if line := fmt.Sprintf("%d %s=%s\n", n, key, value); len(line) == n {
				return line
			}
		}
	}
	records := record("GNU.sparse.major", "0") + record("GNU.sparse.minor", "1") + record("GNU.sparse.name", "x") +
		record("GNU.sparse.size", "1000") + record("GNU.sparse.numblocks", "0") + record("GNU.sparse.map", "")
	if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "PaxHeaders.0/x", Size: int64(len(records)), Mode: 0o644, Format: tar.FormatUSTAR}); err != nil {
		t.Fatal(err)
	}
	if _, err := archive.Write([]byte(records)); err != nil {
		t.Fatal(err)
	}
	if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "x", Mode: 0o644, Format: tar.FormatUSTAR}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(archive.Close(), zipped.Close()); err != nil {
		t.Fatal(err)
	}
	unzipped, err := gzip.NewReader(&packed)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(unzipped)
	if err != nil {
		t.Fatal(err)
	}
	// The first entry becomes an extended header: type and checksum change.
	plain[156] = 'x'
	sum := 0
	for i, b := range plain[:512] {
		if i >= 148 && i < 156 {
			b = ' '
		}
		sum += int(b)
	}
	copy(plain[148:156], fmt.Sprintf("%06o\x00 ", sum))
	var again bytes.Buffer
	zipped = gzip.NewWriter(&again)
	if _, err := zipped.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := zipped.Close(); err != nil {
		t.Fatal(err)
	}
	return again.String()
}

// TestMergeIsBounded merges files that are small until they are read.
func TestMergeIsBounded(t *testing.T) {
	t.Parallel()
	var levels strings.Builder
	levels.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := range 12 {
		fmt.Fprintf(&levels, "a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i), 10), ","))
	}
	tests := map[string]struct{ text, want string }{
		"lists of lists":           {levels.String(), "its aliases make more than 4194304 bytes of it"},
		"a long text often":        {"a: &a " + strings.Repeat("x", 100_000) + "\nb: [" + strings.Repeat("*a,", 1000) + "]\n", "its aliases make more than 4194304 bytes of it"},
		"an anchor in itself":      {"a: &a [*a]\n", "its aliases make more than 4194304 bytes of it"},
		"a file that is too large": {"a: " + strings.Repeat("x", 5<<20) + "\n", "it has 5242884 bytes, at most 4194304 are merged"},
		"a document that is deep":  {"a: " + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + "\n", "it is no YAML"},
		"bombs in many documents":  {strings.Repeat("a: &a "+strings.Repeat("x", 1000)+"\nb: ["+strings.Repeat("*a,", 100)+"]\n---\n", 100), "its aliases make more than 4194304 bytes of it"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from := map[string]generate.Source{"s": {ID: "s", Files: sourcetest.Memory(map[string]string{"a": "b: 1\n", "bomb": tt.text})}}
			_, err := generate.New(from, nil).Compose(t.Context(), []generate.Copy{rule("@s/a", "@artifact/"), with(generate.Merge, rule("@s/bomb", "@artifact/a"))})
			if err == nil || !strings.Contains(err.Error(), `merge "bomb": `+tt.want) {
				t.Errorf("the error is %.300v, want it to say %q", err, tt.want)
			}
		})
	}
}

// TestComposeEnds stops in the middle of a walk when its time is over.
func TestComposeEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	<-ctx.Done()
	_, err := generate.New(sources(map[string]string{"s": "a\nb"}), nil).Compose(ctx, []generate.Copy{rule("@s/**", "@artifact/")})
	if !errors.Is(err, context.DeadlineExceeded) || gitops.KindOf(err) != gitops.Transient {
		t.Errorf("the error is %v, of kind %s", err, gitops.KindOf(err))
	}
}

// wide is a Tree in which every directory has a thousand directories, three levels deep.
type wide struct {
	gitops.Tree
	entries []fs.DirEntry
}

// ReadDir lists a directory.
func (w wide) ReadDir(name string) ([]fs.DirEntry, error) {
	if strings.Count(name, "/") >= 2 {
		return nil, nil
	}
	return w.entries, nil
}

// Stat describes a directory.
func (w wide) Stat(string) (fs.FileInfo, error) { return w.entries[0].Info() }

// TestComposeIsBounded walks a tree that has no end.
func TestComposeIsBounded(t *testing.T) {
	t.Parallel()
	w := wide{Tree: sourcetest.Memory(nil)}
	for i := range 1000 {
		w.entries = append(w.entries, fs.FileInfoToDirEntry(source.DirInfo(fmt.Sprintf("d%03d", i))))
	}
	from := map[string]generate.Source{"s": {ID: "s", Files: w}}
	for _, r := range []generate.Copy{rule("@s/*/*/*/*", "@artifact/"), with(generate.Extract, rule("@s/**", "@artifact/"))} {
		_, err := generate.New(from, nil).Compose(t.Context(), []generate.Copy{r})
		if err == nil || !strings.Contains(err.Error(), "more than 2000000 files and directories are looked at") {
			t.Errorf("%s %s: the error is %v", r.Strategy, r.From, err)
		}
	}
}

// TestComposeHoldsNoMoreThanItMay makes artifacts of many parts, of a source that is small.
func TestComposeHoldsNoMoreThanItMay(t *testing.T) {
	t.Parallel()
	files := map[string]string{}
	for i := range 1000 {
		files[fmt.Sprintf("d/d%03d", i)] = ""
	}
	from := map[string]generate.Source{"s": {ID: "s", Files: sourcetest.Memory(files)}}
	deep := strings.Repeat("x/", 99)
	for name, test := range map[string]struct {
		rules func(i int) []generate.Copy
		want  string
	}{
		"directories on the way": {func(i int) []generate.Copy {
			return []generate.Copy{rule("@s/d/d001", fmt.Sprintf("@artifact/%d/%s", i, deep))}
		}, "made of more than 500000 single files and directories"},
		"files of a glob": {func(i int) []generate.Copy { return []generate.Copy{rule("@s/d/*", fmt.Sprintf("@artifact/%d/", i))} }, "made of more than 500000 single files and directories"},
		"directories with excludes": {func(i int) []generate.Copy {
			return []generate.Copy{rule("@s/d", fmt.Sprintf("@artifact/%d/", i), "x")}
		}, "made of more than 500000 single files and directories"},
		"directories taken apart": {func(i int) []generate.Copy {
			return []generate.Copy{rule("@s/d", fmt.Sprintf("@artifact/%d/", i)), rule("@s/d/d000", fmt.Sprintf("@artifact/%d/d/x", i))}
		}, "made of more than 500000 single files and directories"},
		"rules": {func(int) []generate.Copy {
			return slices.Repeat([]generate.Copy{rule("@s/d/d001", "@artifact/x")}, 100)
		}, "more than 50000 copy rules"},
		"a path too deep": {func(int) []generate.Copy { return []generate.Copy{rule("@s/d/d001", "@artifact/"+deep+"x/x/x")} }, "more than 4096 bytes or 100 folders"},
		"a path too long": {func(int) []generate.Copy {
			return []generate.Copy{rule("@s/d/d001", "@artifact/"+strings.Repeat("x", 5000))}
		}, "more than 4096 bytes or 100 folders"},
		"whole ones often": {func(i int) []generate.Copy { return []generate.Copy{rule("@s/d", fmt.Sprintf("@artifact/%d/", i))} }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// What all artifacts of one run are made of counts together.
			composer := generate.New(from, nil)
			var err error
			for i := 0; i < 6000 && err == nil; i++ {
				_, err = composer.Compose(t.Context(), test.rules(i))
			}
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
			} else if err == nil || !strings.Contains(err.Error(), test.want) || gitops.KindOf(err) != gitops.Invalid {
				t.Errorf("the error is %v, want it to say %q", err, test.want)
			}
		})
	}
}

// TestExpandFillsInNoMoreThanItMay fills in rules that become long, or many.
func TestExpandFillsInNoMoreThanItMay(t *testing.T) {
	t.Parallel()
	files := map[string]string{}
	for i := range 1500 {
		files[fmt.Sprintf("%s%04d/x", strings.Repeat("d", 50), i)] = ""
	}
	from := map[string]generate.Source{"s": {ID: "s", Files: sourcetest.Memory(files)}}
	short, long := rule("@s/{a}", "@artifact/"), rule("@s/{a}", "@artifact/"+strings.Repeat("{a}", 300))
	for name, test := range map[string]struct {
		pattern   string
		templates []generate.Template
		want      string
	}{
		"many rules":          {"@s/{a}", []generate.Template{{Name: "{a}", Copy: slices.Repeat([]generate.Copy{short}, 40)}}, "more than 50000 copy rules"},
		"long rules":          {"@s/{a}", []generate.Template{{Name: "{a}", Copy: slices.Repeat([]generate.Copy{long}, 20)}}, "more than 33554432 bytes once their placeholders are filled in"},
		"many declared ones":  {"", make([]generate.Template, 2001), "more than 2000 artifacts are declared"},
		"as many as may be":   {"@s/{a}", []generate.Template{{Name: "{a}", Copy: slices.Repeat([]generate.Copy{short}, 33)}}, ""},
		"as many as declared": {"", make([]generate.Template, 2000), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := generate.New(from, nil).Expand(t.Context(), test.pattern, test.templates)
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
			} else if err == nil || !strings.Contains(err.Error(), test.want) || gitops.KindOf(err) != gitops.Stalled {
				t.Errorf("the error is %v, want it to say %q", err, test.want)
			}
		})
	}
}

func FuzzCompose(f *testing.F) {
	for _, seed := range [][3]string{{"@s/**", "@artifact/", "*.md"}, {"@s/d", "@artifact/x", "**/b"}, {"@s/d/../a", "@artifact/../x", "{a,b}"}, {"@s//", "@artifact//", "["}, {"@s/*/[a-z]", "@artifact/./y/", "!"}, {"@s/{d,x}/**", "@artifact/\x00", "\\"}} {
		f.Add(seed[0], seed[1], seed[2], uint8(0))
		f.Add(seed[0], seed[1], seed[2], uint8(2))
	}
	from := sources(map[string]string{"s": "a.md\nd/b\nd/c/e.yaml: a: 1\nx.yaml: b: 1\n{d,x}/y"})
	strategies := []generate.Strategy{generate.Overwrite, generate.Merge, generate.Extract}
	unpack := unpacker(f)
	f.Fuzz(func(t *testing.T, path, to, exclude string, strategy uint8) {
		r := with(strategies[int(strategy)%len(strategies)], rule(path, to, exclude))
		got, err := generate.New(from, unpack).Compose(t.Context(), []generate.Copy{rule("@s/x.yaml", "@artifact/"), r, r})
		if err != nil {
			return
		}
		defer got.Release()
		for name := range sourcetest.Contents(t, got.Files) {
			if !fs.ValidPath(name) {
				t.Fatalf("%q is in the artifact", name)
			}
		}
	})
}

func FuzzExtract(f *testing.F) {
	f.Add([]byte(archived(f, tar.Header{Name: "a/"}, tar.Header{Name: "a/b"}, tar.Header{Name: "c"})))
	f.Add([]byte(archived(f, tar.Header{Name: "../a"})))
	f.Add([]byte(archived(f, tar.Header{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "b"})))
	f.Add([]byte(sparse(f)))
	f.Add([]byte("\x1f\x8b"))
	unpack := unpacker(f)
	f.Fuzz(func(t *testing.T, archive []byte) {
		from := map[string]generate.Source{"s": {ID: "s", Files: sourcetest.Memory(map[string]string{"a.tgz": string(archive)})}}
		got, err := generate.New(from, unpack).Compose(t.Context(), []generate.Copy{with(generate.Extract, rule("@s/a.tgz", "@artifact/x"))})
		if err != nil {
			if gitops.KindOf(err) != gitops.Invalid {
				t.Fatalf("what was found to be in order cannot be unpacked: %v", err)
			}
			return
		}
		defer got.Release()
		for name := range sourcetest.Contents(t, got.Files) {
			if !strings.HasPrefix(name, "x/") {
				t.Fatalf("%q is in the artifact", name)
			}
		}
	})
}

func FuzzMerge(f *testing.F) {
	for _, seed := range []string{"a: 1", "---\na: {b: c}\n---\n", "a: &x [1]\nb: *x", "[1]", "? a\n: b", "<<: {a: 1}", "a: &a [*a]", "{\"a\": null}", "a: .nan", "1: 2", "a: !!binary x"} {
		f.Add([]byte(seed), []byte("a: {b: 1}"))
	}
	f.Fuzz(func(t *testing.T, base, over []byte) {
		from := map[string]generate.Source{"s": {ID: "s", Files: sourcetest.Memory(map[string]string{"a": string(base), "b": string(over)})}}
		got, err := generate.New(from, nil).Compose(t.Context(), []generate.Copy{rule("@s/a", "@artifact/"), with(generate.Merge, rule("@s/b", "@artifact/a"))})
		if err == nil {
			got.Release()
		}
	})
}
