package source

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// Sparse shows only what is in the given directories. Without any it shows
// everything. A directory that the Tree does not have is an error that wraps
// fs.ErrNotExist and names it.
func Sparse(tree gitops.Tree, dirs []string) (gitops.Tree, error) {
	clean, err := SparseDirs(dirs)
	if err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		info, err := tree.Stat(cleanPath(dir))
		if err != nil {
			return nil, fmt.Errorf("sparse checkout directory %q: %w", dir, cause(err))
		}
		if !info.IsDir() {
			return nil, fmt.Errorf("sparse checkout directory %q: %w", dir, errNotDirectory)
		}
	}
	if len(clean) == 0 {
		return tree, nil
	}
	return &sparse{tree: tree, dirs: clean}, nil
}

// SparseDirs are the directories that Sparse shows, as paths of io/fs in order, none
// of them in another one. They are none where everything is shown.
func SparseDirs(dirs []string) ([]string, error) {
	var clean []string
	for _, dir := range dirs {
		path := cleanPath(dir)
		if !fs.ValidPath(path) {
			return nil, fmt.Errorf("sparse checkout directory %q is not below the root of the repository", dir)
		}
		clean = append(clean, path)
	}
	slices.Sort(clean)
	clean = slices.Compact(clean)
	outer := make([]string, 0, len(clean))
	for _, dir := range clean {
		if dir == "." {
			return nil, nil
		}
		if above := path.Dir(dir); above == "." || !inside(clean, above) {
			outer = append(outer, dir)
		}
	}
	if len(outer) == 0 {
		return nil, nil
	}
	return outer, nil
}

// inside tells whether a path is one of some directories, which are in order, or in one.
// There may be very many, and as many paths.
func inside(dirs []string, name string) bool {
	for ; name != "." && name != "/"; name = path.Dir(name) {
		if _, found := slices.BinarySearch(dirs, name); found {
			return true
		}
	}
	return false
}

// cleanPath makes a path of io/fs of what people write: ./apps/, /apps, apps.
func cleanPath(name string) string {
	clean := path.Clean("./" + name)
	if len(clean) > 1 && clean[0] == '/' {
		clean = clean[1:]
	}
	return clean
}

// cause is what a path error says without operation and path.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// sparse is a Tree of some directories.
type sparse struct {
	tree gitops.Tree
	dirs []string
}

// inside tells whether a path is in one of the directories.
func (s *sparse) inside(name string) bool { return inside(s.dirs, name) }

// leads tells whether a path is above one of the directories.
func (s *sparse) leads(name string) bool {
	if name == "." {
		return true
	}
	if _, found := slices.BinarySearch(s.dirs, name); found {
		return true
	}
	// Between a directory and what is in it stands what has the same beginning: a, a-b, a/b.
	first, _ := slices.BinarySearch(s.dirs, name+"/")
	return first < len(s.dirs) && contains(name, s.dirs[first])
}

func (s *sparse) check(op, name string) error {
	if err := checkPath(op, name); err != nil {
		return err
	}
	if !s.inside(name) && !s.leads(name) {
		return NotExist(op, name)
	}
	return nil
}

// Open opens a file or directory.
func (s *sparse) Open(name string) (fs.File, error) {
	if err := s.check("open", name); err != nil {
		return nil, err
	}
	if s.inside(name) {
		return s.tree.Open(name)
	}
	entries, err := s.ReadDir(name)
	if err != nil {
		return nil, reop("open", err)
	}
	return OpenDir(DirInfo(path.Base(name)), entries), nil
}

// ReadFile reads a file.
func (s *sparse) ReadFile(name string) ([]byte, error) {
	if err := s.check("open", name); err != nil {
		return nil, err
	}
	return s.tree.ReadFile(name)
}

// ReadDir lists a directory.
func (s *sparse) ReadDir(name string) ([]fs.DirEntry, error) {
	if err := s.check("readdir", name); err != nil {
		return nil, err
	}
	entries, err := s.tree.ReadDir(name)
	if err != nil || s.inside(name) {
		return entries, err
	}
	return slices.DeleteFunc(slices.Clone(entries), func(e fs.DirEntry) bool {
		below := join(name, e.Name())
		return !s.inside(below) && !s.leads(below)
	}), nil
}

// Stat describes a file or directory.
func (s *sparse) Stat(name string) (fs.FileInfo, error) {
	if err := s.check("stat", name); err != nil {
		return nil, err
	}
	return s.tree.Stat(name)
}

// Sum is that of the Tree in the directories, and made of theirs above them.
func (s *sparse) Sum(name string) (string, error) {
	if err := s.check("sum", name); err != nil {
		return "", err
	}
	if s.inside(name) {
		return s.tree.Sum(name)
	}
	var parts []string
	for _, dir := range s.dirs {
		if !contains(name, dir) {
			continue
		}
		sum, err := s.tree.Sum(dir)
		if err != nil {
			return "", err
		}
		parts = append(parts, relative(name, dir), sum)
	}
	return "sparse:" + digestOf(parts), nil
}
