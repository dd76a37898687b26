package flux

import (
	"fmt"
	"io"
	"testing"
	"time"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// slowFile is a file that ends when it is let go.
type slowFile struct {
	revision string
	begun    chan string
	free     chan struct{}
}

func (s *slowFile) Read(p []byte) (int, error) {
	if s.revision != "" {
		s.begun <- s.revision
		s.revision = ""
	}
	select {
	case <-s.free:
		return 0, io.EOF
	case <-time.After(time.Millisecond):
		p[0] = 'x'
		return 1, nil
	}
}
func (*slowFile) Close() error { return nil }

// TestStatusIsLateForAWhileOnly: revisions that come faster than they are packed end each
// other's packing, but not for ever.
func TestStatusIsLateForAWhileOnly(t *testing.T) {
	t.Parallel()
	r, _, clock := cleaned(t, "app")
	r.kind, r.sources, r.triggers, r.packings = alone{}, newSources(), &triggers{}, newPackings()
	r.packers, r.fetched = map[types.UID]int{}, map[types.UID]fetched{}
	obj := &sourcev1.GitRepository{}
	obj.Name, obj.Namespace, obj.UID = "app", "a", "app"
	begun, free := make(chan string, 100), make(chan struct{})
	publish := func(i int) {
		next := fetched{revision: fmt.Sprint("main@sha1:", i), confirmed: true, artifact: gitops.Artifact{Source: r.ref(obj), Revision: fmt.Sprint("main@sha1:", i)}}
		next.file = func() (io.ReadCloser, error) {
			return &slowFile{next.revision, begun, free}, nil
		}
		r.sources.publish(r.ref(obj), gitops.Snapshot{Artifact: next.artifact, Release: func() {}})
		r.startPacking(t.Context(), obj, next)
	}
	// await waits until a revision is being packed.
	await := func(i int) {
		t.Helper()
		end := time.After(time.Minute)
		for {
			select {
			case revision := <-begun:
				if revision == fmt.Sprint("main@sha1:", i) {
					return
				}
			case <-end:
				t.Fatalf("revision %d is not packed", i)
			}
		}
	}
	following := pursuit[GitRequest]{}
	for i := range 10 {
		publish(i)
		await(i)
		if _, ok := r.late(obj, following); ok {
			t.Errorf("revision %d is told, which is not packed", i)
		}
		clock.Step(longestUntold / 20)
	}
	// Those before have ended, and this one waits behind that which is packed now.
	clock.Step(longestUntold)
	publish(10)
	publish(11)
	close(free)
	await(11)
	r.work.Wait()
	of, ok := r.late(obj, following)
	if !ok || of.revision != "main@sha1:9" || of.artifact.Digest == "" {
		t.Fatalf("told is %q with digest %q, %t; want that which was being packed", of.revision, of.artifact.Digest, ok)
	}
	if last := r.last("app"); last.revision != "main@sha1:11" || last.packing() || last.failure != nil {
		t.Errorf("the newest revision is not packed in the end: %+v", last)
	}
	r.told("app")
	if _, ok := r.late(obj, following); ok || len(r.overdue) > 0 || r.packers["app"] != 0 {
		t.Errorf("something is left to tell: %+v, %d", r.overdue, r.packers["app"])
	}
}

// TestPartsThatMoveOn: a revision that is packed when its parts have moved on already is told
// in the end.
func TestPartsThatMoveOn(t *testing.T) {
	t.Parallel()
	r, _, clock := cleaned(t, "app")
	obj := &sourcev1.GitRepository{}
	obj.UID = "app"
	made := fetched{content: "parts of before", revision: "1", confirmed: true, artifact: gitops.Artifact{Digest: "sha256:1"}, parts: []gitops.Artifact{{Revision: "1"}}}
	r.fetched = map[types.UID]fetched{"app": made}
	for i, step := range []struct {
		at      time.Duration
		content string
		want    bool
	}{
		{0, "parts of now", false},
		{longestUntold / 2, "parts of now", false},
		{longestUntold, "parts of before", false}, // which is told without more
		{longestUntold, "parts of now", true},
	} {
		clock.SetTime(time.Unix(1_700_000_000, 0).Add(step.at))
		if of, ok := r.late(obj, pursuit[GitRequest]{content: step.content}); ok != step.want || ok && of.revision != "1" {
			t.Errorf("step %d: told is %q, %t; want %t", i, of.revision, ok, step.want)
		}
	}
	other := pursuit[GitRequest]{content: "parts of now", terms: "signed by other keys"}
	if _, ok := r.late(obj, other); ok {
		t.Error("it is told though its keys do not hold any more")
	}
	r.overdue["app"].packed = &made
	if _, ok := r.late(obj, other); ok {
		t.Error("what was packed late is told though its keys do not hold any more")
	}
	r.overdue["app"].packed = &made
	if of, ok := r.late(obj, pursuit[GitRequest]{content: "parts of now"}); !ok || of.revision != "1" {
		t.Errorf("what was packed late is not told: %q", of.revision)
	}
	r.told("app")
	if _, ok := r.late(obj, pursuit[GitRequest]{content: "parts of now"}); ok {
		t.Error("it is told again at once")
	}
	obj.Generation = 2
	clock.Step(2 * longestUntold)
	if _, ok := r.late(obj, pursuit[GitRequest]{content: "parts of now"}); ok {
		t.Error("it is told of another declaration")
	}
	if made.madeOf(parts{{Artifact: gitops.Artifact{Revision: "2"}}}) || !made.madeOf(parts{{Artifact: gitops.Artifact{Revision: "1"}}}) {
		t.Error("madeOf does not tell parts apart")
	}
}
