package pack

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // the name of an object
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strconv"
	"sync/atomic"
)

// Set is an immutable list of packs, oldest first, from which objects are read.
// It begins with one reference; when the last one is released, packs that no
// other Set holds are closed.
type Set struct {
	packs  []*Pack
	cache  *Cache
	limits Limits
	refs   atomic.Int64
}

// NewSet makes a Set of packs, oldest first.
func NewSet(cache *Cache, limits Limits, packs ...*Pack) *Set {
	s := &Set{packs: packs, cache: cache, limits: limits}
	for _, p := range packs {
		p.sets.Add(1)
	}
	s.refs.Store(1)
	return s
}

// With makes a Set that holds newer packs too. The old Set stays as it is.
func (s *Set) With(newer ...*Pack) *Set {
	return NewSet(s.cache, s.limits, slices.Concat(s.packs, newer)...)
}

// Within shows the same packs within other limits, for as long as the caller holds the Set.
// It is not to be released. None gives none.
func (s *Set) Within(limits Limits) *Set {
	if s == nil {
		return nil
	}
	return &Set{packs: s.packs, cache: s.cache, limits: limits}
}

// Packs are the packs of the Set, oldest first.
func (s *Set) Packs() []*Pack { return slices.Clone(s.packs) }

// Acquire adds a reference. The caller must hold one itself.
func (s *Set) Acquire() { s.refs.Add(1) }

// Release takes a reference away. After the last one nothing can be read.
func (s *Set) Release() {
	if s.refs.Add(-1) > 0 {
		return
	}
	for _, p := range s.packs {
		if p.sets.Add(-1) == 0 {
			_ = p.close()
		}
	}
}

// Disk is the length of all packs and indexes in bytes.
func (s *Set) Disk() int64 {
	var total int64
	for _, p := range s.packs {
		total += p.Disk()
	}
	return total
}

// Has tells whether an object is in the Set. One that cannot be looked up is not.
func (s *Set) Has(id ID) bool {
	_, _, err := s.find(id)
	return err == nil
}

// find gives the place of an object. The error wraps ErrNotFound where there is none.
func (s *Set) find(id ID) (*Pack, int64, error) {
	for _, p := range s.packs {
		if offset, ok, err := s.cache.find(p, id); ok || err != nil {
			return p, offset, err
		}
	}
	return nil, 0, fmt.Errorf("%w: %s", ErrNotFound, id)
}

// Object reads an object into memory. The error wraps ErrNotFound, ErrCorrupt
// or ErrTooLarge.
func (s *Set) Object(id ID) (Object, error) {
	p, offset, err := s.find(id)
	if err != nil {
		return Object{}, err
	}
	if object, ok := s.cache.get(place{p.serial, offset}); ok {
		return object, nil
	}
	object, err := s.resolve(p, offset)
	if err != nil {
		return Object{}, fmt.Errorf("object %s: %w", id, err)
	}
	if nameOf(object) != id {
		return Object{}, fmt.Errorf("object %s: %w: content is that of another one", id, ErrCorrupt)
	}
	s.cache.put(place{p.serial, offset}, object)
	return object, nil
}

// link is one delta on the way from an object to its base.
type link struct {
	pack   *Pack
	offset int64
	entry  entry
}

const (
	// longestChain is more than any server makes, times all packs of a Set.
	longestChain = 1 << 16
	// mostWork is how many objects of the largest size may be inflated and
	// copied for the sake of one.
	mostWork = 256
)

// resolve reads the object at an offset, through all its deltas. It goes down
// to the base by their heads alone and holds one delta at a time on the way
// back, so that a long chain costs time, up to a bound, but no memory.
func (s *Set) resolve(p *Pack, offset int64) (Object, error) {
	object, chain, err := s.descend(p, offset)
	if err != nil {
		return Object{}, err
	}
	work := int64(0)
	for i, l := range slices.Backward(chain) {
		delta, err := l.pack.inflate(l.entry)
		if err != nil {
			return Object{}, err
		}
		if object.Data, err = patch(object.Data, delta, s.limits.Object); err != nil {
			return Object{}, err
		}
		made := int64(len(delta)) + int64(len(object.Data))
		if err := s.limits.spend(made); err != nil {
			return Object{}, err
		}
		work += made
		if most := mostWork * s.limits.Object; most > 0 && work > most {
			return Object{}, fmt.Errorf("%w: its deltas make more than %d bytes", ErrTooLarge, most)
		}
		// The object itself is kept by the caller once its name is proven;
		// the one before it is the likely base of its siblings.
		if i == 1 {
			s.cache.put(place{l.pack.serial, l.offset}, object)
		}
	}
	return object, nil
}

// descend gives the object at the end of a chain of deltas, and the deltas, the
// last to be applied first.
func (s *Set) descend(p *Pack, offset int64) (Object, []link, error) {
	var chain []link
	for {
		if found, ok := s.cache.get(place{p.serial, offset}); ok {
			return found, chain, nil
		}
		e, err := p.entryAt(offset)
		if err != nil {
			return Object{}, nil, err
		}
		if s.limits.Object > 0 && e.size > s.limits.Object {
			return Object{}, nil, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrTooLarge, e.size, s.limits.Object)
		}
		if e.kind.isObject() {
			data, err := p.inflate(e)
			return Object{Kind: e.kind, Data: data}, chain, err
		}
		if len(chain) == longestChain {
			return Object{}, nil, fmt.Errorf("%w: chain of deltas does not end", ErrCorrupt)
		}
		chain = append(chain, link{pack: p, offset: offset, entry: e})
		if p, offset, err = s.base(p, e); err != nil {
			return Object{}, nil, err
		}
	}
}

func (s *Set) base(p *Pack, e entry) (*Pack, int64, error) {
	if e.kind == offsetDelta {
		return p, e.baseOffset, nil
	}
	base, offset, err := s.find(e.baseID)
	if errors.Is(err, ErrNotFound) {
		return nil, 0, fmt.Errorf("%w: delta base %s is missing", ErrCorrupt, e.baseID)
	}
	return base, offset, err
}

// Size is the length of an object without reading it as a whole.
func (s *Set) Size(id ID) (int64, error) {
	p, offset, err := s.find(id)
	if err != nil {
		return 0, err
	}
	if object, ok := s.cache.get(place{p.serial, offset}); ok {
		return int64(len(object.Data)), nil
	}
	e, err := p.entryAt(offset)
	if err != nil || e.kind.isObject() {
		return e.size, err
	}
	f, err := newInflater(p.section(e.dataAt))
	if err != nil {
		return 0, err
	}
	defer f.release()
	var head [20]byte
	n, err := io.ReadFull(f, head[:])
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return 0, err
	}
	_, size, _, err := deltaSizes(head[:n])
	return size, err
}

// Reader streams an object, so that one that is stored whole does not have to
// fit into memory. A wrong content is found at the end of the stream.
func (s *Set) Reader(id ID) (io.ReadCloser, error) {
	p, offset, err := s.find(id)
	if err != nil {
		return nil, err
	}
	e, err := p.entryAt(offset)
	if err != nil {
		return nil, fmt.Errorf("object %s: %w", id, err)
	}
	if !e.kind.isObject() || e.size <= trustedSize {
		object, err := s.Object(id)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(bytes.NewReader(object.Data)), nil
	}
	f, err := newInflater(p.section(e.dataAt))
	if err != nil {
		return nil, fmt.Errorf("object %s: %w", id, err)
	}
	return &stream{inflater: f, left: e.size, size: e.size, sum: newHash(e.kind, e.size), id: id}, nil
}

// stream is a whole object on its way out of a pack.
type stream struct {
	inflater *inflater
	left     int64
	size     int64
	sum      hash.Hash
	id       ID
}

func (r *stream) Read(p []byte) (int, error) {
	if r.left == 0 {
		if err := r.inflater.end(r.size); err != nil {
			return 0, err
		}
		if ID(r.sum.Sum(nil)) != r.id {
			return 0, fmt.Errorf("object %s: %w: content is that of another one", r.id, ErrCorrupt)
		}
		return 0, io.EOF
	}
	n, err := r.inflater.Read(p[:min(int64(len(p)), r.left)])
	r.sum.Write(p[:n])
	r.left -= int64(n)
	if err != nil && r.left > 0 {
		return n, shortError(err, r.size)
	}
	return n, nil
}

// Close ends reading.
func (r *stream) Close() error {
	if r.inflater != nil {
		r.inflater.release()
		r.inflater = nil
	}
	return nil
}

func nameOf(o Object) ID {
	h := newHash(o.Kind, int64(len(o.Data)))
	h.Write(o.Data)
	return ID(h.Sum(nil))
}

func newHash(kind Kind, size int64) hash.Hash {
	h := sha1.New()
	h.Write(header(kind, size))
	return h
}

// header is what comes before the content when an object's name is made.
func header(kind Kind, size int64) []byte {
	b := append(make([]byte, 0, 32), kind.String()...)
	b = append(b, ' ')
	b = strconv.AppendInt(b, size, 10)
	return append(b, 0)
}
