package ownership_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/ownership"
)

// liveObject is an object as the API server shows it; owners are managers with the
// fields that each of them has. A manager that begins with + applied them.
func liveObject(t *testing.T, content string, owners map[string]string) *unstructured.Unstructured {
	t.Helper()
	object := &unstructured.Unstructured{}
	if err := json.Unmarshal([]byte(content), &object.Object); err != nil {
		t.Fatal(err)
	}
	var entries []string
	for manager, fields := range owners {
		operation := "Update"
		if name, ok := strings.CutPrefix(manager, "+"); ok {
			manager, operation = name, "Apply"
		}
		entries = append(entries, fmt.Sprintf(`{"manager":%q,"operation":%q,"apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":%s}`, manager, operation, fields))
	}
	var meta map[string]any
	if err := json.Unmarshal([]byte(`{"managedFields":[`+strings.Join(entries, ",")+`]}`), &meta); err != nil {
		t.Fatal(err)
	}
	if given, ok := object.Object["metadata"].(map[string]any); ok {
		maps.Copy(meta, given)
	}
	object.Object["metadata"] = meta
	return object
}

func TestRelax(t *testing.T) {
	t.Parallel()
	const replicas = `{"f:spec":{"f:replicas":{}}}`
	const containers = `{"f:spec":{"f:containers":{"k:{\"name\":\"b\"}":{".":{},"f:name":{},"f:cpu":{}}}}}`
	for name, test := range map[string]struct {
		manifest, live string
		owners         map[string]string
		pointers       string // separated by blanks
		want           string
	}{
		"as declared and ours": {
			`{"spec":{"replicas":1}}`, `{"spec":{"replicas":1}}`, map[string]string{"+us": replicas}, "/spec/replicas",
			`{"spec":{"replicas":1}}`,
		},
		"another value of somebody else's": {
			`{"spec":{"replicas":1,"paused":true}}`, `{"spec":{"replicas":5}}`, map[string]string{"hpa": replicas}, "/spec/replicas",
			`{"spec":{"paused":true}}`,
		},
		"the same value of somebody else's": {
			`{"spec":{"replicas":5,"paused":true}}`, `{"spec":{"replicas":5}}`, map[string]string{"hpa": replicas}, "/spec/replicas",
			`{"spec":{"paused":true}}`,
		},
		"a map that loses its last key goes too": {
			`{"spec":{"replicas":1},"kind":"A"}`, `{"spec":{"replicas":5}}`, map[string]string{"hpa": replicas}, "/spec/replicas",
			`{"kind":"A"}`,
		},
		"the declaration changed and the field is ours": {
			`{"spec":{"replicas":9}}`, `{"spec":{"replicas":1}}`, map[string]string{"+us": replicas}, "/spec/replicas",
			`{"spec":{"replicas":1}}`,
		},
		"another value that somebody else applied too": {
			`{"spec":{"replicas":9,"paused":true}}`, `{"spec":{"replicas":1}}`, map[string]string{"+us": replicas, "+keda": replicas}, "/spec/replicas",
			`{"spec":{"paused":true}}`,
		},
		"another value that nobody is named for": {
			`{"spec":{"replicas":9}}`, `{"spec":{"replicas":1}}`, nil, "/spec/replicas",
			`{"spec":{"replicas":1}}`,
		},
		"not in the cluster": {
			`{"spec":{"replicas":9,"paused":true}}`, `{"spec":{}}`, map[string]string{"+us": replicas}, "/spec/replicas",
			`{"spec":{"paused":true}}`,
		},
		"not declared": {
			`{"spec":{"paused":true}}`, `{"spec":{"replicas":9}}`, map[string]string{"hpa": replicas}, "/spec/replicas /status/x /spec/paused/x",
			`{"spec":{"paused":true}}`,
		},
		"an annotation with a slash": {
			`{"metadata":{"annotations":{"a/b~c":"1","d":"2"}}}`, `{}`, nil, "/metadata/annotations/a~1b~0c",
			`{"metadata":{"annotations":{"d":"2"}}}`,
		},
		"a part of an item, found by its key": {
			`{"spec":{"containers":[{"name":"b","cpu":"1"}]}}`, `{"spec":{"containers":[{"name":"sidecar","cpu":"9"},{"name":"b","cpu":"2"}]}}`,
			map[string]string{"+us": containers}, "/spec/containers/0/cpu",
			`{"spec":{"containers":[{"cpu":"2","name":"b"}]}}`,
		},
		"a part of an item that somebody else has": {
			`{"spec":{"containers":[{"name":"b","cpu":"1","image":"x"}]}}`, `{"spec":{"containers":[{"name":"sidecar","cpu":"9"},{"name":"b","cpu":"2"}]}}`,
			map[string]string{"+vpa": containers}, "/spec/containers/0/cpu",
			`{"spec":{"containers":[{"image":"x","name":"b"}]}}`,
		},
		"a part of a list that is one value": {
			`{"spec":{"args":["a","b","c"]}}`, `{"spec":{"args":["a","x","c"]}}`, map[string]string{"+us": `{"f:spec":{"f:args":{}}}`}, "/spec/args/1",
			`{"spec":{"args":["a","x","c"]}}`,
		},
		"items that are gone keep the places of others": {
			`{"spec":{"args":["a","b","c"]}}`, `{"spec":{"args":["x"]}}`, nil, "/spec/args/1 /spec/args/2 /spec/args/0 /spec/args/7 /spec/args/x",
			`{"spec":{"args":["x"]}}`,
		},
		"a map that somebody else has a part of": {
			`{"data":{"a":"1","b":"2","c":"3"}}`, `{"data":{"a":"1","b":"9","x":"their own","c":"theirs"}}`,
			map[string]string{"+us": `{"f:data":{"f:a":{},"f:b":{}}}`, "them": `{"f:data":{"f:x":{},"f:c":{}}}`}, "/data",
			`{"data":{"a":"1","b":"9"}}`,
		},
		"resources of which somebody has one limit": {
			`{"spec":{"containers":[{"name":"b","resources":{"limits":{"cpu":"1","memory":"2"},"requests":{"cpu":"1"}}}]}}`,
			`{"spec":{"containers":[{"name":"b","resources":{"limits":{"cpu":"5","memory":"2"},"requests":{"cpu":"1"}}}]}}`,
			map[string]string{
				"+us": `{"f:spec":{"f:containers":{"k:{\"name\":\"b\"}":{".":{},"f:name":{},"f:resources":{"f:limits":{"f:memory":{}},"f:requests":{"f:cpu":{}}}}}}}`,
				"vpa": `{"f:spec":{"f:containers":{"k:{\"name\":\"b\"}":{"f:resources":{"f:limits":{"f:cpu":{}}}}}}}`,
			}, "/spec/containers/0/resources",
			`{"spec":{"containers":[{"name":"b","resources":{"limits":{"memory":"2"},"requests":{"cpu":"1"}}}]}}`,
		},
		"a list of which somebody has an item": {
			`{"spec":{"containers":[{"name":"a","image":"1"},{"name":"b","image":"1"}],"x":1}}`,
			`{"spec":{"containers":[{"name":"a","image":"1"},{"name":"b","image":"7"}],"x":1}}`,
			map[string]string{
				"+us":  `{"f:spec":{"f:containers":{"k:{\"name\":\"a\"}":{".":{},"f:name":{},"f:image":{}}}}}`,
				"them": `{"f:spec":{"f:containers":{"k:{\"name\":\"b\"}":{".":{},"f:name":{},"f:image":{}}}}}`,
			}, "/spec/containers",
			`{"spec":{"containers":[{"image":"1","name":"a"}],"x":1}}`,
		},
		"the labels of the owner stay": {
			`{"metadata":{"labels":{"owner":"app","other":"1"}}}`, `{"metadata":{"labels":{"owner":"app","other":"2"}}}`,
			map[string]string{"them": `{"f:metadata":{"f:labels":{"f:owner":{},"f:other":{}}}}`}, "/metadata/labels /metadata/labels/owner",
			`{"metadata":{"labels":{"owner":"app"}}}`,
		},
		"a whole map": {
			`{"spec":{"resources":{"cpu":"1"},"x":1}}`, `{"spec":{"resources":{"cpu":"2","memory":"3"}}}`, nil, "/spec/resources",
			`{"spec":{"resources":{"cpu":"2","memory":"3"},"x":1}}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := ownership.Relax([]byte(test.manifest), liveObject(t, test.live, test.owners), gitops.Keys{Manager: "us", OwnerNameLabel: "owner"}, strings.Fields(test.pointers))
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestCheckPointer(t *testing.T) {
	t.Parallel()
	for pointer, want := range map[string]bool{
		"/spec/replicas": true, "/metadata/annotations/a~1b": true, "/spec//x": true, "/metadata/labels": true,
		"": false, "/": false, "spec": false, "/a~2": false, "/a~": false,
		"/apiVersion": false, "/kind": false, "/metadata": false, "/metadata/name": false, "/metadata/namespace": false,
	} {
		if err := ownership.CheckPointer(pointer); (err == nil) != want {
			t.Errorf("%q: %v", pointer, err)
		}
	}
}

// TestRelaxOfLongLists gives a list so long that to take it apart would take minutes.
func TestRelaxOfLongLists(t *testing.T) {
	t.Parallel()
	var items, fields []string
	for i := range 5000 {
		items = append(items, fmt.Sprintf(`{"name":"n%d","value":"1"}`, i))
		fields = append(fields, fmt.Sprintf(`"k:{\"name\":\"n%d\"}":{".":{},"f:name":{},"f:value":{}}`, i))
	}
	object := `{"env":[` + strings.Join(items, ",") + `]}`
	live := liveObject(t, object, map[string]string{"+us": `{"f:env":{` + strings.Join(fields, ",") + `}}`})
	_, err := ownership.Relax([]byte(object), live, gitops.Keys{Manager: "us"}, []string{"/env"})
	if err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("got %v", err)
	}
	short := `{"env":[` + strings.Join(items[:100], ",") + `]}`
	live = liveObject(t, short, map[string]string{"+us": `{"f:env":{` + strings.Join(fields[:100], ",") + `}}`})
	if _, err := ownership.Relax([]byte(short), live, gitops.Keys{Manager: "us"}, []string{"/env"}); err != nil {
		t.Error(err)
	}
}
