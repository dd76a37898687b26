package bucket_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/plumb-gitops/plumb/internal/source/bucket"
)

// BenchmarkTenThousandObjects shows what a bucket of 10,000 objects of 1 kB costs: the
// first fetch, a poll that finds nothing new, and one object that has changed.
func BenchmarkTenThousandObjects(b *testing.B) {
	w := s3World(b)
	files := map[string]string{}
	for i := range 10_000 {
		files[fmt.Sprintf("apps/team-%d/app-%d/deployment.yaml", i%100, i)] = strings.Repeat(fmt.Sprintf("line %d\n", i), 110)
	}
	w.server.Fill(name, files)
	for step, change := range map[string]func(i int){
		"unchanged": func(int) {},
		"one changed": func(i int) {
			w.server.Put(name, "apps/team-7/app-7/deployment.yaml", fmt.Sprint("changed ", i))
		},
	} {
		b.Run(step, func(b *testing.B) {
			s := openStore(b, bucket.Options{})
			known := fetch(b, s, w.request, "").Revision
			w.server.Requests("list")
			w.server.Requests("get")
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				n++
				change(n)
				result, err := s.Fetch(b.Context(), w.request, known)
				must(b, err)
				known = result.Revision
				result.Release()
			}
			b.ReportMetric(float64(w.server.Requests("list"))/float64(n), "pages/op")
			b.ReportMetric(float64(w.server.Requests("get"))/float64(n), "objects/op")
		})
	}
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			s := openAt(b, b.TempDir(), bucket.Options{})
			result, err := s.Fetch(b.Context(), w.request, "")
			must(b, err)
			runtime.GC()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			result.Release()
			must(b, s.Close())
			s, result.Files = nil, nil
			runtime.GC()
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(int64(before.HeapAlloc)-int64(after.HeapAlloc))/(1<<20), "kept-MB")
		}
	})
}
