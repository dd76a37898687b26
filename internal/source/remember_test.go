package source

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"testing"
)

// wide is a Tree with many directories of a file, one in ten of which is ignored.
type wide struct{ dirs int }

func (w wide) name(i int) string {
	return fmt.Sprintf("dir-%06d", i)
}

func (w wide) ReadDir(name string) ([]fs.DirEntry, error) {
	var entries []fs.DirEntry
	if name == "." {
		for i := range w.dirs {
			entries = append(entries, DirInfo(w.name(i)))
		}
		return entries, nil
	}
	file := "shown.yaml"
	if strings.HasSuffix(name, "1") {
		file = "hidden.txt"
	}
	return append(entries, FileInfo(file, false, nil)), nil
}

func (w wide) Stat(name string) (fs.FileInfo, error) {
	if path.Ext(name) == "" {
		return DirInfo(path.Base(name)), nil
	}
	return FileInfo(path.Base(name), false, nil), nil
}

func (w wide) Sum(name string) (string, error)         { return "sum of " + name, nil }
func (w wide) Open(string) (fs.File, error)            { return nil, errors.New("not opened") }
func (w wide) ReadFile(string) ([]byte, error)         { return nil, errors.New("not read") }
func (w wide) FindFiles(name string) ([]string, error) { return nil, nil }

// TestFilterRemembersLittle: what a Tree has looked at is not held for as long as the Tree,
// however many directories there are.
func TestFilterRemembersLittle(t *testing.T) {
	t.Parallel()
	tree, err := Filter(wide{3*mostRemembered + 7}, "*.txt")
	if err != nil {
		t.Fatal(err)
	}
	f := tree.(*filtered)
	for range 2 {
		entries, err := tree.ReadDir(".")
		if err != nil {
			t.Fatal(err)
		}
		if want := f.tree.(wide).dirs * 9 / 10; len(entries) < want || len(entries) > want+10 {
			t.Fatalf("%d directories, want about %d", len(entries), want)
		}
		for _, e := range entries {
			if _, err := tree.Sum(e.Name()); err != nil {
				t.Fatal(err)
			}
		}
		if len(f.visible) > mostRemembered || len(f.digests) > mostRemembered {
			t.Errorf("%d and %d directories are remembered", len(f.visible), len(f.digests))
		}
	}
	if _, err := tree.Sum("dir-000001"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("one without a file that is shown: %v", err)
	}
}
