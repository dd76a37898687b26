package artifact

import (
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"
)

// Collect removes artifacts that nobody has used for a while, and more where they take too
// much of the disk.
func (c *Cache) Collect() error {
	old, err := c.excess()
	if err != nil {
		return err
	}
	return c.clean(func(name string) bool {
		info, err := c.root.Stat(name)
		return old[name] || err == nil && c.now().Sub(info.ModTime()) > keepUnused
	})
}

// excess are the unused artifacts beyond maxCache bytes: of the namespace that has left the
// most of them, again and again, the one that was used longest ago.
func (c *Cache) excess() (map[string]bool, error) {
	entries, err := fs.ReadDir(c.root.FS(), ".")
	if err != nil {
		return nil, own(err)
	}
	type kept struct {
		name string
		used time.Time
		size int64
	}
	all, sums, total := map[string][]kept{}, map[string]int64{}, int64(0)
	for _, e := range entries {
		info, err := e.Info()
		c.mu.Lock()
		inUse, tenant := c.held[e.Name()] != nil, c.left[e.Name()]
		c.mu.Unlock()
		if err != nil || inUse || strings.HasPrefix(e.Name(), unfinished) {
			continue
		}
		k := kept{name: e.Name(), used: info.ModTime()}
		if k.size, err = Size(c.root.FS(), e.Name()); err != nil {
			return nil, err
		}
		all[tenant] = append(all[tenant], k)
		sums[tenant] += k.size
		total += k.size
	}
	for _, of := range all {
		slices.SortFunc(of, func(a, b kept) int { return a.used.Compare(b.used) })
	}
	old := map[string]bool{}
	for total > c.most.unused {
		most := ""
		for tenant, of := range all {
			if len(of) > 0 && (len(all[most]) == 0 || sums[tenant] > sums[most] || sums[tenant] == sums[most] && tenant < most) {
				most = tenant
			}
		}
		first := all[most][0]
		old[first.name] = true
		all[most], sums[most], total = all[most][1:], sums[most]-first.size, total-first.size
	}
	return old, nil
}

// Measure charges namespaces with the artifacts that they use, and with those that nobody
// uses and they used last. What an earlier process has left counts for nobody until then.
func (c *Cache) Measure(charge func(namespace string, bytes int64)) error {
	used := map[string]map[string]bool{}
	c.mu.Lock()
	for name, tenant := range c.left {
		used[name] = map[string]bool{tenant: true}
	}
	for name, entry := range c.held {
		used[name] = map[string]bool{}
		for tenant := range entry.tenants {
			used[name][tenant] = true
		}
	}
	c.mu.Unlock()
	for name, tenants := range used {
		delete(tenants, "")
		for _, at := range []string{name, unfinished + name, unfinished + name + "-download"} {
			size, err := Size(c.root.FS(), at)
			if err != nil {
				return err
			}
			Share(tenants, size, charge)
		}
	}
	return nil
}

// Spare removes the artifacts that nobody uses and a namespace used last.
func (c *Cache) Spare(namespace string) error {
	return c.clean(func(name string) bool { return c.left[name] == namespace })
}

// clean removes artifacts that nobody uses. The mutex is held when it asks for them.
func (c *Cache) clean(unwanted func(name string) bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	entries, err := fs.ReadDir(c.root.FS(), ".")
	if err != nil {
		return err
	}
	var errs []error
	there := map[string]bool{}
	for _, e := range entries {
		if c.held[e.Name()] != nil || !unwanted(e.Name()) {
			there[e.Name()] = true
		} else if err := c.root.RemoveAll(e.Name()); err != nil {
			there[e.Name()] = true
			errs = append(errs, own(err))
		}
	}
	maps.DeleteFunc(c.left, func(name, _ string) bool { return !there[name] && c.held[name] == nil })
	return errors.Join(errs...)
}
