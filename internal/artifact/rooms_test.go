package artifact_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
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
