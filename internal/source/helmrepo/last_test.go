package helmrepo_test

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/helmrepo"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// TestLastNeedsNoServer: after a restart charts and indexes are there without asking.
func TestLastNeedsNoServer(t *testing.T) {
	t.Parallel()
	server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
	packed := testenv.HelmChart(t, "app", "1.0.0", map[string]string{"x": "1"})
	server.Put(t, "app", "1.0.0", packed)
	folder := t.TempDir()
	s := reopenStore(t, folder, helmrepo.Options{})
	request := helmrepo.ChartRequest{Repository: helmrepo.Repository{URL: server.URL()}, Name: "app"}
	if _, err := s.LastChart(t.Context(), request); refused(t, err).Kind != gitops.Transient {
		t.Errorf("got %v", err)
	}
	if _, err := s.LastIndex(t.Context(), request.Repository); refused(t, err).Kind != gitops.Transient {
		t.Errorf("got %v", err)
	}
	first := getChart(t, s, request, "")
	first.Release()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Chart(t.Context(), request, ""); err == nil {
		t.Error("a closed store gives a chart")
	}
	server.Around(func(http.Handler) http.Handler { return http.NotFoundHandler() })
	for _, unpacked := range []bool{true, false} {
		if !unpacked {
			if err := os.RemoveAll(filepath.Join(folder, "unpacked")); err != nil {
				t.Fatal(err)
			}
		}
		s = reopenStore(t, folder, helmrepo.Options{})
		last, err := s.LastChart(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		if last.Revision != "1.0.0" || last.Digest != first.Digest || !bytes.Equal(readAll(t, last.Packed), packed) {
			t.Errorf("got %+v", last)
		}
		sourcetest.CheckTree(t, last.Files, map[string]string{"app/Chart.yaml": "apiVersion: v2\nname: app\nversion: 1.0.0\n", "app/x": "1"})
		last.Release()
		index, err := s.LastIndex(t.Context(), request.Repository)
		if err != nil {
			t.Fatal(err)
		}
		if got := served(t, index); len(got["app"]) != 1 {
			t.Errorf("got %v", got)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestChartDamaged: a chart whose file was changed on the disk is got again.
func TestChartDamaged(t *testing.T) {
	t.Parallel()
	server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
	server.Put(t, "app", "1.0.0", testenv.HelmChart(t, "app", "1.0.0", nil))
	folder := t.TempDir()
	s := reopenStore(t, folder, helmrepo.Options{})
	request := helmrepo.ChartRequest{Repository: helmrepo.Repository{URL: server.URL()}, Name: "app"}
	getChart(t, s, request, "").Release()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(folder, "charts", "*", "chart-*"))
	if len(files) != 1 || os.WriteFile(files[0], []byte("other"), 0o600) != nil || os.RemoveAll(filepath.Join(folder, "unpacked")) != nil {
		t.Fatalf("files %v", files)
	}
	s = reopenStore(t, folder, helmrepo.Options{})
	t.Cleanup(func() { _ = s.Close() })
	if _, err := s.Chart(t.Context(), request, "1.0.0"); refused(t, err).Kind != gitops.Transient {
		t.Errorf("got %v", err)
	}
	if chart := getChart(t, s, request, "1.0.0"); chart.Version != "1.0.0" || server.Requests("app-1.0.0.tgz") != 2 {
		t.Errorf("got %+v after %d requests", chart, server.Requests("app-1.0.0.tgz"))
	}
}

// TestFailedWritesLeaveNothing: where the state cannot be written what was got for it goes,
// and nothing is held for it.
func TestFailedWritesLeaveNothing(t *testing.T) {
	t.Parallel()
	server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
	server.Put(t, "app", "1.0.0", testenv.HelmChart(t, "app", "1.0.0", nil))
	folder := t.TempDir()
	s := reopenStore(t, folder, helmrepo.Options{})
	t.Cleanup(func() { _ = s.Close() })
	repository := helmrepo.Repository{URL: server.URL()}
	request := helmrepo.ChartRequest{Repository: repository, Name: "app", Cached: true}
	index, err := s.Index(t.Context(), repository, "")
	if err != nil {
		t.Fatal(err)
	}
	index.Release()
	files := func() (names []string) {
		found, _ := filepath.Glob(filepath.Join(folder, "charts", "*", "*"))
		for _, name := range found {
			names = append(names, filepath.Base(name))
		}
		return names
	}
	before := files()
	for what, get := range map[string]func() error{
		"a chart": func() error {
			chart, err := s.Chart(t.Context(), request, "")
			if err == nil {
				chart.Release()
			}
			return err
		},
		"an index": func() error {
			index, err := s.Index(t.Context(), repository, "")
			if err == nil {
				index.Release()
			}
			return err
		},
	} {
		server.Put(t, "other", "1.0.0", testenv.HelmChart(t, "other", "1.0.0", map[string]string{"for": what}))
		shelves, _ := filepath.Glob(filepath.Join(folder, "charts", "*", "state.json"))
		// Something stands where the new state is to be written.
		if len(shelves) != 1 || os.MkdirAll(filepath.Join(filepath.Dir(shelves[0]), "state.new", "x"), 0o700) != nil {
			t.Fatalf("shelves %v", shelves)
		}
		if err := get(); err == nil {
			t.Errorf("%s is stored", what)
		}
		if left := files(); !slices.Equal(left, before) {
			t.Errorf("%s: there are %v, and were %v", what, left, before)
		}
	}
	if err := s.Retain(helmrepo.Followed{}); err != nil {
		t.Error(err)
	}
	if left := files(); len(left) > 0 {
		t.Errorf("nobody follows %v", left)
	}
}

// TestPackagesHaveRoom: whatever is packaged counts for the namespace before it is stored.
func TestPackagesHaveRoom(t *testing.T) {
	t.Parallel()
	for name, files := range map[string]map[string]string{
		"made of a folder":      {"c/Chart.yaml": "apiVersion: v2\nname: app\nversion: 1.0.0\n"},
		"packed in the sources": {"c": string(testenv.HelmChart(t, "app", "1.0.0", nil))},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			s := reopenStore(t, folder, helmrepo.Options{})
			t.Cleanup(func() { _ = s.Close() })
			ctx := artifact.NewRooms(10, time.Now).In(t.Context(), "apps")
			_, err := s.Package(ctx, sourcetest.Memory(files), helmrepo.PackageRequest{Source: "GitRepository/apps/app", Path: "c"}, "")
			if err == nil || artifact.Full(ctx) == nil {
				t.Errorf("error %v, and %v of the room", err, artifact.Full(ctx))
			}
			if left, _ := filepath.Glob(filepath.Join(folder, "charts", "*", "chart-*")); len(left) > 0 {
				t.Errorf("%v is stored", left)
			}
		})
	}
}

// TestRetain: what nobody follows any more goes, when its last reader is done.
func TestRetain(t *testing.T) {
	t.Parallel()
	server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
	for _, name := range []string{"a", "b"} {
		server.Put(t, name, "1.0.0", testenv.HelmChart(t, name, "1.0.0", nil))
	}
	folder := t.TempDir()
	s := reopenStore(t, folder, helmrepo.Options{})
	t.Cleanup(func() { _ = s.Close() })
	repository, again := helmrepo.Repository{URL: server.URL()}, helmrepo.Repository{URL: server.URL() + "?x"}
	a, b := helmrepo.ChartRequest{Repository: repository, Name: "a"}, helmrepo.ChartRequest{Repository: repository, Name: "b"}
	tree := sourcetest.Memory(map[string]string{"Chart.yaml": "apiVersion: v2\nname: p\nversion: 1.0.0\n"})
	packages := helmrepo.PackageRequest{Source: "GitRepository/x/y", Path: "."}
	getChart(t, s, a, "").Release()
	held := getChart(t, s, b, "")
	getIndex(t, s, again, "").Release()
	if p, err := s.Package(t.Context(), tree, packages, ""); err != nil {
		t.Fatal(err)
	} else {
		p.Release()
	}
	count := func(pattern string) int {
		files, _ := filepath.Glob(filepath.Join(folder, "charts", "*", pattern))
		return len(files)
	}
	steps := []struct {
		followed        helmrepo.Followed
		charts, indexes int
	}{
		{helmrepo.Followed{Repositories: []helmrepo.Repository{again}, Charts: []helmrepo.ChartRequest{a, b}, Packages: []helmrepo.PackageRequest{packages}}, 3, 2},
		{helmrepo.Followed{Charts: []helmrepo.ChartRequest{a}, Packages: []helmrepo.PackageRequest{packages}}, 3, 1},
		{helmrepo.Followed{Repositories: []helmrepo.Repository{repository}}, 1, 1},
	}
	for i, step := range steps {
		if err := s.Retain(step.followed); err != nil {
			t.Fatal(err)
		}
		if charts, indexes := count("chart-*"), count("index-*"); charts != step.charts || indexes != step.indexes {
			t.Errorf("step %d: %d charts and %d indexes, want %d and %d", i, charts, indexes, step.charts, step.indexes)
		}
	}
	if len(readAll(t, held.Packed)) == 0 {
		t.Error("a chart in use is gone")
	}
	held.Release()
	if n := count("chart-*"); n != 0 {
		t.Errorf("%d charts after the last reader is done", n)
	}
	if err := s.Retain(helmrepo.Followed{}); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(folder, "charts", "*", "*")); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
	getChart(t, s, a, "")
}
