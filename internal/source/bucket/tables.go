package bucket

import (
	"container/list"
	"sync"
)

// mostTables is how many bytes of keys and sums of buckets are in memory.
const mostTables = 64 << 20

// tables are those of trees in use that are in memory at present. Who uses a tree looks at it
// now and then only, and the state on the disk has all that is in a table: where they are more
// than most bytes together, those that were used longest ago are dropped, and made again when
// they are used. The one that was used last stays.
type tables struct {
	most int64
	// loading is held while a long one is made again.
	loading sync.Mutex

	mu    sync.Mutex // guards what follows
	total int64
	order *list.List // of *paged, the one that was used last in front
}

// paged is a table that may have to be made again.
type paged struct {
	in *tables
	// load makes the table.
	load func() (*table, error)

	making sync.Mutex
	// element is where it stands in the order, nil while it is not in memory, and gone is set
	// when nobody uses it any more; they and the table are guarded by tables.mu.
	element *list.Element
	table   *table
	gone    bool
}

func newTables(most int64) *tables { return &tables{most: most, order: list.New()} }

// keep has a table, which may be nil: it is made when it is used, then.
func (t *tables) keep(made *table, load func() (*table, error)) *paged {
	p := &paged{in: t, load: load}
	if made != nil {
		p.put(made)
	}
	return p
}

// get gives the table, which stays as it is for whoever has it.
func (p *paged) get() (*table, error) {
	if known := p.known(); known != nil {
		return known, nil
	}
	p.making.Lock()
	defer p.making.Unlock()
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

func (p *paged) known() *table {
	p.in.mu.Lock()
	defer p.in.mu.Unlock()
	if p.element != nil {
		p.in.order.MoveToFront(p.element)
	}
	return p.table
}

// put keeps a table, and drops others where there are too many.
func (p *paged) put(made *table) {
	t := p.in
	t.mu.Lock()
	defer t.mu.Unlock()
	if p.gone || p.element != nil {
		return
	}
	p.table, p.element = made, t.order.PushFront(p)
	t.total += made.cost
	for t.total > t.most && t.order.Len() > 1 {
		t.order.Back().Value.(*paged).drop()
	}
}

// drop takes the table out of memory. The caller has the mutex.
func (p *paged) drop() {
	if p.element == nil {
		return
	}
	p.in.total -= p.table.cost
	p.in.order.Remove(p.element)
	p.table, p.element = nil, nil
}

// forget drops the table for good.
func (p *paged) forget() {
	p.in.mu.Lock()
	defer p.in.mu.Unlock()
	p.drop()
	p.gone = true
}
