package telemetry

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the operator's own, beside those of controller-runtime. All
// methods may be called from any goroutine.
type Metrics struct {
	reconcile *prometheus.HistogramVec
	stage     *prometheus.HistogramVec
	live      *prometheus.HistogramVec
	fetches   *prometheus.CounterVec
	builds    *prometheus.CounterVec
	changes   *prometheus.CounterVec
	repairs   *prometheus.CounterVec
	drops     *prometheus.CounterVec
}

// NewMetrics makes the metrics and registers them: with the registry of
// controller-runtime in the operator, with one of its own in a test. It fails
// where they are registered already.
func NewMetrics(registry prometheus.Registerer) (*Metrics, error) {
	owner := []string{"kind", "name", "namespace"}
	m := &Metrics{
		// The name, labels and buckets are Flux's: dashboards read them.
		reconcile: histogram("gotk_reconcile_duration_seconds", "How long a reconciliation of an object took.",
			prometheus.ExponentialBucketsRange(10e-3, 1800, 10), owner...),
		stage: histogram("plumb_stage_duration_seconds", "How long a stage of a run took: fetch, build, plan, apply, prune, health, report.",
			prometheus.ExponentialBucketsRange(0.5e-3, 120, 12), "kind", "stage"),
		live: histogram("plumb_commit_live_seconds", "Time from noticing a revision to its objects being applied.",
			prometheus.ExponentialBucketsRange(10e-3, 600, 12), "kind"),
		fetches: counter("plumb_fetches_total", "Looks at a source, by outcome: changed, unchanged, failed.", "kind", "outcome"),
		builds:  counter("plumb_builds_total", "Builds asked for, by outcome: done, reused, failed.", "outcome"),
		changes: counter("plumb_object_changes_total", "Objects of applied plans, by what was done: created, configured, unchanged, deleted, skipped, recreated.", "action"),
		repairs: counter("plumb_repairs_total", "Changes of others that were undone, by kind of owner.", "kind"),
		drops:   counter("plumb_dropped_total", "Items that a full queue turned away.", "queue"),
	}
	for _, c := range []prometheus.Collector{m.reconcile, m.stage, m.live, m.fetches, m.builds, m.changes, m.repairs, m.drops} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

func histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
}

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

// Reconciled counts a reconciliation of an object and how long it took.
func (m *Metrics) Reconciled(kind, namespace, name string, took time.Duration) {
	m.reconcile.WithLabelValues(kind, name, namespace).Observe(took.Seconds())
}

// Forget drops the series of a deleted object.
func (m *Metrics) Forget(kind, namespace, name string) {
	m.reconcile.DeleteLabelValues(kind, name, namespace)
}

// Stage counts a stage of a run for an owner of the kind and how long it took.
func (m *Metrics) Stage(kind, stage string, took time.Duration) {
	m.stage.WithLabelValues(kind, stage).Observe(took.Seconds())
}

// Live counts a revision that has been applied, and the time since it was noticed.
func (m *Metrics) Live(kind string, after time.Duration) {
	m.live.WithLabelValues(kind).Observe(after.Seconds())
}

// Fetched counts a look at a source: changed, unchanged or failed.
func (m *Metrics) Fetched(kind, outcome string) { m.fetches.WithLabelValues(kind, outcome).Inc() }

// Built counts a build that was asked for: done, reused or failed.
func (m *Metrics) Built(outcome string) { m.builds.WithLabelValues(outcome).Inc() }

// Changed counts objects by what was done with them, in the words of gitops.Action.
func (m *Metrics) Changed(action string, objects int) {
	m.changes.WithLabelValues(action).Add(float64(objects))
}

// Repaired counts changes of others that were undone for an owner of the kind.
func (m *Metrics) Repaired(kind string, objects int) {
	m.repairs.WithLabelValues(kind).Add(float64(objects))
}

// Dropped counts an item that a full queue turned away. The names of queues are
// constants of the code.
func (m *Metrics) Dropped(queue string) { m.drops.WithLabelValues(queue).Inc() }
