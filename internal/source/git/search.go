package git

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/plumb-gitops/plumb/internal/source/git/pack"
)

// search finds out which directories lead to a regular file. A tree object is looked
// through once, however often and from wherever it is linked to: what a cache remembers
// may be gone by the next link.
type search struct {
	ctx     context.Context //nolint:containedctx // a search is for one call
	objects *objects
	hollow  *hollows
	shown   map[pack.ID]bool // trees that lead to a file
}

// hollows are what was looked at of directories without a file. Those of a revision are
// looked through once for all searches: there may be a search for each of many directories
// that lead to the same ones.
type hollows struct {
	mu    sync.Mutex // guards all below
	trees map[pack.ID]bool
	left  int // entries of them, until it is too many
}

const (
	// mostWithout is how many entries of directories without a file are looked at in one
	// revision. Git makes none but for symbolic links and submodules.
	mostWithout = 2_000_000
	// hollowCost is how many entries such a directory counts as beside its own: it is
	// remembered.
	hollowCost = 20
)

func newHollows() *hollows { return &hollows{trees: map[pack.ID]bool{}, left: mostWithout} }

// search begins a search that ends with a context.
func (t *tree) search(ctx context.Context) *search {
	return &search{ctx: ctx, objects: t.objects, hollow: t.hollow, shown: map[pack.ID]bool{}}
}

// has tells whether a directory is known to have no file.
func (h *hollows) has(id pack.ID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.trees[id]
}

// add remembers a directory of so many entries that has no file.
func (h *hollows) add(id pack.ID, entries int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.trees[id] {
		return nil
	}
	if h.left -= entries + hollowCost; h.left < 0 {
		return invalid(fmt.Errorf("directories without a file have more than %d entries, where each of them counts as %d", mostWithout, hollowCost))
	}
	h.trees[id] = true
	return nil
}

// leads tells whether there is a regular file in or below a directory.
func (s *search) leads(id pack.ID, depth int) (bool, error) {
	switch {
	case s.shown[id]:
		return true, nil
	case s.hollow.has(id):
		return false, nil
	}
	if err := s.ctx.Err(); err != nil {
		return false, endOf(err)
	}
	d, err := s.objects.dir(id)
	if err != nil {
		return false, err
	}
	leads := false
	if seen := d.files.Load(); seen != 0 {
		leads = seen == someFiles
	} else if leads, err = s.look(d, depth); err != nil {
		return false, err
	}
	if leads {
		s.shown[id] = true
		return true, nil
	}
	return false, s.hollow.add(id, len(d.entries))
}

func (s *search) look(d *dir, depth int) (bool, error) {
	if depth > deepest {
		return false, invalid(fmt.Errorf("directories are nested deeper than %d", deepest))
	}
	leads := slices.ContainsFunc(d.entries, func(e entry) bool { return e.kind <= kindExecutable })
	for i := 0; i < len(d.entries) && !leads; i++ {
		if d.entries[i].kind != kindDir {
			continue
		}
		var err error
		if leads, err = s.leads(d.entries[i].id, depth+1); err != nil {
			return false, err
		}
	}
	if leads {
		d.files.Store(someFiles)
		return true, nil
	}
	d.files.Store(noFiles)
	return false, nil
}
