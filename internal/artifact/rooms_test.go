package artifact_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// kept is a store that keeps so many bytes for each of some namespaces, or fails.
type kept struct {
	bytes map[string]int64
	err   error
}

// Measure charges all.
func (k *kept) Measure(charge func(namespace string, bytes int64)) error {
	for namespace, bytes := range k.bytes {
		charge(namespace, bytes)
	}
	return k.err
}

func TestRooms(t *testing.T) {
	t.Parallel()
	type step struct {
		namespace string
		bytes     int
		after     time.Duration
		keeps     map[string]int64
		full      bool
	}
	for name, steps := range map[string][]step{
		"as much as is allowed fits":                   {{namespace: "a", bytes: 60}, {namespace: "a", bytes: 40}},
		"one byte more does not":                       {{namespace: "a", bytes: 60}, {namespace: "a", bytes: 41, full: true}, {namespace: "a", bytes: 40}},
		"what one writes is not counted for another":   {{namespace: "a", bytes: 100}, {namespace: "b", bytes: 100}, {namespace: "a", bytes: 1, full: true}},
		"what was there before counts":                 {{namespace: "a", bytes: 10, keeps: map[string]int64{"a": 91}, full: true}, {namespace: "b", bytes: 100}},
		"what was removed is seen after a while":       {{namespace: "a", bytes: 100}, {namespace: "a", bytes: 1, after: time.Second, full: true}, {namespace: "a", bytes: 50, after: time.Minute, keeps: map[string]int64{"a": 50}}, {namespace: "a", bytes: 1, full: true}},
		"what is there without having been written is": {{namespace: "a", bytes: 1}, {namespace: "a", bytes: 1, after: time.Hour, keeps: map[string]int64{"a": 100}, full: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now, store := time.Unix(1, 0), &kept{}
			rooms := artifact.NewRooms(100, func() time.Time { return now })
			rooms.Add(store)
			for i, s := range steps {
				now, store.bytes = now.Add(s.after), s.keeps
				ctx := rooms.In(t.Context(), s.namespace)
				var out bytes.Buffer
				_, err := artifact.CountedWriter(ctx, &out).Write(make([]byte, s.bytes))
				var full *artifact.NoRoom
				if errors.As(err, &full) != s.full || (artifact.Full(ctx) != nil) != s.full || (out.Len() == 0) != s.full {
					t.Fatalf("step %d: error %v, full %v, %d bytes written", i, err, artifact.Full(ctx), out.Len())
				}
				if s.full && !strings.Contains(err.Error(), "the 100 bytes that the sources of namespace 'a' may keep") {
					t.Errorf("step %d: %v", i, err)
				}
			}
		})
	}
}

// measurer is a store that measures with a function.
type measurer func(charge func(namespace string, bytes int64)) error

// Measure calls it.
func (m measurer) Measure(charge func(namespace string, bytes int64)) error { return m(charge) }

// TestRoomsWhileMeasured: what was written before counts on while the folder is measured.
func TestRoomsWhileMeasured(t *testing.T) {
	t.Parallel()
	var looked atomic.Pointer[chan struct{}]
	now := time.Unix(1, 0)
	rooms := artifact.NewRooms(100, func() time.Time {
		if c := looked.Swap(nil); c != nil {
			close(*c)
		}
		return now
	})
	write := func(bytes int) error {
		_, err := artifact.CountedWriter(rooms.In(t.Context(), "a"), io.Discard).Write(make([]byte, bytes))
		return err
	}
	beside, measured := make(chan error, 1), 0
	rooms.Add(measurer(func(charge func(string, int64)) error {
		if measured++; measured == 1 {
			return nil
		}
		charge("a", 60)
		if err := write(40); err != nil {
			t.Errorf("what fits is not written while the folder is measured: %v", err)
		}
		// The next one looks at the clock as soon as it has the sum to itself.
		c := make(chan struct{})
		looked.Store(&c)
		go func() { beside <- write(1) }()
		<-c
		return nil
	}))
	must(t, write(60))
	now = now.Add(time.Minute)
	for what, err := range map[string]error{"before": write(41), "meanwhile": <-beside} {
		var full *artifact.NoRoom
		if !errors.As(err, &full) {
			t.Errorf("a byte too many that was to be written %s: %v", what, err)
		}
	}
	if err := write(1); err == nil {
		t.Error("it is forgotten afterwards")
	}
}

func TestRoomsThatCannotBeMeasured(t *testing.T) {
	t.Parallel()
	store := &kept{err: errors.New("no disk")}
	rooms := artifact.NewRooms(100, time.Now)
	rooms.Add(store)
	ctx := rooms.In(t.Context(), "a")
	if _, err := io.ReadAll(artifact.Counted(ctx, strings.NewReader("x"))); err == nil || !strings.Contains(err.Error(), "measure the data folder: no disk") {
		t.Errorf("error %v", err)
	}
	store.err = nil
	if _, err := io.ReadAll(artifact.Counted(ctx, strings.NewReader("x"))); err != nil {
		t.Error(err)
	}
}

func TestNoRooms(t *testing.T) {
	t.Parallel()
	var none *artifact.Rooms
	if artifact.NewRooms(0, time.Now) != none {
		t.Error("0 bounds something")
	}
	none.Add(&kept{err: errors.New("is measured")})
	ctx := none.In(t.Context(), "a")
	if got, err := io.ReadAll(artifact.Counted(ctx, strings.NewReader("x"))); string(got) != "x" || err != nil || artifact.Tenant(ctx) != "a" || artifact.Full(ctx) != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// TestStoreMeasures says for whom it keeps what, an earlier process's files among it.
func TestStoreMeasures(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	content := func(n int) func() (io.ReadCloser, error) {
		return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(strings.Repeat("x", n))), nil }
	}
	owner := gitops.OwnerRef{Kind: "HelmChart", Namespace: "a", Name: "one"}
	first := open(t, dir, artifact.Options{})
	_, err := first.Put(t.Context(), gitops.Artifact{Source: owner}, "x.tgz", content(70))
	must(t, err)
	must(t, first.Close())

	rooms := artifact.NewRooms(100, time.Now)
	s := open(t, dir, artifact.Options{Rooms: rooms})
	got := map[string]int64{}
	must(t, s.Measure(func(namespace string, bytes int64) { got[namespace] += bytes }))
	if got["a"] != 70 || len(got) != 1 {
		t.Errorf("measured %v", got)
	}
	var full *artifact.NoRoom
	if _, err := s.Put(t.Context(), gitops.Artifact{Source: owner}, "y.tgz", content(31)); !errors.As(err, &full) {
		t.Errorf("error %v", err)
	}
	owner.Namespace = "b"
	_, err = s.Put(t.Context(), gitops.Artifact{Source: owner}, "y.tgz", content(31))
	must(t, err)
}

// TestStoredAgainTakesNoRoom: after a restart all sources are packed again. What is there
// already is not written, so that it takes no room, neither for a moment.
func TestStoredAgainTakesNoRoom(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), time.Unix(1000, 0)
	fill := func(letter string) func() (io.ReadCloser, error) {
		return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(strings.Repeat(letter, 95))), nil }
	}
	of := gitops.Artifact{Source: gitops.OwnerRef{Kind: "HelmChart", Namespace: "a", Name: "one"}, Revision: "1"}
	first := open(t, dir, artifact.Options{Now: func() time.Time { return now }})
	stored, err := first.Put(t.Context(), of, "x.tgz", fill("x"))
	must(t, err)
	must(t, first.Close())

	now = now.Add(time.Hour)
	rooms := artifact.NewRooms(100, func() time.Time { return now })
	s := open(t, dir, artifact.Options{Rooms: rooms, Now: func() time.Time { return now }})
	if whole, err := s.Adopt(stored, "x.tgz"); err != nil || !whole {
		t.Fatalf("adopted: %v, %v", whole, err)
	}
	put := func(of gitops.Artifact, letter string) (gitops.Artifact, error) {
		return s.Put(t.Context(), of, "x.tgz", fill(letter))
	}
	again, err := put(of, "x")
	must(t, err)
	if again.Digest != stored.Digest || again.Size != 95 || !again.Time.Equal(stored.Time) {
		t.Errorf("stored %+v, and again %+v", stored, again)
	}
	other := of
	other.Revision = "2"
	if renamed, err := put(other, "x"); err != nil || renamed.Revision != "2" || !renamed.Time.Equal(now) {
		t.Errorf("as another revision: %+v, %v", renamed, err)
	}
	var full *artifact.NoRoom
	if _, err := put(of, "y"); !errors.As(err, &full) {
		t.Errorf("something else: %v", err)
	}
	// What is not as it was stored is no reason to store nothing.
	for what, spoil := range map[string]func(string) error{
		"another": func(name string) error { return os.WriteFile(name, []byte(strings.Repeat("y", 95)), 0o600) },
		"gone":    os.Remove,
		"shorter": func(name string) error { return os.Truncate(name, 94) },
	} {
		dir := t.TempDir()
		s := open(t, dir, artifact.Options{})
		must1 := func(_ gitops.Artifact, err error) { t.Helper(); must(t, err) }
		must1(s.Put(t.Context(), of, "x.tgz", fill("x")))
		name := filepath.Join(dir, "helmchart", "a", "one", "x.tgz")
		must(t, spoil(name))
		before, _ := os.Stat(name)
		must1(s.Put(t.Context(), of, "x.tgz", fill("x")))
		if after, err := os.Stat(name); err != nil || os.SameFile(before, after) || after.Size() != 95 {
			t.Errorf("%s: it is not stored again: %v", what, err)
		}
	}
}

// vanishing is a folder of which some files are gone by the time they are looked at.
type vanishing struct{ fstest.MapFS }

// ReadDir lists them nevertheless.
func (v vanishing) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := v.MapFS.ReadDir(name)
	for i, e := range entries {
		if strings.HasPrefix(e.Name(), "gone") {
			entries[i] = gone{e}
		}
	}
	return entries, err
}

type gone struct{ fs.DirEntry }

// Info is that there is nothing.
func (gone) Info() (fs.FileInfo, error) { return nil, fs.ErrNotExist }

// broken is a folder that cannot be read.
type broken struct{}

// Open fails.
func (broken) Open(string) (fs.File, error) { return nil, errors.New("no disk") }

func TestSize(t *testing.T) {
	t.Parallel()
	files := vanishing{fstest.MapFS{
		"a/1": {Data: make([]byte, 10)}, "a/gone": {Data: make([]byte, 100)}, "a/z/2": {Data: make([]byte, 20)}, "b": {Data: make([]byte, 4<<10+1)}, "c": {},
		"a/link": {Data: make([]byte, 100), Mode: fs.ModeSymlink},
	}}
	for name, want := range map[string]int64{"a": 8 << 10, "a/z": 4 << 10, "b": 8 << 10, "c": 0, "nothing": 0, ".": 16 << 10} {
		if got, err := artifact.Size(files, name); err != nil || got != want {
			t.Errorf("%q has %d bytes, %v; want %d", name, got, err, want)
		}
	}
	if _, err := artifact.Size(broken{}, "a"); err == nil || err.Error() != "no disk" {
		t.Errorf("what cannot be read: %v", err)
	}
}
