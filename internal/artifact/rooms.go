package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// measuredLately is for how long the data folder is not measured again, also where that
	// would show that there is room.
	measuredLately = 10 * time.Second
	// measuredOld is when it is measured again in any case: more may be kept for a namespace
	// without anything being written.
	measuredOld = 10 * time.Minute
)

// Rooms bound what the sources of each namespace keep in the data folder, so that one tenant
// cannot fill it for all. What is written for a namespace is counted before it is written.
// What is removed is not: where the sum comes to the limit the folder is measured, and the sum
// begins at that. So the sum is never too small, and nothing is measured where there is room.
//
// For whom it counts what several namespaces use, such as the store of a Git repository that
// they follow without a credential, is up to the stores. A nil Rooms bounds nothing.
type Rooms struct {
	most int64
	now  func() time.Time

	// measuring is held while the folder is measured.
	measuring sync.Mutex

	mu       sync.Mutex // guards what follows
	stores   []Measurer
	measured time.Time
	// used is what was measured, by namespace, and taken what was written since that began;
	// before is what was written until it began, while it goes on.
	used, taken, before map[string]int64
}

// Measurer is where something is kept for namespaces.
type Measurer interface {
	// Measure calls charge with how many bytes are kept for a namespace, any number of times.
	Measure(charge func(namespace string, bytes int64)) error
}

// sparing is a Measurer that keeps what nobody needs.
type sparing interface {
	// Spare removes what nobody needs of what is counted for a namespace.
	Spare(namespace string) error
}

// NewRooms gives each namespace so many bytes; nil for 0. Now is the clock.
func NewRooms(most int64, now func() time.Time) *Rooms {
	if most <= 0 {
		return nil
	}
	return &Rooms{most: most, now: now, used: map[string]int64{}, taken: map[string]int64{}}
}

// Add has a store measured.
func (r *Rooms) Add(store Measurer) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stores = append(r.stores, store)
	r.measured = time.Time{}
}

// NoRoom is the error of writing what does not fit. Its text is the same each time.
type NoRoom struct {
	Namespace string
	// Most is how many bytes may be kept for the namespace.
	Most int64
}

// Error says what to do.
func (e *NoRoom) Error() string {
	return fmt.Sprintf("it does not fit into the %d bytes that the sources of namespace '%s' may keep in the data folder; "+
		"remove sources of the namespace, let them have less (spec.ignore, spec.sparseCheckout), or ask for a larger --storage-namespace-limit of the operator", e.Most, e.Namespace)
}

// take counts bytes that are about to be written. The error is NoRoom.
func (r *Rooms) take(namespace string, bytes int64) error {
	if r == nil || namespace == "" {
		return nil
	}
	fits, lately := r.add(namespace, bytes)
	if !lately {
		if !fits {
			if err := r.spare(namespace); err != nil {
				return err
			}
		}
		if err := r.measure(); err != nil {
			return err
		}
		fits, _ = r.add(namespace, bytes)
	}
	if !fits {
		return &NoRoom{Namespace: namespace, Most: r.most}
	}
	return nil
}

// add counts bytes where they fit. Lately is false where nothing was counted and the folder
// is to be measured.
func (r *Rooms) add(namespace string, bytes int64) (fits, lately bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	age := r.now().Sub(r.measured)
	fits = r.used[namespace]+r.before[namespace]+r.taken[namespace]+bytes <= r.most
	if age > measuredOld || !fits && age > measuredLately {
		return fits, false
	}
	if fits {
		r.taken[namespace] += bytes
	}
	return fits, true
}

// spare removes what a namespace does not need, before it is told that there is no room.
func (r *Rooms) spare(namespace string) error {
	r.mu.Lock()
	stores := r.stores
	r.mu.Unlock()
	for _, store := range stores {
		if s, ok := store.(sparing); ok {
			if err := s.Spare(namespace); err != nil {
				return fmt.Errorf("make room in the data folder: %w", own(err))
			}
		}
	}
	return nil
}

// measure begins the sums at what the folder holds, unless somebody just did.
func (r *Rooms) measure() error {
	r.measuring.Lock()
	defer r.measuring.Unlock()
	r.mu.Lock()
	if now := r.now(); now.Sub(r.measured) <= measuredLately {
		r.mu.Unlock()
		return nil
	}
	// Whoever writes meanwhile is counted in any case, and perhaps twice.
	r.before, r.taken = r.taken, map[string]int64{}
	stores := r.stores
	r.mu.Unlock()
	used := map[string]int64{}
	var err error
	for _, store := range stores {
		if err = store.Measure(func(namespace string, bytes int64) { used[namespace] += bytes }); err != nil {
			break
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.before
	r.before = nil
	if err != nil {
		for namespace, bytes := range before {
			r.taken[namespace] += bytes
		}
		return fmt.Errorf("measure the data folder: %w", own(err))
	}
	r.used, r.measured = used, r.now()
	return nil
}

// block is what file systems give to files at least.
const block = 4 << 10

// OnDisk is about what a file of a length takes on the disk: many small files take much more
// than their lengths.
func OnDisk(length int64) int64 {
	return length + (block-length%block)%block
}

// Size is what the files at a name and below it take, together. What goes meanwhile does
// not count, and keeps nothing else from counting.
func Size(files fs.FS, name string) (total int64, err error) {
	err = fs.WalkDir(files, name, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return ignoreMissing(err)
		}
		info, err := entry.Info()
		if err == nil {
			total += OnDisk(info.Size())
		}
		return ignoreMissing(err)
	})
	return total, own(err)
}

// Share charges bytes to namespaces, in equal parts.
func Share(namespaces map[string]bool, bytes int64, charge func(namespace string, bytes int64)) {
	for namespace := range namespaces {
		charge(namespace, bytes/int64(len(namespaces)))
	}
}

// roomKey is the key of a room in a context: what fetches passes through many hands that
// need not know for whom.
type roomKey struct{}

type room struct {
	of        *Rooms
	namespace string
	full      atomic.Bool
}

// take counts bytes, and remembers that some did not fit.
func (r *room) take(bytes int64) error {
	err := r.of.take(r.namespace, bytes)
	var full *NoRoom
	if errors.As(err, &full) {
		r.full.Store(true)
	}
	return err
}

// Full gives the error of what did not fit that was to be written with a context, which may
// have become another one on its way; nil where all did.
func Full(ctx context.Context) error {
	at, ok := ctx.Value(roomKey{}).(*room)
	if !ok || !at.full.Load() {
		return nil
	}
	return &NoRoom{Namespace: at.namespace, Most: at.of.most}
}

// In has what is written with a context counted for a namespace. Where nothing is bounded it
// still says which one it is: see Tenant.
func (r *Rooms) In(ctx context.Context, namespace string) context.Context {
	return context.WithValue(ctx, roomKey{}, &room{of: r, namespace: namespace})
}

// Tenant is the namespace for which a context writes; empty where none is known.
func Tenant(ctx context.Context) string {
	if at, ok := ctx.Value(roomKey{}).(*room); ok {
		return at.namespace
	}
	return ""
}

// Counted counts what is read of content that is about to be written for the namespace of a
// context. Read gives NoRoom where it does not fit.
func Counted(ctx context.Context, in io.Reader) io.Reader {
	at, ok := ctx.Value(roomKey{}).(*room)
	if !ok {
		return in
	}
	return countedReader{in, at}
}

type countedReader struct {
	in io.Reader
	*room
}

// Read passes bytes on.
func (c countedReader) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	if full := c.take(int64(n)); full != nil {
		return 0, full
	}
	return n, err
}

// CountedWriter counts what is written for the namespace of a context. Write gives NoRoom
// where it does not fit.
func CountedWriter(ctx context.Context, out io.Writer) io.Writer {
	at, ok := ctx.Value(roomKey{}).(*room)
	if !ok {
		return out
	}
	return countedWriter{out, at}
}

// Filled counts for the namespace of a context what a file takes beside its length, which was
// counted. The error is NoRoom where it does not fit.
func Filled(ctx context.Context, length int64) error {
	at, ok := ctx.Value(roomKey{}).(*room)
	if !ok {
		return nil
	}
	return at.take(OnDisk(length) - length)
}

type countedWriter struct {
	out io.Writer
	*room
}

// Write passes bytes on.
func (c countedWriter) Write(p []byte) (int, error) {
	if err := c.take(int64(len(p))); err != nil {
		return 0, err
	}
	return c.out.Write(p)
}
