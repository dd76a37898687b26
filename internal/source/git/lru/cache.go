// Package lru holds a cache that is bounded by what its values cost.
package lru

import (
	"container/list"
	"sync"
)

// Cache keeps the values that were used last, up to a total cost. It is safe
// for use by several goroutines. A nil Cache keeps nothing.
type Cache[K comparable, V any] struct {
	limit int64

	mu    sync.Mutex // guards all below
	total int64
	order *list.List // of *item[K, V], the one used last in front
	byKey map[K]*list.Element
}

type item[K comparable, V any] struct {
	key   K
	value V
	cost  int64
}

// overhead is about what an item costs beside its value, in bytes.
const overhead = 160

// New makes a cache whose values cost at most limit bytes together.
func New[K comparable, V any](limit int64) *Cache[K, V] {
	return &Cache[K, V]{limit: limit, order: list.New(), byKey: map[K]*list.Element{}}
}

// Get gives a value and remembers that it was used.
func (c *Cache[K, V]) Get(key K) (value V, ok bool) {
	if c == nil {
		return value, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	element, ok := c.byKey[key]
	if !ok {
		return value, false
	}
	c.order.MoveToFront(element)
	return element.Value.(*item[K, V]).value, true
}

// Put keeps a value that costs so many bytes. A key that is known keeps its
// value. A value that costs more than a quarter of the limit is not kept: it
// would push too much else out.
func (c *Cache[K, V]) Put(key K, value V, cost int64) {
	cost += overhead
	if c == nil || cost > c.limit/4 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.byKey[key]; ok {
		return
	}
	c.byKey[key] = c.order.PushFront(&item[K, V]{key: key, value: value, cost: cost})
	c.total += cost
	for c.total > c.limit {
		last := c.order.Back()
		old := last.Value.(*item[K, V])
		c.order.Remove(last)
		delete(c.byKey, old.key)
		c.total -= old.cost
	}
}

// Cost is what the values cost together now, in bytes.
func (c *Cache[K, V]) Cost() int64 {
	if c == nil {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total
}
