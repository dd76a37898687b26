package git

import (
	"fmt"
	"slices"

	"github.com/plumb-gitops/plumb/internal/source/git/pack"
)

// search finds out which directories lead to a regular file. A tree object is looked
// through once, however often and from wherever it is linked to: what a cache remembers
// may be gone by the next link.
type search struct {
	objects *objects
	known   map[pack.ID]bool // whether a tree leads to a file
	left    int              // entries of trees that do not, until it is too many
}

// mostWithout is how many entries of directories without a file are looked at for one
// listing. Git makes none but for symbolic links and submodules.
const mostWithout = 2_000_000

func (o *objects) search() *search {
	return &search{objects: o, known: map[pack.ID]bool{}, left: mostWithout}
}

// leads tells whether there is a regular file in or below a directory.
func (s *search) leads(id pack.ID, depth int) (bool, error) {
	if leads, ok := s.known[id]; ok {
		return leads, nil
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
	s.known[id] = leads
	return leads, nil
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
	if s.left -= len(d.entries); s.left < 0 {
		return false, invalid(fmt.Errorf("directories without a file have more than %d entries", mostWithout))
	}
	return false, nil
}
