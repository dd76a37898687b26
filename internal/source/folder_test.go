package source_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/source"
)

func openFolder(t *testing.T, path string) *source.Folder {
	t.Helper()
	f, err := source.OpenFolder(path, "test store")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// secretOf writes the secret of a folder.
func secretOf(t *testing.T, path string, secret []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(path, "key"), secret, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestFolderNames has names that earlier versions made.
func TestFolderNames(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	secret := make([]byte, 32)
	for i := range secret {
		secret[i] = byte(i)
	}
	secretOf(t, path, secret)
	f := openFolder(t, path)
	for want, parts := range map[string][]string{
		"8050bda2077373f7984d76b1bfa6afad": {"a", "bc"},
		"af0943cb5ef8d181e5c3f4c6b3ed71eb": {"ab", "c"},
		"d38b42096d80f45f826b44a9d5607de7": nil,
		"2f556099d4c1f7aa61d080fc1afef682": {"ä"},
	} {
		if got := f.Name(parts...); got != want {
			t.Errorf("%q: got %s, want %s", parts, got, want)
		}
	}
}

// TestFolderSecret: names are the same as long as the secret is there, and others in
// another folder.
func TestFolderSecret(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		between func(t *testing.T, path string)
		same    bool
	}{
		"the folder is opened again": {func(*testing.T, string) {}, true},
		"the secret is gone":         {func(t *testing.T, path string) { t.Helper(); remove(t, filepath.Join(path, "key")) }, false},
		"the secret is cut off":      {func(t *testing.T, path string) { t.Helper(); secretOf(t, path, make([]byte, 31)) }, false},
		"the folder is gone":         {func(t *testing.T, path string) { t.Helper(); remove(t, path) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "a", "b")
			first := openFolder(t, path)
			was := first.Name("x")
			if err := first.Close(); err != nil {
				t.Fatal(err)
			}
			test.between(t, path)
			second := openFolder(t, path)
			if got := second.Name("x"); (got == was) != test.same {
				t.Errorf("%s after %s, the same is %v", got, was, test.same)
			}
			if got := openFolder(t, path).Name("x"); got != second.Name("x") {
				t.Error("a new secret is not kept")
			}
			if info, err := os.Stat(filepath.Join(path, "key")); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("secret: %v, %v", info, err)
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("folder: %v, %v", info, err)
			}
		})
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

// TestFolderSweep removes folders and nothing else.
func TestFolderSweep(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	f := openFolder(t, path)
	for _, name := range []string{"kept/x", "old/x/y", "empty"} {
		if err := f.Root().MkdirAll(name, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"file", "kept/file", "old/x/file"} {
		if err := f.Root().WriteFile(name, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	asked := map[string]bool{}
	if err := f.Sweep(func(name string) bool { asked[name] = true; return name == "kept" }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"empty", "kept", "old"}, slices.Sorted(maps.Keys(asked))); diff != "" {
		t.Errorf("asked for (-want +got):\n%s", diff)
	}
	var left []string
	for _, pattern := range []string{"*", "kept/*"} {
		found, err := filepath.Glob(filepath.Join(path, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range found {
			left = append(left, strings.TrimPrefix(name, path+"/"))
		}
	}
	if diff := cmp.Diff([]string{"file", "kept", "key", "kept/file", "kept/x"}, left); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Sweep(func(string) bool { return true }); err == nil {
		t.Error("a closed folder is swept")
	}
}

// TestFolderFails says whose folder cannot be opened.
func TestFolderFails(t *testing.T) {
	t.Parallel()
	for name, path := range map[string]func(t *testing.T) string{
		"a file in its place": func(t *testing.T) string { t.Helper(); return fileIn(t) },
		"a folder in the place of the secret": func(t *testing.T) string {
			t.Helper()
			path := t.TempDir()
			if err := os.Mkdir(filepath.Join(path, "key"), 0o700); err != nil {
				t.Fatal(err)
			}
			return path
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := source.OpenFolder(path(t), "test store"); err == nil || !strings.HasPrefix(err.Error(), "open test store: ") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func fileIn(t *testing.T) string {
	t.Helper()
	path := t.TempDir()
	secretOf(t, path, nil)
	return filepath.Join(path, "key")
}

// TestLimit takes what is set, and the default for what cannot be a limit.
func TestLimit(t *testing.T) {
	t.Parallel()
	for set, want := range map[int64]int64{5: 5, 1: 1, 0: 7, -1: 7} {
		if got := source.Limit(set, 7); got != want {
			t.Errorf("%d: got %d, want %d", set, got, want)
		}
	}
}

// TestFolderMeasures counts what several namespaces use for them in equal parts.
func TestFolderMeasures(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	f := openFolder(t, path)
	rooms := artifact.NewRooms(1<<30, time.Now)
	for name, tenants := range map[string][]string{"shared": {"a", "b"}, "own": {"b", "b"}, "nobody's": nil, "gone": {"a"}} {
		if err := os.MkdirAll(filepath.Join(path, name, "below"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(path, name, "below", "x"), make([]byte, 100*block), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, tenant := range tenants {
			f.Ask(rooms.In(t.Context(), tenant), name, "part", 100*block)
		}
	}
	f.Use(t.Context(), "nobody's")
	f.Use(rooms.In(t.Context(), "a"), "never made")
	f.Use(rooms.In(t.Context(), "a"), "made too late")
	if err := f.Sweep(func(name string) bool { return name != "gone" && name != "made too late" }); err != nil {
		t.Fatal(err)
	}
	// What is not wanted is forgotten, whether or not there was a folder for it.
	if err := os.CopyFS(filepath.Join(path, "made too late"), os.DirFS(filepath.Join(path, "own", "below"))); err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	if err := f.Measure(func(namespace string, bytes int64) { got[namespace] += bytes / block }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]int64{"a": 50, "b": 150}, got); diff != "" {
		t.Errorf("measured (-want +got):\n%s", diff)
	}
}
