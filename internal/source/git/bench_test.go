package git_test

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/source"
	"github.com/plumb-gitops/plumb/internal/source/git"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// apps are the files of a number of applications, four each.
func apps(n int) testenv.Files {
	files := testenv.Files{}
	for i := range n {
		for _, kind := range []string{"deployment", "service", "ingress", "kustomization"} {
			files[fmt.Sprintf("apps/app-%d/%s.yaml", i, kind)] = fmt.Sprintf(
				"apiVersion: v1\nkind: %s\nmetadata:\n  name: app-%d\n  namespace: apps\n  labels:\n    app.kubernetes.io/name: app-%d\nspec:\n  selector:\n    app: app-%d\n  port: %d\n", kind, i, i, i, 1000+i)
		}
	}
	return files
}

func median(d []time.Duration) time.Duration {
	d = slices.Clone(d)
	slices.Sort(d)
	return d[len(d)/2]
}

func thousandApps(b *testing.B) (*testenv.GitServer, *testenv.GitRepository, *git.Store, git.Request) {
	b.Helper()
	server := testenv.NewGitServer(b, testenv.GitServerOptions{})
	repo := server.Repository(b, "app")
	repo.Commit(b, "main", apps(1000))
	repo.Pack(b)
	return server, repo, openStore(b, git.Options{}), git.Request{URL: server.URL("app"), Ref: git.Ref{Branch: "main"}}
}

func BenchmarkFirstFetch(b *testing.B) {
	_, _, _, request := thousandApps(b)
	for b.Loop() {
		s := openStore(b, git.Options{})
		fetch(b, s, request)
	}
}

func BenchmarkUnchangedPoll(b *testing.B) {
	_, _, s, request := thousandApps(b)
	request.Known = fetch(b, s, request).Revision
	for b.Loop() {
		result, err := s.Fetch(b.Context(), request)
		if err != nil || !result.Unchanged {
			b.Fatal(err, result.Unchanged)
		}
		result.Release()
	}
}

func BenchmarkOneCommitFetch(b *testing.B) {
	_, repo, s, request := thousandApps(b)
	request.Known = fetch(b, s, request).Revision
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		repo.Commit(b, "main", testenv.Files{fmt.Sprintf("apps/app-%d/service.yaml", i%1000): fmt.Sprint(i)})
		b.StartTimer()
		began := time.Now()
		result, err := s.Fetch(b.Context(), request)
		if err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(began))
		request.Known = result.Revision
		result.Release()
	}
	b.ReportMetric(float64(median(took).Microseconds())/1000, "ms-p50")
	b.ReportMetric(float64(slices.Max(took).Microseconds())/1000, "ms-max")
}

func BenchmarkRead(b *testing.B) {
	_, _, s, request := thousandApps(b)
	result := fetch(b, s, request)
	files := result.Files
	var next atomic.Int64
	read := func() {
		dir := fmt.Sprintf("apps/app-%d", next.Add(1)%1000)
		entries, err := files.ReadDir(dir)
		if err != nil || len(entries) != 4 {
			b.Fatal(err)
		}
		for _, e := range entries {
			if _, err := files.ReadFile(dir + "/" + e.Name()); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("one reader", func(b *testing.B) {
		for b.Loop() {
			read()
		}
		b.ReportMetric(float64(4*b.N)/b.Elapsed().Seconds(), "files/s")
	})
	b.Run("many readers", func(b *testing.B) {
		b.SetParallelism(16)
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				read()
			}
		})
		b.ReportMetric(float64(4*b.N)/b.Elapsed().Seconds(), "files/s")
	})
}

func BenchmarkFilter(b *testing.B) {
	_, _, s, request := thousandApps(b)
	result := fetch(b, s, request)
	for b.Loop() {
		filtered, err := source.Filter(result.Files, "")
		if err != nil {
			b.Fatal(err)
		}
		if _, err := filtered.Sum("apps/app-7"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMemory(b *testing.B) {
	_, _, s, request := thousandApps(b)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	result := fetch(b, s, request)
	var wait sync.WaitGroup
	for i := range 1000 {
		wait.Go(func() {
			for _, kind := range []string{"deployment", "service", "ingress", "kustomization"} {
				if _, err := result.Files.ReadFile(fmt.Sprintf("apps/app-%d/%s.yaml", i, kind)); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wait.Wait()
	runtime.GC()
	runtime.ReadMemStats(&after)
	for b.Loop() {
		runtime.KeepAlive(s)
	}
	b.ReportMetric(float64(int64(after.HeapAlloc)-int64(before.HeapAlloc))/(1<<20), "MiB-kept")
}
