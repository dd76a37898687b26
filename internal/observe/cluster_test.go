package observe

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/plumb-gitops/plumb/internal/cluster"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }

// applyOptions are those of our own applies.
func applyOptions() metav1.PatchOptions {
	return metav1.PatchOptions{FieldManager: "applier", Force: new(true)}
}

const agent = "plumb-test/observe"

func testKeys() gitops.Keys {
	return gitops.Keys{
		OwnerGroup:          "example.test",
		OwnerKind:           "Owner",
		OwnerNameLabel:      "example.test/name",
		OwnerNamespaceLabel: "example.test/namespace",
		Apply:               "example.test/apply",
		Manager:             "applier",
		TakeOver:            []string{"kubectl", "before-first-apply"},
		KeepFields:          []string{"kubectl.kubernetes.io/restartedAt"},
	}
}

// resources knows the kinds of these tests; others are no match.
func resources(_ context.Context, kind gitops.GroupKind, version string) (schema.GroupVersionResource, bool, error) {
	gvr := schema.GroupVersionResource{Group: kind.Group, Version: version}
	switch kind.Kind {
	case "ConfigMap", "Secret", "Service", "Deployment", "ServiceAccount", "Pod", "Widget":
		gvr.Resource = strings.ToLower(kind.Kind) + "s"
		return gvr, true, nil
	case "Namespace", "CustomResourceDefinition":
		gvr.Resource = strings.ToLower(kind.Kind) + "s"
		return gvr, false, nil
	case "Unserved":
		return gvr, false, &cluster.NotServedError{Group: kind.Group, Version: version, Kind: kind.Kind}
	case "TokenReview":
		gvr.Resource = "tokenreviews"
		return gvr, false, nil
	}
	return gvr, false, &meta.NoKindMatchError{GroupKind: schema.GroupKind{Group: kind.Group, Kind: kind.Kind}, SearchedVersions: []string{version}}
}

// fixture is an observer with a client to change what it observes.
type fixture struct {
	*Observer
	t         testing.TB
	cluster   *testenv.Cluster
	client    dynamic.Interface
	namespace string
	owner     gitops.OwnerRef
	seen      chan Observation
}

func newFixture(t testing.TB, config *rest.Config) *fixture {
	t.Helper()
	cluster := testenv.Get(t)
	if config == nil {
		return fixtureOf(t, cluster, agent)
	}
	return fixtureWith(t, cluster, config)
}

func fixtureOf(t testing.TB, cluster *testenv.Cluster, agent string) *fixture {
	t.Helper()
	config := rest.CopyConfig(cluster.REST)
	config.UserAgent = agent
	return fixtureWith(t, cluster, config)
}

func fixtureWith(t testing.TB, cluster *testenv.Cluster, config *rest.Config) *fixture {
	t.Helper()
	client, err := dynamic.NewForConfig(cluster.REST)
	if err != nil {
		t.Fatal(err)
	}
	o, err := New(Options{Config: config, Resources: resources, Keys: testKeys(), Grace: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	f := &fixture{Observer: o, t: t, cluster: cluster, client: client, namespace: cluster.Namespace(t), seen: make(chan Observation, 100000)}
	f.owner = gitops.OwnerRef{Group: "example.test", Kind: "Owner", Namespace: f.namespace, Name: "o"}
	o.Subscribe(func(observation Observation) {
		if observation.Ref.Namespace == f.namespace {
			f.seen <- observation
		}
	})
	return f
}

func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// knows tells whether what an owner needs of a kind is known by now.
func (o *Observer) knows(need Need) bool {
	return o.synced(key{kind: need.Kind}, need.demand().full)
}

// sync declares needs and waits for them.
func (f *fixture) sync(needs ...Need) {
	f.t.Helper()
	f.Need(f.owner, needs, nil)
	if err := f.WaitSynced(deadline(f.t), needs, nil); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) resource(object *unstructured.Unstructured) dynamic.ResourceInterface {
	f.t.Helper()
	gvk := object.GroupVersionKind()
	gvr, namespaced, err := resources(f.t.Context(), gitops.GroupKind{Group: gvk.Group, Kind: gvk.Kind}, gvk.Version)
	if err != nil {
		f.t.Fatal(err)
	}
	if !namespaced {
		return f.client.Resource(gvr)
	}
	return f.client.Resource(gvr).Namespace(f.namespace)
}

func (f *fixture) object(manifest string) *unstructured.Unstructured {
	f.t.Helper()
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON([]byte(manifest)); err != nil {
		f.t.Fatal(err)
	}
	return u
}

// owned is the manifest with the owner labels.
func (f *fixture) owned(manifest string) []byte {
	f.t.Helper()
	u := f.object(manifest)
	labels := u.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	labels["example.test/name"], labels["example.test/namespace"] = "o", f.namespace
	u.SetLabels(labels)
	raw, err := json.Marshal(u.Object)
	if err != nil {
		f.t.Fatal(err)
	}
	return raw
}

// apply applies a manifest with the owner labels as our manager.
func (f *fixture) apply(manifest string) *unstructured.Unstructured {
	f.t.Helper()
	return f.patch(f.object(manifest), types.ApplyPatchType, string(f.owned(manifest)), "applier")
}

func (f *fixture) patch(object *unstructured.Unstructured, kind types.PatchType, patch, manager string, subresources ...string) *unstructured.Unstructured {
	f.t.Helper()
	options := metav1.PatchOptions{FieldManager: manager}
	if kind == types.ApplyPatchType {
		options.Force = new(true)
	}
	result, err := f.resource(object).Patch(f.t.Context(), object.GetName(), kind, []byte(patch), options, subresources...)
	if err != nil {
		f.t.Fatal(err)
	}
	return result
}

func refOf(u *unstructured.Unstructured) gitops.ObjectRef {
	return gitops.ObjectRef{Group: u.GroupVersionKind().Group, Kind: u.GetKind(), Namespace: u.GetNamespace(), Name: u.GetName()}
}

// observation waits for the next change that is told.
func (f *fixture) observation() Observation {
	f.t.Helper()
	select {
	case o := <-f.seen:
		return o
	case <-time.After(30 * time.Second):
		f.t.Fatal("no change was told within 30 s")
		return Observation{}
	}
}

// settle makes a change to another object of the kind and takes what is told until
// then: all that the test did before has arrived.
func (f *fixture) settle(like *unstructured.Unstructured) []Observation {
	f.t.Helper()
	marker := f.object(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"marker"}}`)
	if like.GetKind() == "Deployment" {
		marker = f.object(strings.ReplaceAll(deployment, `"name":"d"`, `"name":"marker"`))
	}
	raw, err := json.Marshal(marker.Object)
	if err != nil {
		f.t.Fatal(err)
	}
	done := f.apply(string(raw))
	var told []Observation
	for {
		o := f.observation()
		if o.Ref.Name == "marker" {
			break
		}
		told = append(told, o)
	}
	if err := f.resource(done).Delete(f.t.Context(), "marker", metav1.DeleteOptions{}); err != nil {
		f.t.Fatal(err)
	}
	for o := f.observation(); o.Ref.Name != "marker" || o.After.Exists(); {
		o = f.observation()
	}
	return told
}

const deployment = `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d","labels":{"app":"d"}},
	"spec":{"replicas":0,"selector":{"matchLabels":{"app":"d"}},"template":{"metadata":{"labels":{"app":"d"}},
	"spec":{"containers":[{"name":"c","image":"i","args":["x"],"env":[{"name":"A","value":"1"},{"name":"B","value":"2"}]}]}}}}`

const config = `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c","labels":{"app":"c"}},"data":{"a":"1","b":"2"}}`

func (f *fixture) need(object *unstructured.Unstructured, health bool) Need {
	gvk := object.GroupVersionKind()
	return Need{Kind: gitops.GroupKind{Group: gvk.Group, Kind: gvk.Kind}, Version: gvk.Version, Health: health}
}
