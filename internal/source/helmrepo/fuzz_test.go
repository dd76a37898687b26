package helmrepo

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/plumb-gitops/plumb/internal/source"
	"github.com/plumb-gitops/plumb/internal/testenv"
	chart "helm.sh/helm/v4/pkg/chart/v2"
)

// file is an open file in memory.
type file struct{ *bytes.Reader }

func (file) Close() error { return nil }

func (f file) Stat() (fs.FileInfo, error) {
	return source.FileInfo("index", false, func() (int64, error) { return f.Size(), nil }), nil
}

// converted converts an index and reads it again. It is too short for the file aside.
func converted(t *testing.T, read func(io.Reader, *indexWriter) error, text []byte) (content, warning string, err error) {
	t.Helper()
	var out buffer
	if read == nil {
		warning, err = convert(t.Context(), bytes.NewReader(text), int64(len(text)), &out, nil)
	} else {
		warning, err = conversion{bytes.NewReader(text), &out, nil, 1 << 30}.do(t.Context(), read)
	}
	if err != nil {
		return "", "", err
	}
	in := file{bytes.NewReader(out.Bytes())}
	served, err := openServed(in)
	if err != nil {
		t.Fatalf("what was written cannot be read: %v", err)
	}
	defer served.Close()
	data, err := io.ReadAll(served)
	if err != nil {
		t.Fatalf("what was written cannot be read: %v", err)
	}
	return string(data), warning, nil
}

// FuzzIndex: no index breaks anything, what is served can be read again and is the same
// then, and an index that is cut into pieces without a warning is what the parser of the
// whole makes of it.
func FuzzIndex(f *testing.F) {
	for _, seed := range []string{
		"apiVersion: v1\nentries:\n  a:\n  - name: a\n    version: 1.0.0\n",
		"apiVersion: v1\nentries:\n  a:\n    - name: a\n      version: 1.0.0\n      urls: [x]\n    -\n  b: []\ngenerated: 2026-01-01T00:00:00Z\n",
		"apiVersion: v1\nentries:\n  a:\n  - name: a\n    description: |\n      entries:\n        b:\n    version: 1.0.0\n",
		"apiVersion: v1\nentries:\n  a:\n  - name: a\n    description: \"x\n  b:\n  - y\"\n    version: 1.0.0\n",
		"apiVersion: v1\nentries:\n  a:\n  - name: a\n    version: 1.0.0\n    x:\n  - name: a\n    version: 1.0.1 # c\n",
		"apiVersion: v1\nentries:\n  \"a\": # c\n  - {name: a, version: 1.0.0}\n  'b':\n  - ? name\n    : b\n    version: 1.0.0\n",
		"apiVersion: &x v1\nentries:\n  a:\n  - name: a\n    version: 1.0.0\n    appVersion: *x\n",
		"---\napiVersion: v1\nentries:\n  a:\n  - name: a\n    version: 1.0.0\n---\napiVersion: v2\n",
		`{"apiVersion":"v1","entries":{"a":[{"name":"a","version":"1.0.0"},null]}}`,
		`{apiVersion: v1, entries: {a: [{name: a, version: 1.0.0}]}}`,
		"apiVersion: v1\nentries:\n  a:\n  - name: a\n    version: 1.0.0\n\tx: y\n",
		"apiVersion: v1\nentries:\n  a:\n  - name: a\n\n    version: 1.0.0\n# c\n  # d\n    keywords:\n    - x\n    # e\n    - y\n",
		"apiVersion: v1\nentries:\n  a:\n  - name: a\n    version: 1.0.0\n    description: x\n     y\n  - !!map {name: a, version: 1.0.1}\n",
		"apiVersion: v1\nentries: # c\n  <<: {b: []}\n  a:\n  - name: a\n    version: 1.0.0\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		content, warning, err := converted(t, nil, text)
		if err != nil {
			return
		}
		again, _, err := converted(t, nil, []byte(content))
		if err != nil || again != content {
			t.Errorf("read again: %v\n%s", err, cmp.Diff(content, again))
		}
		cut, warning2, err := converted(t, readYAML, text)
		if err != nil || warning != "" || warning2 != "" {
			return
		}
		whole, _, err := converted(t, readWhole, text)
		if err != nil || whole != cut {
			t.Errorf("cut into pieces and as a whole (%v):\n%s", err, cmp.Diff(whole, cut))
		}
	})
}

// FuzzArchive: no archive breaks anything, and no name leaves the chart.
func FuzzArchive(f *testing.F) {
	inner := testenv.HelmChart(f, "b", "1.0.0", map[string]string{"values.yaml": "x: y"})
	f.Add(inner)
	f.Add(testenv.HelmChart(f, "a", "1.0.0", map[string]string{"charts/b.tgz": string(inner), "templates/x": "y"}))
	f.Add([]byte("\x1f\x8b\x08"))
	f.Fuzz(func(t *testing.T, packed []byte) {
		b := (&Store{options: Options{FileBytes: 1 << 20}}).budget(t.Context())
		files, err := readArchive(bytes.NewReader(packed), b)
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, file := range files {
			if err := checkName(strings.ReplaceAll(file.Name, "\x00", "")); err != nil || seen[file.Name] {
				t.Errorf("file %q: %v", file.Name, err)
			}
			seen[file.Name] = true
		}
		c, err := loadFiles(b, files)
		if err != nil {
			return
		}
		_, _ = missing(c)
		pack(t, c)
	})
}

// pack writes a chart twice.
func pack(t *testing.T, c *chart.Chart) {
	t.Helper()
	var one, two bytes.Buffer
	if err := writeChart(t.Context(), &one, c); err != nil {
		return
	}
	if err := writeChart(t.Context(), &two, c); err != nil || !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Errorf("other bytes the second time: %v", err)
	}
	if _, err := readArchive(&one, (&Store{options: Options{FileBytes: 64 << 20}}).budget(t.Context())); err != nil && !errors.Is(err, errTooLarge) {
		t.Errorf("what was packed cannot be read: %v", err)
	}
}

// FuzzChartFiles: no Chart.yaml, Chart.lock, .helmignore or values break anything.
func FuzzChartFiles(f *testing.F) {
	f.Add("apiVersion: v2\nname: a\nversion: 1.0.0\n", "dependencies:\n- name: b\n", "*.md\n", "a: b")
	f.Add("name: a\nversion: 1.0.0\ndependencies: [null]\n", "null", "!/x/\n", "- a")
	f.Add("name: ../a\nversion: 1\n", "- x", "[", "a: &x [*x]")
	f.Fuzz(func(t *testing.T, metadata, lock, ignore, values string) {
		s := &Store{options: Options{}.withDefaults()}
		files := map[string]string{"c/Chart.yaml": metadata, "c/Chart.lock": lock, "c/.helmignore": ignore, "c/values.yaml": values, "c/x.md": "x"}
		b := (&Store{options: Options{FileBytes: 1 << 20}}).budget(t.Context())
		loaded, _, err := s.loadTree(b, memoryTree(files), "c")
		if err != nil {
			return
		}
		c, err := loadFiles(b, loaded)
		if err != nil {
			return
		}
		_, _ = missing(c)
		if merged, _, err := mergeValues(treeFiles(b, memoryTree(files)), []string{"c/values.yaml", "none"}, true); err == nil {
			_ = setValues(c, merged)
		}
		pack(t, c)
	})
}

// FuzzVersion: no range and no version breaks anything, and what is chosen is in the range.
func FuzzVersion(f *testing.F) {
	f.Add("1.x", "1.0.0", "1.1.0")
	f.Add("", "v1.0.0+a", "1.0.0+b")
	f.Add(">= 1.0.0-0 <2", "2.0.0-rc", "1")
	f.Fuzz(func(t *testing.T, text, one, two string) {
		want, err := parseWanted(text)
		if err != nil {
			return
		}
		pick := func(versions ...string) string {
			c := chosen{wanted: want}
			for _, version := range versions {
				c.see(candidate{Version: version})
			}
			return c.best.Version
		}
		got := pick(one, two)
		if other := pick(two, one); other != got {
			t.Errorf("of %q and %q in another order %q and %q are chosen", one, two, got, other)
		}
		if got == "" {
			return
		}
		if version, err := parseVersion(got); got != text && (err != nil || !want.constraint.Check(version)) {
			t.Errorf("%q is chosen, which is not in %q", got, text)
		}
		if changed, err := withMetadata(got, "abc.1"); err == nil && !sameVersion(changed, changed) {
			t.Errorf("%q is not itself", changed)
		}
	})
}
