package git

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/git/lru"
	"github.com/plumb-gitops/plumb/internal/source/git/pack"
	"github.com/plumb-gitops/plumb/internal/source/git/wire"
)

// extent is what a tree object stands for when everything that it links to is
// written out: a few small objects that link to each other many times stand for
// any number of files.
type extent struct {
	entries int64
	bytes   int64
}

// extentCache holds extents, so that only changed directories are measured.
type extentCache = lru.Cache[treeKey, extent]

const (
	// extentBytes bounds the extents that are kept, over all repositories.
	extentBytes = 4 << 20
	extentCost  = 96
	// deepestMeasured is how deep directories are measured: deeper than they
	// are shown, since what is too deep is no reason to refuse the rest.
	deepestMeasured = 1024
)

func (e *extent) add(other extent) {
	e.entries, e.bytes = saturated(e.entries, other.entries), saturated(e.bytes, other.bytes)
}

// entryBytes is about what a file or a directory takes beside its content.
const entryBytes = 100

// room is about how much of the disk it takes at most.
func (e extent) room() int64 {
	return saturated(e.bytes, min(e.entries, math.MaxInt64/entryBytes)*entryBytes)
}

// saturated is a sum that stays at the largest number instead of passing it.
func saturated(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// measure begins to find out the extents of trees. Each tree object is looked at once.
func (o *objects) measure(ctx context.Context) *measurement {
	return &measurement{ctx: ctx, objects: o, known: map[pack.ID]extent{}}
}

// measurement is one walk over the tree objects of a revision. What it knows
// does not depend on the cache, which may drop anything at any time.
type measurement struct {
	ctx     context.Context
	objects *objects
	known   map[pack.ID]extent
}

func (m *measurement) tree(id pack.ID, depth int) (extent, error) {
	if e, ok := m.known[id]; ok {
		return e, nil
	}
	key := treeKey{m.objects.owner, id}
	if e, ok := m.objects.extents.Get(key); ok {
		return e, nil
	}
	if err := m.ctx.Err(); err != nil {
		return extent{}, endOf(err)
	}
	if depth > deepestMeasured {
		return extent{}, invalid(fmt.Errorf("directories are nested deeper than %d", deepestMeasured))
	}
	d, err := m.objects.dir(id)
	if gitops.KindOf(err) == gitops.Invalid {
		// Nothing gets past a directory that cannot be shown; who reads it is
		// told why.
		m.known[id] = extent{}
		return extent{}, nil
	}
	if err != nil {
		return extent{}, err
	}
	total := extent{entries: int64(len(d.entries))}
	for _, e := range d.entries {
		var below extent
		switch e.kind {
		case kindDir:
			if below, err = m.tree(e.id, depth+1); err != nil {
				return extent{}, err
			}
		case kindFile, kindExecutable:
			if below.bytes, err = m.objects.set.Size(e.id); err != nil {
				return extent{}, m.objects.fail(err)
			}
		}
		total.add(below)
	}
	m.known[id] = total
	m.objects.extents.Put(key, total, extentCost)
	return total, nil
}

// visit is what one fetch has looked at so far, over all submodules.
type visit struct {
	limit      extent
	total      extent
	submodules int
	// holds are the tips of submodules that must not be removed meanwhile.
	holds []child
	// moved is set where a tip has other submodules than before.
	moved bool
	// above are the repositories that the present one is a submodule of, the
	// outermost first.
	above []origin
}

// origin is a commit of a repository.
type origin struct{ url, commit string }

func (s *Store) newVisit() *visit {
	return &visit{limit: extent{entries: s.options.TreeEntries, bytes: s.options.TreeBytes}}
}

// enter counts the files of a tree, or of those directories that will be shown, and
// refuses it before anything walks through it. What is refused is kept too, so that the
// namespace of the context is charged for it like for what is shown.
func (v *visit) enter(ctx context.Context, r *remote, request Request, t *tree, dirs []string) error {
	size, err := measured(ctx, t, dirs)
	if err == nil {
		r.store.folder.Ask(ctx, r.key, request.tip(), size.room())
		v.total.add(size)
	}
	switch {
	case err != nil:
		return err
	case v.total.entries > v.limit.entries:
		return invalid(fmt.Errorf("the revision has more than %d files and directories, which is the most that is taken", v.limit.entries))
	case v.total.bytes > v.limit.bytes:
		return invalid(fmt.Errorf("the files of the revision have more than %d bytes, which is the most that is taken", v.limit.bytes))
	}
	return nil
}

// measured is the extent of a tree, or of some directories of it.
func measured(ctx context.Context, t *tree, dirs []string) (total extent, err error) {
	roots := []pack.ID{t.root}
	if len(dirs) > 0 {
		roots = nil
	}
	for _, dir := range dirs {
		e, err := t.lookup("open", dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return extent{}, endedOr(ctx, err)
		case e.kind == kindDir:
			roots = append(roots, e.id)
		}
	}
	m := t.objects.measure(ctx)
	for _, root := range roots {
		size, err := m.tree(root, 0)
		if err != nil {
			return extent{}, err
		}
		total.add(size)
	}
	return total, nil
}

// descend goes from a commit of a repository to a submodule of it.
func (v *visit) descend(from Request, commit string, to Request) error {
	if v.submodules++; v.submodules > mostSubmodules {
		return fmt.Errorf("the repository has more than %d submodules with those of its submodules", mostSubmodules)
	}
	v.above = append(v.above, origin{from.URL, commit})
	for _, a := range v.above {
		if a == (origin{to.URL, to.Ref.Commit}) {
			return errors.New("it is a repository that it is a submodule of, at the same commit")
		}
	}
	return nil
}

func (v *visit) ascend() { v.above = v.above[:len(v.above)-1] }

// endedOr is how a context ended, or what went wrong otherwise.
func endedOr(ctx context.Context, err error) error {
	if ended := ctx.Err(); err != nil && ended != nil {
		return endOf(ended)
	}
	return err
}

// endOf says how a context ended.
func endOf(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return &wire.Error{Code: wire.CodeTimeout, Text: "no answer within the timeout", Err: err}
	}
	return &wire.Error{Code: wire.CodeCanceled, Text: "canceled", Err: err}
}
