package ownership

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

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

func applied(apiVersion, fields string) metav1.ManagedFieldsEntry {
	return metav1.ManagedFieldsEntry{
		Manager:    "applier",
		Operation:  metav1.ManagedFieldsOperationApply,
		APIVersion: apiVersion,
		FieldsType: "FieldsV1",
		FieldsV1:   metav1.NewFieldsV1(fields),
	}
}

func updated(manager, fields string) metav1.ManagedFieldsEntry {
	e := applied("v1", fields)
	e.Manager, e.Operation = manager, metav1.ManagedFieldsOperationUpdate
	return e
}

func TestEntryNamesExactly(t *testing.T) {
	t.Parallel()
	const deployment = `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a","namespace":"n","labels":{"app":"a"}},
		"spec":{"replicas":1,"selector":{"matchLabels":{"app":"a"}},"template":{"metadata":{"labels":{"app":"a"}},
		"spec":{"containers":[{"name":"c","image":"i","args":["x","y"],"ports":[{"containerPort":80},{"containerPort":80,"protocol":"UDP"}]}],
		"volumes":[{"name":"v","emptyDir":{}}]}}}}`
	const deploymentFields = `{"f:metadata":{"f:labels":{"f:app":{}}},"f:spec":{"f:replicas":{},"f:selector":{},
		"f:template":{"f:metadata":{"f:labels":{"f:app":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:args":{},"f:image":{},"f:name":{},
		"f:ports":{"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{}},
		"k:{\"containerPort\":80,\"protocol\":\"UDP\"}":{".":{},"f:containerPort":{},"f:protocol":{}}}}},
		"f:volumes":{"k:{\"name\":\"v\"}":{".":{},"f:emptyDir":{},"f:name":{}}}}}}}`
	const config = `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"a":"1","b":"2"}}`
	for name, row := range map[string]struct {
		manifest, apiVersion, fields string
		want                         bool
	}{
		"a deployment with atomic, defaulted and empty parts": {deployment, "apps/v1", deploymentFields, true},
		"an entry of another API version":                     {deployment, "apps/v1beta2", deploymentFields, false},
		"a config map":                                        {config, "v1", `{"f:data":{"f:a":{},"f:b":{}}}`, true},
		"a key that somebody took":                            {config, "v1", `{"f:data":{"f:a":{}}}`, false},
		"a key that is not declared any more":                 {config, "v1", `{"f:data":{"f:a":{},"f:b":{},"f:c":{}}}`, false},
		"another key":                                         {config, "v1", `{"f:data":{"f:a":{},"f:c":{}}}`, false},
		"the map is named itself too":                         {config, "v1", `{"f:data":{".":{},"f:a":{},"f:b":{}}}`, true},
		"everything was taken":                                {config, "v1", `{}`, false},
		"a scalar that is named as a map":                     {config, "v1", `{"f:data":{"f:a":{"f:x":{}},"f:b":{}}}`, false},
		"an element of an unknown kind":                       {config, "v1", `{"f:data":{"f:a":{},"f:b":{},"x:c":{}}}`, false},
		"fields that are no JSON":                             {config, "v1", `{`, false},
		"a manifest that is no object":                        {`[]`, "v1", `{}`, false},
		"a manifest with text after it":                       {config + `{}`, "v1", `{"f:data":{"f:a":{},"f:b":{}}}`, false},
		"an empty list that is not named may be atomic":       {`{"apiVersion":"v1","kind":"X","a":[]}`, "v1", `{}`, false},
		"an empty list that is named":                         {`{"apiVersion":"v1","kind":"X","a":[]}`, "v1", `{"f:a":{}}`, true},
		"null is named":                                       {`{"apiVersion":"v1","kind":"X","a":null}`, "v1", `{"f:a":{}}`, true},
		"identity is never named":                             {`{"apiVersion":"v1","kind":"X","metadata":{"name":"a","namespace":"b","creationTimestamp":null,"uid":"u"}}`, "v1", `{}`, true},
		"identity in a template is":                           {`{"apiVersion":"v1","kind":"X","t":{"metadata":{"creationTimestamp":null}}}`, "v1", `{"f:t":{"f:metadata":{"f:creationTimestamp":{}}}}`, true},
		"a set":                                               {`{"apiVersion":"v1","kind":"X","metadata":{"finalizers":["a","b"]}}`, "v1", `{"f:metadata":{"f:finalizers":{".":{},"v:\"a\"":{},"v:\"b\"":{}}}}`, true},
		"a set that lost an item":                             {`{"apiVersion":"v1","kind":"X","metadata":{"finalizers":["a","b"]}}`, "v1", `{"f:metadata":{"f:finalizers":{"v:\"a\"":{}}}}`, false},
		"a set with another item":                             {`{"apiVersion":"v1","kind":"X","metadata":{"finalizers":["a","b"]}}`, "v1", `{"f:metadata":{"f:finalizers":{"v:\"a\"":{},"v:\"c\"":{}}}}`, false},
		"a list item twice":                                   {`{"apiVersion":"v1","kind":"X","l":["a","a"]}`, "v1", `{"f:l":{"v:\"a\"":{},"v:\"b\"":{}}}`, false},
		"numbers as keys":                                     {`{"apiVersion":"v1","kind":"X","l":[{"port":80.0}]}`, "v1", `{"f:l":{"k:{\"port\":80}":{".":{},"f:port":{}}}}`, true},
		"a list item that is not named itself":                {`{"apiVersion":"v1","kind":"X","l":[{"name":"a"}]}`, "v1", `{"f:l":{"k:{\"name\":\"a\"}":{"f:name":{}}}}`, false},
		"a list item whose fields were taken":                 {`{"apiVersion":"v1","kind":"X","l":[{"name":"a"}]}`, "v1", `{"f:l":{"k:{\"name\":\"a\"}":{}}}`, false},
		"items that differ in defaulted keys only":            {`{"apiVersion":"v1","kind":"X","l":[{"p":1},{"p":1}]}`, "v1", `{"f:l":{"k:{\"p\":1,\"q\":1}":{".":{},"f:p":{}},"k:{\"p\":1,\"q\":2}":{".":{},"f:p":{}}}}`, false},
		"an index":                 {`{"apiVersion":"v1","kind":"X","l":[1]}`, "v1", `{"f:l":{"i:0":{}}}`, false},
		"a Secret with stringData": {`{"apiVersion":"v1","kind":"Secret","stringData":{"a":"b"}}`, "v1", `{"f:stringData":{"f:a":{}}}`, false},
		"a custom resource with scalars and an atomic list":       {`{"apiVersion":"x.test/v1","kind":"X","spec":{"a":1,"l":["x"]}}`, "x.test/v1", `{"f:spec":{"f:a":{},"f:l":{}}}`, true},
		"a custom resource whose map may have lost its keys":      {`{"apiVersion":"x.test/v1","kind":"X","spec":{"a":1,"m":{"x":1}}}`, "x.test/v1", `{"f:spec":{"f:a":{},"f:m":{}}}`, false},
		"a custom resource whose list may have lost its items":    {`{"apiVersion":"x.test/v1","kind":"X","spec":{"m":{"a":["x"],"b":["y"]}}}`, "x.test/v1", `{"f:spec":{"f:m":{"f:a":{},"f:b":{}}}}`, false},
		"a free key that is named itself with all that is in it":  {`{"apiVersion":"x.test/v1","kind":"X","spec":{"m":{"x":1}}}`, "x.test/v1", `{"f:spec":{"f:m":{".":{},"f:x":{}}}}`, true},
		"a field in a list element of another name is not enough": {`{"apiVersion":"v1","kind":"X","l":[{"name":"a","v":1}]}`, "v1", `{"f:l":{"k:{\"name\":\"b\"}":{".":{},"f:name":{},"f:v":{}}}}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := EntryNamesExactly(applied(row.apiVersion, row.fields), []byte(row.manifest))
			if got != row.want {
				t.Errorf("EntryNamesExactly = %v, want %v", got, row.want)
			}
		})
	}
}

func TestNamesExactlyNeedsOneOwnEntry(t *testing.T) {
	t.Parallel()
	manifest := []byte(`{"apiVersion":"v1","kind":"ConfigMap","data":{"a":"1"}}`)
	own := applied("v1", `{"f:data":{"f:a":{}}}`)
	sub := own
	sub.Subresource = "status"
	other := own
	other.Manager = "somebody"
	for name, row := range map[string]struct {
		entries []metav1.ManagedFieldsEntry
		want    bool
	}{
		"one":                   {[]metav1.ManagedFieldsEntry{other, own}, true},
		"none":                  {nil, false},
		"two":                   {[]metav1.ManagedFieldsEntry{own, own}, false},
		"of a subresource":      {[]metav1.ManagedFieldsEntry{sub}, false},
		"of another manager":    {[]metav1.ManagedFieldsEntry{other}, false},
		"own, but by an update": {[]metav1.ManagedFieldsEntry{updated("applier", `{"f:data":{"f:a":{}}}`)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := NamesExactly(row.entries, testKeys(), manifest); got != row.want {
				t.Errorf("NamesExactly = %v, want %v", got, row.want)
			}
		})
	}
}
