package git

import "fmt"

// root is a tip that somebody follows for its own sake.
type root struct {
	at child
	// modules tells whether its submodules are followed too.
	modules bool
}

func (s *Store) rootOf(request Request) root {
	return root{at: child{Remote: s.key(request), Tip: request.tip()}, modules: request.RecurseSubmodules}
}

// Retain removes the stores, and the tips in them, that none of the requests
// needs, with those of their submodules. It must be given everything that is
// still followed.
func (s *Store) Retain(requests []Request) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roots = make(map[root]bool, len(requests))
	for _, request := range requests {
		s.roots[s.rootOf(request)] = true
	}
	return s.sweep()
}

// follow adds a request to what is followed. What is followed otherwise is told by
// Retain; before that nothing is removed.
func (s *Store) follow(request Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.roots != nil {
		s.roots[s.rootOf(request)] = true
	}
}

// hold keeps the tip of a submodule, and gives its name, until the fetch ends that needs
// it: its parent does not name it yet.
func (s *Store) hold(v *visit, request Request) child {
	at := s.rootOf(request).at
	v.holds = append(v.holds, at)
	s.mu.Lock()
	s.held[at]++
	s.mu.Unlock()
	return at
}

// leave gives back what a fetch held, and the submodules that nothing names any more.
func (s *Store) leave(v *visit) {
	if len(v.holds) == 0 && !v.moved {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range v.holds {
		if s.held[at]--; s.held[at] == 0 {
			delete(s.held, at)
		}
	}
	if s.roots == nil || s.closed || !v.moved && !s.kept {
		return
	}
	// What cannot be removed now is tried again with the next call of Retain, which
	// tells of it.
	_ = s.sweep()
}

// sweep removes what is neither followed, nor a submodule of what is, nor held. The
// caller has the mutex.
func (s *Store) sweep() error {
	m := marking{store: s, wanted: map[string]map[string]bool{}, modules: map[child]bool{}}
	for r := range s.roots {
		m.mark(r)
	}
	before := m.size
	for at := range s.held {
		m.mark(root{at: at, modules: true})
	}
	s.kept = m.size > before
	for key, r := range s.remotes {
		if m.wanted[key] == nil {
			delete(s.remotes, key)
			r.close()
			continue
		}
		r.retain(m.wanted[key])
		r.tidies()
	}
	s.folder.Forget(m.wanted)
	if err := s.folder.Sweep(func(key string) bool { return m.wanted[key] != nil }); err != nil {
		return fmt.Errorf("clean git store: %w", err)
	}
	return nil
}

// marking finds all that is needed.
type marking struct {
	store   *Store
	wanted  map[string]map[string]bool // tips by store
	modules map[child]bool             // those whose submodules were marked
	size    int                        // number of tips
}

func (m *marking) mark(r root) {
	tips := m.wanted[r.at.Remote]
	if tips == nil {
		tips = map[string]bool{}
		m.wanted[r.at.Remote] = tips
	}
	if !tips[r.at.Tip] {
		tips[r.at.Tip] = true
		m.size++
	}
	if !r.modules || m.modules[r.at] {
		return
	}
	m.modules[r.at] = true
	for _, below := range m.store.children(r.at) {
		m.mark(root{at: below, modules: true})
	}
}

// children are the submodules of a tip. After a restart its store may not be open yet.
// The caller has the mutex.
func (s *Store) children(of child) []child {
	if r, ok := s.remotes[of.Remote]; ok {
		if children, open := r.children(of.Tip); open {
			return children
		}
	}
	dir, err := s.folder.Root().OpenRoot(of.Remote)
	if err != nil {
		return nil
	}
	defer dir.Close()
	st, err := readState(dir)
	if err != nil {
		return nil
	}
	return st.Tips[of.Tip].Children
}
