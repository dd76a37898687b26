package kustomize_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plumb-gitops/plumb/internal/build"
	"github.com/plumb-gitops/plumb/internal/build/kustomize"
)

const widget = `apiVersion: example.com/v1
kind: Widget
metadata:
  name: w
spec:
  parts:
  - name: a
    size: 1
  - name: b
    size: 2
`

const widgetPatch = `apiVersion: example.com/v1
kind: Widget
metadata:
  name: w
spec:
  parts:
  - name: b
    size: 3
`

// widgetSchema makes parts a list that is merged by name.
const widgetSchema = `{"definitions": {"v1.Widget": {
  "properties": {
    "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"},
    "spec": {"type": "object", "properties": {"parts": {"type": "array",
      "items": {"type": "object", "properties": {"name": {"type": "string"}, "size": {"type": "integer"}}},
      "x-kubernetes-patch-merge-key": "name", "x-kubernetes-patch-strategy": "merge"}}}},
  "x-kubernetes-group-version-kind": [{"group": "example.com", "kind": "Widget", "version": "v1"}]}}}`

// TestParallelBuilds runs builds with and without a schema of their own at the
// same time: each result must be as if it had run alone.
func TestParallelBuilds(t *testing.T) {
	t.Parallel()
	kustomization := "resources: [w.yaml, ../base]\npatches: [{path: p.yaml}]\nnamespace: n\nlabels: [{pairs: {a: b}, includeSelectors: true}]\n"
	tree := newTree(map[string]string{
		"with/kustomization.yaml":    kustomization + "openapi: {path: schema.json}\n",
		"with/schema.json":           widgetSchema,
		"with/w.yaml":                widget,
		"with/p.yaml":                widgetPatch,
		"without/kustomization.yaml": kustomization,
		"without/w.yaml":             widget,
		"without/p.yaml":             widgetPatch,
		"broken/kustomization.yaml":  "resources: [../without]\nopenapi: {path: gone.json}\n",
		"base/kustomization.yaml":    "resources: [d.yaml, s.yaml]\n",
		"base/d.yaml":                deployment,
		"base/s.yaml":                service,
		"plain/d.yaml":               deployment,
		"plain/w.yaml":               widget,
	})
	builder := newBuilder(kustomize.Options{})
	make := func(path string) string {
		b, _, err := builder.Build(context.Background(), snapshotOf(tree), specFor(path), nil)
		if err != nil {
			return "error: " + err.Error()
		}
		var text strings.Builder
		for _, m := range b.Manifests {
			fmt.Fprintf(&text, "%s\n", m.JSON)
		}
		return text.String()
	}
	paths := []string{"with", "without", "broken", "plain", "base"}
	want := map[string]string{}
	for _, path := range paths {
		want[path] = make(path)
	}
	merged, replaced := `"parts":[{"name":"b","size":3},{"name":"a","size":1}]`, `"parts":[{"name":"b","size":3}]`
	if !strings.Contains(want["with"], `{"name":"a","size":1}`) {
		t.Fatalf("a schema of its own has no effect, want %s: %s", merged, want["with"])
	}
	if !strings.Contains(want["without"], replaced) {
		t.Fatalf("a schema leaks into another build, want %s: %s", replaced, want["without"])
	}
	rounds := 20
	if testing.Short() {
		rounds = 5
	}
	var wait sync.WaitGroup
	for worker := range 8 {
		wait.Go(func() {
			for i := range rounds {
				path := paths[(worker+i)%len(paths)]
				if diff := cmp.Diff(want[path], make(path)); diff != "" {
					t.Errorf("%s (-alone +parallel):\n%s", path, diff)
					return
				}
			}
		})
	}
	wait.Wait()
}

// application is an app of four objects as the benchmark of the whole has them.
func application(name string) string {
	return strings.ReplaceAll(`apiVersion: v1
kind: ServiceAccount
metadata:
  name: NAME
  namespace: apps
---
apiVersion: v1
kind: Service
metadata:
  name: NAME
  namespace: apps
spec:
  selector:
    app: NAME
  ports:
  - name: http
    port: 80
    targetPort: http
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: NAME
  namespace: apps
spec:
  replicas: 0
  selector:
    matchLabels:
      app: NAME
  template:
    metadata:
      labels:
        app: NAME
    spec:
      serviceAccountName: NAME
      containers:
      - name: app
        image: registry.example.com/NAME:1.0.0
        ports:
        - name: http
          containerPort: 8080
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: NAME
  namespace: apps
spec:
  rules:
  - host: NAME.example.com
    http:
      paths:
      - path: /
        pathType: Prefix
        backend:
          service:
            name: NAME
            port:
              name: http
`, "NAME", name)
}

// applications is a repository of n apps, one directory each, and their specs.
func applications(n int, withKustomization bool) (*memoryTree, []build.Spec) {
	files := map[string]string{}
	specs := make([]build.Spec, n)
	for i := range n {
		name := fmt.Sprintf("app-%04d", i)
		for j, doc := range strings.Split(application(name), "---\n") {
			files[fmt.Sprintf("apps/%s/%d.yaml", name, j)] = doc
		}
		if withKustomization {
			files["apps/"+name+"/kustomization.yaml"] = "resources: [0.yaml, 1.yaml, 2.yaml, 3.yaml]\n"
		}
		specs[i] = specFor("apps/" + name)
		specs[i].Owner.Name = name
	}
	return newTree(files), specs
}
