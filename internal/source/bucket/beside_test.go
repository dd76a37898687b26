package bucket_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/source"
	"github.com/plumb-gitops/plumb/internal/source/bucket"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
)

// slowState has the next read of a state wait, after reading has begun. It gives what waits
// until it has, and what has it go on.
func slowState(t *testing.T, path string) (begun, goOn func()) {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	must(t, os.Remove(path))
	must(t, syscall.Mkfifo(path, 0o600))
	pipe, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	return func() {
			// More than fits into a pipe and a buffer: it ends when somebody reads.
			_, err := pipe.WriteString("{" + strings.Repeat(" ", 1<<20))
			must(t, err)
		}, func() {
			must(t, os.WriteFile(path+".whole", text, 0o600))
			must(t, os.Rename(path+".whole", path))
			_, err := pipe.Write(text[1:])
			must(t, err)
			must(t, pipe.Close())
		}
}

// step is what somebody does while a state is read.
type step struct {
	what string
	do   func() error
}

// checkBeside has a fetch read a state that takes long, and checks that all steps are done
// meanwhile.
func checkBeside(t *testing.T, path string, fetch func() (source.Result, error), steps ...step) source.Result {
	t.Helper()
	begun, goOn := slowState(t, path)
	var result source.Result
	fetched, did := make(chan error, 1), make(chan error, len(steps))
	go func() {
		var err error
		result, err = fetch()
		fetched <- err
	}()
	begun()
	go func() {
		for _, step := range steps {
			did <- step.do()
		}
	}()
	for _, step := range steps {
		select {
		case err := <-did:
			if err != nil {
				t.Errorf("%s: %v", step.what, err)
			}
			continue
		case <-time.After(30 * time.Second):
			t.Errorf("it waits until a state is read: %s", step.what)
		}
		break
	}
	goOn()
	must(t, <-fetched)
	return result
}

// TestOthersDoNotWaitForStates: a tenant can have states that take long to read, many of them.
// While a fetch reads them, others go on: those of other buckets, those that only look at
// this one, and the cleaning of the store, on which everybody waits.
func TestOthersDoNotWaitForStates(t *testing.T) {
	t.Parallel()
	w := s3World(t)
	w.server.Fill(name, map[string]string{"a/1": "one", "b/2": "two", "c/3": "three"})
	w.server.Fill("other-bucket", map[string]string{"x": "four"})
	folder := t.TempDir()
	s := openAt(t, folder, bucket.Options{})
	one, two, gone, other := w.request, w.request, w.request, w.request
	one.Prefix, two.Prefix, gone.Prefix, other.Bucket = "a/", "b/", "c/", "other-bucket"
	states := func() []string {
		found, err := filepath.Glob(filepath.Join(folder, "*", "view-*"))
		must(t, err)
		return found
	}
	get := func(r bucket.Request) func() (source.Result, error) {
		return func() (source.Result, error) { return s.Fetch(within(t), r, "") }
	}
	does := func(what string, get func() (source.Result, error)) step {
		return step{what, func() error {
			result, err := get()
			if err == nil {
				result.Release()
			}
			return err
		}}
	}
	last := func(r bucket.Request) func() (source.Result, error) {
		return func() (source.Result, error) { return s.Last(within(t), r) }
	}
	clean := step{"cleaning", func() error { return s.Retain([]bucket.Request{one, two, other}) }}

	fetch(t, s, one, "").Release()
	before := states()
	fetch(t, s, two, "").Release()
	path := slices.DeleteFunc(states(), func(path string) bool { return slices.Contains(before, path) })[0]
	read := fetch(t, s, gone, "")
	fetch(t, s, other, "").Release()
	w.server.Put(name, "a/1", "changed")
	result := checkBeside(t, path, get(one),
		does("the last revision of the bucket", last(one)), does("the last revision of another prefix", last(two)),
		does("a look that finds the other prefix as it was", get(two)),
		does("a fetch of another bucket", get(other)), clean,
		step{"the release of what is not followed", func() error { read.Release(); return nil }},
		does("a fetch of another bucket after that", get(other)))
	sourcetest.CheckTree(t, result.Files, map[string]string{"a/1": "changed"})
	result.Release()
	s.Settle()
	if left := states(); len(left) != 3 {
		t.Errorf("the states %q are left, want three", left)
	}

	must(t, s.Close())
	s = openAt(t, folder, bucket.Options{})
	defer func() { must(t, s.Close()) }()
	result = checkBeside(t, path, get(one), clean, does("after a restart, a fetch of another bucket", get(other)))
	sourcetest.CheckTree(t, result.Files, map[string]string{"a/1": "changed"})
	result.Release()
}
