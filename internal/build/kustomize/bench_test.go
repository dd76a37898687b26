package kustomize_test

import (
	"context"
	"runtime"
	"testing"

	"github.com/plumb-gitops/plumb/internal/build"
	"github.com/plumb-gitops/plumb/internal/build/kustomize"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

func heapMB() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / 1e6
}

// BenchmarkBuild builds apps of four objects, one after the other. The first
// build of the process, which loads the schema, is not counted.
func BenchmarkBuild(b *testing.B) {
	for name, withKustomization := range map[string]bool{"plain": false, "kustomization": true} {
		b.Run(name, func(b *testing.B) {
			tree, specs := applications(100, withKustomization)
			builder := newBuilder(kustomize.Options{})
			mustBuild(b, builder, tree, specs[0])
			for i := 0; b.Loop(); i++ {
				mustBuild(b, builder, tree, specs[i%len(specs)])
			}
		})
	}
}

func mustBuild(b *testing.B, builder *build.Builder, tree gitops.Tree, spec build.Spec) *gitops.Build {
	result, _, err := builder.Build(context.Background(), snapshotOf(tree), spec, nil)
	if err != nil {
		b.Fatal(err)
	}
	return result
}

// BenchmarkThousand builds 1,000 apps and holds the results; it reports what
// they weigh, and how long it takes to see that all but one are still valid
// after a commit.
func BenchmarkThousand(b *testing.B) {
	for b.Loop() {
		before := heapMB()
		tree, specs := applications(1000, true)
		withTree := heapMB()
		builder := newBuilder(kustomize.Options{})
		mustBuild(b, builder, tree, specs[0])
		withSchema := heapMB()
		builds := make([]*gitops.Build, len(specs))
		for i, spec := range specs {
			builds[i] = mustBuild(b, builder, tree, spec)
		}
		b.ReportMetric(withTree-before, "tree-MB")
		b.ReportMetric(withSchema-withTree, "schema-MB")
		b.ReportMetric(heapMB()-withSchema, "builds-MB")
		runtime.KeepAlive(builds)
		runtime.KeepAlive(tree)
		runtime.KeepAlive(specs)
	}
}

// BenchmarkValid checks the traces of 1,000 apps against a commit that changes
// one file.
func BenchmarkValid(b *testing.B) {
	tree, specs := applications(1000, true)
	builder := newBuilder(kustomize.Options{})
	builds := make([]*gitops.Build, len(specs))
	reads := 0
	for i, spec := range specs {
		builds[i] = mustBuild(b, builder, tree, spec)
		reads += len(builds[i].Trace)
	}
	files := map[string]string{}
	for name, content := range tree.files {
		files[name] = content
	}
	files["apps/app-0500/2.yaml"] += "# changed\n"
	next := newTree(files)
	b.ReportMetric(float64(reads)/float64(len(specs)), "reads/app")
	for b.Loop() {
		valid := 0
		for i := range builds {
			if builder.Current(builds[i].Trace, next, specs[i]) {
				valid++
			}
		}
		if valid != len(builds)-1 {
			b.Fatalf("%d of %d are valid", valid, len(builds))
		}
	}
}
