package drift_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// samples is how many repairs are measured.
const samples = 30

// A repair takes the write and its event, however many objects there are, and no
// look at anything.
func TestRequestsOfRepairs(t *testing.T) {
	t.Parallel()
	rows := make([]string, samples)
	for i := range rows {
		rows[i] = fmt.Sprint(i)
	}
	l, of := applied(t, rows, func(string) string { return "ConfigMap" })
	before := len(l.Requests())
	var took []time.Duration
	for _, row := range rows {
		c := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: l.Namespace, Name: of[row].GetName()}}
		stream, err := l.Client.Watch(l.Context(), &corev1.ConfigMapList{}, client.InNamespace(l.Namespace),
			client.MatchingFields{"metadata.name": c.Name}, &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: of[row].GetResourceVersion()}})
		l.Check(err)
		start := time.Now()
		l.Merge(c, `{"data":{"key":"drift"}}`)
		drifted := false
		for e := range stream.ResultChan() {
			is := e.Object.(*corev1.ConfigMap).Data["key"]
			if drifted = drifted || is == "drift"; drifted && is == "value" {
				break
			}
		}
		took = append(took, time.Since(start))
		stream.Stop()
	}
	l.Kill() // whatever it has sent is in the audit log now
	slices.Sort(took)
	requests := l.Requests()[before:]
	t.Logf("repaired after %s (p50), %s (max); %d requests for %d repairs", took[samples/2].Round(100*time.Microsecond),
		took[samples-1].Round(100*time.Microsecond), len(requests), samples)
	// The last events of the install may come late.
	if len(requests) > 2*samples+2 {
		t.Errorf("%d requests for %d repairs, want at most 2 for each", len(requests), samples)
		for _, r := range requests {
			t.Log(r.Verb, r.RequestURI)
		}
	}
}
