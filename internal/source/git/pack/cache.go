package pack

import "github.com/plumb-gitops/plumb/internal/source/git/lru"

// Cache keeps objects that were read lately, up to a number of bytes. It may be
// shared by any number of Sets. A nil Cache keeps nothing.
type Cache struct {
	objects *lru.Cache[place, Object]
}

// place is where an object is stored: it stays right when a newer pack brings
// the object again.
type place struct {
	serial uint64
	offset int64
}

// NewCache makes a cache of at most limit bytes.
func NewCache(limit int64) *Cache { return &Cache{objects: lru.New[place, Object](limit)} }

func (c *Cache) get(key place) (Object, bool) {
	if c == nil {
		return Object{}, false
	}
	return c.objects.Get(key)
}

func (c *Cache) put(key place, object Object) {
	if c != nil {
		c.objects.Put(key, object, int64(len(object.Data)))
	}
}
