package operator_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/apis/meta"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/plumb-gitops/plumb/internal/testenv"
)

// phases is a rule over the field status.phase, in which the hand of a test puts
// what a controller would.
func phases(current string) kustomize.HealthCheckExpressions {
	return kustomize.HealthCheckExpressions{
		InProgress: "status.phase == 'Making'",
		Failed:     "status.phase == 'Broken'",
		Current:    fmt.Sprintf("status.phase == '%s'", current),
	}
}

// judgedBy sets the rule for the test's own group, for its widgets or for all of it.
func (w *world) judgedBy(kind string, e kustomize.HealthCheckExpressions) func(*kustomizev1.Kustomization) {
	return func(k *kustomizev1.Kustomization) {
		k.Spec.HealthCheckExprs = []kustomize.CustomHealthCheck{{APIVersion: w.namespace + ".example.com/v7", Kind: kind, HealthCheckExpressions: e}}
	}
}

func waits(k *kustomizev1.Kustomization) { k.Spec.Wait = true }

// widgets commits the definition of the widgets and widgets of some names, each in
// a folder of its name, and has the definition installed.
func (w *world) widgets(names ...string) (revision string) {
	w.t.Helper()
	files := testenv.Files{"kind/crd.yaml": definition}
	for _, name := range names {
		files[name+"/widget.yaml"] = strings.Replace(widget, "name: widget", "name: "+name, 1)
	}
	revision = w.push(w.filled(files))
	w.source()
	w.kustomization("kind", func(k *kustomizev1.Kustomization) { k.Spec.TargetNamespace, k.Spec.Wait = "", true })
	w.ready("kind", revision)
	return revision
}

func (w *world) widgetOf(name string) *unstructured.Unstructured {
	obj := w.namedWidget()
	obj.SetName(name)
	return obj
}

// phase puts something into a widget's status, once the widget exists.
func (w *world) phase(name, phase string) {
	w.t.Helper()
	w.status(name, fmt.Sprintf(`"phase":%q`, phase))
}

func (w *world) status(name, fields string) {
	w.t.Helper()
	obj := waitFor(w, w.widgetOf(name), "made", func(*unstructured.Unstructured) bool { return true })
	w.check(w.client.Status().Patch(w.context(), w.widgetOf(name),
		rawMerge(fmt.Sprintf(`{"status":{"observedGeneration":%d,%s}}`, obj.GetGeneration(), fields))))
}

// underWay waits until a Kustomization says that it waits.
func (w *world) underWay(name string) {
	w.t.Helper()
	waitFor(w, w.named(name), "under way", func(k *kustomizev1.Kustomization) bool {
		return conditionOf(k.Status.Conditions, "Ready").Status == "Unknown" && conditionOf(k.Status.Conditions, "Healthy").Status == "Unknown"
	})
}

// healthy waits until a Kustomization is Ready and Healthy at a revision.
func (w *world) healthy(name, revision string) {
	w.t.Helper()
	k := w.ready(name, revision)
	if h := conditionOf(k.Status.Conditions, "Healthy"); h.Status != "True" {
		w.t.Errorf("%s is Ready, but its condition Healthy is %+v", name, h)
	}
}

// TestHealthExpression lets a custom resource be in progress, failed and current by
// the expressions of its Kustomization.
func TestHealthExpression(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.widgets("app")
	w.kustomization("app", waits, w.judgedBy("Widget", phases("Done")))
	w.phase("app", "Making")
	w.underWay("app")
	w.phase("app", "Broken")
	w.notReady("app", "HealthCheckFailed", `failed early|Widget/`+w.namespace+`/app status: 'Failed'|health expression "failed" is true`)
	// What none of the expressions knows is in progress.
	w.phase("app", "Whatever")
	w.phase("app", "Done")
	w.healthy("app", first)

	// The same expressions judge objects that are named, whatever their labels.
	w.kustomization("kind2", func(k *kustomizev1.Kustomization) {
		k.Spec.Path, k.Spec.TargetNamespace = "./kind", ""
		k.Spec.HealthChecks = []meta.NamespacedObjectKindReference{{APIVersion: w.namespace + ".example.com/v1", Kind: "Widget", Namespace: w.namespace, Name: "app"}}
	}, w.judgedBy("", phases("Other")))
	w.underWay("kind2")
	w.phase("app", "Other")
	w.healthy("kind2", first)
	w.changeRule("kind2", "status.phase == 'Never'")
	w.underWay("kind2")
	w.changeRule("kind2", "status.phase == 'Other'")
	w.healthy("kind2", first)
}

// changeRule sets the rule for widgets.
func (w *world) changeRule(name, current string) {
	w.t.Helper()
	w.patch(w.named(name), fmt.Sprintf(`{"spec":{"healthCheckExprs":[{"apiVersion":"%s.example.com/v1","kind":"Widget","current":%q}]}}`, w.namespace, current))
}

// TestHealthExpressionsOfTwo has two Kustomizations judge objects of one kind, one
// of them by a rule for the whole group.
func TestHealthExpressionsOfTwo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.widgets("one", "two")
	w.kustomization("one", waits, w.judgedBy("Widget", phases("Done")))
	w.kustomization("two", waits, w.judgedBy("", phases("Ended")))
	w.phase("one", "Done")
	w.phase("two", "Done")
	w.healthy("one", first)
	w.underWay("two")
	w.phase("two", "Ended")
	w.healthy("two", first)
	w.phase("one", "Broken")
	second := w.push(w.filled(testenv.Files{"one/more.yaml": configMap("more", "1")}))
	w.notReady("one", "HealthCheckFailed", "Widget/"+w.namespace+"/one status: 'Failed'")
	w.healthy("two", second)
}

// TestHealthExpressionChanges changes an expression while it is waited for: nothing
// happens to the object, and the new expression is asked at once.
func TestHealthExpressionChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.widgets("app")
	w.kustomization("app", waits, w.judgedBy("Widget", phases("Never")))
	w.phase("app", "Done")
	w.underWay("app")
	began := time.Now()
	w.changeRule("app", "status.phase == 'Done'")
	w.healthy("app", first)
	if took := time.Since(began); took > atOnce {
		t.Errorf("the new expression was asked after %v", took)
	}
	// What is Ready by one expression is not so by the next one before that was asked.
	w.changeRule("app", "status.phase == 'Never'")
	w.underWay("app")
	w.patch(w.named("app"), `{"spec":{"healthCheckExprs":null}}`)
	w.healthy("app", first)
}

// TestHealthExpressionIsWrong stalls on expressions that can never be right. What was
// applied before is kept in order, and nothing new is applied.
func TestHealthExpressionIsWrong(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.push(testenv.Files{"app/a.yaml": configMap("a", "1"), "fresh/b.yaml": configMap("b", "1")})
	w.source()
	w.kustomization("app", waits)
	w.ready("app", first)
	wrong := func(current string) string {
		return fmt.Sprintf(`{"spec":{"healthCheckExprs":[{"apiVersion":"v1","kind":"Secret","current":"true"},{"apiVersion":"v1","kind":"ConfigMap","current":%q}]}}`, current)
	}
	for expression, says := range map[string]string{
		"data.key ==":         `spec.healthCheckExprs[1].current|"data.key =="|does not compile: line 1, column 12`,
		"isFine(data.key)":    `spec.healthCheckExprs[1].current|"isFine(data.key)"|there is no function isFine`,
		"size(data)":          `spec.healthCheckExprs[1].current|"size(data)"|gives no boolean`,
		"":                    "spec.healthCheckExprs[1].current|is missing",
		"data.key.matches(')": `spec.healthCheckExprs[1].current|does not compile`,
	} {
		w.patch(w.named("app"), wrong(expression))
		k := w.notReady("app", "InvalidCELExpression", says)
		if stalled := conditionOf(k.Status.Conditions, "Stalled"); stalled.Status != "True" || stalled.Reason != "InvalidCELExpression" ||
			k.Status.ObservedGeneration != k.Generation {
			t.Errorf("%q: %+v", expression, k.Status)
		}
	}
	w.kustomization("fresh", func(k *kustomizev1.Kustomization) {
		k.Spec.HealthCheckExprs = []kustomize.CustomHealthCheck{
			{APIVersion: "v1", Kind: "ConfigMap", HealthCheckExpressions: kustomize.HealthCheckExpressions{Current: "true"}},
			{APIVersion: "v1", Kind: "ConfigMap", HealthCheckExpressions: kustomize.HealthCheckExpressions{Current: "true"}},
		}
	})
	w.notReady("fresh", "InvalidCELExpression", "spec.healthCheckExprs[1]|have an entry before it")
	second := w.push(testenv.Files{"app/a.yaml": configMap("a", "2"), "fresh/b.yaml": configMap("b", "2")})
	w.sourceReady(second)
	w.patch(w.namedConfig("a"), `{"data":{"key":"drift"}}`)
	w.data("a", "1")
	if writes := w.writes("configmaps", w.namespace, "b"); len(writes) > 0 {
		t.Errorf("something was applied: %v", writes)
	}
	w.patch(w.named("app"), wrong("data.key == '2'"))
	w.healthy("app", second)
}

// TestHealthExpressionExplodes has an expression that would compute for hours, and a
// neighbour that judges objects of the same kind.
func TestHealthExpressionExplodes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.widgets("app", "other")
	const endless = "status.list.all(a, status.list.all(b, status.list.all(c, status.list.all(d, a + b + c + d > 0))))"
	w.kustomization("app", waits, w.judgedBy("Widget", kustomize.HealthCheckExpressions{Current: endless}))
	w.kustomization("other", waits, w.judgedBy("Widget", phases("Done")))
	w.status("app", `"list":[`+strings.Repeat("1,", 2000)+`1]`)
	w.notReady("app", "HealthCheckFailed", `failed early|Widget/`+w.namespace+`/app status: 'Failed'|health expression "current" needs more work`)
	began := time.Now()
	w.phase("other", "Done")
	w.healthy("other", first)
	if took := time.Since(began); took > atOnce {
		t.Errorf("the neighbour took %v", took)
	}
	w.status("app", `"list":[1,2,3]`)
	w.healthy("app", first)
}

// TestHealthNeverComes waits for something that never comes: that ends with the
// timeout, and holds nobody up.
func TestHealthNeverComes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.push(testenv.Files{"app/a.yaml": configMap("a", "1"), "other/b.yaml": configMap("b", "1")})
	w.source()
	for i := range 10 {
		// More than there are workers.
		w.kustomization(fmt.Sprint("app", i), func(k *kustomizev1.Kustomization) {
			k.Spec.Path, k.Spec.Timeout = "./app", &metav1.Duration{Duration: time.Second}
			k.Spec.NamePrefix = fmt.Sprint("a", i, "-")
			k.Spec.HealthChecks = []meta.NamespacedObjectKindReference{
				{APIVersion: "v1", Kind: "ConfigMap", Namespace: w.namespace, Name: "never"},
				{APIVersion: "nowhere.example.com/v1", Kind: "Nothing", Namespace: w.namespace, Name: "never"},
			}
		})
	}
	for i := range 10 {
		w.data(fmt.Sprint("a", i, "-a"), "1")
	}
	w.underWay("app9")
	began := time.Now()
	w.kustomization("other")
	w.ready("other", first)
	if took := time.Since(began); took > atOnce {
		t.Errorf("the other one took %v", took)
	}
	words := "timeout waiting for|ConfigMap/" + w.namespace + "/never status: 'NotFound'|Nothing/" + w.namespace + "/never status: 'Unknown'|nowhere.example.com"
	for i := range 10 {
		k := w.notReady(fmt.Sprint("app", i), "HealthCheckFailed", words)
		if h := conditionOf(k.Status.Conditions, "Healthy"); h.Status != "False" || h.Reason != "HealthCheckFailed" {
			t.Errorf("Healthy is %+v", h)
		}
	}
	w.ready("other", first)
}

// TestHealthOfAnything waits for objects outside of the inventory: of Flux's own
// kinds, without namespace, and named in a version that is not served any more.
func TestHealthOfAnything(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.widgets("app")
	w.push(testenv.Files{"watcher/a.yaml": configMap("a", "1")})
	w.kustomization("watcher", func(k *kustomizev1.Kustomization) {
		k.Spec.HealthChecks = []meta.NamespacedObjectKindReference{
			{APIVersion: "source.toolkit.fluxcd.io/v1alpha9", Kind: "GitRepository", Name: "repo"},
			{APIVersion: "kustomize.toolkit.fluxcd.io/v1", Kind: "Kustomization", Name: "app", Namespace: w.namespace},
			{APIVersion: "kustomize.toolkit.fluxcd.io/v1", Kind: "Kustomization", Name: "watcher", Namespace: w.namespace},
			{APIVersion: "apiextensions.k8s.io/v1", Kind: "CustomResourceDefinition", Name: "widgets." + w.namespace + ".example.com"},
			{APIVersion: "v1", Kind: "Namespace", Name: w.namespace},
		}
	})
	w.underWay("watcher")
	w.kustomization("app", waits)
	w.underWay("app")
	w.status("app", `"conditions":[{"type":"Ready","status":"True"}]`)
	k := waitFor(w, w.named("watcher"), "Ready", func(k *kustomizev1.Kustomization) bool {
		return conditionOf(k.Status.Conditions, "Ready").Status == "True"
	})
	if h := conditionOf(k.Status.Conditions, "Healthy"); !says(h.Message, "4 objects") {
		t.Errorf("Healthy is %+v, want 4 objects: it does not wait for itself", h)
	}
}

// job is a manifest of a Job that ends at once on simulated nodes.
func job(name string, spec string) string {
	return "apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: " + name + "\nspec:\n" + spec +
		"  template:\n    spec:\n      restartPolicy: Never\n      containers: [{name: c, image: i}]\n"
}

// TestHealthOfJobs waits for Jobs: one that is done, one that its time to live
// removes, and one that is suspended.
func TestHealthOfJobs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.push(testenv.Files{
		"app/stays.yaml":     job("stays", ""),
		"app/goes.yaml":      job("goes", "  ttlSecondsAfterFinished: 0\n"),
		"app/suspended.yaml": job("suspended", "  suspend: true\n"),
	})
	w.source()
	w.kustomization("app", waits)
	named := func(name string) *batchv1.Job {
		return &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}}
	}
	w.healthy("app", first)
	stays := waitFor(w, named("stays"), "complete", func(j *batchv1.Job) bool { return j.Status.Succeeded == 1 })
	w.gone(named("goes"))

	// What is gone because it was done is neither missed nor made again.
	second := w.push(testenv.Files{"app/a.yaml": configMap("a", "1")})
	w.healthy("app", second)
	if writes := w.writes("jobs", w.namespace, "goes"); len(writes) != 1 {
		t.Errorf("the job was written %d times: %v", len(writes), writes)
	}
	w.same(stays)
	// On request it is.
	value := w.request(w.named("app"))
	waitFor(w, w.named("app"), "handled", func(k *kustomizev1.Kustomization) bool { return k.Status.LastHandledReconcileAt == value })
	if writes := w.writes("jobs", w.namespace, "goes"); len(writes) != 2 {
		t.Errorf("the job was written %d times, want once more: %v", len(writes), writes)
	}
	w.healthy("app", second)

	// A Job that fails is no done one, not even when it is gone.
	w.push(testenv.Files{"app/goes.yaml": testenv.Delete, "app/fails.yaml": job("fails",
		"  ttlSecondsAfterFinished: 0\n  activeDeadlineSeconds: 1\n  completions: 1000\n  parallelism: 1\n")})
	w.notReady("app", "HealthCheckFailed", "Job/"+w.namespace+"/fails status: 'Failed'")
	w.gone(named("fails"))
	w.push(testenv.Files{"app/a.yaml": configMap("a", "2")})
	w.notReady("app", "HealthCheckFailed", "Job/"+w.namespace+"/fails status: 'Failed'|removed by its time to live")
	if writes := w.writes("jobs", w.namespace, "fails"); len(writes) != 1 {
		t.Errorf("the job that failed was written %d times: %v", len(writes), writes)
	}
}

const lateDeployment = `apiVersion: apps/v1
kind: Deployment
metadata: {name: slow}
spec:
  progressDeadlineSeconds: 1
  selector: {matchLabels: {app: slow}}
  template:
    metadata: {labels: {app: slow}}
    spec:
      nodeSelector: {no: where}
      containers: [{name: c, image: i}]
`

// TestHealthOfWorkloads waits for a Deployment past its deadline, and for a claim
// that is bound later.
func TestHealthOfWorkloads(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.push(testenv.Files{
		"slow/deployment.yaml": lateDeployment,
		"claim/claim.yaml": fmt.Sprintf("apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: claim}\n"+
			"spec:\n  storageClassName: \"\"\n  volumeName: %s\n  accessModes: [ReadWriteOnce]\n  resources: {requests: {storage: 1Mi}}\n", w.namespace),
	})
	w.source()
	w.kustomization("slow", waits)
	w.kustomization("claim", waits)
	w.notReady("slow", "HealthCheckFailed", "failed early|Deployment/"+w.namespace+"/slow status: 'Failed': Progress deadline exceeded")
	w.underWay("claim")
	w.check(w.client.Create(w.context(), &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: w.namespace},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:               corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Mi")},
			AccessModes:            []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/nowhere"}},
		},
	}))
	w.healthy("claim", first)

	// With room for its pods the deployment is healthy after all.
	second := w.push(testenv.Files{"slow/deployment.yaml": strings.Replace(lateDeployment, "      nodeSelector: {no: where}\n", "", 1)})
	w.healthy("slow", second)
}

// TestHealthFailureIsToldOnce has objects that say something else of their failure
// again and again: neither statuses nor events follow them.
func TestHealthFailureIsToldOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.widgets("app")
	more := strings.Replace(widget, "name: widget", "name: more", 1)
	w.push(w.filled(testenv.Files{"app/more.yaml": more}))
	app := w.kustomization("app", waits)
	stalls := func(name, message string) {
		t.Helper()
		w.status(name, fmt.Sprintf(`"conditions":[{"type":"Stalled","status":"True","reason":"Test","message":%q}]`, message))
	}
	writes := func() int {
		return len(slices.DeleteFunc(w.cluster.Requests(t, userAgent), func(r testenv.Request) bool {
			o := r.ObjectRef
			return r.Verb != "patch" || o.Subresource != "status" || o.Resource != "kustomizations" || o.Namespace != w.namespace || o.Name != app.Name
		}))
	}
	stalls("app", "message 0")
	w.notReady("app", "HealthCheckFailed", "message 0")
	before := writes()
	for i := range 30 {
		stalls("app", fmt.Sprintf("message %d", i+1))
		// Another state in between is none either, while that is so for a moment.
		w.status("app", `"conditions":[{"type":"Ready","status":"False","message":"trying"}]`)
	}
	stalls("app", "message 31")
	// Another object is news, and comes with the newest text of all.
	stalls("more", "the other one")
	k := w.notReady("app", "HealthCheckFailed", "message 31|the other one")
	if n := writes() - before; n > 2 {
		t.Errorf("the status was written %d times, want once or twice", n)
	}
	if events := w.events("Kustomization", "app", "failed early"); len(events) > 3 {
		t.Errorf("%d events tell of the failure: %v", len(events), events)
	}
	if h := conditionOf(k.Status.Conditions, "Healthy"); !says(h.Message, "message 31|the other one") {
		t.Errorf("Healthy is %+v", h)
	}
	// What was asked for is answered with the newest text.
	stalls("app", "message 32")
	value := w.request(w.named("app"))
	waitFor(w, w.named("app"), "handled", func(k *kustomizev1.Kustomization) bool {
		return k.Status.LastHandledReconcileAt == value && says(conditionOf(k.Status.Conditions, "Ready").Message, "message 32")
	})
}

// TestHealthOfWhatIsLeftAlone has the health of objects that are not written any more
// count until they were healthy once after they were made, and not later.
func TestHealthOfWhatIsLeftAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.widgets()
	revision := w.push(w.filled(testenv.Files{
		"app/once.yaml":  strings.Replace(widget, "name: widget", "name: once\n  annotations: {kustomize.toolkit.fluxcd.io/ssa: IfNotPresent}", 1),
		"app/other.yaml": strings.Replace(widget, "name: widget", "name: other", 1),
	}))
	w.kustomization("app", waits, w.judgedBy("Widget", phases("Made")))
	w.phase("other", "Made")
	waitFor(w, w.named("app"), "waiting for the object that was made", func(k *kustomizev1.Kustomization) bool {
		return conditionOf(k.Status.Conditions, "Ready").Status == metav1.ConditionUnknown && k.Status.Inventory != nil
	})
	w.phase("once", "Made")
	w.ready("app", revision)

	// It fails later, and does not count; another one does.
	w.phase("once", "Broken")
	next := w.push(w.filled(testenv.Files{"app/more.yaml": configMap("more", "1")}))
	w.ready("app", next)
	w.phase("other", "Broken")
	w.push(w.filled(testenv.Files{"app/more.yaml": configMap("more", "2")}))
	w.notReady("app", "HealthCheckFailed", w.namespace+"/other")
}
