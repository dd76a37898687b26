package source

import (
	"context"
	"io"
	"maps"
	"sync"

	"github.com/plumb-gitops/plumb/internal/artifact"
)

// uses say for whom a folder counts. A namespace is charged for what its own objects ask for,
// with equal parts where several ask for the same, whoever has brought it. What nobody asks
// for, such as what a branch left behind, is charged to those who have brought more than they
// ask for, and the rest, such as files under way, to those who ask, or else to those who use
// it, in equal parts. So no namespace can fill the room of another by following the same.
type uses struct {
	// users are the namespaces that have used it.
	users map[string]bool
	// asked is how many bytes the objects of namespaces ask for, by part and namespace.
	asked map[string]map[string]int64
	// brought is how many bytes have come for namespaces, and may be there still.
	brought map[string]int64
}

// of gives the uses of a folder. The caller holds the mutex.
func (f *Folder) of(name string) *uses {
	if f.uses[name] == nil {
		f.uses[name] = &uses{users: map[string]bool{}, asked: map[string]map[string]int64{}, brought: map[string]int64{}}
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
// large it is. It counts until Forget.
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
		u.asked[part] = map[string]int64{}
	}
	u.asked[part][tenant] = max(0, bytes)
}

// Forget drops what was asked for, but for the wanted parts of each folder. Who asked for it
// counts as having brought it, as far as it stays.
func (f *Folder) Forget(wanted map[string]map[string]bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, u := range f.uses {
		maps.DeleteFunc(u.asked, func(part string, by map[string]int64) bool {
			if wanted[name][part] {
				return false
			}
			for tenant, bytes := range by {
				u.brought[tenant] = max(u.brought[tenant], bytes/int64(len(by)))
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
		for tenant, bytes := range by {
			part := float64(bytes) / float64(len(by))
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

	if len(asked) == 0 {
		for tenant := range u.users {
			asked[tenant] = 0
		}
	}
	for tenant := range asked {
		charges[tenant] += rest / float64(len(asked))
	}
	whole := map[string]int64{}
	for tenant, bytes := range charges {
		whole[tenant] = int64(bytes)
	}
	return whole
}
