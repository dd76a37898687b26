package apply_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/plumb-gitops/plumb/internal/apply"
	"github.com/plumb-gitops/plumb/internal/cluster"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/plan"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// BenchmarkCreate creates objects of one kind: by a bare loop of applies, and by
// runs of a plan, which validate all of them first.
func BenchmarkCreate(b *testing.B) {
	const objects = 200
	env := testenv.Get(b)
	connection, err := cluster.Connect(env.REST, cluster.Options{Version: "bench", Part: "apply"})
	if err != nil {
		b.Fatal(err)
	}
	client := connection.Own()
	res, err := client.Resource(b.Context(), gitops.GroupKind{Kind: "ConfigMap"}, "v1")
	if err != nil {
		b.Fatal(err)
	}
	create := func(namespace string) []gitops.Manifest {
		var out []gitops.Manifest
		for i := range objects {
			name := fmt.Sprintf("c%03d", i)
			out = append(out, gitops.Manifest{
				Ref: gitops.ObjectRef{Kind: "ConfigMap", Namespace: namespace, Name: name}, Version: "v1",
				JSON: fmt.Appendf(nil, `{"apiVersion":"v1","data":{"a":%q},"kind":"ConfigMap","metadata":{"name":%q,"namespace":%q}}`, strings.Repeat("x", 500), name, namespace),
			})
		}
		return out
	}
	b.Run("bare loop", func(b *testing.B) {
		for b.Loop() {
			for _, m := range create(env.Namespace(b)) {
				if _, _, err := client.Apply(b.Context(), res, m.Ref.Namespace, m.Ref.Name, m.JSON, cluster.ApplyOptions{FieldManager: "bench"}); err != nil {
					b.Fatal(err)
				}
			}
		}
		b.ReportMetric(float64(objects*b.N)/b.Elapsed().Seconds(), "objects/s")
	})
	for _, parallel := range []int{1, 4, 16} {
		b.Run(fmt.Sprintf("plan with %d at a time", parallel), func(b *testing.B) {
			applier := &apply.Applier{Cluster: client, Keys: keys(), Parallel: parallel}
			for b.Loop() {
				p, err := plan.Compute(plan.Input{
					Manifests: create(env.Namespace(b)),
					Live:      func(gitops.ObjectRef) (gitops.Live, bool) { return gitops.Live{}, true },
				})
				if err != nil {
					b.Fatal(err)
				}
				if done, err := applier.Run(context.Background(), apply.Request{Plan: p}); err != nil || len(done) != objects {
					b.Fatalf("%d done, %v", len(done), err)
				}
			}
			b.ReportMetric(float64(objects*b.N)/b.Elapsed().Seconds(), "objects/s")
		})
	}
}
