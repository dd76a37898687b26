package cli

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/plumb-gitops/plumb/internal/testenv"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"
)

func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }

// cluster gives a control plane that has the definitions, as plumb crds prints
// them, and a namespace.
func cluster(t *testing.T) (c *testenv.Cluster, namespace string) {
	t.Helper()
	c = testenv.Get(t)
	_, definitions, _ := plumb(t, "crds")
	c.Apply(t, definitions, "--server-side", "--force-conflicts")
	c.Kubectl(t, "wait", "--for=condition=Established", "crd", "-l", "app.kubernetes.io/part-of=flux", "--timeout=60s")
	return c, c.Namespace(t)
}

const objects = `
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: repo}
spec: {url: "https://example.org/repo", interval: 1h}
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: apps}
spec: {interval: 1h, prune: true, path: ./apps, sourceRef: {kind: GitRepository, name: repo}}
---
apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {name: chart}
spec: {interval: 1h, chartRef: {kind: OCIRepository, name: x}}
`

// status sets the status of an object as an operator would.
func status(t *testing.T, c *testenv.Cluster, namespace, kind, name, fields string) {
	t.Helper()
	c.Kubectl(t, "patch", kind, name, "-n", namespace, "--subresource=status", "--type=merge", "-p", `{"status":`+fields+`}`)
}

func ready(value, message string) string {
	return fmt.Sprintf(`{"observedGeneration":1,"conditions":[{"type":"Ready","status":%q,"reason":"ReconciliationSucceeded","message":%q,"observedGeneration":1,"lastTransitionTime":"2026-01-01T00:00:00Z"}]`, value, message)
}

func TestGet(t *testing.T) {
	t.Parallel()
	c, namespace := cluster(t)
	c.Apply(t, objects, "-n", namespace)
	status(t, c, namespace, "gitrepository", "repo", ready("True", "stored artifact")+`,"artifact":{"revision":"main@sha1:0123456789abcdef","path":"p","url":"u","digest":"sha256:`+strings.Repeat("0", 64)+`","lastUpdateTime":"2026-01-01T00:00:00Z"}}`)
	status(t, c, namespace, "kustomization", "apps", ready("False", "build failed:\nno such file")+`,"lastAppliedRevision":"main@sha1:ffffffffffff"}`)

	tests := map[string]struct {
		args string
		code int
		want []string // lines, without the age
	}{
		"everything": {"get", ExitDone, []string{
			"NAME READY REVISION SUSPENDED MESSAGE",
			"gitrepository/repo True main@sha1:01234567 false stored artifact",
			"kustomization/apps False main@sha1:ffffffff false build failed: no such file",
			"helmrelease/chart not served false",
		}},
		"one kind": {"get ks", ExitDone, []string{
			"NAME READY REVISION SUSPENDED MESSAGE",
			"apps False main@sha1:ffffffff false build failed: no such file",
		}},
		"sources of all namespaces": {"get sources -A", ExitDone, []string{
			"NAMESPACE NAME READY REVISION SUSPENDED MESSAGE",
			namespace + " gitrepository/repo True main@sha1:01234567 false stored artifact",
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			code, out, progress := plumb(t, append(strings.Fields(tt.args), "-n", namespace, "--kubeconfig", c.Kubeconfig)...)
			if code != tt.code {
				t.Errorf("exit code %d, want %d: %s", code, tt.code, progress)
			}
			var got []string
			for line := range strings.Lines(out) {
				words := strings.Fields(line)
				if words[0] == "NAMESPACE" || words[0] == "NAME" || strings.HasPrefix(line, namespace) || !strings.Contains(tt.args, "-A") {
					got = append(got, strings.Join(withoutAge(words), " "))
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("lines differ (-want +got):\n%s", diff)
			}
		})
	}

	_, out, _ := plumb(t, "get", "ks", "-o", "yaml", "-n", namespace, "--kubeconfig", c.Kubeconfig)
	var list struct{ Items []unstructured.Unstructured }
	if err := yaml.Unmarshal([]byte(out), &list); err != nil || len(list.Items) != 1 || list.Items[0].GetName() != "apps" || list.Items[0].GetManagedFields() != nil {
		t.Errorf("YAML is (%v)\n%s", err, out)
	}
	if code, _, progress := plumb(t, "get", "buckets", "-n", namespace, "--kubeconfig", c.Kubeconfig); code != ExitDone || !strings.Contains(progress, "no objects found in namespace") {
		t.Errorf("nothing found gives %d and %q", code, progress)
	}
}

// withoutAge drops the one word that is an age.
func withoutAge(words []string) []string {
	var kept []string
	for _, word := range words {
		if word == "AGE" {
			continue
		}
		if d, err := time.ParseDuration(word); err == nil && d >= 0 {
			continue
		}
		kept = append(kept, word)
	}
	return kept
}

// answer operates on requests for reconciliation of one object.
func answer(t *testing.T, c *testenv.Cluster, word, namespace, name string, outcome func(generation int64) map[string]any) {
	t.Helper()
	operate(t, c, word, namespace, name, func(object *unstructured.Unstructured) string {
		return object.GetAnnotations()[requestedAt]
	}, outcome)
}

// operate does what an operator does with an object each time that wish gives
// something new: it sets Reconciling, then the outcome with the handled request.
func operate(t *testing.T, c *testenv.Cluster, word, namespace, name string, wish func(*unstructured.Unstructured) string, outcome func(generation int64) map[string]any) {
	t.Helper()
	kind, err := kindOf(word)
	if err != nil {
		t.Fatal(err)
	}
	client, err := dynamic.NewForConfig(c.REST)
	if err != nil {
		t.Fatal(err)
	}
	resource := client.Resource(kind.Resource()).Namespace(namespace)
	ctx, cancel := context.WithCancel(context.Background())
	w, err := resource.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		handled := ""
		for event := range w.ResultChan() {
			object, ok := event.Object.(*unstructured.Unstructured)
			if !ok {
				continue
			}
			token := wish(object)
			if token == "" || token == handled {
				continue
			}
			handled = token
			condition := func(kind, value, message string) map[string]any {
				return map[string]any{
					"type": kind, "status": value, "reason": "Progressing", "message": message,
					"observedGeneration": object.GetGeneration(), "lastTransitionTime": "2026-01-01T00:00:00Z",
				}
			}
			patchStatus(ctx, resource, name, map[string]any{"conditions": []any{
				condition("Reconciling", "True", "applying the objects"), condition("Ready", "Unknown", "applying the objects"),
			}})
			fields := outcome(object.GetGeneration())
			fields["lastHandledReconcileAt"] = token
			patchStatus(ctx, resource, name, fields)
		}
	}()
	t.Cleanup(func() { cancel(); w.Stop(); <-ended })
}

func patchStatus(ctx context.Context, r dynamic.ResourceInterface, name string, fields map[string]any) {
	data, err := yaml.Marshal(map[string]any{"status": fields})
	if err == nil {
		data, err = yaml.YAMLToJSON(data)
	}
	if err == nil {
		_, err = r.Patch(ctx, name, types.MergePatchType, data, metav1.PatchOptions{}, "status")
	}
	if err != nil && ctx.Err() == nil {
		panic(err)
	}
}

func outcome(value, reason, message string, more map[string]any) func(int64) map[string]any {
	return func(generation int64) map[string]any {
		fields := map[string]any{"observedGeneration": generation, "conditions": []any{map[string]any{
			"type": "Ready", "status": value, "reason": reason, "message": message,
			"observedGeneration": generation, "lastTransitionTime": "2026-01-01T00:00:00Z",
		}}}
		for k, v := range more {
			fields[k] = v
		}
		return fields
	}
}

func TestReconcile(t *testing.T) {
	t.Parallel()
	c, namespace := cluster(t)
	c.Apply(t, objects, "-n", namespace)
	answer(t, c, "gitrepository", namespace, "repo", outcome("True", "Succeeded", "stored", nil))
	answer(t, c, "kustomization", namespace, "apps", outcome("True", "ReconciliationSucceeded", "Applied revision: main@sha1:1", map[string]any{"lastAppliedRevision": "main@sha1:1"}))

	code, _, progress := plumb(t, "reconcile", "ks", "apps", "--with-source", "-n", namespace, "--kubeconfig", c.Kubeconfig, "--timeout", "1m")
	if code != ExitDone {
		t.Fatalf("exit code %d: %s", code, progress)
	}
	var order []int
	for _, want := range []string{
		"gitrepository " + namespace + "/repo: reconciliation requested",
		"gitrepository " + namespace + "/repo: ready",
		"kustomization " + namespace + "/apps: reconciliation requested",
		"kustomization " + namespace + "/apps: ready at main@sha1:1",
	} {
		at := strings.Index(progress, want)
		if at < 0 || (len(order) > 0 && at < order[len(order)-1]) {
			t.Errorf("%q is not where it belongs in\n%s", want, progress)
		}
		order = append(order, at)
	}
}

func TestReconcileThatFails(t *testing.T) {
	t.Parallel()
	c, namespace := cluster(t)
	c.Apply(t, objects, "-n", namespace)
	answer(t, c, "kustomization", namespace, "apps", outcome("False", "BuildFailed", "no such file", nil))
	flags := []string{"-n", namespace, "--kubeconfig", c.Kubeconfig, "--timeout", "5s"}

	tests := map[string]struct {
		args []string
		want string
	}{
		"not ready":             {[]string{"reconcile", "ks", "apps"}, "kustomization " + namespace + "/apps is not ready: BuildFailed: no such file"},
		"nobody answers":        {[]string{"reconcile", "gitrepo", "repo"}, "is an operator running?"},
		"an object not there":   {[]string{"reconcile", "ks", "other"}, `no kustomization "other" in namespace "` + namespace + `"`},
		"a tree of none":        {[]string{"tree", "ks", "other"}, `no kustomization "other" in namespace`},
		"suspend none":          {[]string{"suspend", "ks", "other"}, `no kustomization "other" in namespace`},
		"suspend all of no one": {[]string{"suspend", "bucket", "--all"}, `no buckets in namespace`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			words := append(append([]string{}, tt.args...), flags...)
			if tt.args[0] == "tree" || tt.args[0] == "suspend" {
				words = words[:len(words)-2] // they do not wait
			}
			code, _, progress := plumb(t, words...)
			if code != ExitFailed || !strings.Contains(progress, tt.want) {
				t.Errorf("exit code %d and\n%s\nwant 1 and %q", code, progress, tt.want)
			}
		})
	}
}

func TestSuspendAndResume(t *testing.T) {
	t.Parallel()
	c, namespace := cluster(t)
	c.Apply(t, objects, "-n", namespace)
	flags := []string{"-n", namespace, "--kubeconfig", c.Kubeconfig}
	suspended := func() string {
		return c.Kubectl(t, "get", "ks", "apps", "-n", namespace, "-o", "jsonpath={.spec.suspend}")
	}

	if code, _, progress := plumb(t, append([]string{"suspend", "ks", "--all"}, flags...)...); code != ExitDone || !strings.Contains(progress, "apps: suspended") {
		t.Fatalf("suspend gives %d and %q", code, progress)
	}
	if got := suspended(); got != "true" {
		t.Errorf("spec.suspend is %q", got)
	}
	if code, _, progress := plumb(t, append([]string{"reconcile", "ks", "apps"}, flags...)...); code != ExitFailed || !strings.Contains(progress, "is suspended: plumb resume kustomizations apps") {
		t.Errorf("reconcile of a suspended one gives %d and %q", code, progress)
	}
	if code, _, progress := plumb(t, append([]string{"resume", "ks", "apps", "--wait=false"}, flags...)...); code != ExitDone || !strings.Contains(progress, "apps: resumed") {
		t.Errorf("resume gives %d and %q", code, progress)
	}
	if got := suspended(); got != "false" {
		t.Errorf("spec.suspend is %q", got)
	}

	// With waiting it ends when Ready speaks of the generation after the change.
	if code, _, progress := plumb(t, append([]string{"suspend", "ks", "apps"}, flags...)...); code != ExitDone {
		t.Fatalf("suspend gives %d and %q", code, progress)
	}
	status(t, c, namespace, "ks", "apps", strings.ReplaceAll(ready("False", "old"), `"observedGeneration":1`, `"observedGeneration":4`)+"}")
	operate(t, c, "kustomization", namespace, "apps", func(object *unstructured.Unstructured) string {
		if suspend, _, _ := unstructured.NestedBool(object.Object, "spec", "suspend"); suspend {
			return ""
		}
		return fmt.Sprint(object.GetGeneration())
	}, outcome("True", "ReconciliationSucceeded", "Applied", nil))
	if code, _, progress := plumb(t, append([]string{"resume", "ks", "apps", "--timeout=30s"}, flags...)...); code != ExitDone || !strings.Contains(progress, "apps: ready") {
		t.Errorf("resume gives %d and %q", code, progress)
	}
}

func TestTree(t *testing.T) {
	t.Parallel()
	c, namespace := cluster(t)
	c.Apply(t, objects+`---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: infra}
spec: {interval: 1h, prune: true, sourceRef: {kind: GitRepository, name: repo}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
`, "-n", namespace)
	status(t, c, namespace, "ks", "apps", ready("True", "ok")+fmt.Sprintf(`,"inventory":{"entries":[
		{"id":"%[1]s_settings__ConfigMap","v":"v1"},{"id":"%[1]s_gone__Secret","v":"v1"},
		{"id":"%[1]s_infra_kustomize.toolkit.fluxcd.io_Kustomization","v":"v1"},{"id":"%[1]s_w_example.org_Widget","v":"v1"}]}}`, namespace))
	status(t, c, namespace, "ks", "infra", ready("False", "broken")+fmt.Sprintf(`,"inventory":{"entries":[
		{"id":"_%[1]s__Namespace","v":"v1"},{"id":"%[1]s_apps_kustomize.toolkit.fluxcd.io_Kustomization","v":"v1"}]}}`, namespace))

	code, out, progress := plumb(t, "tree", "ks", "apps", "-n", namespace, "--kubeconfig", c.Kubeconfig)
	if code != ExitDone {
		t.Fatalf("exit code %d: %s", code, progress)
	}
	var got []string
	for line := range strings.Lines(strings.ReplaceAll(out, namespace, "N")) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	want := []string{
		"OBJECT HEALTH MESSAGE",
		"Kustomization/N/apps Current Resource is Ready",
		"├── ConfigMap/N/settings Current Resource is always ready",
		"├── Kustomization/N/infra InProgress broken",
		"│ ├── Kustomization/N/apps Current Resource is Ready",
		"│ └── Namespace/N Current Resource is current",
		"├── Secret/N/gone NotFound",
		"└── Widget/N/w Unknown the cluster does not know this kind",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tree differs (-want +got):\n%s", diff)
	}
	_, out, _ = plumb(t, "tree", "ks", "apps", "-o", "json", "-n", namespace, "--kubeconfig", c.Kubeconfig)
	var root node
	if err := yaml.Unmarshal([]byte(out), &root); err != nil || len(root.Objects) != 4 || root.Health != "Current" {
		t.Errorf("JSON is (%v)\n%s", err, out)
	}
}

func TestHeldDeletions(t *testing.T) {
	t.Parallel()
	c, namespace := cluster(t)
	c.Apply(t, objects, "-n", namespace)
	flags := []string{"-n", namespace, "--kubeconfig", c.Kubeconfig}
	const revision = "main@sha1:0123456789abcdef"
	run := func(args ...string) (int, string, string) { return plumb(t, append(args, flags...)...) }
	approved := func() string {
		return c.Kubectl(t, "get", "ks", "apps", "-n", namespace, "-o", `jsonpath={.metadata.annotations.plumb\.dev/approve-deletion}`)
	}
	if code, _, progress := run("approve", "ks", "apps"); code != ExitFailed || !strings.Contains(progress, "no deletion is held; --revision") {
		t.Errorf("approve with nothing held gives %d and %q", code, progress)
	}
	if code, _, progress := run("approve", "ks", "apps", "--revision", "main@sha1:1"); code != ExitDone || !strings.Contains(progress, "none are held at it now") {
		t.Errorf("approve ahead gives %d and %q", code, progress)
	}
	if got := approved(); got != "main@sha1:1" {
		t.Errorf("the annotation is %q", got)
	}

	held := fmt.Sprintf(`{"observedGeneration":1,"lastAppliedRevision":%q,"conditions":[`+
		`{"type":"Ready","status":"True","reason":"ReconciliationSucceeded","message":"ok","observedGeneration":1,"lastTransitionTime":"2026-01-01T00:00:00Z"},`+
		`{"type":"DeletionHeld","status":"True","reason":"ProtectedKind","message":"1 deletion is held, because other objects or data would go with it: Namespace/%s\nTo delete them: plumb approve kustomization apps -n %[2]s --revision %[1]s, or the annotation plumb.dev/approve-deletion with that revision. To keep them: declare them again.","observedGeneration":1,"lastTransitionTime":"2026-01-01T00:00:00Z"}],`+
		`"inventory":{"entries":[{"id":"_%[2]s__Namespace","v":"v1"}]}}`, revision, namespace)
	status(t, c, namespace, "ks", "apps", held)
	if _, out, progress := run("get", "ks"); !strings.Contains(out, "ok; 1 deletion is held, because other objects or data would go with it") {
		t.Errorf("get prints\n%s%s", out, progress)
	}
	if _, out, progress := run("tree", "ks", "apps"); !strings.Contains(out, "1 deletion is held") || !strings.Contains(out, "its deletion is held") {
		t.Errorf("tree prints\n%s%s", out, progress)
	}
	operate(t, c, "kustomization", namespace, "apps", func(object *unstructured.Unstructured) string {
		if token := object.GetAnnotations()["plumb.dev/approve-deletion"]; token == revision {
			return token
		}
		return ""
	}, outcome("True", "ReconciliationSucceeded", "Applied", nil))
	if code, _, progress := run("approve", "ks", "apps", "--timeout=30s"); code != ExitDone ||
		!strings.Contains(progress, "deletion of Namespace/"+namespace+" confirmed") || !strings.Contains(progress, "nothing is held any more") {
		t.Errorf("approve gives %d and %q", code, progress)
	}
	if got := approved(); got != revision {
		t.Errorf("the annotation is %q", got)
	}
}
