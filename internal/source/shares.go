package source

import (
	"context"
	"io"
	"maps"
	"sync"
	"time"

	"github.com/plumb-gitops/plumb/internal/artifact"
)

// uses say for whom a folder counts. A namespace is charged for what its own objects ask for,
// with equal parts where several ask for the same, whoever has brought it. What nobody asks
// for, such as what a branch left behind, is charged to those who have brought more than they
// ask for. So everything that was written since the start is charged, and no namespace can fill
// the room of another by following the same.
//
// The rest is what no namespace is known for: the second copy while packs are joined, what
// whole directories take beside their files, and, after a restart, what is asked for by objects
// that have not been looked at again, such as suspended ones. Everybody pays of it in proportion
// to what it is charged, and at most as much again, so that who asks for little pays little. What
// is above that is charged to nobody: it was charged before the restart, and is again once it is
// asked for. Only who is known to be alone in a folder pays for all of it.
type uses struct {
	// users are the namespaces that have used it.
	users map[string]bool
	// asked is what the objects of namespaces ask for, by part and namespace.
	asked map[string]map[string]demand
	// wanted are the parts that Forget was called with last; nil before that.
	wanted map[string]bool
	// brought is how many bytes have come for namespaces, and may be there still.
	brought map[string]int64
}

// demand is what a namespace asks for of a part.
type demand struct {
	bytes int64
	// at is when it was asked for last.
	at time.Time
}

// demandLasts is how long a namespace is counted among those who ask for the same without
// asking again: longer than objects that are followed usually wait. Who is the last one to have
// asked is counted until Forget.
const demandLasts = 25 * time.Hour

// of gives the uses of a folder. The caller holds the mutex.
func (f *Folder) of(name string) *uses {
	if f.uses[name] == nil {
		f.uses[name] = &uses{users: map[string]bool{}, asked: map[string]map[string]demand{}, brought: map[string]int64{}}
	}
	return f.uses[name]
}

// Use has a folder below counted for the namespace of a context, until it is removed or the
// process ends.
func (f *Folder) Use(ctx context.Context, name string) {
	if tenant := artifact.Tenant(ctx); tenant != "" {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.of(name).users[tenant] = true
	}
}

// Ask says that a part of a folder below is asked for in the namespace of a context, and how
// large it is. It counts until Forget, or until others alone have asked for it for long.
func (f *Folder) Ask(ctx context.Context, name, part string, bytes int64) {
	tenant := artifact.Tenant(ctx)
	if tenant == "" {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	u := f.of(name)
	u.users[tenant] = true
	if u.asked[part] == nil {
		u.asked[part] = map[string]demand{}
	}
	by, bytes, now := u.asked[part], max(0, bytes), time.Now()
	if before := by[tenant].bytes; before > bytes {
		u.left(tenant, before/int64(len(by)))
	}
	by[tenant] = demand{bytes, now}
	maps.DeleteFunc(by, func(_ string, d demand) bool { return now.Sub(d.at) > demandLasts })
}

// left has a namespace pay for what it no longer asks for, as far as that stays.
func (u *uses) left(tenant string, bytes int64) {
	u.brought[tenant] = max(u.brought[tenant], bytes)
}

// Forget drops what was asked for, but for the wanted parts of each folder. Who asked for it
// counts as having brought it, as far as it stays.
func (f *Folder) Forget(wanted map[string]map[string]bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, u := range f.uses {
		u.wanted = maps.Clone(wanted[name])
		maps.DeleteFunc(u.asked, func(part string, by map[string]demand) bool {
			if wanted[name][part] {
				return false
			}
			for tenant, d := range by {
				u.left(tenant, d.bytes/int64(len(by)))
			}
			return true
		})
	}
}

// bringKey is the key of a bringing in a context.
type bringKey struct{}

// bringing is what is written into a folder below for the namespace of a context.
type bringing struct {
	folder       *Folder
	name, tenant string
	bytes        int64 // guarded by Folder.mu
}

// Bring has Counted count for a folder below what is written with a context. Lost is called
// where it is not kept.
func (f *Folder) Bring(ctx context.Context, name string) (into context.Context, lost func()) {
	b := &bringing{folder: f, name: name, tenant: artifact.Tenant(ctx)}
	if b.tenant == "" {
		return ctx, func() {}
	}
	return context.WithValue(ctx, bringKey{}, b), sync.OnceFunc(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if u := f.uses[name]; u != nil {
			u.brought[b.tenant] = max(0, u.brought[b.tenant]-b.bytes)
		}
	})
}

// Counted counts what is read of content that is about to be written, as that of package
// artifact does, and for the folder of Bring.
func Counted(ctx context.Context, in io.Reader) io.Reader {
	in = artifact.Counted(ctx, in)
	if b, ok := ctx.Value(bringKey{}).(*bringing); ok {
		return broughtReader{in, b}
	}
	return in
}

type broughtReader struct {
	io.Reader
	*bringing
}

// Read passes bytes on.
func (b broughtReader) Read(to []byte) (int, error) {
	n, err := b.Reader.Read(to)
	b.folder.mu.Lock()
	defer b.folder.mu.Unlock()
	b.bytes += int64(n)
	b.folder.of(b.name).brought[b.tenant] += int64(n)
	return n, err
}

// split charges a folder that has so many bytes. What was brought and has been removed since
// is taken off all in the same proportion.
func (u *uses) split(total int64) map[string]int64 {
	charges, rest := map[string]float64{}, float64(total)
	asked, sum := map[string]float64{}, 0.0
	for _, by := range u.asked {
		for tenant, d := range by {
			part := float64(d.bytes) / float64(len(by))
			asked[tenant] += part
			sum += part
		}
	}
	give := func(wants map[string]float64, sum float64) {
		part := min(1, rest/max(sum, 1))
		for tenant, bytes := range wants {
			charges[tenant] += bytes * part
		}
		rest = max(0, rest-sum*part)
	}
	give(asked, sum)

	brought := 0.0
	for _, bytes := range u.brought {
		brought += float64(bytes)
	}
	beyond, sum := map[string]float64{}, 0.0
	for tenant, bytes := range u.brought {
		there := float64(bytes) * min(1, float64(total)/max(brought, 1))
		if u.brought[tenant] = int64(there); u.brought[tenant] == 0 {
			delete(u.brought, tenant)
		}
		if more := there - charges[tenant]; more > 0 {
			beyond[tenant] = more
			sum += more
		}
	}
	give(beyond, sum)

	give(maps.Clone(charges), float64(total)-rest)
	if u.alone() {
		for tenant := range u.users {
			charges[tenant] += rest
		}
	}
	whole := map[string]int64{}
	for tenant, bytes := range charges {
		whole[tenant] = int64(bytes)
	}
	return whole
}

// alone tells whether a folder can be kept for one namespace only: no other has used it since
// the start, and all that is wanted of it has been asked for since.
func (u *uses) alone() bool {
	if len(u.users) != 1 || u.wanted == nil {
		return false
	}
	for part := range u.wanted {
		if u.asked[part] == nil {
			return false
		}
	}
	return true
}
