package simulate

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestStages(t *testing.T) {
	t.Parallel()
	stages, err := parseStages(stagesYAML)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]string{}
	for ref, stages := range stages {
		for _, stage := range stages {
			got[ref.APIGroup+" "+ref.Kind] = append(got[ref.APIGroup+" "+ref.Kind], stage.Name)
		}
	}
	want := map[string][]string{
		"v1 Node": {"node-ready"},
		"v1 Pod":  {"pod-ready", "pod-succeeded", "pod-deleted"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("stages by kind (-want +got):\n%s", diff)
	}
	if _, err := parseStages([]byte("{spec: [")); err == nil || !strings.Contains(err.Error(), "parse stages") {
		t.Errorf("malformed YAML: %v", err)
	}
}
