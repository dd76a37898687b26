package source

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// IgnoreFile is the name of the files with patterns in a Tree.
const IgnoreFile = ".sourceignore"

const (
	// mostIgnoreBytes is the most bytes of all IgnoreFiles together.
	mostIgnoreBytes = 1 << 20
	// mostPatterns is how many patterns may hold: each file is compared with
	// each of them.
	mostPatterns = 10_000
	// mostSearched is how many files and directories are looked through for
	// IgnoreFiles.
	mostSearched = 1_000_000
	// mostFound is how many IgnoreFiles a joined source has at most, and mostCompared is of
	// how many it is found out whether the patterns of their own source leave them out.
	mostFound    = 10_000
	mostCompared = 1_000
)

// Filter leaves out what ignore patterns exclude: those of all files called
// IgnoreFile, each for its own directory, and after them the given ones. Where
// there is a single pattern, the built-in ones do not hold, but for those that
// exclude Git's own files. A directory without a file left is left out too.
//
// The Tree is searched for ignore files at once; all else is done on demand.
func Filter(tree gitops.Tree, ignore string) (gitops.Tree, error) {
	custom, err := findPatterns(tree)
	if err != nil {
		return nil, err
	}
	custom = append(custom, parsePatterns(ignore, ".")...)
	if len(custom) > mostPatterns {
		return nil, tooManyPatterns()
	}
	f := &filtered{tree: tree, custom: len(custom) > 0, visible: map[string]bool{}, digests: map[string]string{}, found: map[string][]string{}}
	f.patterns = parsePatterns(vcsPatterns, ".")
	if f.custom {
		f.patterns = append(f.patterns, custom...)
	} else {
		f.patterns = append(f.patterns, parsePatterns(defaultPatterns, ".")...)
	}
	return f, nil
}

// FilterDefaults leaves out what the built-in patterns exclude, whatever files called
// IgnoreFile the Tree has.
func FilterDefaults(tree gitops.Tree) gitops.Tree {
	f := &filtered{tree: tree, visible: map[string]bool{}, digests: map[string]string{}, found: map[string][]string{}}
	f.patterns = append(parsePatterns(vcsPatterns, "."), parsePatterns(defaultPatterns, ".")...)
	return f
}

// FileFinder is a Tree that can find all files of a name without being walked.
type FileFinder interface {
	// FindFiles gives the paths of all files with a name, in the order of a
	// walk in which a directory's own file comes before those below it.
	FindFiles(name string) ([]string, error)
}

func findPatterns(tree gitops.Tree) ([]pattern, error) {
	files, err := search(tree, IgnoreFile)
	if err != nil {
		return nil, err
	}
	var patterns []pattern
	total := int64(0)
	for _, file := range files {
		info, err := tree.Stat(file)
		if err != nil {
			return nil, err
		}
		if total += info.Size(); total > mostIgnoreBytes {
			return nil, fmt.Errorf("the files called %q up to %q have %d bytes together, at most %d are allowed", IgnoreFile, file, total, mostIgnoreBytes)
		}
		text, err := tree.ReadFile(file)
		if err != nil {
			return nil, err
		}
		patterns = append(patterns, parsePatterns(string(text), path.Dir(file))...)
		if len(patterns) > mostPatterns {
			return nil, tooManyPatterns()
		}
	}
	return patterns, nil
}

func tooManyPatterns() error {
	return fmt.Errorf("there are more than %d ignore patterns, which is the most that is allowed", mostPatterns)
}

// search gives what FindFiles does, by a walk where it has to be.
func search(tree gitops.Tree, name string) ([]string, error) {
	if finder, ok := tree.(FileFinder); ok {
		return finder.FindFiles(name)
	}
	left := mostSearched
	return findFiles(tree, ".", name, &left)
}

// FindFiles gives the paths of all files with a name that are shown. They are found once: what
// is nested would ask again and again.
func (f *filtered) FindFiles(name string) ([]string, error) {
	f.mu.Lock()
	known, ok := f.found[name]
	f.mu.Unlock()
	if ok {
		return known, nil
	}
	all, err := search(f.tree, name)
	switch {
	case err != nil:
		return nil, err
	case len(all) > mostCompared:
		return nil, fmt.Errorf("more than %d files are called %q, which is the most in a source that is included", mostCompared, name)
	}
	shown := []string{}
	for _, file := range all {
		if f.showsFile(file) {
			shown = append(shown, file)
		}
	}
	f.mu.Lock()
	f.found[name] = shown
	f.mu.Unlock()
	return shown, nil
}

// findFiles looks for files of a name, at no more entries than are left.
func findFiles(tree gitops.Tree, dir, name string, left *int) ([]string, error) {
	entries, err := tree.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	if *left -= len(entries); *left < 0 {
		return nil, fmt.Errorf("the source has more than %d files and directories, which is the most that is searched for files called %q", mostSearched, name)
	}
	var files []string
	for _, e := range entries {
		if e.Name() == name && !e.IsDir() {
			files = append(files, join(dir, name))
		}
	}
	for _, e := range entries {
		if e.IsDir() {
			below, err := findFiles(tree, join(dir, e.Name()), name, left)
			if err != nil {
				return nil, err
			}
			files = append(files, below...)
		}
	}
	return files, nil
}

// filtered is a Tree without what its patterns exclude.
type filtered struct {
	tree     gitops.Tree
	patterns []pattern
	custom   bool

	mu      sync.Mutex // guards the maps
	visible map[string]bool
	digests map[string]string
	found   map[string][]string
}

func (f *filtered) showsFile(name string) bool {
	return !ignored(f.patterns, strings.Split(name, "/"), false)
}

// showsDir tells whether a directory has a file left. The root always shows.
func (f *filtered) showsDir(name string) (bool, error) {
	if name == "." {
		return true, nil
	}
	f.mu.Lock()
	shows, known := f.visible[name]
	f.mu.Unlock()
	if known {
		return shows, nil
	}
	entries, err := f.tree.ReadDir(name)
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if shows = !e.IsDir() && f.showsFile(join(name, e.Name())); shows {
			break
		}
	}
	for i := 0; i < len(entries) && !shows; i++ {
		if entries[i].IsDir() {
			if shows, err = f.showsDir(join(name, entries[i].Name())); err != nil {
				return false, err
			}
		}
	}
	f.mu.Lock()
	remember(f.visible, name, shows)
	f.mu.Unlock()
	return shows, nil
}

func (f *filtered) shows(op, name string, isDir bool) error {
	shows := true
	var err error
	if isDir {
		shows, err = f.showsDir(name)
	} else {
		shows = f.showsFile(name)
	}
	if err == nil && !shows {
		err = NotExist(op, name)
	}
	return err
}

// Open opens a file or directory.
func (f *filtered) Open(name string) (fs.File, error) {
	info, err := f.Stat(name)
	if err != nil {
		return nil, reop("open", err)
	}
	if !info.IsDir() {
		return f.tree.Open(name)
	}
	entries, err := f.ReadDir(name)
	if err != nil {
		return nil, reop("open", err)
	}
	return OpenDir(info, entries), nil
}

// ReadFile reads a file.
func (f *filtered) ReadFile(name string) ([]byte, error) {
	if !fs.ValidPath(name) || name != "." && f.showsFile(name) {
		return f.tree.ReadFile(name)
	}
	if info, err := f.Stat(name); err == nil && info.IsDir() {
		return nil, IsDirectory("read", name)
	}
	return nil, NotExist("open", name)
}

// ReadDir lists a directory.
func (f *filtered) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := f.tree.ReadDir(name)
	if err != nil {
		return nil, err
	}
	if err := f.shows("readdir", name, true); err != nil {
		return nil, err
	}
	shown := make([]fs.DirEntry, 0, len(entries))
	for _, e := range entries {
		switch err := f.shows("readdir", join(name, e.Name()), e.IsDir()); {
		case err == nil:
			shown = append(shown, e)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
	}
	return shown, nil
}

// Stat describes a file or directory.
func (f *filtered) Stat(name string) (fs.FileInfo, error) {
	info, err := f.tree.Stat(name)
	if err != nil {
		return nil, err
	}
	return info, f.shows("stat", name, info.IsDir())
}

// Sum adds to the sum of a directory what the patterns that reach into it are;
// those of ignore files below it are part of its content.
func (f *filtered) Sum(name string) (string, error) {
	info, err := f.Stat(name)
	if err != nil {
		return "", reop("sum", err)
	}
	sum, err := f.tree.Sum(name)
	if err != nil || !info.IsDir() {
		return sum, err
	}
	if !f.custom {
		return sum + "-default", nil
	}
	return sum + "-" + f.digest(name), nil
}

func (f *filtered) digest(dir string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if digest, ok := f.digests[dir]; ok {
		return digest
	}
	h := sha256.New()
	anchored := false
	for _, p := range f.patterns {
		if contains(p.domain, dir) {
			fmt.Fprintf(h, "%s\x00%s\n", p.domain, p.text)
			anchored = anchored || p.anchored
		}
	}
	// A pattern with a slash sees where it stands, so that two equal
	// directories at different places may show different files.
	if anchored {
		h.Write([]byte(dir))
	}
	digest := hex.EncodeToString(h.Sum(nil)[:16])
	remember(f.digests, dir, digest)
	return digest
}

// mostRemembered is of how many directories a Tree remembers something as long as it is held:
// of as many as most sources have.
const mostRemembered = 10_000

// remember keeps a value that can be found out again. Where there are too many it begins anew.
func remember[V any](values map[string]V, name string, value V) {
	if len(values) >= mostRemembered {
		clear(values)
	}
	values[name] = value
}

// reop names another operation in a path error.
func reop(op string, err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return &fs.PathError{Op: op, Path: p.Path, Err: p.Err}
	}
	return err
}
