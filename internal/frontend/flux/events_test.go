package flux

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// kept keeps events.
type kept struct{ events []gitops.Event }

func (k *kept) Record(_ string, _ corev1.ObjectReference, e gitops.Event) {
	k.events = append(k.events, e)
}

func TestEventsNameTheOrigin(t *testing.T) {
	t.Parallel()
	obj := &kustomizev1.Kustomization{}
	obj.Status.LastAppliedRevision, obj.Status.LastAppliedOriginRevision = "latest@sha256:1", "main@sha1:1"
	for name, tt := range map[string]struct {
		event gitops.Event
		want  string
	}{
		"of what was applied": {gitops.Event{Revision: "latest@sha256:1"}, "main@sha1:1"},
		"of another revision": {gitops.Event{Revision: "latest@sha256:2"}, ""},
		"that have one":       {gitops.Event{Revision: "latest@sha256:1", Metadata: map[string]string{kustomizeGroup + "/originRevision": "main@sha1:2"}}, "main@sha1:2"},
		"with other metadata": {gitops.Event{Revision: "latest@sha256:1", Metadata: map[string]string{"a": "b"}}, "main@sha1:1"},
		"about no revision":   {gitops.Event{}, ""},
	} {
		to := &kept{}
		(&events{recorder: to, log: logr.Discard()}).kustomization(obj, tt.event)
		if got := to.events[0].Metadata[kustomizeGroup+"/originRevision"]; got != tt.want {
			t.Errorf("events %s have %q, want %q", name, got, tt.want)
		}
	}
}

func TestListsAreToldWhole(t *testing.T) {
	t.Parallel()
	for _, count := range []int{1, maxListed, maxListed + 1, 2*maxListed + 5} {
		t.Run(fmt.Sprint(count), func(t *testing.T) {
			t.Parallel()
			var names, told []string
			for i := range count {
				names = append(names, fmt.Sprintf("ConfigMap/a/%d", i))
			}
			to := &kept{}
			k := &kustomizations{events: &events{recorder: to, log: logr.Discard()}}
			k.tellAll(&kustomizev1.Kustomization{}, gitops.Event{Message: "left"}, names)
			for i, event := range to.events {
				about, list, _ := strings.Cut(event.Message, ":\n")
				if want := map[bool]string{true: "left", false: "left, continued"}[i == 0]; about != want {
					t.Errorf("event %d begins with %q, want %q", i, about, want)
				}
				lines := strings.Split(list, "\n")
				if len(lines) > maxListed {
					t.Errorf("event %d has %d lines", i, len(lines))
				}
				told = append(told, lines...)
			}
			if !slices.Equal(told, names) {
				t.Errorf("told are %d of %d names", len(told), len(names))
			}
		})
	}
}
