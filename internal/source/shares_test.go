package source_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/source"
)

// block is what the tests count in: what a disk gives to a file at least.
const block = 4 << 10

// TestFolderShares says for whom a folder counts that several namespaces use.
func TestFolderShares(t *testing.T) {
	t.Parallel()
	type step func(f *source.Folder, in func(namespace string) context.Context)
	use := func(namespace string) step {
		return func(f *source.Folder, in func(string) context.Context) { f.Use(in(namespace), "shared") }
	}
	ask := func(namespace, part string, bytes int64) step {
		return func(f *source.Folder, in func(string) context.Context) {
			f.Use(in(namespace), "shared")
			f.Ask(in(namespace), "shared", part, bytes*block)
		}
	}
	bring := func(namespace string, size int, kept bool) step {
		return func(f *source.Folder, in func(string) context.Context) {
			f.Use(in(namespace), "shared")
			ctx, lost := f.Bring(in(namespace), "shared")
			_, _ = io.Copy(io.Discard, source.Counted(ctx, bytes.NewReader(make([]byte, size*block))))
			if !kept {
				lost()
				lost()
			}
		}
	}
	wanted := func(parts ...string) step {
		return func(f *source.Folder, _ func(string) context.Context) {
			wanted := map[string]map[string]bool{"shared": {}}
			for _, part := range parts {
				wanted["shared"][part] = true
			}
			f.Forget(wanted)
		}
	}
	measure := func(f *source.Folder, _ func(string) context.Context) { _ = f.Measure(func(string, int64) {}) }
	for name, test := range map[string]struct {
		steps []step
		bytes int
		want  map[string]int64
	}{
		"nobody uses it": {nil, 100, map[string]int64{}},
		"one asks for a part of it, and the rest is its too":            {[]step{ask("a", "x", 10), wanted("x")}, 100, map[string]int64{"a": 100}},
		"one asks for a part, before it is known what others want":      {[]step{ask("a", "x", 10)}, 100, map[string]int64{"a": 20}},
		"one asks for a part, and another part is wanted":               {[]step{ask("a", "x", 10), wanted("x", "y")}, 100, map[string]int64{"a": 20}},
		"one asks for a part, another uses it":                          {[]step{ask("a", "x", 10), use("b"), wanted("x")}, 100, map[string]int64{"a": 20}},
		"one asks for little, and what another asks for is joined":      {[]step{ask("a", "x", 990), ask("b", "y", 10), wanted("x", "y")}, 2000, map[string]int64{"a": 1980, "b": 20}},
		"and takes more than twice as much":                             {[]step{ask("a", "x", 990), ask("b", "y", 10), wanted("x", "y")}, 3000, map[string]int64{"a": 1980, "b": 20}},
		"one that brings much is charged for it, and for the rest":      {[]step{bring("a", 900, true), ask("b", "y", 10), wanted("y")}, 1001, map[string]int64{"a": 990, "b": 11}},
		"one asks for more than there is":                               {[]step{ask("a", "x", 1000)}, 100, map[string]int64{"a": 100}},
		"two ask for the same":                                          {[]step{bring("a", 100, true), ask("a", "x", 100), ask("b", "x", 100)}, 100, map[string]int64{"a": 50, "b": 50}},
		"two ask for the same, and a third one for as much":             {[]step{ask("a", "x", 100), ask("b", "x", 100), ask("c", "y", 100)}, 200, map[string]int64{"a": 50, "b": 50, "c": 100}},
		"one asks for little":                                           {[]step{ask("a", "x", 990), ask("b", "y", 10)}, 1000, map[string]int64{"a": 990, "b": 10}},
		"one asks for little of what is smaller on the disk":            {[]step{ask("a", "x", 990), ask("b", "y", 10)}, 100, map[string]int64{"a": 99, "b": 1}},
		"one asks for it again, by a later size":                        {[]step{ask("a", "x", 1), ask("a", "x", 30), ask("b", "y", 70)}, 100, map[string]int64{"a": 30, "b": 70}},
		"one leaves much behind":                                        {[]step{bring("a", 90, true), ask("a", "x", 90), bring("b", 10, true), ask("b", "y", 10), wanted("y")}, 100, map[string]int64{"a": 90, "b": 10}},
		"one leaves behind what another asks for too":                   {[]step{bring("a", 100, true), ask("b", "x", 100)}, 100, map[string]int64{"b": 100}},
		"what was left behind is gone":                                  {[]step{bring("a", 90, true), bring("b", 10, true), ask("b", "y", 10)}, 10, map[string]int64{"b": 10}},
		"one has brought the same many times over":                      {[]step{bring("a", 1000, true), ask("a", "x", 50), bring("b", 50, true)}, 100, map[string]int64{"a": 95, "b": 4}},
		"that was seen before another came":                             {[]step{bring("a", 1000, true), ask("a", "x", 100), measure, bring("b", 50, true)}, 150, map[string]int64{"a": 112, "b": 37}},
		"one brings what is under way":                                  {[]step{bring("a", 60, true), ask("b", "y", 40)}, 100, map[string]int64{"a": 60, "b": 40}},
		"one has brought what was lost":                                 {[]step{bring("a", 60, false), bring("b", 60, true)}, 60, map[string]int64{"b": 60}},
		"what came from nobody known counts for those who ask":          {[]step{use("c"), ask("a", "x", 10), ask("b", "y", 30)}, 60, map[string]int64{"a": 15, "b": 45}},
		"and for nobody who only uses it":                               {[]step{use("a"), use("b")}, 100, map[string]int64{}},
		"one leaves behind most of it":                                  {[]step{ask("a", "x", 90), ask("a", "x", 1), ask("b", "y", 10)}, 100, map[string]int64{"a": 90, "b": 10}},
		"one leaves behind what it did not bring":                       {[]step{ask("a", "x", 90), ask("b", "y", 10), wanted("y")}, 100, map[string]int64{"a": 90, "b": 10}},
		"one that follows no more is not counted with what others want": {[]step{ask("a", "x", 100), wanted("y"), ask("b", "y", 100)}, 100, map[string]int64{"b": 100}},
		"sizes that no disk has":                                        {[]step{ask("a", "x", 1<<50), ask("b", "y", 1<<50), ask("c", "z", -1)}, 100, map[string]int64{"a": 50, "b": 50}},
		"who is not counted asks for nothing, and brings nothing ":      {[]step{ask("", "x", 10), bring("", 100, true), ask("a", "y", 10), wanted("y")}, 100, map[string]int64{"a": 100}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, rooms := openFolder(t, t.TempDir()), artifact.NewRooms(1<<62, time.Now)
			if err := errors.Join(f.Root().MkdirAll("shared/below", 0o700), f.Root().WriteFile("shared/below/x", make([]byte, test.bytes*block), 0o600)); err != nil {
				t.Fatal(err)
			}
			for _, s := range test.steps {
				s(f, func(namespace string) context.Context {
					if namespace == "" {
						return t.Context()
					}
					return rooms.In(t.Context(), namespace)
				})
			}
			got := map[string]int64{}
			if err := f.Measure(func(namespace string, bytes int64) { got[namespace] += bytes / block }); err != nil {
				t.Fatal(err)
			}
			maps.DeleteFunc(got, func(_ string, bytes int64) bool { return bytes == 0 })
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("charged (-want +got):\n%s", diff)
			}
		})
	}
}

// TestWhoStopsToAskIsNotCharged with what others go on to ask for, and is where nobody does.
func TestWhoStopsToAskIsNotCharged(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f, rooms := openFolder(t, path), artifact.NewRooms(1<<62, time.Now)
		if err := errors.Join(f.Root().Mkdir("shared", 0o700), f.Root().WriteFile("shared/x", make([]byte, 100*block), 0o600)); err != nil {
			t.Fatal(err)
		}
		expect := func(when string, want map[string]int64) {
			t.Helper()
			got := map[string]int64{}
			if err := f.Measure(func(namespace string, bytes int64) { got[namespace] += bytes / block }); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("charged %s (-want +got):\n%s", when, diff)
			}
		}
		for _, namespace := range []string{"goes", "stays"} {
			f.Ask(rooms.In(t.Context(), namespace), "shared", "x", 100*block)
		}
		for range 24 {
			time.Sleep(time.Hour)
			f.Ask(rooms.In(t.Context(), "stays"), "shared", "x", 100*block)
		}
		expect("for a day", map[string]int64{"goes": 50, "stays": 50})
		time.Sleep(2 * time.Hour)
		expect("when nobody asks", map[string]int64{"goes": 50, "stays": 50})
		f.Ask(rooms.In(t.Context(), "stays"), "shared", "x", 100*block)
		expect("when another asks after that", map[string]int64{"stays": 100})
		time.Sleep(1000 * time.Hour)
		expect("when the last one asks no more", map[string]int64{"stays": 100})
		f.Ask(rooms.In(t.Context(), "goes"), "shared", "x", 100*block)
		expect("when another begins again", map[string]int64{"goes": 100})
	})
}
