package pack

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
)

// orphan is a kept object that stands on one that is not kept.
type orphan struct {
	id, base ID
	// size is that of its entry as a delta, and depth how many bases it stands on.
	size  int64
	depth int
}

// base is an object that is not kept but for what stands on it.
type base struct {
	// on is another one that it stands on; zero where there is none.
	on ID
	// uses is how many orphans and bases stand on it.
	uses  int
	size  int64
	depth int // 0 while it is not known
}

// deepestOrphan is how many bases there may be below an object that are not needed. More are
// not worth the time that reading takes.
const deepestOrphan = 200

// plan finds the orphans, the ones on the most bases first, and all bases. With all these as
// they are the new pack is no larger than the old ones, of which it is a part; what is not,
// is what orphans that are made whole may take.
func (r *repacker) plan(names []ID) error {
	for _, p := range r.from.packs {
		r.budget += p.Size
	}
	for _, id := range names {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		s, err := r.look(id)
		if err != nil {
			return fmt.Errorf("object %s: %w", id, err)
		}
		r.budget -= s.size()
		if s.base.IsZero() || r.keep[s.base] {
			continue
		}
		r.orphans = append(r.orphans, orphan{id: id, base: s.base, size: s.size()})
		if err := r.need(s.base); err != nil {
			return fmt.Errorf("base of object %s: %w", id, err)
		}
	}
	for i := range r.orphans {
		r.orphans[i].depth = r.depth(r.orphans[i].base)
	}
	slices.SortStableFunc(r.orphans, func(a, b orphan) int { return cmp.Compare(b.depth, a.depth) })
	// Names of bases may be longer than distances to them.
	r.budget = max(0, r.budget)
	return nil
}

// need counts one more that stands on a base.
func (r *repacker) need(id ID) error {
	for !id.IsZero() {
		if known := r.bases[id]; known != nil {
			known.uses++
			return nil
		}
		s, err := r.look(id)
		if err != nil {
			return err
		}
		r.budget -= s.size()
		b := &base{uses: 1, size: s.size()}
		if !r.keep[s.base] {
			b.on = s.base
		}
		r.bases[id] = b
		id = b.on
	}
	return nil
}

// depth is how many bases there are from one on.
func (r *repacker) depth(id ID) int {
	var way []*base
	depth := 0
	for b := r.bases[id]; b != nil; b = r.bases[b.on] {
		if depth = b.depth; depth > 0 {
			break
		}
		way = append(way, b)
	}
	for _, b := range slices.Backward(way) {
		depth++
		b.depth = depth
	}
	return depth
}

// errTooLong is the error of an object that is not worth being written whole.
var errTooLong = errors.New("too long")

// most is how many bytes of an object one byte of a pack stands for, with a margin.
const mostDeflated = 1100

// settle writes an orphan: whole where there is room for that, and as it is otherwise, so
// that its base stays.
func (r *repacker) settle(to *output, o orphan) error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	room := r.budget + o.size + r.alone(o.base)
	size, err := r.from.Size(o.id)
	if err != nil {
		return err
	}
	if size/mostDeflated <= room {
		start := to.offset
		done, err := to.try(o.id, func() error { return r.whole(&narrow{to, room}, o.id) })
		if err != nil {
			return err
		}
		if done {
			r.budget = room - (to.offset - start)
			r.release(o.base)
			return nil
		}
	}
	if o.depth > deepestOrphan {
		return fmt.Errorf("%w: more than %d bases that are not needed otherwise", ErrDeep, deepestOrphan)
	}
	return r.copied(to, o.id)
}

// alone is how many bytes go when one no longer stands on a base.
func (r *repacker) alone(id ID) (bytes int64) {
	for b := r.bases[id]; b != nil && b.uses == 1; b = r.bases[b.on] {
		bytes += b.size
	}
	return bytes
}

// release takes away the bases on which nothing stands when one no longer does.
func (r *repacker) release(id ID) {
	for b := r.bases[id]; b != nil; b = r.bases[b.on] {
		if b.uses--; b.uses > 0 {
			return
		}
		delete(r.bases, id)
		id = b.on
	}
}

// narrow lets so many bytes pass.
type narrow struct {
	to   io.Writer
	left int64
}

// Write gives errTooLong where it is too many.
func (n *narrow) Write(p []byte) (int, error) {
	if n.left -= int64(len(p)); n.left < 0 {
		return 0, errTooLong
	}
	return n.to.Write(p)
}
