package git

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/plumb-gitops/plumb/internal/source"
	"github.com/plumb-gitops/plumb/internal/source/git/pack"
)

// tree is a gitops.Tree over the tree object of a commit. Symbolic links and
// submodules are not in it, nor are directories that lead to nothing else.
type tree struct {
	objects *objects
	root    pack.ID
	hollow  *hollows
	// asked is the search of the fetch that the tree is for; nil after that, when several
	// may read it.
	asked *search
}

func newTree(o *objects, root pack.ID) *tree {
	return &tree{objects: o, root: root, hollow: newHollows()}
}

// within has a context end what is asked of the tree, and remembers what was found, until
// the fetch is over.
func (t *tree) within(ctx context.Context) *tree {
	t.asked = t.search(ctx)
	return t
}

// over gives the tree to those who read it after the fetch.
func (t *tree) over() { t.asked = nil }

// lookup goes down to a path.
func (t *tree) lookup(op, name string) (entry, error) {
	if !fs.ValidPath(name) {
		return entry{}, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	at := entry{name: ".", id: t.root, kind: kindDir}
	if name == "." {
		return at, nil
	}
	search := t.asked
	if search == nil {
		search = t.search(context.Background())
	}
	depth := 0
	for rest, more := name, true; more; depth++ {
		var first string
		first, rest, more = strings.Cut(rest, "/")
		if at.kind != kindDir {
			return entry{}, source.NotExist(op, name)
		}
		if depth > deepest {
			return entry{}, &fs.PathError{Op: op, Path: name, Err: invalid(fmt.Errorf("directories are nested deeper than %d", deepest))}
		}
		if err := search.ctx.Err(); err != nil {
			return entry{}, &fs.PathError{Op: op, Path: name, Err: endOf(err)}
		}
		d, err := t.objects.dir(at.id)
		if err != nil {
			return entry{}, &fs.PathError{Op: op, Path: name, Err: err}
		}
		found, ok := d.find(first)
		if !ok || !found.shown() {
			return entry{}, source.NotExist(op, name)
		}
		at = found
	}
	if at.kind == kindDir {
		if shows, err := search.leads(at.id, depth); err != nil || !shows {
			return entry{}, firstOf(wrapPath(op, name, err), source.NotExist(op, name))
		}
	}
	return at, nil
}

func wrapPath(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *tree) info(e entry) source.Info {
	if e.kind == kindDir {
		return source.DirInfo(path.Base(e.name))
	}
	return source.FileInfo(e.name, e.kind == kindExecutable, func() (int64, error) {
		size, err := t.objects.set.Size(e.id)
		if err != nil {
			return 0, t.objects.fail(err)
		}
		return size, nil
	})
}

// Open opens a file or directory.
func (t *tree) Open(name string) (fs.File, error) {
	e, err := t.lookup("open", name)
	if err != nil {
		return nil, err
	}
	if e.kind == kindDir {
		entries, err := t.list(e, strings.Count(name, "/")+1)
		if err != nil {
			return nil, wrapPath("open", name, err)
		}
		return source.OpenDir(t.info(e), entries), nil
	}
	info, err := t.info(e).Info()
	if err != nil {
		return nil, wrapPath("open", name, err)
	}
	content, err := t.objects.set.Reader(e.id)
	if err != nil {
		return nil, wrapPath("open", name, t.objects.fail(err))
	}
	return source.OpenFile(info, &checked{content, t.objects}), nil
}

// checked reports what is found damaged while a file is read.
type checked struct {
	io.ReadCloser
	objects *objects
}

// Read gives bytes of the file.
func (c *checked) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // readers return the end itself
		err = c.objects.fail(err)
	}
	return n, err
}

// ReadFile reads a file.
func (t *tree) ReadFile(name string) ([]byte, error) {
	e, err := t.lookup("open", name)
	if err != nil {
		return nil, err
	}
	if e.kind == kindDir {
		return nil, source.IsDirectory("read", name)
	}
	object, err := t.objects.set.Object(e.id)
	if err != nil {
		return nil, wrapPath("read", name, t.objects.fail(err))
	}
	if object.Kind != pack.Blob {
		return nil, wrapPath("read", name, invalid(fmt.Errorf("object %s is a %s where a blob is expected", e.id, object.Kind)))
	}
	// The data is shared by all who read the file.
	return append(make([]byte, 0, len(object.Data)), object.Data...), nil
}

// ReadDir lists a directory.
func (t *tree) ReadDir(name string) ([]fs.DirEntry, error) {
	e, err := t.lookup("readdir", name)
	if err != nil {
		return nil, err
	}
	if e.kind != kindDir {
		return nil, source.NotDirectory("readdir", name)
	}
	entries, err := t.list(e, strings.Count(name, "/")+1)
	return entries, wrapPath("readdir", name, err)
}

func (t *tree) list(e entry, depth int) ([]fs.DirEntry, error) {
	d, err := t.objects.dir(e.id)
	if err != nil {
		return nil, err
	}
	listed := make([]fs.DirEntry, 0, len(d.entries))
	search := t.search(context.Background())
	for _, e := range d.entries {
		if !e.shown() {
			continue
		}
		if e.kind == kindDir {
			if shows, err := search.leads(e.id, depth); err != nil {
				return nil, err
			} else if !shows {
				continue
			}
		}
		listed = append(listed, t.info(e))
	}
	return listed, nil
}

// Stat describes a file or directory.
func (t *tree) Stat(name string) (fs.FileInfo, error) {
	e, err := t.lookup("stat", name)
	if err != nil {
		return nil, err
	}
	info, err := t.info(e).Info()
	return info, wrapPath("stat", name, err)
}

// Sum is the name of the object, with a mark for its kind.
func (t *tree) Sum(name string) (string, error) {
	e, err := t.lookup("sum", name)
	if err != nil {
		return "", err
	}
	switch e.kind {
	case kindDir:
		return "git-tree:" + e.id.String(), nil
	case kindExecutable:
		return "git-exec:" + e.id.String(), nil
	default:
		return "git-file:" + e.id.String(), nil
	}
}

// FindFiles gives the paths of all files with a name, a directory's own before
// those below it. A tree object without any is looked through once, however
// often it is linked to.
func (t *tree) FindFiles(name string) ([]string, error) {
	f := finder{objects: t.objects, name: name, without: map[pack.ID]bool{}}
	err := f.find(t.root, ".", 0)
	return f.found, err
}

// finder is one search for files with a name.
type finder struct {
	objects *objects
	name    string
	without map[pack.ID]bool // trees that hold none
	found   []string
}

func (f *finder) find(id pack.ID, at string, depth int) error {
	if f.without[id] {
		return nil
	}
	if depth > deepest {
		return invalid(fmt.Errorf("directories are nested deeper than %d", deepest))
	}
	d, err := f.objects.dir(id)
	if err != nil {
		return err
	}
	before := len(f.found)
	if e, ok := d.find(f.name); ok && e.kind <= kindExecutable {
		f.found = append(f.found, path.Join(at, f.name))
	}
	if len(f.found) > mostFound {
		return invalid(fmt.Errorf("more than %d files are called %q", mostFound, f.name))
	}
	for _, e := range d.entries {
		if e.kind == kindDir {
			if err := f.find(e.id, path.Join(at, e.name), depth+1); err != nil {
				return err
			}
		}
	}
	if len(f.found) == before {
		f.without[id] = true
	}
	return nil
}

// mostFound is how many files of a name are looked for.
const mostFound = 10_000
