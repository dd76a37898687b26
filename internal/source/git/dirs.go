package git

import (
	"sync"
	"time"

	"github.com/plumb-gitops/plumb/internal/source/git/lru"
)

const (
	// largeBytes bounds the large directories that are kept decoded, over all repositories:
	// four of the largest.
	largeBytes = 104 << 20
	// largeIdle is how long they are kept after the last look at one.
	largeIdle = time.Minute
)

// dirCache holds decoded directories. Those that would push all others out are apart, and
// kept only while somebody reads in them: without that each of the files in a directory
// of a hundred thousand would cost as much as all together. A nil dirCache keeps nothing.
type dirCache struct {
	small *lru.Cache[treeKey, *dir]
	// mostSmall is what one of them may cost.
	mostSmall int64

	mu    sync.Mutex // guards all below
	large *lru.Cache[treeKey, *dir]
	used  bool        // since the timer began
	timer *time.Timer // runs while there are any
}

func newDirCache(bytes int64) *dirCache {
	return &dirCache{small: lru.New[treeKey, *dir](bytes), mostSmall: bytes / 8, large: lru.New[treeKey, *dir](largeBytes)}
}

// get gives a directory.
func (c *dirCache) get(key treeKey) (*dir, bool) {
	if c == nil {
		return nil, false
	}
	if d, ok := c.small.Get(key); ok {
		return d, true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	d, ok := c.large.Get(key)
	c.used = c.used || ok
	return d, ok
}

// put keeps a directory that costs so many bytes.
func (c *dirCache) put(key treeKey, d *dir, cost int64) {
	switch {
	case c == nil:
		return
	case cost <= c.mostSmall:
		c.small.Put(key, d, cost)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.large.Put(key, d, cost)
	c.used = true
	if c.timer == nil {
		c.timer = time.AfterFunc(largeIdle, c.expire)
	}
}

// expire drops the large directories if nobody has read in one for a while.
func (c *dirCache) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer == nil {
		return
	}
	if c.used {
		c.used = false
		c.timer.Reset(largeIdle)
		return
	}
	c.clear()
}

func (c *dirCache) clear() {
	c.large = lru.New[treeKey, *dir](largeBytes)
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
}

// close drops what is large and ends its timer.
func (c *dirCache) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clear()
}
