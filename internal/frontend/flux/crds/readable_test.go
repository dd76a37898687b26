package crds_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	swapi "github.com/fluxcd/source-watcher/api/v2/v1beta1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	kjson "sigs.k8s.io/json"

	"github.com/plumb-gitops/plumb/internal/frontend/flux/crds"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }

// leaf is a field of the served kinds that is no object, list or map of others.
type leaf struct {
	// path is where it is first.
	path   string
	goType reflect.Type
	schema apiextensionsv1.JSONSchemaProps
}

// TestWhatIsTakenCanBeRead makes the API server judge values that Go's types of Flux's kinds
// may refuse, for every field of the served kinds. One object with such a value makes every
// list of its kind an error, so that no object of the kind is seen in any namespace.
func TestWhatIsTakenCanBeRead(t *testing.T) {
	t.Parallel()
	leaves := leavesOf(t)
	judge := newJudge(t, leaves)
	for i, l := range leaves {
		values, usual := valuesFor(t, l)
		if reply, err := judge(i, usual); err != nil {
			t.Errorf("%s: %s is refused, so that this test says nothing: %v", l.path, usual, err)
		} else if err := reads(l.goType, reply); err != nil {
			t.Errorf("%s: %s cannot be read: %v", l.path, usual, err)
		}
		for _, value := range values {
			reply, err := judge(i, value)
			switch {
			case apierrors.IsInvalid(err) || apierrors.IsBadRequest(err):
			case err != nil:
				t.Errorf("%s: %s: %v", l.path, value, err)
			default:
				if err := reads(l.goType, reply); err != nil {
					t.Errorf("%s takes %s, which Go cannot read: %v", l.path, value, err)
				}
			}
		}
	}
}

// valuesFor gives what a field might take though Go does not, and a value that is fine.
func valuesFor(t *testing.T, l leaf) (values []string, usual string) {
	t.Helper()
	mixed := []string{`1`, `-1`, `1.5`, `true`, `""`, `"x"`, `{}`, `[]`, `[1]`, `["x"]`, `[[]]`, `["2026-01-31T23:59:59Z"]`, `["1m"]`, `1e400`}
	switch reflect.New(l.goType).Interface().(type) {
	case *metav1.Time:
		return append(mixed, hostileTimes()...), `"2026-01-31T23:59:59Z"`
	case *metav1.Duration:
		return append(mixed, `"9223372036854775807ns"`, `"99999999999999999m"`, `"1000000000h"`, `"1"`, `"-1h"`, `"1h-1m"`, `"١h"`, `".h"`, `"1.h"`, `"`+strings.Repeat("2000000h", 9)+`"`), `"1m"`
	case *apiextensionsv1.JSON:
		return append(mixed, `99999999999999999999`), `{"a":1}`
	}
	switch l.goType.Kind() {
	case reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint32, reflect.Uint64, reflect.Uint, reflect.Uint8, reflect.Int8, reflect.Int16, reflect.Uint16:
		return append(mixed, `1.0`, `-0.0`, `1e2`, `1e15`, `1e16`, `1e18`, `1e19`, `1e21`, `1e30`, `-1e30`, `128`, `-129`, `256`, `32768`, `65536`, `2147483648`, `-2147483649`, `4294967296`,
			`9007199254740992`, `9007199254740993`, `9007199254740993.0`, `9223372036854775807`, `9223372036854775808`, `-9223372036854775808`, `-9223372036854775809`, `18446744073709551616`, `99999999999999999999`), `1`
	}
	t.Errorf("%s: this test knows no values for a %s", l.path, l.goType)
	return nil, ""
}

// hostileTimes look like times.
func hostileTimes() []string {
	times := []string{
		"", "2026-01-01", "2026-01-01T00:00:00", "2026-01-01T00:00Z", "2026-01-01t00:00:00z", "2026-01-01T00:00:00z", "2026-01-01t00:00:00Z",
		"2026-01-01T00:00:60Z", "2026-01-01T24:00:00Z", "2026-01-01T00:60:00Z", "2026-02-29T00:00:00Z", "2026-13-01T00:00:00Z", "2026-00-00T00:00:00Z",
		"2026-01-01T00:00:00+24:00", "2026-01-01T00:00:00+99:99", "2026-01-01T00:00:00-00:60", "2026-01-01T00:00:00+0000", "2026-01-01T00:00:00+00",
		"2026-01-01T00:00:00.Z", "2026-01-01T00:00:00x1Z", "2026-01-01T00:00:00,1Z", "2026-01-01T00:00:00.123456789123456789Z", "2026-01-01T00:00:00ZT", "2026-01-01T00:00:00Ztx",
		"20260-01-01T00:00:00Z", "-026-01-01T00:00:00Z", "0000-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-01-01 00:00:00Z", " 2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z\\n", "2026-01-01T00:00:00.000000000000000000000Z",
	}
	for i, text := range times {
		times[i] = `"` + text + `"`
	}
	return times
}

// reads decodes a value as the caches do.
func reads(into reflect.Type, value []byte) error {
	return kjson.UnmarshalCaseSensitivePreserveInts(value, reflect.New(into).Interface())
}

// newJudge installs a kind with all leaves as its fields, and gives what the API server makes
// of a value of one of them.
func newJudge(t *testing.T, leaves []leaf) func(i int, value string) ([]byte, error) {
	t.Helper()
	fields := map[string]apiextensionsv1.JSONSchemaProps{}
	for i, l := range leaves {
		fields[fmt.Sprint("f", i)] = l.schema
	}
	definition, err := json.Marshal(apiextensionsv1.CustomResourceDefinition{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apiextensions.k8s.io/v1", Kind: "CustomResourceDefinition"},
		ObjectMeta: metav1.ObjectMeta{Name: "leaves.test.plumb.dev"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "test.plumb.dev", Scope: apiextensionsv1.ClusterScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "leaves", Kind: "Leaf"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1", Served: true, Storage: true, Schema: &apiextensionsv1.CustomResourceValidation{
				OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{
					"spec": {Type: "object", Properties: fields},
				}},
			}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	all, err := crds.All()
	if err != nil {
		t.Fatal(err)
	}
	var definitions bytes.Buffer
	if err := crds.WriteYAML(&definitions, all); err != nil {
		t.Fatal(err)
	}
	cluster := testenv.Get(t)
	cluster.Apply(t, definitions.String(), "--server-side") // what checks values may cost too much
	cluster.Apply(t, string(definition), "--server-side")
	cluster.Kubectl(t, "wait", "crd", "leaves.test.plumb.dev", "--for=condition=Established", "--timeout=60s")
	config := rest.CopyConfig(cluster.REST)
	config.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	client, err := rest.UnversionedRESTClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	return func(i int, value string) ([]byte, error) {
		field := fmt.Sprint("f", i)
		body := fmt.Sprintf(`{"apiVersion":"test.plumb.dev/v1","kind":"Leaf","metadata":{"name":"x"},"spec":{%q:%s}}`, field, value)
		answer, err := client.Post().AbsPath("/apis/test.plumb.dev/v1/leaves").Param("dryRun", "All").
			SetHeader("Content-Type", "application/json").Body([]byte(body)).DoRaw(t.Context())
		if err != nil {
			return nil, err
		}
		var object struct{ Spec map[string]json.RawMessage }
		if err := json.Unmarshal(answer, &object); err != nil {
			return nil, err
		}
		return object.Spec[field], nil
	}
}

// leavesOf gives the fields of the served kinds, one for each type and schema.
func leavesOf(t *testing.T) []leaf {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{kustomizev1.AddToScheme, sourcev1.AddToScheme, swapi.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	served, err := crds.Served()
	if err != nil {
		t.Fatal(err)
	}
	found := finder{t: t, leaves: map[string]leaf{}}
	for _, d := range served {
		object, err := scheme.New(d.Kind)
		if err != nil {
			t.Fatal(err)
		}
		var definition apiextensionsv1.CustomResourceDefinition
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(d.Object.Object, &definition); err != nil {
			t.Fatal(err)
		}
		schema := *definition.Spec.Versions[0].Schema.OpenAPIV3Schema
		for _, part := range []string{"spec", "status"} {
			f, _ := fieldOf(reflect.TypeOf(object).Elem(), part)
			found.find(d.Kind.Kind+"."+part, f, schema.Properties[part])
		}
	}
	return slices.SortedFunc(maps.Values(found.leaves), func(a, b leaf) int { return strings.Compare(a.path, b.path) })
}

// finder goes through a type and its schema together.
type finder struct {
	t *testing.T
	// leaves are by type and schema.
	leaves map[string]leaf
}

func (f finder) find(path string, of reflect.Type, schema apiextensionsv1.JSONSchemaProps) {
	for of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	want := map[reflect.Kind]string{reflect.Struct: "object", reflect.Map: "object", reflect.Slice: "array", reflect.String: "string", reflect.Bool: "boolean"}[of.Kind()]
	if _, own := reflect.New(of).Interface().(json.Unmarshaler); own || want == "" {
		f.leaf(leaf{path: path, goType: of, schema: schema})
		return
	}
	if schema.Type != want || schema.XIntOrString {
		f.t.Errorf("%s is a %s, and its schema says %q", path, of, schema.Type)
		return
	}
	switch of.Kind() {
	case reflect.Slice:
		if of.Elem().Kind() == reflect.Uint8 {
			f.leaf(leaf{path: path, goType: of, schema: schema})
			return
		}
		f.find(path+"[]", of.Elem(), *schema.Items.Schema)
	case reflect.Map:
		if schema.AdditionalProperties == nil || schema.AdditionalProperties.Schema == nil {
			f.t.Errorf("%s is a %s, and its schema says nothing of the values", path, of)
			return
		}
		f.find(path+"{}", of.Elem(), *schema.AdditionalProperties.Schema)
	case reflect.Struct:
		if schema.XPreserveUnknownFields != nil {
			f.t.Errorf("%s is a %s, and its schema takes any fields", path, of)
		}
		for name, below := range schema.Properties {
			if field, ok := fieldOf(of, name); ok {
				f.find(path+"."+name, field, below)
			}
		}
	}
}

func (f finder) leaf(l leaf) {
	l.schema.Description, l.schema.Default = "", nil
	text, err := json.Marshal(l.schema)
	if err != nil {
		f.t.Fatal(err)
	}
	key := l.goType.String() + string(text)
	if known, ok := f.leaves[key]; !ok || l.path < known.path {
		f.leaves[key] = l
	}
}

// fieldOf gives the type of a field of a struct by its name in JSON.
func fieldOf(of reflect.Type, name string) (reflect.Type, bool) {
	for i := range of.NumField() {
		field := of.Field(i)
		tag, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if tag == name {
			return field.Type, true
		}
		if field.Anonymous && tag == "" {
			if found, ok := fieldOf(field.Type, name); ok {
				return found, true
			}
		}
	}
	return nil, false
}
