package telemetry

import (
	"regexp"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

func TestMetrics(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	m, err := NewMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	m.Reconciled("Kustomization", "apps", "web", 20*time.Millisecond)
	m.Reconciled("Kustomization", "apps", "gone", time.Second)
	m.Forget("Kustomization", "apps", "gone")
	m.Stage("Kustomization", "apply", time.Millisecond)
	m.Live("Kustomization", 100*time.Millisecond)
	m.Fetched("GitRepository", "unchanged")
	m.Built("reused")
	m.Changed("configured", 3)
	m.Repaired("Kustomization", 2)
	m.Dropped("events")

	got := map[string]float64{}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	unit := regexp.MustCompile(`_(seconds|total)$`)
	for _, family := range families {
		if !unit.MatchString(family.GetName()) {
			t.Errorf("%s has no unit in its name", family.GetName())
		}
		for _, metric := range family.GetMetric() {
			name := family.GetName()
			for _, label := range metric.GetLabel() {
				name += " " + label.GetName() + "=" + label.GetValue()
			}
			if h := metric.GetHistogram(); h != nil {
				got[name] = h.GetSampleSum()
			} else {
				got[name] = metric.GetCounter().GetValue()
			}
		}
	}
	want := map[string]float64{
		"gotk_reconcile_duration_seconds kind=Kustomization name=web namespace=apps": 0.02,
		"plumb_builds_total outcome=reused":                                          1,
		"plumb_commit_live_seconds kind=Kustomization":                               0.1,
		"plumb_dropped_total queue=events":                                           1,
		"plumb_fetches_total kind=GitRepository outcome=unchanged":                   1,
		"plumb_object_changes_total action=configured":                               3,
		"plumb_repairs_total kind=Kustomization":                                     2,
		"plumb_stage_duration_seconds kind=Kustomization stage=apply":                0.001,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metrics differ (-want +got):\n%s", diff)
	}

	if _, err := NewMetrics(registry); err == nil {
		t.Error("the same metrics are registered twice")
	}
}

func TestReconcileBucketsAreFlux(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	m, err := NewMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	m.Reconciled("k", "n", "x", 0)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	buckets := families[0].GetMetric()[0].GetHistogram().GetBucket()
	if len(buckets) != 10 || buckets[0].GetUpperBound() != 0.01 || buckets[9].GetUpperBound() < 1799.9 {
		t.Errorf("buckets are %v, want ten from 0.01 s to 1800 s", buckets)
	}
}
