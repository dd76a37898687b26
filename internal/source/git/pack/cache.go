package pack

import (
	"fmt"

	"github.com/plumb-gitops/plumb/internal/source/git/lru"
)

// Cache keeps objects that were read lately, up to a number of bytes, and parts of indexes. It
// may be shared by any number of Sets. A nil Cache keeps nothing.
type Cache struct {
	objects *lru.Cache[place, Object]
	blocks  *lru.Cache[part, *block]
}

// part is a block of an index.
type part struct {
	serial uint64
	number int
}

// indexBytes bounds the parts of indexes: those of a million objects.
const indexBytes = 32 << 20

// place is where an object is stored: it stays right when a newer pack brings
// the object again.
type place struct {
	serial uint64
	offset int64
}

// NewCache makes a cache of objects of at most limit bytes.
func NewCache(limit int64) *Cache {
	return &Cache{objects: lru.New[place, Object](limit), blocks: lru.New[part, *block](indexBytes)}
}

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

// find looks an object up in a pack.
func (c *Cache) find(p *Pack, id ID) (int64, bool, error) {
	offset, ok, err := p.index.find(id, func(n int) (*block, error) {
		if c == nil {
			return p.index.read(n)
		}
		key := part{p.serial, n}
		if b, ok := c.blocks.Get(key); ok {
			return b, nil
		}
		b, err := p.index.read(n)
		if err == nil {
			c.blocks.Put(key, b, blockBytes)
		}
		return b, err
	})
	if err != nil {
		return 0, false, fmt.Errorf("read index of %q: %w", p.Name, err)
	}
	return offset, ok, nil
}
