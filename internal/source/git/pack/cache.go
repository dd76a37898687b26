package pack

import (
	"container/list"
	"sync"
)

// Cache keeps objects that were read lately, up to a number of bytes. It may be
// shared by any number of Sets. A nil Cache keeps nothing.
type Cache struct {
	limit int64

	mu    sync.Mutex // guards all below
	bytes int64
	order *list.List // of *cached, the one used last in front
	byKey map[place]*list.Element
}

// place is where an object is stored: it stays right when a newer pack brings
// the object again.
type place struct {
	serial uint64
	offset int64
}

type cached struct {
	key    place
	object Object
}

// cachedOverhead is about what an entry costs beside its data.
const cachedOverhead = 160

// NewCache makes a cache of at most limit bytes.
func NewCache(limit int64) *Cache {
	return &Cache{limit: limit, order: list.New(), byKey: map[place]*list.Element{}}
}

func (c *Cache) get(key place) (Object, bool) {
	if c == nil {
		return Object{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	element, ok := c.byKey[key]
	if !ok {
		return Object{}, false
	}
	c.order.MoveToFront(element)
	return element.Value.(*cached).object, true
}

func (c *Cache) put(key place, object Object) {
	if c == nil {
		return
	}
	size := int64(len(object.Data)) + cachedOverhead
	// One object must not push everything else out.
	if size > c.limit/4 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.byKey[key]; ok {
		return
	}
	c.byKey[key] = c.order.PushFront(&cached{key: key, object: object})
	c.bytes += size
	for c.bytes > c.limit {
		last := c.order.Back()
		old := last.Value.(*cached)
		c.order.Remove(last)
		delete(c.byKey, old.key)
		c.bytes -= int64(len(old.object.Data)) + cachedOverhead
	}
}

// Bytes is about what the cache holds now.
func (c *Cache) Bytes() int64 {
	if c == nil {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes
}
