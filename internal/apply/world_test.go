package apply_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/json"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/plumb-gitops/plumb/internal/apply"
	"github.com/plumb-gitops/plumb/internal/cluster"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/ownership"
	"github.com/plumb-gitops/plumb/internal/plan"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }

// keys are names that no front end uses.
func keys() gitops.Keys {
	return gitops.Keys{
		OwnerGroup: "owners.example.test", OwnerKind: "Owner",
		OwnerNameLabel: "owners.example.test/name", OwnerNamespaceLabel: "owners.example.test/namespace",
		Apply: "owners.example.test/ssa", Force: "owners.example.test/force",
		Prune: "owners.example.test/prune", Reconcile: "owners.example.test/reconcile",
		Manager:         "owner-controller",
		TakeOver:        []string{"kubectl", "before-first-apply"},
		KeepFields:      []string{"kubectl.kubernetes.io/restartedAt"},
		DropAnnotations: []string{"kubectl.kubernetes.io/last-applied-configuration"},
		DropLabels:      []string{"example.org/mark"},
	}
}

// world is an owner with a real cluster, and what an engine would remember of it.
type world struct {
	t         *testing.T
	env       *testenv.Cluster
	agent     string
	client    *cluster.Client
	applier   *apply.Applier
	owner     gitops.OwnerRef
	namespace string

	inventory gitops.Inventory
	applied   map[gitops.ObjectRef]plan.Applied
	options   plan.Options
	guard     plan.Guard
	ownedBy   func(gitops.OwnerRef, gitops.ObjectRef) bool
	blind     bool // know nothing of live objects
	// writeAhead is called by the apply.
	writeAhead func(context.Context) error
}

func newWorld(t *testing.T) *world {
	t.Helper()
	env := testenv.Get(t)
	return newWorldAt(t, env, env.REST)
}

func newWorldAt(t *testing.T, env *testenv.Cluster, config *rest.Config) *world {
	t.Helper()
	w := &world{
		t: t, env: env,
		agent:     "plumb/" + strings.ReplaceAll(t.Name(), "/", "."),
		namespace: env.Namespace(t),
		applied:   map[gitops.ObjectRef]plan.Applied{},
		options:   plan.Options{Prune: true},
	}
	w.owner = gitops.OwnerRef{Group: keys().OwnerGroup, Kind: keys().OwnerKind, Namespace: w.namespace, Name: "apps"}
	connection, err := cluster.Connect(config, cluster.Options{Version: strings.TrimPrefix(w.agent, "plumb/"), Part: "apply"})
	if err != nil {
		t.Fatal(err)
	}
	client := connection.Own()
	w.client = client
	w.applier = &apply.Applier{Cluster: client, Keys: keys(), Parallel: 8, Patience: 20 * time.Second}
	return w
}

// live asks the cluster for every object: what an engine knows from watches.
func (w *world) live(ref gitops.ObjectRef) (gitops.Live, bool) {
	if w.blind {
		return gitops.Live{}, false
	}
	obj := w.find(ref)
	if obj == nil {
		return gitops.Live{}, true
	}
	return ownership.Observe(obj, keys()), true
}

// observer is a client that is not counted as the one under test.
func (w *world) observer() *cluster.Client {
	w.t.Helper()
	connection, err := cluster.Connect(w.env.REST, cluster.Options{Version: "test", Part: "observer"})
	if err != nil {
		w.t.Fatal(err)
	}
	return connection.Own()
}

func (w *world) find(ref gitops.ObjectRef) *unstructured.Unstructured {
	w.t.Helper()
	client := w.observer()
	res, err := client.Resource(w.t.Context(), ref.GroupKind(), "")
	if cluster.IsNotServed(err) || err == nil && res.Namespaced && ref.Namespace == "" {
		return nil
	}
	if err != nil {
		w.t.Fatal(err)
	}
	obj, err := client.Get(w.t.Context(), res, ref.Namespace, ref.Name)
	if cluster.IsNotFound(err) {
		return nil
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return obj
}

// must is the object, which has to exist.
func (w *world) must(ref gitops.ObjectRef) *unstructured.Unstructured {
	w.t.Helper()
	obj := w.find(ref)
	if obj == nil {
		w.t.Fatalf("%s is not in the cluster", ref)
	}
	return obj
}

// manifests reads YAML documents; $NS is the test's namespace. The line of a
// document is that of its first line.
func (w *world) manifests(docs string) []gitops.Manifest {
	w.t.Helper()
	var out []gitops.Manifest
	line := 1
	for doc := range strings.SplitSeq(strings.ReplaceAll(docs, "$NS", w.namespace), "---\n") {
		if strings.TrimSpace(doc) != "" {
			out = append(out, w.manifest(doc, line))
		}
		line += strings.Count(doc, "\n") + 1
	}
	return out
}

func (w *world) manifest(doc string, line int) gitops.Manifest {
	w.t.Helper()
	var obj unstructured.Unstructured
	if err := yaml.Unmarshal([]byte(doc), &obj.Object); err != nil {
		w.t.Fatal(err)
	}
	labels := obj.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	labels[keys().OwnerNameLabel], labels[keys().OwnerNamespaceLabel] = w.owner.Name, w.owner.Namespace
	obj.SetLabels(labels)
	data, err := json.Marshal(obj.Object)
	if err != nil {
		w.t.Fatal(err)
	}
	gvk := obj.GroupVersionKind()
	return gitops.Manifest{
		Ref:     gitops.ObjectRef{Group: gvk.Group, Kind: gvk.Kind, Namespace: obj.GetNamespace(), Name: obj.GetName()},
		Version: gvk.Version,
		JSON:    data,
		Digest:  sha256.Sum256(data),
		Policy:  keys().Policy(obj.GetAnnotations(), obj.GetLabels()),
		Origin:  gitops.Origin{File: "apps/all.yaml", Line: line},
	}
}

// outcome is what a run did.
type outcome struct {
	plan gitops.Plan
	done gitops.ChangeSet
	err  error
}

// actions are the changes as "action ref", in the order of the inventory.
func (o outcome) actions() map[string]gitops.Action {
	out := map[string]gitops.Action{}
	for _, d := range o.done {
		out[d.Ref.String()] = d.Action
	}
	return out
}

func (w *world) compute(manifests []gitops.Manifest) gitops.Plan {
	w.t.Helper()
	p, err := plan.Compute(plan.Input{
		Owner: w.owner, Manifests: manifests, Inventory: w.inventory,
		Live: w.live, Applied: w.applied, OwnedBy: w.ownedBy, Options: w.options,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return w.guard.Hold(p, len(manifests), w.inventory)
}

func (w *world) request(p gitops.Plan) apply.Request {
	byRef := map[gitops.ObjectRef]gitops.Digest{}
	for _, stage := range p.Stages {
		for _, change := range stage.Changes {
			if change.Manifest != nil {
				byRef[change.Ref] = change.Manifest.Digest
			}
		}
	}
	return apply.Request{
		Owner: w.owner, Plan: p, OwnedBy: w.ownedBy, WriteAhead: w.writeAhead,
		Live: func(ref gitops.ObjectRef) gitops.Live { live, _ := w.live(ref); return live },
		Record: func(d gitops.Done) {
			if d.Action == gitops.ActionSkip || d.Action == gitops.ActionDelete {
				delete(w.applied, d.Ref)
				return
			}
			w.applied[d.Ref] = plan.Applied{Digest: byRef[d.Ref], UID: d.Live.UID, Fields: d.Live.Fields, At: d.Live.AppliedAt}
		},
	}
}

// apply plans and runs what docs declare, and remembers the outcome.
func (w *world) apply(docs string) outcome {
	w.t.Helper()
	return w.applyManifests(w.manifests(docs))
}

func (w *world) applyManifests(manifests []gitops.Manifest) outcome {
	w.t.Helper()
	p := w.compute(manifests)
	done, err := w.applier.Run(w.t.Context(), w.request(p))
	w.inventory = plan.Remaining(p, done, err == nil)
	return outcome{plan: p, done: done, err: err}
}

// mustApply is apply without an error.
func (w *world) mustApply(docs string) outcome {
	w.t.Helper()
	out := w.apply(docs)
	if out.err != nil {
		w.t.Fatal(out.err)
	}
	return out
}

// requests are those of the client under test that do happens to make, as "verb
// resource code", dry-runs marked.
func (w *world) requests(do func()) []string {
	w.t.Helper()
	agent := w.agent + " (apply)"
	before := len(w.env.Requests(w.t, agent))
	do()
	var out []string
	for _, r := range w.env.Requests(w.t, agent)[before:] {
		line := fmt.Sprintf("%s %s", r.Verb, r.ObjectRef.Resource)
		if strings.Contains(r.RequestURI, "dryRun=All") {
			line = "dry-run " + line
		}
		out = append(out, line)
	}
	return out
}

// ref is an object in the test's namespace.
func (w *world) ref(group, kind, name string) gitops.ObjectRef {
	return gitops.ObjectRef{Group: group, Kind: kind, Namespace: w.namespace, Name: name}
}

// failure is the first *gitops.Error.
func failure(t *testing.T, err error) *gitops.Error {
	t.Helper()
	var e *gitops.Error
	if !errors.As(err, &e) {
		t.Fatalf("want an error about an object, got %v", err)
	}
	return e
}

func field(obj *unstructured.Unstructured, path ...string) any {
	v, _, _ := unstructured.NestedFieldNoCopy(obj.Object, path...)
	return v
}
