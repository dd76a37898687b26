package observe

import (
	"fmt"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/plumb-gitops/plumb/internal/cluster"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/ownership"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

func TestLiveOfWhatIsAndIsNot(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	live := f.apply(config)
	ref := refOf(live)
	if _, known := f.Live(ref); known {
		t.Error("known before it was needed")
	}
	need := f.need(live, true)
	f.sync(need)
	got, known := f.Live(ref)
	want := ownership.Observe(live, testKeys())
	want.Health = gitops.Health{Status: gitops.HealthCurrent, Message: "Resource is current"}
	if !known || got.UID != want.UID || got.Fields != want.Fields || got.AppliedAt != want.AppliedAt || got.Owner != want.Owner || got.Health != want.Health {
		t.Errorf("Live = %+v, %v, want %+v", got, known, want)
	}
	if f.table(key{kind: need.Kind}).stateNow().full {
		t.Error("a kind whose health is in its metadata is watched whole")
	}
	ref.Name = "missing"
	if got, known := f.Live(ref); !known || got.Exists() {
		t.Errorf("Live of a missing object = %+v, %v, want the zero value, known", got, known)
	}
}

func TestOwnWritesAreNotTold(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	live := f.apply(config)
	f.sync(f.need(live, false))
	ref := refOf(live)
	for i := range 50 {
		hold := f.Hold(ref, ref)
		answer := f.apply(strings.ReplaceAll(config, `"b":"2"`, fmt.Sprintf(`"k%d":"2"`, i)))
		f.Record(ref, ownership.Observe(answer, testKeys()))
		hold.Release()
		if got, _ := f.Live(ref); got.ResourceVersion != answer.GetResourceVersion() {
			t.Fatalf("Live has resource version %s, want %s", got.ResourceVersion, answer.GetResourceVersion())
		}
	}
	if err := f.resource(live).Delete(t.Context(), ref.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	// The DELETED event may be told before the answer is recorded: that is what a
	// Hold is for, and what this deletion goes without.
	f.RecordDeleted(ref, string(live.GetUID()))
	for _, o := range f.settle(live) {
		if o.After.Exists() {
			t.Errorf("told:\nbefore %+v\nafter  %+v", o.Before, o.After)
		}
	}
}

func TestHealthIsFollowed(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	live := f.apply(strings.ReplaceAll(deployment, `"replicas":0`, `"replicas":2`))
	ref := refOf(live)
	markers, full := f.need(live, false), f.need(live, true)
	f.sync(markers)
	if got, known := f.Live(ref); !known || got.Health.Status != "" {
		t.Errorf("Live = %+v, %v, want no health", got, known)
	}
	if f.knows(full) {
		t.Error("health is synced before anybody needs it")
	}
	f.sync(full)
	for {
		got, known := f.Live(ref)
		if !known || got.Health.Status == "" {
			t.Fatalf("Live = %+v, %v, want a health", got, known)
		}
		if got.Health.Status == gitops.HealthCurrent {
			break
		}
		if o := f.observation(); o.Ref != ref || o.Before.Fields != o.After.Fields {
			t.Fatalf("told %+v, want a change of health alone", o)
		}
	}
}

func TestObjectsByName(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	foreign := f.object(strings.ReplaceAll(deployment, `"replicas":0`, `"replicas":1`))
	object := Object{Ref: gitops.ObjectRef{Group: "apps", Kind: "Deployment", Namespace: f.namespace, Name: "d"}, Version: "v1"}
	f.Need(f.owner, nil, []Object{object})
	if err := f.WaitSynced(deadline(t), nil, []Object{object}); err != nil {
		t.Fatal(err)
	}
	if got, known := f.Named(f.owner, object.Ref); !known || got.Exists() {
		t.Errorf("Named = %+v, %v, want a known absence", got, known)
	}
	if _, known := f.Live(object.Ref); known {
		t.Error("the object is known as one of an inventory")
	}
	if _, err := f.resource(foreign).Create(t.Context(), foreign, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	o := f.observation()
	for o.After.Health.Status != gitops.HealthCurrent {
		if !o.Named || o.Ref != object.Ref {
			t.Fatalf("told %+v, want the named object", o)
		}
		o = f.observation()
	}
	if got, known := f.Named(f.owner, object.Ref); !known || got.Health.Status != gitops.HealthCurrent {
		t.Errorf("Named = %+v, %v, want a healthy object", got, known)
	}
}

// manifests are objects with many kinds of fields.
func manifests() []string {
	return []string{config, deployment,
		`{"apiVersion":"v1","kind":"Service","metadata":{"name":"s"},"spec":{"selector":{"app":"d"},"ports":[{"name":"a","port":80},{"name":"b","port":81,"targetPort":"x","protocol":"UDP"}]}}`,
		`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"x"},"type":"Opaque","data":{"a.b":"eA=="}}`,
		`{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"x"}}`,
		`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"full"},"spec":{"strategy":{"type":"RollingUpdate","rollingUpdate":{"maxSurge":1}},
		"selector":{"matchLabels":{"app":"d"}},"template":{"metadata":{"labels":{"app":"d"},"creationTimestamp":null,"annotations":{"a/b":"<&>"}},"spec":{
		"securityContext":{},"nodeSelector":{"a":"b"},"tolerations":[{"key":"x","operator":"Exists"}],"volumes":[{"name":"v","emptyDir":{}},{"name":"w","configMap":{"name":"c","items":[{"key":"a","path":"b"}]}}],
		"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"a","operator":"In","values":["b"]}]}]}}},
		"containers":[{"name":"c","image":"i","command":["a"],"resources":{"limits":{"cpu":"1000m"}},"ports":[{"containerPort":443},{"containerPort":80,"name":"h"}],
		"envFrom":[{"configMapRef":{"name":"c"}}],"env":[{"name":"A","valueFrom":{"fieldRef":{"fieldPath":"metadata.name"}}}],
		"volumeMounts":[{"name":"v","mountPath":"/v"},{"name":"w","mountPath":"/w"}],"livenessProbe":{"httpGet":{"path":"/","port":80}}}]}}}}`,
	}
}

func TestNamesExactlyAfterARestart(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	manifests := manifests()
	var needs []Need
	for _, manifest := range manifests {
		needs = append(needs, f.need(f.apply(manifest), true))
	}
	f.sync(needs...)
	for _, manifest := range manifests {
		ref := refOf(f.object(manifest))
		ref.Namespace = f.namespace
		if _, exact := f.NamesExactly(ref, []byte(manifest)); exact {
			t.Errorf("%s: named exactly without the owner labels", ref)
		}
		live, exact := f.NamesExactly(ref, f.owned(manifest))
		if now, _ := f.Live(ref); !exact || now.UID != live.UID {
			t.Errorf("%s: not named exactly", ref)
		}
		if _, again := f.NamesExactly(ref, f.owned(manifest)); again {
			t.Errorf("%s: what was asked for is still kept", ref)
		}
	}
}

func TestKindThatMayNotBeWatched(t *testing.T) {
	t.Parallel()
	cluster := testenv.Get(t)
	nobody := fmt.Sprint("nobody-", time.Now().UnixNano())
	config := rest.CopyConfig(cluster.REST)
	config.Impersonate = rest.ImpersonationConfig{UserName: nobody}
	f := newFixture(t, config)
	need := Need{Kind: gitops.GroupKind{Kind: "ConfigMap"}, Version: "v1"}
	f.Need(f.owner, []Need{need}, nil)
	err := f.WaitSynced(deadline(t), []Need{need}, nil)
	if !apierrors.IsForbidden(err) || !apierrors.IsForbidden(f.Err(need.Kind)) {
		t.Errorf("WaitSynced = %v, Err = %v, want both Forbidden", err, f.Err(need.Kind))
	}
	if _, known := f.Live(gitops.ObjectRef{Kind: "ConfigMap", Namespace: f.namespace, Name: "c"}); known {
		t.Error("known though it may not be watched")
	}
	f.cluster.Kubectl(t, "create", "clusterrolebinding", f.namespace, "--clusterrole=view", "--user="+nobody)
	f.Retry(need.Kind)
	for !f.knows(need) {
		if t.Context().Err() != nil {
			t.Fatal("not synced after the right was given")
		}
		if err := f.WaitSynced(deadline(t), []Need{need}, nil); err != nil && !apierrors.IsForbidden(err) {
			t.Fatal(err)
		}
		f.Retry(need.Kind)
	}
	if err := f.Err(need.Kind); err != nil {
		t.Errorf("Err = %v after the right was given", err)
	}
}

func TestKindsThatCannotBeWatched(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	for name, row := range map[string]struct {
		need Need
		want func(error) bool
	}{
		"not a kind":             {Need{Kind: gitops.GroupKind{Group: "example.test", Kind: "Nothing"}, Version: "v1"}, meta.IsNoMatchError},
		"not known to be served": {Need{Kind: gitops.GroupKind{Group: "example.test", Kind: "Unserved"}, Version: "v1"}, cluster.IsNotServed},
		"not to be listed":       {Need{Kind: gitops.GroupKind{Group: "authentication.k8s.io", Kind: "TokenReview"}, Version: "v1"}, apierrors.IsMethodNotSupported},
		"not served":             {Need{Kind: gitops.GroupKind{Group: "example.test", Kind: "Widget"}, Version: "v1"}, apierrors.IsNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			owner := f.owner
			owner.Name = name
			f.Need(owner, []Need{row.need}, nil)
			if err := f.WaitSynced(deadline(t), []Need{row.need}, nil); !row.want(err) {
				t.Errorf("WaitSynced = %v", err)
			}
		})
	}
}

const widgets = `{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"widgets.GROUP"},
	"spec":{"group":"GROUP","scope":"Namespaced","names":{"kind":"Widget","plural":"widgets","singular":"widget","listKind":"WidgetList"},
	"versions":[{"name":"v1","served":true,"storage":true,"subresources":{"status":{}},"schema":{"openAPIV3Schema":{"type":"object","properties":{
	"spec":{"type":"object","properties":{"size":{"type":"integer"},"tags":{"type":"array","items":{"type":"string"}},
	"free":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}},"status":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}}}]}}`

func TestDefinitionThatComesAndGoes(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	group := f.namespace + ".example.test"
	definition := f.object(strings.ReplaceAll(widgets, "GROUP", group))
	need := Need{Kind: gitops.GroupKind{Group: group, Kind: "Widget"}, Version: "v1", Health: true}
	f.Need(f.owner, []Need{need}, nil)
	create := func() {
		if _, err := f.resource(definition).Create(t.Context(), definition.DeepCopy(), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		f.cluster.Kubectl(t, "wait", "--for=condition=Established", "crd", "widgets."+group)
		f.Retry(need.Kind)
		f.reach("synced", func() bool { return f.knows(need) })
	}
	create()
	widget := f.apply(`{"apiVersion":"` + group + `/v1","kind":"Widget","metadata":{"name":"w"},"spec":{"size":1,"tags":["a"],"free":{"a":{"b":1}}}}`)
	if o := f.observation(); o.Ref != refOf(widget) || o.After.Health.Status != gitops.HealthCurrent {
		t.Errorf("told %+v, want the widget", o)
	}
	f.patch(widget, types.MergePatchType, `{"status":{"conditions":[{"type":"Ready","status":"False","message":"m"}]}}`, "controller", "status")
	if o := f.observation(); o.After.Health != (gitops.Health{Status: gitops.HealthInProgress, Message: "m"}) {
		t.Errorf("told %+v, want the health of the status", o)
	}
	f.patch(widget, types.MergePatchType, `{"spec":{"free":{"a":{"b":2}}}}`, "somebody")
	if o := f.observation(); !fieldsChanged(o) {
		t.Errorf("told %+v, want a changed field", o)
	}
	if err := f.resource(definition).Delete(t.Context(), definition.GetName(), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for o := f.observation(); o.After.Exists(); o = f.observation() {
	}
	f.reach("unknown", func() bool { _, known := f.Live(refOf(widget)); return !known })
	if err := f.Err(need.Kind); !apierrors.IsNotFound(err) {
		t.Errorf("Err = %v, want NotFound", err)
	}
	create()
	if live, known := f.Live(refOf(widget)); !known || live.Exists() {
		t.Errorf("Live = %+v, %v, want a known absence", live, known)
	}
}

// reach waits for a state of the watches.
func (f *fixture) reach(what string, reached func() bool) {
	f.t.Helper()
	ctx := deadline(f.t)
	for {
		f.mu.RLock()
		progress := f.progress
		f.mu.RUnlock()
		if reached() {
			return
		}
		select {
		case <-progress:
		case <-ctx.Done():
			f.t.Fatalf("not %s within 30 s", what)
		}
	}
}
