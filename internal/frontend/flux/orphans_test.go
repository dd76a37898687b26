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

// kept keeps the messages of events.
type kept struct{ messages []string }

func (k *kept) Record(_ string, _ corev1.ObjectReference, e gitops.Event) {
	k.messages = append(k.messages, e.Message)
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
			for i, message := range to.messages {
				about, list, _ := strings.Cut(message, ":\n")
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
