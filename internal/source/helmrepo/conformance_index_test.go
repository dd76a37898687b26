package helmrepo_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/plumb-gitops/plumb/internal/source"
	"github.com/plumb-gitops/plumb/internal/source/helmrepo"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
)

// indexFetcher shows the index of a repository as a source: each chart is a file, with what
// its first version is described by.
type indexFetcher struct {
	store      *helmrepo.Store
	repository helmrepo.Repository
}

// Fetch brings the index up to date.
func (f indexFetcher) Fetch(ctx context.Context, known string) (source.Result, error) {
	index, err := f.store.Index(ctx, f.repository, known)
	if err != nil {
		return source.Result{}, err
	}
	result := source.Result{Revision: index.Revision, Unchanged: index.Unchanged, Release: index.Release}
	files, err := chartsIn(index)
	if err != nil {
		index.Release()
		return source.Result{}, err
	}
	result.Files = sourcetest.Memory(files)
	return result, nil
}

type described struct {
	APIVersion  string   `json:"apiVersion"`
	Name        string   `json:"name"`
	Version     string   `json:"version"`
	Description string   `json:"description"`
	URLs        []string `json:"urls"`
}

// chartsIn reads what indexFor has written.
func chartsIn(index helmrepo.Index) (map[string]string, error) {
	in, err := index.Open()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	var all struct {
		Entries map[string][]described `json:"entries"`
	}
	if err := json.NewDecoder(in).Decode(&all); err != nil {
		return nil, err
	}
	files := map[string]string{}
	for chart, versions := range all.Entries {
		name, err := hex.DecodeString(chart)
		if err != nil || len(versions) != 1 {
			return nil, fmt.Errorf("chart %q has %d versions: %w", chart, len(versions), err)
		}
		files[string(name)] = versions[0].Description
	}
	return files, nil
}

// indexFor makes the index of charts that stand for files.
func indexFor(t testing.TB, files map[string]string) []byte {
	t.Helper()
	entries := map[string][]described{}
	for name, content := range files {
		chart := hex.EncodeToString([]byte(name))
		entries[chart] = []described{{"v2", chart, "1.0.0", content, []string{"app.tgz"}}}
	}
	text, err := json.Marshal(map[string]any{"apiVersion": "v1", "generated": "2026-01-01T00:00:00Z", "entries": entries})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestIndexConforms(t *testing.T) {
	t.Parallel()
	sourcetest.CheckFetcher(t, nil, func(t *testing.T) sourcetest.Remote {
		server, right, wrong := guarded(t)
		s := openStore(t, helmrepo.Options{})
		var gone atomic.Bool
		around := func(wrap func(http.Handler) http.Handler) {
			server.Around(func(next http.Handler) http.Handler {
				if wrap != nil {
					next = wrap(next)
				}
				if gone.Load() {
					next = http.NotFoundHandler()
				}
				return next
			})
		}
		around(nil)
		return sourcetest.Remote{
			Fetcher: indexFetcher{s, right}, Stranger: indexFetcher{s, wrong},
			Reach: func(t testing.TB, way sourcetest.Way) source.Fetcher {
				return indexFetcher{openStore(t, limits()[way.Limit]), by(t, right, way)}
			},
			Address: hostOf(t, server), Secrets: []string{"s3cret-word", "wr0ng-word"},
			Limits: []string{"bytes of an index"},
			Put: func(t testing.TB, files map[string]string) {
				gone.Store(false)
				server.Index(indexFor(t, files))
			},
			Gone:   func(testing.TB) { gone.Store(true) },
			Around: around,
		}
	})
}
