package apply_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// TestIsolatedDefinitionThatIsNeverServed has a definition accepted whose kind another one
// has already: it is never established, and the rest is applied all the same.
func TestIsolatedDefinitionThatIsNeverServed(t *testing.T) {
	t.Parallel()
	definition := func(plural string) string {
		return `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ` + plural + `.$NS.test}
spec:
  group: $NS.test
  names: {kind: One, plural: ` + plural + `, singular: ` + plural + `, listKind: OneList}
  scope: Namespaced
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]
---
`
	}
	for _, isolate := range []bool{false, true} {
		t.Run(fmt.Sprint(isolate), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.applier.Patience = 2 * time.Second
			if _, err := w.applier.Run(t.Context(), w.request(w.compute(w.manifests(definition("ones"))))); err != nil {
				t.Fatal(err)
			}
			request := w.request(w.compute(w.manifests(definition("ones") + definition("others") +
				"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: $NS}\n")))
			request.Isolate = isolate
			_, err := w.applier.Run(t.Context(), request)
			if err == nil || !strings.Contains(err.Error(), "CustomResourceDefinition/others."+w.namespace+".test") {
				t.Fatalf("got %v", err)
			}
			if applied := w.find(gitops.ObjectRef{Kind: "ConfigMap", Namespace: w.namespace, Name: "a"}) != nil; applied != isolate {
				t.Errorf("the rest is applied: %t; %v", applied, err)
			}
		})
	}
}
