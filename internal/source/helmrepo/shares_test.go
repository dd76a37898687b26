package helmrepo_test

import (
	"crypto/rand"
	"encoding/base64"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/source/helmrepo"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// TestNamespacesShareAShelf: who follows a large chart of a repository does not fill the room
// of another namespace that follows a small one, or the index alone.
func TestNamespacesShareAShelf(t *testing.T) {
	t.Parallel()
	server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
	noise := make([]byte, 1<<19)
	_, _ = rand.Read(noise)
	server.Put(t, "small", "1.0.0", testenv.HelmChart(t, "small", "1.0.0", nil))
	server.Put(t, "large", "1.0.0", testenv.HelmChart(t, "large", "1.0.0", testenv.Files{"files/x": base64.StdEncoding.EncodeToString(noise)}))
	repository := helmrepo.Repository{URL: server.URL()}
	charts := map[string]helmrepo.ChartRequest{}
	for _, name := range []string{"small", "large"} {
		charts[name] = helmrepo.ChartRequest{Repository: repository, Name: name}
	}
	folder := t.TempDir()
	rooms := artifact.NewRooms(1<<30, time.Now)
	s := reopenStore(t, folder, helmrepo.Options{})
	charged := func(when string) {
		t.Helper()
		got := map[string]int64{}
		if err := s.Measure(func(namespace string, bytes int64) { got[namespace] += bytes }); err != nil {
			t.Fatal(err)
		}
		if got["small"] > 10<<10 || got["index"] > 10<<10 || got["large"] < 1<<19 {
			t.Errorf("%s: %v", when, got)
		}
	}
	for range 2 { // the second time it is there
		for name, request := range charts {
			chart, err := s.Chart(rooms.In(t.Context(), name), request, "")
			if err != nil {
				t.Fatal(err)
			}
			chart.Release()
		}
		index, err := s.Index(rooms.In(t.Context(), "index"), repository, "")
		if err != nil {
			t.Fatal(err)
		}
		index.Release()
		charged("fetched")
		if err := s.Retain(helmrepo.Followed{
			Repositories: []helmrepo.Repository{repository}, Charts: []helmrepo.ChartRequest{charts["small"], charts["large"]},
		}); err != nil {
			t.Fatal(err)
		}
		charged("retained")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = reopenStore(t, folder, helmrepo.Options{})
	for name, request := range charts {
		chart, err := s.LastChart(rooms.In(t.Context(), name), request)
		if err != nil {
			t.Fatal(err)
		}
		chart.Release()
	}
	charged("after a restart")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
