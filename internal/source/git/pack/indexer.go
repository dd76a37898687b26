package pack

import (
	"context"
	"fmt"
	"slices"

	"github.com/pjbgf/sha1cd"
)

// indexer names the deltas of a pack that came in, by applying each of them to
// its base. It goes from bases to what is built on them, depth first, and holds
// only the objects of the branch that it is in.
type indexer struct {
	ctx     context.Context
	pack    *Pack
	entries []received
	older   *Set
	limits  Limits

	byOffset map[int64][]int32 // deltas by the offset of their base
	byName   map[ID][]int32    // deltas by the name of their base
	held     int64             // bytes of objects in memory
}

// heldObjects is how many objects of the largest size may be held at once, with the delta
// that is applied and what comes of it.
const heldObjects = 4

// room makes sure that so many bytes may be made, beside those that are held and so many
// others.
func (x *indexer) room(bytes, beside int64) error {
	if x.limits.Object > 0 && x.held+bytes+beside > heldObjects*x.limits.Object {
		return fmt.Errorf("%w: deltas need more than %d bytes of memory", ErrTooLarge, heldObjects*x.limits.Object)
	}
	return x.limits.spend(bytes)
}

// deepestDelta is how many deltas an object of a pack may stand on; git itself
// makes 50 by default and takes no more than 4,095.
const deepestDelta = 4096

// slots gives the places of all objects, each once.
func (x *indexer) slots() ([]slot, error) {
	x.byOffset, x.byName = map[int64][]int32{}, map[ID][]int32{}
	for i, e := range x.entries {
		switch e.kind {
		case offsetDelta:
			x.byOffset[e.baseAt] = append(x.byOffset[e.baseAt], int32(i))
		case nameDelta:
			x.byName[e.base] = append(x.byName[e.base], int32(i))
		}
	}
	for i := range x.entries {
		if e := &x.entries[i]; e.kind.isObject() && x.isBase(e) {
			x.held = 0
			object, err := x.whole(e)
			if err != nil {
				return nil, err
			}
			if err := x.grow(frame{object: object, next: x.children(e), depth: 0}); err != nil {
				return nil, err
			}
		}
	}
	if err := x.thin(); err != nil {
		return nil, err
	}
	return x.collect()
}

func (x *indexer) isBase(e *received) bool {
	return len(x.byOffset[e.offset]) > 0 || len(x.byName[e.id]) > 0
}

// children takes the deltas on an entry out of the lists.
func (x *indexer) children(e *received) []int32 {
	next := slices.Concat(x.byOffset[e.offset], x.byName[e.id])
	delete(x.byOffset, e.offset)
	delete(x.byName, e.id)
	return next
}

// whole reads an entry's own data: an object, or a delta.
func (x *indexer) whole(e *received) (Object, error) {
	if x.limits.Object > 0 && e.size > x.limits.Object {
		return Object{}, fmt.Errorf("%w: object or delta of %d bytes, at most %d are allowed", ErrTooLarge, e.size, x.limits.Object)
	}
	if err := x.room(e.size, 0); err != nil {
		return Object{}, err
	}
	data, err := x.pack.inflate(entry{size: e.size, dataAt: e.dataAt})
	return Object{Kind: e.kind, Data: data}, err
}

// thin applies the deltas whose bases are in older packs. A delta found on the
// way may be the base of others, so that the list of bases shrinks as it goes.
func (x *indexer) thin() error {
	bases := make([]ID, 0, len(x.byName))
	for id := range x.byName {
		bases = append(bases, id)
	}
	for _, id := range bases {
		next, ok := x.byName[id]
		if !ok || x.older == nil || !x.older.Has(id) {
			continue
		}
		delete(x.byName, id)
		if err := x.ctx.Err(); err != nil {
			return err
		}
		object, err := x.older.Object(id)
		if err != nil {
			return fmt.Errorf("delta base: %w", err)
		}
		if err := x.grow(frame{object: object, next: next}); err != nil {
			return err
		}
	}
	return nil
}

// frame is an object on the current branch with the deltas still to be applied.
type frame struct {
	object Object
	next   []int32
	depth  int32
}

// grow names everything that is built on an object.
func (x *indexer) grow(root frame) error {
	stack := []frame{root}
	x.held = int64(len(root.object.Data))
	name := sha1cd.New()
	for len(stack) > 0 {
		if err := x.ctx.Err(); err != nil {
			return err
		}
		top := &stack[len(stack)-1]
		e := &x.entries[top.next[0]]
		delta, err := x.whole(e)
		if err != nil {
			return err
		}
		_, size, _, err := deltaSizes(delta.Data)
		if err != nil {
			return err
		}
		if err := x.room(size, e.size); err != nil {
			return err
		}
		data, err := patch(top.object.Data, delta.Data, x.limits.Object)
		if err != nil {
			return err
		}
		kind, depth := top.object.Kind, top.depth+1
		if depth > deepestDelta {
			return fmt.Errorf("%w: an object on more than %d deltas", ErrTooLarge, deepestDelta)
		}
		name.Reset()
		name.Write(header(kind, int64(len(data))))
		name.Write(data)
		e.id, e.depth = ID(name.Sum(nil)), depth
		top.next = top.next[1:]
		if len(top.next) == 0 {
			x.held -= int64(len(top.object.Data))
			*top = frame{} // the stack must not keep it
			stack = stack[:len(stack)-1]
		}
		next := x.children(e)
		if len(next) == 0 {
			continue
		}
		x.held += int64(len(data))
		stack = append(stack, frame{object: Object{Kind: kind, Data: data}, next: next, depth: depth})
	}
	return nil
}

// collect gives each object one place: where a pack holds it several times, the
// one with the fewest deltas, so that no chain of deltas can bite its own tail.
func (x *indexer) collect() ([]slot, error) {
	if len(x.byName) > 0 || len(x.byOffset) > 0 {
		return nil, fmt.Errorf("%w: the base of a delta is missing", ErrCorrupt)
	}
	best := make(map[ID]int32, len(x.entries))
	for i, e := range x.entries {
		if old, ok := best[e.id]; !ok || e.depth < x.entries[old].depth {
			best[e.id] = int32(i)
		}
	}
	slots := make([]slot, 0, len(best))
	for id, i := range best {
		slots = append(slots, slot{id: id, crc: x.entries[i].crc, offset: x.entries[i].offset})
	}
	return slots, nil
}
