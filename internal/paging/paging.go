// Package paging keeps tables in memory for as long as all of them have room there.
//
// Artifacts, and the trees of buckets, have names and sums of many files, which whoever uses
// them looks at now and then only; all of it is on the disk too. Where the tables are more than
// they may be together, those that were used longest ago are dropped, and made again when they
// are used.
package paging

import (
	"container/list"
	"sync"
)

// Tables are the tables that are in memory at present. The one that was used last stays,
// however large it is: it is used many times in a row. They are safe for use by several
// goroutines.
type Tables[T any] struct {
	cost func(*T) int64

	mu    sync.Mutex // guards what follows
	most  int64
	total int64
	order *list.List // of *Table[T], the one that was used last in front
}

// New makes room for tables of so many bytes together; cost says how many one has.
func New[T any](most int64, cost func(*T) int64) *Tables[T] {
	return &Tables[T]{most: most, cost: cost, order: list.New()}
}

// Limit changes how many bytes there are room for, from the next table on.
func (t *Tables[T]) Limit(most int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.most = most
}

// Held are the tables in memory, and their bytes.
func (t *Tables[T]) Held() (number int, bytes int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.order.Len(), t.total
}

// Drop drops all of them.
func (t *Tables[T]) Drop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.order.Len() > 0 {
		t.order.Back().Value.(*Table[T]).drop()
	}
}

// Table is a table that may have to be made again.
type Table[T any] struct {
	in   *Tables[T]
	load func() (*T, error)

	loading sync.Mutex
	// element is where it stands in the order, nil while it is not in memory, and gone is set
	// when nobody uses it any more; they and the table are guarded by Tables.mu.
	element *list.Element
	table   *T
	gone    bool
}

// Keep has a table, which may be nil: load makes it when it is used, then, and whenever it has
// been dropped. Load is called by one goroutine at a time.
func (t *Tables[T]) Keep(made *T, load func() (*T, error)) *Table[T] {
	p := &Table[T]{in: t, load: load}
	if made != nil {
		p.put(made)
	}
	return p
}

// Get gives the table, which stays as it is for whoever has it, or the error of its load.
func (p *Table[T]) Get() (*T, error) {
	if known := p.known(); known != nil {
		return known, nil
	}
	p.loading.Lock()
	defer p.loading.Unlock()
	if known := p.known(); known != nil {
		return known, nil
	}
	made, err := p.load()
	if err != nil {
		return nil, err
	}
	p.put(made)
	return made, nil
}

func (p *Table[T]) known() *T {
	p.in.mu.Lock()
	defer p.in.mu.Unlock()
	if p.element != nil {
		p.in.order.MoveToFront(p.element)
	}
	return p.table
}

// put keeps a table, and drops others where there are too many.
func (p *Table[T]) put(made *T) {
	t := p.in
	t.mu.Lock()
	defer t.mu.Unlock()
	if p.gone || p.element != nil {
		return
	}
	p.table, p.element = made, t.order.PushFront(p)
	t.total += t.cost(made)
	for t.total > t.most && t.order.Len() > 1 {
		t.order.Back().Value.(*Table[T]).drop()
	}
}

// drop takes the table out of memory. The caller has the mutex.
func (p *Table[T]) drop() {
	if p.element == nil {
		return
	}
	p.in.total -= p.in.cost(p.table)
	p.in.order.Remove(p.element)
	p.table, p.element = nil, nil
}

// Forget drops the table for good: Get makes it anew each time, and it takes no room.
func (p *Table[T]) Forget() {
	p.in.mu.Lock()
	defer p.in.mu.Unlock()
	p.drop()
	p.gone = true
}
