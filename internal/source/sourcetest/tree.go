// Package sourcetest holds the tests that every Tree and every Fetcher has to
// pass, whatever kind of source it is of. An adapter's own tests hand in a way
// to make one and inherit all of them. Only tests import it.
package sourcetest

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// Memory is a Tree of files in memory, for tests of what is built on trees.
func Memory(files map[string]string) gitops.Tree {
	m := memory{fstest.MapFS{}}
	for name, content := range files {
		m.MapFS[name] = &fstest.MapFile{Data: []byte(content), Mode: 0o644}
		for dir := path.Dir(name); ; dir = path.Dir(dir) {
			m.MapFS[dir] = &fstest.MapFile{Mode: fs.ModeDir | 0o755}
			if dir == "." {
				break
			}
		}
	}
	return m
}

type memory struct{ fstest.MapFS }

// Sum is the content itself.
func (m memory) Sum(name string) (string, error) {
	info, err := m.Stat(name)
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		data, err := m.ReadFile(name)
		return fmt.Sprintf("file:%q", data), err
	}
	entries, err := m.ReadDir(name)
	sum := ""
	for _, e := range entries {
		below, err := m.Sum(path.Join(name, e.Name()))
		if err != nil {
			return "", err
		}
		sum += fmt.Sprintf("%q=%s,", e.Name(), below)
	}
	return "dir:{" + sum + "}", err
}

// Contents reads all files of a tree.
func Contents(t testing.TB, tree gitops.Tree) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := tree.ReadFile(name)
		files[name] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// CheckTree checks that a tree holds exactly some files and keeps to what
// gitops.Tree and io/fs say.
func CheckTree(t testing.TB, tree gitops.Tree, want map[string]string) {
	t.Helper()
	if diff := cmp.Diff(want, Contents(t, tree)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	names := make([]string, 0, len(want))
	for name := range want {
		names = append(names, name)
	}
	if err := fstest.TestFS(tree, names...); err != nil && len(want) > 0 {
		t.Errorf("not a proper file system: %v", err)
	}
	for _, name := range []string{"", "/", "../x", "./a", "a/../b", "/etc/passwd", "a//b"} {
		if _, err := tree.ReadFile(name); err == nil {
			t.Errorf("read %q: no error", name)
		}
		if _, err := tree.Sum(name); err == nil {
			t.Errorf("sum of %q: no error", name)
		}
	}
	if _, err := tree.Sum("no such file"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("sum of a missing path: %v", err)
	}
	checkDirs(t, tree, want)
}

// checkDirs checks that every directory leads to a file, and has a sum.
func checkDirs(t testing.TB, tree gitops.Tree, want map[string]string) {
	t.Helper()
	dirs := []string{"."}
	for name := range want {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			dirs = append(dirs, dir)
		}
	}
	slices.Sort(dirs)
	var got []string
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			got = append(got, name)
		}
		_, err = tree.Sum(name)
		return err
	})
	if err != nil {
		t.Error(err)
	}
	slices.Sort(got)
	if diff := cmp.Diff(slices.Compact(dirs), got); diff != "" {
		t.Errorf("directories (-want +got):\n%s", diff)
	}
}

// CheckSums checks over two trees of one source that paths with equal sums hold
// the same files, and that a path whose files are the same has the same sum
// where the test says that it must.
func CheckSums(t testing.TB, a, b gitops.Tree, equal ...string) {
	t.Helper()
	for _, tree := range []gitops.Tree{a, b} {
		err := fs.WalkDir(tree, ".", func(name string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			sumA, errA := a.Sum(name)
			sumB, errB := b.Sum(name)
			if errA != nil || errB != nil || sumA != sumB {
				return nil
			}
			if diff := cmp.Diff(below(t, a, name), below(t, b, name)); diff != "" {
				t.Errorf("%q has the same sum %q in both trees, but:\n%s", name, sumA, diff)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	for _, name := range equal {
		sumA, errA := a.Sum(name)
		sumB, errB := b.Sum(name)
		if errA != nil || errB != nil || sumA != sumB {
			t.Errorf("sum of %q: %q, %v and %q, %v; want the same", name, sumA, errA, sumB, errB)
		}
	}
}

func below(t testing.TB, tree gitops.Tree, name string) map[string]string {
	t.Helper()
	files := map[string]string{}
	for file, content := range Contents(t, tree) {
		if name == "." || file == name || len(file) > len(name) && file[:len(name)+1] == name+"/" {
			info, err := tree.Stat(file)
			if err != nil {
				t.Fatal(err)
			}
			files[file] = info.Mode().String() + content
		}
	}
	return files
}
