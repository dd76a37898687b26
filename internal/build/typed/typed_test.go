package typed_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"

	"github.com/plumb-gitops/plumb/internal/build/typed"
)

// Not parallel: it adds to what is everybody's before anybody else looks there.
func TestKindsThatALibraryAddsToTheSharedScheme(t *testing.T) {
	kind := schema.GroupVersionKind{Group: "library.example.com", Version: "v1", Kind: "Secret"}
	scheme.Scheme.AddKnownTypeWithName(kind, &corev1.Secret{})
	object := map[string]any{"apiVersion": "library.example.com/v1", "kind": "Secret", "metadata": map[string]any{"name": "a"}, "stringData": map[string]any{"a": "b"}, "immutable": nil}
	got, err := typed.New().Normalise(runtime.DeepCopyJSON(object))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(object, got); diff != "" {
		t.Errorf("the object is not as written (-written +got):\n%s", diff)
	}
}

func TestNormalise(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ object, want string }{
		"a port gets its protocol, and structs are printed": {
			"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a, creationTimestamp: null}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec: {containers: [{name: c, image: i, ports: [{containerPort: 80}]}]}\nstatus: {replicas: 3}\n",
			`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a"},"spec":{"selector":{"matchLabels":{"a":"b"}},"strategy":{},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"image":"i","name":"c","ports":[{"containerPort":80,"protocol":"TCP"}],"resources":{}}]}}}}`,
		},
		"a port of a service that names no target has its own number as target": {
			"apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}, {port: 81, targetPort: 8081}, {port: 82, targetPort: http}, {port: 83, targetPort: 0}]}\n",
			`{"apiVersion":"v1","kind":"Service","metadata":{"name":"a"},"spec":{"ports":[{"port":80,"protocol":"TCP","targetPort":80},{"port":81,"protocol":"TCP","targetPort":8081},{"port":82,"protocol":"TCP","targetPort":"http"},{"port":83,"protocol":"TCP","targetPort":83}]}}`,
		},
		"stringData becomes data": {
			"apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {a: YQ==, b: YQ==}\nstringData: {b: b}\n",
			`{"apiVersion":"v1","data":{"a":"YQ==","b":"Yg=="},"kind":"Secret","metadata":{"name":"a"}}`,
		},
		"a field that the type does not know is kept": {
			"apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {new: field, ports: [{port: 80}, {port: 53, protocol: UDP}]}\nstatus: {}\n",
			`{"apiVersion":"v1","kind":"Service","metadata":{"name":"a"},"spec":{"new":"field","ports":[{"port":80,"protocol":"TCP"},{"port":53,"protocol":"UDP"}]}}`,
		},
		"a value of the wrong type is kept": {
			"apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: a}\nspec: {schedule: 5, jobTemplate: {spec: {template: {spec: {containers: [{name: c, ports: [{containerPort: 1}]}]}}}}}\n",
			`{"apiVersion":"batch/v1","kind":"CronJob","metadata":{"name":"a"},"spec":{"jobTemplate":{"spec":{"template":{"spec":{"containers":[{"name":"c","ports":[{"containerPort":1,"protocol":"TCP"}]}]}}}},"schedule":5}}`,
		},
		"stringData of a secret that the type cannot hold": {
			"apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nnew: field\nstringData: {b: b}\n",
			`{"apiVersion":"v1","data":{"b":"Yg=="},"kind":"Secret","metadata":{"name":"a"},"new":"field"}`,
		},
		"stringData that is no text is left to the server": {
			"apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {b: 1}\n",
			`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"},"stringData":{"b":1}}`,
		},
		"a role is kept as written": {
			"apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: a}\naggregationRule: {}\n",
			`{"aggregationRule":{},"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"a"}}`,
		},
		"a custom resource loses its status": {
			"apiVersion: example.com/v1\nkind: X\nmetadata: {name: a, creationTimestamp: null}\nspec: {a: null, b: {}}\nstatus: {c: d}\n",
			`{"apiVersion":"example.com/v1","kind":"X","metadata":{"name":"a"},"spec":{"a":null,"b":{}}}`,
		},
		"a definition keeps its status": {
			"apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: a}\nstatus: {conditions: []}\n",
			`{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"a"},"status":{"conditions":[]}}`,
		},
		"a definition loses certificates that are none": {
			"apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: a}\nspec: {conversion: {strategy: Webhook, webhook: {clientConfig: {caBundle: Cg==, service: {name: x}}}}}\n",
			`{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"a"},"spec":{"conversion":{"strategy":"Webhook","webhook":{"clientConfig":{"service":{"name":"x"}}}}}}`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var object map[string]any
			if err := yaml.Unmarshal([]byte(test.object), &object); err != nil {
				t.Fatal(err)
			}
			// Numbers as the API machinery has them.
			got, err := typed.New().Normalise(whole(object).(map[string]any))
			if err != nil {
				t.Fatal(err)
			}
			text, err := json.Marshal(got)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, string(text)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func whole(value any) any {
	switch v := value.(type) {
	case map[string]any:
		for k, inner := range v {
			v[k] = whole(inner)
		}
	case []any:
		for i, inner := range v {
			v[i] = whole(inner)
		}
	case float64:
		return int64(v)
	}
	return value
}
