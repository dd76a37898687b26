package ownership

import (
	"crypto/sha256"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

const restarted = `{"f:spec":{"f:template":{"f:metadata":{"f:annotations":{".":{},"f:kubectl.kubernetes.io/restartedAt":{}}}}}}`

func TestObserve(t *testing.T) {
	t.Parallel()
	at := metav1.NewTime(time.Unix(1700000000, 0))
	own := applied("v1", `{"f:data":{"f:a":{}}}`)
	own.Time = &at
	meta := &metav1.ObjectMeta{
		UID: "u", ResourceVersion: "7", Generation: 3, DeletionTimestamp: &at,
		Labels:        map[string]string{"example.test/name": "o", "example.test/namespace": "n"},
		Annotations:   map[string]string{"example.test/apply": "merge"},
		ManagedFields: []metav1.ManagedFieldsEntry{updated("kubectl-edit", `{"f:data":{"f:b":{}}}`), own},
	}
	want := gitops.Live{
		UID: "u", ResourceVersion: "7", Generation: 3, Deleting: true,
		Fields:    sha256.Sum256([]byte(`{6 f:data{3 f:a{}}}`)),
		AppliedAt: 1700000000,
		TakeOver:  []string{"kubectl-edit"},
		Owner:     gitops.OwnerRef{Group: "example.test", Kind: "Owner", Namespace: "n", Name: "o"},
		Policy:    gitops.ObjectPolicy{Apply: gitops.ApplyMerge},
	}
	if diff := cmp.Diff(want, Observe(meta, testKeys())); diff != "" {
		t.Errorf("Observe (-want +got):\n%s", diff)
	}
	if got := Observe(&metav1.ObjectMeta{UID: "u"}, testKeys()); got.Fields != (gitops.Digest{}) {
		t.Errorf("Fields without managedFields = %v, want the zero digest", got.Fields)
	}
}

func TestObserveTakeOver(t *testing.T) {
	t.Parallel()
	status := updated("kubectl-patch", `{"f:status":{}}`)
	status.Subresource = "status"
	byApply := applied("v1", `{"f:data":{"f:a":{}}}`)
	byApply.Manager = "kubectl"
	for name, row := range map[string]struct {
		entries []metav1.ManagedFieldsEntry
		want    []string
	}{
		"names on the list, sorted and once": {[]metav1.ManagedFieldsEntry{
			updated("kubectl-patch", `{"f:x":{}}`), updated("kubectl-edit", `{"f:x":{}}`), updated("kubectl-edit", `{"f:y":{}}`),
		}, []string{"kubectl-edit", "kubectl-patch"}},
		"an apply of a listed manager": {[]metav1.ManagedFieldsEntry{byApply}, []string{"kubectl"}},
		"our own update":               {[]metav1.ManagedFieldsEntry{updated("applier", `{"f:x":{}}`)}, []string{"applier"}},
		"our own apply":                {[]metav1.ManagedFieldsEntry{applied("v1", `{"f:x":{}}`)}, nil},
		"another manager":              {[]metav1.ManagedFieldsEntry{updated("flux-client-side-apply", `{"f:x":{}}`)}, nil},
		"a subresource":                {[]metav1.ManagedFieldsEntry{status}, nil},
		"a rollout restart":            {[]metav1.ManagedFieldsEntry{updated("kubectl-rollout", restarted)}, nil},
		"a restart of the object itself": {[]metav1.ManagedFieldsEntry{updated("kubectl-annotate",
			`{"f:metadata":{".":{},"f:annotations":{"f:kubectl.kubernetes.io/restartedAt":{}}}}`)}, nil},
		"an entry that holds nothing": {[]metav1.ManagedFieldsEntry{updated("kubectl-edit", `{}`)}, nil},
		"an entry that is unreadable": {[]metav1.ManagedFieldsEntry{updated("kubectl-edit", `{`)}, []string{"kubectl-edit"}},
		"a restart and another annotation": {[]metav1.ManagedFieldsEntry{updated("kubectl-annotate",
			`{"f:metadata":{"f:annotations":{"f:a":{},"f:kubectl.kubernetes.io/restartedAt":{}}}}`)}, []string{"kubectl-annotate"}},
		"a restart and a field": {[]metav1.ManagedFieldsEntry{updated("kubectl-edit",
			`{"f:spec":{"f:replicas":{},"f:template":{"f:metadata":{"f:annotations":{"f:kubectl.kubernetes.io/restartedAt":{}}}}}}`)}, []string{"kubectl-edit"}},
		"a label of the name of a kept annotation": {[]metav1.ManagedFieldsEntry{updated("kubectl-label",
			`{"f:metadata":{"f:labels":{"f:kubectl.kubernetes.io/restartedAt":{}}}}`)}, []string{"kubectl-label"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := Observe(&metav1.ObjectMeta{ManagedFields: row.entries}, testKeys()).TakeOver
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("TakeOver (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFieldsDigestIsThatOfTheFieldsAlone(t *testing.T) {
	t.Parallel()
	fields := func(entries ...metav1.ManagedFieldsEntry) gitops.Digest {
		return Observe(&metav1.ObjectMeta{ManagedFields: entries}, testKeys()).Fields
	}
	base := applied("v1", `{"f:data":{"f:a<b":{}},"f:l":{"k:{\"port\":80}":{".":{},"f:port":{}},"k:{\"port\":443}":{".":{},"f:port":{}}}}`)
	later := base
	now := metav1.NewTime(time.Unix(1800000000, 0))
	later.Time = &now
	same := map[string][]metav1.ManagedFieldsEntry{
		"another time":                          {later},
		"a foreign entry":                       {base, updated("kubectl-edit", `{"f:x":{}}`)},
		"in another order and escaped for HTML": {applied("v1", `{"f:l":{"k:{\"port\":443}":{"f:port":{},".":{}},"k:{\"port\":80}":{".":{},"f:port":{}}},"f:data":{"f:a\u003cb":{}}}`)},
		"entries in another order":              {updated("x", `{}`), base},
	}
	for name, entries := range same {
		if fields(entries...) != fields(base) {
			t.Errorf("%s: the digest changed", name)
		}
	}
	v2 := applied("v2", `{"f:x":{}}`)
	if fields(base, v2) != fields(v2, base) {
		t.Error("the order of two own entries changes the digest")
	}
	for name, entries := range map[string][]metav1.ManagedFieldsEntry{
		"a field more":                    {applied("v1", `{"f:data":{"f:a<b":{},"f:c":{}}}`)},
		"a second entry":                  {base, v2},
		"an escaped escape is not undone": {applied("v1", `{"f:data":{"f:a\\u003cb":{}}}`)},
	} {
		if fields(entries...) == fields(base) {
			t.Errorf("%s: the digest did not change", name)
		}
	}
}

func TestTakeOver(t *testing.T) {
	t.Parallel()
	status := updated("kubectl-patch", `{"f:status":{}}`)
	status.Subresource = "status"
	restart := updated("kubectl-rollout", restarted)
	other := updated("controller", `{"f:spec":{"f:x":{}}}`)
	own := applied("apps/v1", `{"f:metadata":{"f:labels":{}},"f:spec":{"f:a":{}}}`)
	for name, row := range map[string]struct {
		entries []metav1.ManagedFieldsEntry
		want    []metav1.ManagedFieldsEntry
		changed bool
	}{
		"nothing to take over": {[]metav1.ManagedFieldsEntry{status, restart, other, own}, []metav1.ManagedFieldsEntry{status, restart, other, own}, false},
		"the union, a member with children stays a member": {
			[]metav1.ManagedFieldsEntry{own, status, restart, other, updated("kubectl-edit", `{"f:metadata":{"f:labels":{"f:b":{}}},"f:spec":{"f:c":{}}}`)},
			[]metav1.ManagedFieldsEntry{status, restart, other, applied("apps/v1",
				`{"f:metadata":{"f:labels":{".":{},"f:b":{}}},"f:spec":{"f:a":{},"f:c":{}}}`)}, true},
		"without an entry of our own": {
			[]metav1.ManagedFieldsEntry{updated("before-first-apply", `{"f:a":{}}`), updated("applier", `{"f:b":{}}`)},
			[]metav1.ManagedFieldsEntry{applied("x/v9", `{"f:a":{},"f:b":{}}`)}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, changed, err := TakeOver(row.entries, testKeys(), "x/v9")
			if err != nil || changed != row.changed {
				t.Fatalf("changed = %v, err = %v, want %v", changed, err, row.changed)
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("TakeOver (-want +got):\n%s", diff)
			}
		})
	}
	if _, changed, err := TakeOver([]metav1.ManagedFieldsEntry{updated("kubectl-edit", `{"f:a":`)}, testKeys(), "v1"); err == nil || changed {
		t.Errorf("an unreadable entry: changed = %v, err = %v, want an error", changed, err)
	}
}

func BenchmarkObserve(b *testing.B) {
	entry := applied("apps/v1", `{"f:metadata":{"f:labels":{"f:app":{},"f:example.test/name":{},"f:example.test/namespace":{}}},"f:spec":{"f:replicas":{},"f:selector":{},"f:template":{"f:metadata":{"f:labels":{"f:app":{}}},"f:spec":{"f:serviceAccountName":{},"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:args":{},"f:image":{},"f:name":{},"f:resources":{"f:limits":{"f:cpu":{},"f:memory":{}},"f:requests":{"f:cpu":{},"f:memory":{}}},"f:readinessProbe":{"f:httpGet":{"f:path":{},"f:port":{}}},"f:ports":{"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{}}}}}}}}}`)
	meta := &metav1.ObjectMeta{UID: "u", ManagedFields: []metav1.ManagedFieldsEntry{entry, updated("controller", `{"f:status":{"f:a":{}}}`)}}
	keys := testKeys()
	for b.Loop() {
		Observe(meta, keys)
	}
}
