package git

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/git/pack"
)

// dir is a decoded tree object, shared by all who read it.
type dir struct {
	entries []entry // ordered by name
	// files is what is known of the presence of files below: 0 nothing, 1 some,
	// 2 none.
	files atomic.Int32
}

const (
	someFiles = 1
	noFiles   = 2
)

func (d *dir) find(name string) (entry, bool) {
	i, found := slices.BinarySearchFunc(d.entries, name, func(e entry, name string) int { return strings.Compare(e.name, name) })
	if !found {
		return entry{}, false
	}
	return d.entries[i], true
}

// treeKey names a tree object of one store: what one server sent under a name
// is never shown in the repository of another one.
type treeKey struct {
	owner string
	id    pack.ID
}

// objects reads decoded objects from a Set.
type objects struct {
	set *pack.Set
	// owner is the store that the objects are of, for the caches.
	owner   string
	dirs    *dirCache
	extents *extentCache
	// damaged is called when an object that must be there is not, or is not
	// what it should be.
	damaged func()
}

// largestTree is the most bytes of a tree object: some 200,000 names.
const largestTree = 8 << 20

// deepest is how deep directories may be nested.
const deepest = 128

// fail makes an error of the source of what went wrong with an object.
func (o *objects) fail(err error) error {
	kind, text := gitops.Invalid, err
	switch {
	case errors.Is(err, pack.ErrCorrupt), errors.Is(err, pack.ErrNotFound):
		o.damaged()
		kind = gitops.Transient
		text = fmt.Errorf("the stored objects are damaged and will be fetched again: %w", err)
	case errors.Is(err, pack.ErrTooLarge):
	default:
		kind = gitops.Transient
	}
	return &gitops.Error{Stage: gitops.StageFetch, Kind: kind, Reason: ReasonFailed, Cause: text}
}

// invalid is an error about what the repository holds.
func invalid(err error) error {
	return &gitops.Error{Stage: gitops.StageFetch, Kind: gitops.Invalid, Reason: ReasonFailed, Cause: err}
}

func (o *objects) object(id pack.ID, kind pack.Kind) ([]byte, error) {
	object, err := o.set.Object(id)
	if err != nil {
		return nil, o.fail(err)
	}
	if object.Kind != kind {
		return nil, invalid(fmt.Errorf("object %s is a %s where a %s is expected", id, object.Kind, kind))
	}
	return object.Data, nil
}

func (o *objects) dir(id pack.ID) (*dir, error) {
	if d, ok := o.dirs.get(treeKey{o.owner, id}); ok {
		return d, nil
	}
	data, err := o.object(id, pack.Tree)
	if err != nil {
		return nil, err
	}
	if len(data) > largestTree {
		return nil, invalid(fmt.Errorf("tree %s has %d bytes, at most %d are allowed for one directory", id, len(data), largestTree))
	}
	entries, err := parseTree(id, data)
	if err != nil {
		return nil, invalid(err)
	}
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.name, b.name) })
	for i := 1; i < len(entries); i++ {
		if entries[i].name == entries[i-1].name {
			return nil, invalid(fmt.Errorf("tree %s has %s twice", id, quoted(entries[i].name)))
		}
	}
	d := &dir{entries: entries}
	o.dirs.put(treeKey{o.owner, id}, d, int64(len(data)+entryCost*len(entries)))
	return d, nil
}

func (o *objects) commit(id pack.ID) (commitObject, error) {
	data, err := o.object(id, pack.Commit)
	if err != nil {
		return commitObject{}, err
	}
	c, err := parseCommit(id, data)
	if err != nil {
		return commitObject{}, invalid(err)
	}
	return c, nil
}

// longestTagChain is how many tags may name another tag.
const longestTagChain = 10

// peel gives the commit that an object stands for, through annotated tags.
func (o *objects) peel(id pack.ID) (pack.ID, error) {
	for range longestTagChain {
		object, err := o.set.Object(id)
		if err != nil {
			return pack.ID{}, o.fail(err)
		}
		if object.Kind == pack.Commit {
			return id, nil
		}
		if object.Kind != pack.Tag {
			return pack.ID{}, invalid(fmt.Errorf("the ref stands for a %s, not for a commit", object.Kind))
		}
		if id, err = parseTag(id, object.Data); err != nil {
			return pack.ID{}, invalid(err)
		}
	}
	return pack.ID{}, invalid(fmt.Errorf("tags of tags are nested deeper than %d", longestTagChain))
}

// reachable lists what a commit needs to be shown, without its history: tags on
// the way to it, the commit, its directories, and its files; where paths are given
// only the files below those. What was seen before is not listed again. Commits of
// which all files are needed come first: what lies below a directory that was seen
// is taken as seen.
func (o *objects) reachable(ctx context.Context, id pack.ID, paths []string, seen map[pack.ID]bool) ([]pack.ID, error) {
	var names []pack.ID
	add := func(id pack.ID) bool {
		if seen[id] {
			return false
		}
		seen[id] = true
		names = append(names, id)
		return true
	}
	for range longestTagChain {
		object, err := o.set.Object(id)
		if err != nil {
			return nil, err
		}
		if object.Kind != pack.Tag {
			break
		}
		add(id)
		if id, err = parseTag(id, object.Data); err != nil {
			return nil, err
		}
	}
	commit, err := o.commit(id)
	if err != nil {
		return nil, err
	}
	add(id)
	if len(paths) == 0 {
		return names, o.walk(ctx, commit.tree, 0, true, add)
	}
	// A directory may have been seen in a commit that needs none of its files.
	visited := map[pack.ID]bool{}
	err = o.walk(ctx, commit.tree, 0, false, func(id pack.ID) bool {
		add(id)
		first := !visited[id]
		visited[id] = true
		return first
	})
	if err != nil {
		return nil, err
	}
	return names, o.filesBelow(ctx, commit.tree, paths, func(id pack.ID) { add(id) })
}

// filesBelow gives the files below some paths, or at them, each at least once.
func (o *objects) filesBelow(ctx context.Context, root pack.ID, paths []string, give func(pack.ID)) error {
	visited := map[pack.ID]bool{}
	t := newTree(o, root).within(ctx)
	for _, name := range paths {
		e, err := t.lookup("open", name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // whoever shows the directory says so
		case err != nil:
			return endedOr(ctx, err)
		case e.kind != kindDir:
			give(e.id)
			continue
		}
		err = o.walk(ctx, e.id, strings.Count(name, "/")+1, true, func(id pack.ID) bool {
			first := !visited[id]
			visited[id] = true
			if first {
				give(id)
			}
			return first
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// walk goes through directories. Add is told each of them, and what is below is left
// out where it says false; with files it is told those too.
func (o *objects) walk(ctx context.Context, tree pack.ID, depth int, files bool, add func(pack.ID) bool) error {
	if depth > deepest {
		return invalid(fmt.Errorf("directories are nested deeper than %d", deepest))
	}
	if !add(tree) {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return endOf(err)
	}
	d, err := o.dir(tree)
	if err != nil {
		return err
	}
	for _, e := range d.entries {
		switch e.kind {
		case kindSubmodule:
		case kindDir:
			if err := o.walk(ctx, e.id, depth+1, files, add); err != nil {
				return err
			}
		default:
			if files {
				add(e.id)
			}
		}
	}
	return nil
}
