package apply_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/plumb-gitops/plumb/internal/cluster"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

func TestRefusals(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		before string // applied by kubectl
		docs   string
		kind   gitops.ErrorKind
		ref    string
		want   []string
	}{
		"a kind that is not served": {
			docs: "apiVersion: nobody.example.test/v1\nkind: Thing\nmetadata: {name: a, namespace: $NS}\n",
			kind: gitops.Waiting, ref: "Thing/$NS/a",
			want: []string{"Thing.nobody.example.test", "v1", "CustomResourceDefinition"},
		},
		"a version that is not served": {
			docs: "apiVersion: apps/v1beta1\nkind: Deployment\nmetadata: {name: a, namespace: $NS}\n",
			kind: gitops.Waiting, ref: "Deployment/$NS/a",
			want: []string{"Deployment.apps", "version v1beta1"},
		},
		"a namespace that is missing": {
			docs: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: $NS-missing}\n",
			kind: gitops.Waiting, ref: "ConfigMap/$NS-missing/a",
			want: []string{`namespace "$NS-missing" does not exist`, "declare it"},
		},
		"no namespace": {
			docs: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n",
			kind: gitops.Invalid, ref: "ConfigMap/a",
			want: []string{"namespace not specified"},
		},
		"a name that no object can have": {
			docs: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: A_b, namespace: $NS}\n",
			kind: gitops.Invalid, ref: "ConfigMap/$NS/A_b",
			want: []string{"metadata.name"},
		},
		"a policy of the cluster": {
			before: `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: $NS}
spec:
  matchConstraints:
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: $NS}}
    resourceRules: [{apiGroups: [""], apiVersions: ["*"], resources: [configmaps], operations: [CREATE, UPDATE]}]
  validations: [{expression: "object.metadata.name != 'refused'", reason: Forbidden, message: "refused by the house rules"}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: $NS}
spec: {policyName: $NS, validationActions: [Deny]}
`,
			docs: `
apiVersion: v1
kind: ConfigMap
metadata: {name: allowed, namespace: $NS}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: refused, namespace: $NS}
`,
			kind: gitops.Denied, ref: "ConfigMap/$NS/refused",
			want: []string{"refused by the house rules"},
		},
		"a policy of the cluster that calls it invalid": {
			before: `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: $NS}
spec:
  matchConstraints:
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: $NS}}
    resourceRules: [{apiGroups: [""], apiVersions: ["*"], resources: [configmaps], operations: [CREATE, UPDATE]}]
  validations: [{expression: "object.metadata.name != 'refused'", message: "refused by the house rules"}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: $NS}
spec: {policyName: $NS, validationActions: [Deny]}
`,
			docs: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: refused, namespace: $NS}\n",
			kind: gitops.Denied, ref: "ConfigMap/$NS/refused",
			want: []string{"refused by the house rules"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			in := func(s string) string { return strings.ReplaceAll(s, "$NS", w.namespace) }
			if tc.before != "" {
				w.env.Apply(t, in(tc.before))
				w.awaitDenied("refused")
			}
			out := w.apply(tc.docs)
			e := failure(t, out.err)
			if e.Kind != tc.kind || e.Ref.String() != in(tc.ref) || e.Origin.File != "apps/all.yaml" || e.Stage != gitops.StageApply {
				t.Errorf("got kind %q, ref %q, origin %v, stage %q", e.Kind, e.Ref, e.Origin, e.Stage)
			}
			for _, want := range tc.want {
				if !strings.Contains(out.err.Error(), in(want)) {
					t.Errorf("error does not say %q: %v", in(want), out.err)
				}
			}
			if len(out.done) > 0 {
				t.Errorf("written: %v", out.actions())
			}
			if again := w.apply(tc.docs); again.err == nil || again.err.Error() != out.err.Error() {
				t.Errorf("another text the second time:\n%v\n%v", out.err, again.err)
			}
		})
	}
}

// awaitDenied waits until a policy refuses a ConfigMap of that name.
func (w *world) awaitDenied(name string) {
	w.t.Helper()
	client := w.observer()
	configMaps := cluster.Resource{GVR: schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}, Kind: "ConfigMap", Namespaced: true}
	body := fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":%q,"namespace":%q}}`, name, w.namespace)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		_, _, err := client.Apply(w.t.Context(), configMaps, w.namespace, name, []byte(body), cluster.ApplyOptions{DryRun: true, FieldManager: "observer"})
		if err != nil {
			return
		}
		select {
		case <-w.t.Context().Done():
			w.t.Fatal("the policy never came into force")
		case <-tick.C:
		}
	}
}

func TestTerminatingNamespace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	// A finalizer keeps the namespace from going.
	w.env.Apply(t, strings.ReplaceAll(`
apiVersion: v1
kind: Namespace
metadata: {name: $NS-going}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: stays, namespace: $NS-going, finalizers: [example.test/stay]}
`, "$NS", w.namespace))
	docs := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: $NS-going}\n"
	w.mustApply(docs) // the namespace is known to be active from here on
	w.env.Kubectl(t, "delete", "namespace", w.namespace+"-going", "--wait=false")
	w.inventory = nil
	going := gitops.ObjectRef{Kind: "Namespace", Name: w.namespace + "-going"}
	for name, docs := range map[string]string{
		"an object in it":             strings.Replace(docs, "name: a", "name: b", 1),
		"another object in it":        strings.Replace(docs, "name: a", "name: c", 1),
		"the namespace and an object": "apiVersion: v1\nkind: Namespace\nmetadata: {name: $NS-going}\n---\n" + strings.Replace(docs, "name: a", "name: d", 1),
	} {
		out := w.apply(docs)
		e := failure(t, out.err)
		if e.Kind != gitops.Waiting || !strings.Contains(e.Error(), "being deleted") || len(out.done) > 0 {
			t.Errorf("%s: got %q %v, %v", name, e.Kind, e, out.actions())
		}
	}
	w.env.Kubectl(t, "-n", going.Name, "patch", "configmap/stays", "--type=merge", `-p={"metadata":{"finalizers":null}}`)
}

func TestNoValueOfASecretIsEverShown(t *testing.T) {
	t.Parallel()
	const value = "c2VzYW1l"
	for name, docs := range map[string]string{
		"data that is not base64": "apiVersion: v1\nkind: Secret\nmetadata: {name: a, namespace: $NS}\ndata: {password: " + value + "!}\n",
		"data of another type":    "apiVersion: v1\nkind: Secret\nmetadata: {name: a, namespace: $NS}\ndata: {password: {inner: " + value + "}}\n",
		"an invalid type":         "apiVersion: v1\nkind: Secret\nmetadata: {name: a, namespace: $NS}\ntype: kubernetes.io/tls\ndata: {tls.crt: " + value + "}\n",
		"a docker config":         "apiVersion: v1\nkind: Secret\nmetadata: {name: a, namespace: $NS}\ntype: kubernetes.io/dockerconfigjson\ndata: {.dockerconfigjson: " + value + "}\n",
		"a key that is no key":    "apiVersion: v1\nkind: Secret\nmetadata: {name: a, namespace: $NS}\ndata: {'no key': " + value + "}\n",
		"a field that is unknown": "apiVersion: v1\nkind: Secret\nmetadata: {name: a, namespace: $NS}\n" + value + ": x\n",
		"a decrypted object":      "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a, namespace: $NS}\nspec: {replicas: " + value + "}\n",
		"a decrypted value":       "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a, namespace: $NS}\nspec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: " + value + "}}, spec: {containers: [{name: '" + value + "!', image: a}]}}}\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			manifests := w.manifests(docs)
			for i := range manifests {
				manifests[i].Sensitive = manifests[i].Ref.Kind != "Secret"
			}
			out := w.applyManifests(manifests)
			e := failure(t, out.err)
			if e.Kind != gitops.Invalid {
				t.Errorf("kind is %q of %v", e.Kind, e)
			}
			for _, secret := range []string{value, "sesame"} {
				if strings.Contains(fmt.Sprintf("%v %+v", out.err, out.err), secret) {
					t.Errorf("the error shows a value: %v", out.err)
				}
			}
			_, err := w.applier.Diff(t.Context(), w.request(w.compute(manifests)))
			if err == nil || strings.Contains(err.Error(), value) {
				t.Errorf("diff: %v", err)
			}
		})
	}
}

func TestManyRefusalsAreCounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var docs strings.Builder
	for i := range 120 {
		fmt.Fprintf(&docs, "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: wrong-%03d, namespace: $NS}\ndata: {a: [1]}\n", i)
	}
	out := w.apply(docs.String())
	text := out.err.Error()
	named := strings.Count(text, "/wrong-")
	if !strings.Contains(text, "120 objects were refused") || !strings.HasSuffix(text, fmt.Sprintf("and %d more", 120-named)) || named < 50 || len(text) > 13<<10 {
		t.Errorf("got %s", text)
	}
}
