package ownership

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

func seed(f *testing.F) {
	for _, fields := range []string{
		`{}`, `null`, `{"f:data":{"f:a":{},"f:b":{}}}`, `{".":{}}`, `{"f:l":{"k:{\"name\":\"a\"}":{".":{},"f:name":{}}}}`,
		`{"f:l":{"v:1":{},"v:\"x\"":{},"i:0":{}}}`, `{"f:a":null}`, `{"f:a":{"f:b":{"f:c":{}}}}`, restarted,
	} {
		f.Add([]byte(fields), []byte(`{"apiVersion":"v1","kind":"ConfigMap","data":{"a":"1","b":"2"}}`))
		f.Add([]byte(fields), []byte(`{"apiVersion":"x.test/v1","kind":"X","l":[{"name":"a"}],"a":{"b":{"c":1}}}`))
	}
}

// FuzzNamesExactly holds NamesExactly against the reader of structured-merge-diff:
// where it is true, every scalar of the manifest stands below a member of the set.
func FuzzNamesExactly(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, fields, manifest []byte) {
		entry := applied("v1", string(fields))
		var object map[string]any
		if json.Unmarshal(manifest, &object) == nil {
			entry.APIVersion, _ = object["apiVersion"].(string)
		}
		if !EntryNamesExactly(entry, manifest) {
			return
		}
		var set fieldpath.Set
		if err := set.FromJSON(bytes.NewReader(fields)); err != nil {
			t.Fatalf("true for fields that cannot be read: %v", err)
		}
		for key := range withoutIdentity(object) {
			path := fieldpath.MakePathOrDie(key)
			if _, below := set.Children.Get(path[0]); !below && !set.Has(path) {
				t.Errorf("true, but %q is not in the set", key)
			}
		}
	})
}

// FuzzObserve looks for a panic, and for a take-over that loses a field.
func FuzzObserve(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, a, b []byte) {
		entries := []metav1.ManagedFieldsEntry{applied("v1", string(a)), updated("kubectl-edit", string(b))}
		live := Observe(&metav1.ObjectMeta{ManagedFields: entries}, testKeys())
		result, changed, err := TakeOver(entries, testKeys(), "v1")
		if changed != (len(live.TakeOver) > 0) && err == nil {
			t.Fatalf("changed = %v, but TakeOver = %v", changed, live.TakeOver)
		}
		if !changed {
			return
		}
		var got, want, more fieldpath.Set
		if want.FromJSON(bytes.NewReader(a)) != nil || more.FromJSON(bytes.NewReader(b)) != nil {
			return
		}
		if err := got.FromJSON(bytes.NewReader(rawFields(&result[len(result)-1]))); err != nil {
			t.Fatalf("the union cannot be read: %v", err)
		}
		if missing := want.Union(&more).Difference(&got); !missing.Empty() {
			t.Errorf("the union lost %v", missing)
		}
	})
}

// FuzzDifferences looks for a panic, and for differences between a manifest and
// itself.
func FuzzDifferences(f *testing.F) {
	f.Add([]byte(`{"spec":{"l":[{"name":"a"},{"name":"b"}],"m":{"x":1}}}`), []byte(`{"spec":{"l":[{"name":"a"},1],"m":[]}}`), []byte(`{"f:spec":{"f:l":{"k:{\"name\":\"a\"}":{}}}}`))
	f.Add([]byte(`{"apiVersion":"v1","kind":"Secret","data":{"a":"eA=="},"stringData":{"b":1}}`), []byte(`{"data":{"a":1}}`), []byte(`{"f:l":{}}`))
	f.Add([]byte(`{"a":["x",1,null],"b":0,"c":1e400}`), []byte(`{"a":[{}],"b":"0"}`), []byte(`{"f:a":{"v:1":{}}}`))
	f.Fuzz(func(t *testing.T, sent, got, fields []byte) {
		var answer, known map[string]any
		if json.Unmarshal(got, &answer) != nil || answer == nil {
			answer = map[string]any{}
		}
		if json.Unmarshal(fields, &known) == nil {
			answer["metadata"] = map[string]any{"managedFields": []any{map[string]any{"fieldsV1": known}}}
		}
		first := Differences(sent, answer)
		if !slices.Equal(first, Differences(sent, answer)) {
			t.Errorf("two answers to one question: %q", first)
		}
		var same map[string]any
		if json.Unmarshal(sent, &same) == nil && same != nil && same["apiVersion"] != "v1" {
			if d := Differences(sent, same); len(d) > 0 && !bytes.Contains(sent, []byte("null")) {
				t.Errorf("a manifest differs from itself in %q", d)
			}
		}
	})
}
