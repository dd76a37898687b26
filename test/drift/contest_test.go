package drift_test

import (
	"strings"
	"sync/atomic"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/plumb-gitops/plumb/internal/testenv"
	"github.com/plumb-gitops/plumb/test/lab"
)

// contested waits until the Kustomization names all words as contested.
func contested(l *lab.Lab, reason string, words ...string) {
	l.Helper()
	lab.Wait(l, l.Named("app"), "Contested for "+strings.Join(words, ", "), func(k *kustomizev1.Kustomization) bool {
		c := apimeta.FindStatusCondition(k.Status.Conditions, "Contested")
		if c == nil || c.Status != metav1.ConditionTrue || c.Reason != reason {
			return false
		}
		for _, word := range words {
			if !strings.Contains(c.Message, word) {
				return false
			}
		}
		return true
	})
}

// Somebody sets a field back as soon as it is repaired. The operator stops after
// five writes in the first minute, and says who it is.
func TestTwoWriters(t *testing.T) {
	t.Parallel()
	l, of := applied(t, []string{"fought over", "calm"}, func(string) string { return "ConfigMap" })
	s := of["fought over"]
	stream, err := l.Client.Watch(l.Context(), &corev1.ConfigMapList{}, client.InNamespace(l.Namespace), client.MatchingFields{"metadata.name": s.GetName()})
	l.Check(err)
	var rounds atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e := range stream.ResultChan() {
			c, ok := e.Object.(*corev1.ConfigMap)
			if !ok || c.Data["key"] != "value" {
				continue
			}
			rounds.Add(1)
			// A failure ends the fight, and the test by its patience.
			if l.Client.Patch(l.Context(), c, client.RawPatch("application/merge-patch+json", []byte(`{"data":{"key":"theirs"}}`)), client.FieldOwner("rival")) != nil {
				return
			}
		}
	}()
	contested(l, "FieldConflict", "ConfigMap/"+l.Namespace+"/"+s.GetName(), ".data.key", "rival")
	// The others are repaired as ever, and there is no further write meanwhile.
	calm := of["calm"]
	was := content(calm.Unstructured)
	calm.merge("test", `{"data":{"key":"drift"}}`)
	calm.repaired(was)
	stream.Stop()
	<-done
	if n := len(s.writes()) - 1; n > 5 || n < 2 {
		t.Errorf("%d repairs of an object that was changed %d times, want a few and at most 5", n, rounds.Load())
	}
}

// policy is a MutatingAdmissionPolicy that sets a key of the ConfigMaps in a
// namespace that are labelled for it, whoever writes them.
func policy(namespace string) []string {
	return []string{`
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata:
  name: ` + namespace + `
spec:
  failurePolicy: Fail
  reinvocationPolicy: Never
  matchConstraints:
    resourceRules:
    - apiGroups: [""]
      apiVersions: [v1]
      resources: [configmaps]
      operations: [CREATE, UPDATE]
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ` + namespace + `}}
    objectSelector: {matchLabels: {mutate: "yes"}}
  mutations:
  - patchType: JSONPatch
    jsonPatch:
      expression: '[JSONPatch{op: "replace", path: "/data/key", value: "mutated"}]'
`, `
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata:
  name: ` + namespace + `
spec:
  policyName: ` + namespace + `
`}
}

// Admission changes a field whenever it is written. The operator finds out by what
// the API server answers, does not try again, and says so; after a restart too.
func TestAdmissionChangesAField(t *testing.T) {
	t.Parallel()
	l, of := applied(t, []string{"calm"}, func(string) string { return "ConfigMap" })
	for _, text := range policy(l.Namespace) {
		u := &unstructured.Unstructured{}
		l.Check(yaml.Unmarshal([]byte(text), &u.Object))
		l.Check(l.Client.Create(l.Context(), u))
	}
	inForce(l)
	revision := l.Push(testenv.Files{"app/changed.yaml": strings.Replace(config("changed"), "labels:", "labels:\n    mutate: \"yes\"", 1)})
	l.Ready("app", revision)
	contested(l, "AdmissionChange", "ConfigMap/"+l.Namespace+"/changed", ".data.key", "admission")
	changed := subject{l, of["calm"].DeepCopy()}
	changed.SetName("changed")
	calm := of["calm"]
	was, answers := content(calm.Unstructured), 0
	if n := len(changed.writes()); n != 1 {
		t.Errorf("%d writes of an object that admission changes, want 1", n)
	}
	again := func(moment string) {
		t.Helper()
		before := len(l.Writes())
		if moment == "after a restart" {
			l.Kill()
			before = len(l.Writes())
			l.Start()
		}
		calm.merge("test", `{"data":{"key":"drift"}}`)
		calm.repaired(was)
		compared(l)
		contested(l, "AdmissionChange", "ConfigMap/"+l.Namespace+"/changed", ".data.key", "admission")
		for _, w := range l.Writes()[before:] {
			if w.ObjectRef.Resource == "configmaps" && w.ObjectRef.Name != calm.GetName() {
				t.Errorf("%s: %s %s", moment, w.Verb, w.RequestURI)
			}
			if w.ObjectRef.Resource == "kustomizations" {
				answers++
			}
		}
	}
	again("before a restart")
	again("after a restart")
	if answers > 2 {
		t.Errorf("%d status writes for two answers", answers)
	}
	l.Ready("app", l.Push(testenv.Files{"app/changed.yaml": testenv.Delete}))
	lab.Wait(l, l.Named("app"), "no longer Contested", func(k *kustomizev1.Kustomization) bool {
		return apimeta.FindStatusCondition(k.Status.Conditions, "Contested") == nil
	})
}

// inForce waits until the policy is: the API server learns of it by a watch.
func inForce(l *lab.Lab) {
	l.Helper()
	ctx := l.Context()
	for {
		c := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: l.Namespace, Name: "probe", Labels: map[string]string{"mutate": "yes"}},
			Data:       map[string]string{"key": "value"},
		}
		l.Check(l.Client.Create(ctx, c, client.DryRunAll))
		if c.Data["key"] == "mutated" {
			return
		}
	}
}
