package helmrepo

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"helm.sh/helm/v4/pkg/chart/loader/archive"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

func emptyStore(t *testing.T) *Store {
	t.Helper()
	cache, err := artifact.OpenCache(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.TempDir(), cache, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// TestKeysAreReadBesideOthers: while the keys of one request are read, which may take
// long, others are served.
func TestKeysAreReadBesideOthers(t *testing.T) {
	t.Parallel()
	s := emptyStore(t)
	dial := s.dial
	sourcetest.CheckBeside(t, func(wait func()) {
		s.dial = func(r Repository) (*remote, error) {
			if r.URL == "https://slow" {
				wait()
			}
			return dial(r)
		}
	}, func(slow bool) error {
		_, err := s.remote(t.Context(), Repository{URL: map[bool]string{true: "https://slow", false: "https://quick"}[slow]})
		return err
	})
}

// awaitStanding waits until the deadline of a context moves, as it does while its clock stands.
func awaitStanding(ctx context.Context, t *testing.T) {
	t.Helper()
	first, _ := ctx.Deadline()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for {
		if now, _ := ctx.Deadline(); now.After(first) {
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatal("it uses up its time")
		}
	}
}

// counting counts what is read of a tree.
type counting struct {
	gitops.Tree
	reads *atomic.Int64
}

// ReadFile reads a file.
func (c counting) ReadFile(name string) ([]byte, error) {
	c.reads.Add(1)
	return c.Tree.ReadFile(name)
}

// TestTurns: what takes much memory waits until what is under way has ended, at the cost of
// nobody's timeout. While it waits it has read nothing, and it can be given up.
func TestTurns(t *testing.T) {
	t.Parallel()
	server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
	for _, name := range []string{"app", "lib"} {
		server.Put(t, name, "1.0.0", testenv.HelmChart(t, name, "1.0.0", nil))
	}
	long := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
	long.Index([]byte("apiVersion: v1\nentries: {}\n#" + strings.Repeat(strings.Repeat("#", 1000)+"\n#", 300)))
	repository := func(user string) Repository {
		return Repository{URL: server.URL(), Auth: Auth{Username: user}}
	}
	chart := func(ctx context.Context, s *Store, namespace string, values ...string) error {
		c, err := s.Chart(ctx, ChartRequest{Repository: repository(namespace), Name: "app", ValuesFiles: values}, "")
		if err == nil {
			c.Release()
		}
		return err
	}
	for name, test := range map[string]struct {
		turns func(s *Store) *source.Turns
		do    func(ctx context.Context, s *Store, namespace string, reads *atomic.Int64) error
	}{
		"a chart of a source": {
			func(s *Store) *source.Turns { return &s.packing },
			func(ctx context.Context, s *Store, namespace string, reads *atomic.Int64) error {
				tree := counting{memoryTree(map[string]string{"c/Chart.yaml": "apiVersion: v2\nname: a\nversion: 1.0.0\n", "c/values.yaml": "a: 1\n"}), reads}
				c, err := s.Package(ctx, tree, PackageRequest{Source: namespace, Path: "c"}, "")
				if err == nil {
					c.Release()
				}
				return err
			},
		},
		"a chart of a repository with other values": {
			func(s *Store) *source.Turns { return &s.packing },
			func(ctx context.Context, s *Store, namespace string, _ *atomic.Int64) error {
				return chart(ctx, s, namespace, "values.yaml", "values.yaml")
			},
		},
		"a small index": {
			func(s *Store) *source.Turns { return &s.smallIndexes },
			func(ctx context.Context, s *Store, namespace string, _ *atomic.Int64) error {
				return chart(ctx, s, namespace)
			},
		},
		"a long index": {
			func(s *Store) *source.Turns { return &s.indexes },
			func(ctx context.Context, s *Store, namespace string, _ *atomic.Int64) error {
				index, err := s.Index(ctx, Repository{URL: long.URL(), Auth: Auth{Username: namespace}}, "")
				if err == nil {
					index.Release()
				}
				return err
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := emptyStore(t)
			turns := test.turns(s)
			turns.Places = 1
			leave, err := turns.Take(t.Context(), &source.Line{})
			if err != nil {
				t.Fatal(err)
			}
			var reads atomic.Int64
			begin := func(namespace string) (cancel func(), ends chan error) {
				ctx, cancel := source.WithTimeout((*artifact.Rooms)(nil).In(t.Context(), namespace), time.Minute)
				t.Cleanup(cancel)
				ends = make(chan error, 1)
				go func() { ends <- test.do(ctx, s, namespace, &reads) }()
				awaitStanding(ctx, t)
				return cancel, ends
			}
			_, first := begin("one")
			cancel, gone := begin("gone")
			_, other := begin("other")
			cancel()
			if err := <-gone; err == nil || !strings.Contains(err.Error(), "canceled") {
				t.Errorf("one that is given up: %v", err)
			}
			if reads.Load() > 0 {
				t.Errorf("%d files are read by those who wait", reads.Load())
			}
			leave()
			for _, ends := range []chan error{first, other} {
				if err := <-ends; err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestWaitsForTurnsAtNobodysCost: who waits for one that waits for its turn loses no time either.
func TestWaitsForTurnsAtNobodysCost(t *testing.T) {
	t.Parallel()
	server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
	server.Put(t, "app", "1.0.0", testenv.HelmChart(t, "app", "1.0.0", nil))
	for name, turns := range map[string]func(s *Store) *source.Turns{
		"an index": func(s *Store) *source.Turns { return &s.smallIndexes },
		"a chart":  func(s *Store) *source.Turns { return &s.packing },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := emptyStore(t)
			turns := turns(s)
			turns.Places = 1
			leave, err := turns.Take(t.Context(), &source.Line{})
			if err != nil {
				t.Fatal(err)
			}
			var all sync.WaitGroup
			for range 2 {
				ctx, cancel := source.WithTimeout(t.Context(), time.Minute)
				t.Cleanup(cancel)
				all.Go(func() {
					c, err := s.Chart(ctx, ChartRequest{Repository: Repository{URL: server.URL()}, Name: "app", ValuesFiles: []string{"values.yaml", "values.yaml"}}, "")
					if err != nil {
						t.Error(err)
						return
					}
					c.Release()
				})
				awaitStanding(ctx, t)
			}
			leave()
			all.Wait()
		})
	}
}

// TestLargeChartsAreDecoded: three of the largest values files together, of 5,000 lines each.
func TestLargeChartsAreDecoded(t *testing.T) {
	t.Parallel()
	var values strings.Builder
	for i := range 500 {
		fmt.Fprintf(&values, "## This is, in short: what the component does - or not\n## ref: https://example.com/x?a=b\n##\nkey%d:\n  enabled: true\n  list: [one, two]\n  labels: {}\n  ports:\n  - name: http\n    port: 80\n", i)
	}
	files := []*archive.BufferedFile{{Name: chartFile, Data: []byte("apiVersion: v2\nname: a\nversion: 1.0.0\n")}}
	for _, folder := range []string{"", "charts/b/", "charts/c/"} {
		if folder != "" {
			files = append(files, &archive.BufferedFile{Name: folder + chartFile, Data: []byte("apiVersion: v2\nname: b\nversion: 1.0.0\n")})
		}
		files = append(files, &archive.BufferedFile{Name: folder + valuesFile, Data: []byte(values.String())})
	}
	b := (&Store{options: Options{}.withDefaults()}).budget(t.Context())
	if _, err := loadFiles(b, files); err != nil || b.yaml.nodes < mostNodes*6/10 {
		t.Errorf("%d nodes are left: %v", b.yaml.nodes, err)
	}
}
