package observe

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

func TestChangesAreToldWithinMilliseconds(t *testing.T) {
	f := newFixture(t, nil)
	live := f.apply(config)
	f.sync(f.need(live, false))
	var delays []time.Duration
	for i := range 40 {
		began := time.Now()
		f.patch(live, types.MergePatchType, fmt.Sprintf(`{"data":{"a":"%d"}}`, i+10), "somebody")
		f.observation()
		delays = append(delays, time.Since(began))
		f.apply(config)
		f.observation()
	}
	slices.Sort(delays)
	median := delays[len(delays)/2]
	t.Logf("from the beginning of a foreign write until it is told: median %v, longest %v", median, delays[len(delays)-1])
	if median > 200*time.Millisecond {
		t.Errorf("median %v, want milliseconds", median)
	}
}

func TestNothingIsAskedWhileNothingChanges(t *testing.T) {
	t.Parallel()
	cluster := testenv.Start(t)
	f := fixtureOf(t, cluster, "plumb-test/idle")
	for _, manifest := range []string{config, deployment} {
		f.apply(manifest)
	}
	needs := []Need{f.need(f.object(config), true), f.need(f.object(deployment), true)}
	f.sync(needs...)
	before := len(cluster.Requests(t, "plumb-test/idle"))
	if before != len(needs) {
		t.Errorf("%d requests to begin with, want one watch a kind", before)
	}
	// Idleness can only be seen by letting time go by: the audit log has a request
	// as soon as it is made.
	time.Sleep(3 * time.Second)
	f.Need(f.owner, needs, nil)
	f.sync(needs...)
	requests := cluster.Requests(t, "plumb-test/idle")
	for _, r := range requests[before:] {
		t.Errorf("asked %s %s", r.Verb, r.RequestURI)
	}
	for _, r := range requests {
		if r.Verb != "watch" {
			t.Errorf("asked %s %s, want watches only", r.Verb, r.RequestURI)
		}
	}
}

func TestObjectsCostLittleMemory(t *testing.T) {
	f := fixtureOf(t, testenv.Start(t), agent)
	f.fill(0, 1000)
	for _, health := range []bool{false, true} {
		if cost := f.cost(1000, health); cost.bytes > 2048 {
			t.Errorf("health %v: %d bytes an object, want less than 2048", health, cost.bytes)
		}
	}
}

// BenchmarkObjects says what many objects cost, with and without health.
func BenchmarkObjects(b *testing.B) {
	f := fixtureOf(b, testenv.Start(b), agent)
	written := 0
	for _, count := range []int{4000, 10000} {
		f.fill(written, count)
		written = count
		for _, health := range []bool{false, true} {
			b.Run(fmt.Sprintf("count=%d/health=%v", count, health), func(b *testing.B) {
				for b.Loop() {
					cost := f.cost(count, health)
					b.ReportMetric(float64(cost.bytes), "B/object")
					b.ReportMetric(cost.synced.Seconds(), "s/sync")
					b.ReportMetric(float64(cost.peak)/(1<<20), "MiB-before-collection")
				}
			})
		}
	}
}

// cost is what observing many objects takes.
type cost struct {
	// bytes are what stays of an object.
	bytes int64
	// peak is the heap before it is collected.
	peak   uint64
	synced time.Duration
}

func (f *fixture) cost(count int, health bool) cost {
	f.t.Helper()
	o, err := New(Options{Config: rest.CopyConfig(f.cluster.REST), Resources: resources, Keys: testKeys()})
	if err != nil {
		f.t.Fatal(err)
	}
	defer o.Close()
	before := heap()
	need := f.need(f.object(deployment), health)
	began := time.Now()
	o.Need(f.owner, []Need{need}, nil)
	if err := o.WaitSynced(deadline(f.t), []Need{need}, nil); err != nil {
		f.t.Fatal(err)
	}
	c := cost{synced: time.Since(began), peak: heapInUse()}
	c.bytes = (int64(heap()) - int64(before)) / int64(count)
	last := gitops.ObjectRef{Group: "apps", Kind: "Deployment", Namespace: f.namespace, Name: fmt.Sprint("d", count-1)}
	if live, known := o.Live(last); !known || !live.Exists() {
		f.t.Fatalf("the last object is not known: %+v, %v", live, known)
	}
	runtime.KeepAlive(o)
	return c
}

// fill applies deployments of different names, several at a time.
func (f *fixture) fill(from, to int) {
	f.t.Helper()
	manifest := string(f.owned(deployment))
	resource := f.resource(f.object(deployment))
	var workers sync.WaitGroup
	errs := make([]error, 16)
	for worker := range errs {
		workers.Go(func() {
			for i := from + worker; i < to && errs[worker] == nil; i += len(errs) {
				name := fmt.Sprint("d", i)
				object := strings.NewReplacer(`"name":"d"`, `"name":"`+name+`"`, `"app":"d"`, `"app":"`+name+`"`).Replace(manifest)
				_, errs[worker] = resource.Patch(f.t.Context(), name, types.ApplyPatchType, []byte(object), applyOptions())
			}
		})
	}
	workers.Wait()
	for _, err := range errs {
		if err != nil {
			f.t.Fatal(err)
		}
	}
}

func heap() uint64 {
	for range 3 {
		runtime.GC()
	}
	return heapInUse()
}

func heapInUse() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
