package plan

import (
	"slices"
	"testing"
)

func TestWavesKeepWhatMatters(t *testing.T) {
	t.Parallel()
	for name, order := range map[string][]string{
		"definitions come one kind after the other":        {"CustomResourceDefinition", "Namespace", "ClusterRole"},
		"a binding comes after its role":                   {"Role", "RoleBinding", "Deployment"},
		"what runs comes after what it mounts and obeys":   {"ConfigMap", "Deployment"},
		"accounts come before what runs as them":           {"ServiceAccount", "StatefulSet"},
		"limits come before what is admitted under them":   {"LimitRange", "CronJob"},
		"custom resources come with what runs, not before": {"Secret", "Widget", "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for i := 1; i < len(order); i++ {
				if Wave(order[i-1]) >= Wave(order[i]) {
					t.Errorf("%s (%d) does not come before %s (%d)", order[i-1], Wave(order[i-1]), order[i], Wave(order[i]))
				}
			}
		})
	}
	kinds := slices.Concat(first(), []string{"Widget"}, last())
	for _, a := range kinds {
		for _, b := range kinds {
			if Rank(a) < Rank(b) && Wave(a) > Wave(b) && a != "RoleBinding" {
				t.Errorf("%s comes before %s by rank and after it by wave", a, b)
			}
		}
	}
}
