package try

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/terminal"
)

// shownState is a state and a session that shows it, at a time.
func shownState() (*session, State, time.Time) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := &session{
		started: now.Add(-42 * time.Second), work: "/session", repository: &repository{folder: "/fleet"},
		plane: &controlPlane{said: "ready in 2.1s: Kubernetes v1.37.2 at https://127.0.0.1:1"},
		view:  &view{head: "main@sha1:22222222222222222222"},
	}
	s.view.happened = []Happened{
		{At: now.Add(-time.Minute), Object: "kustomization flux-system/apps", Message: "Deployment/demo/web created"},
		{At: now.Add(-2 * time.Second), Object: "kustomization flux-system/apps", Message: "it failed", Warning: true},
	}
	root := kustomization(rootName, ready("True", "Succeeded", "Applied revision: main@sha1:2222"), "main@sha1:22222222222222222222")
	root.Current, root.Total, root.Changed = 1, 2, now.Add(-3*time.Minute)
	refused := notServedSource(kustomization("infra", stalled("FeatureGateDisabled", "no"), ""))
	web, api := object("Deployment", "web", gitops.HealthCurrent), object("Deployment", "api", gitops.HealthInProgress)
	web.Changed, api.Changed = now.Add(-5*time.Second), now.Add(-2*time.Hour)
	return s, State{
		Sources:        []Source{gitSource(ready("True", "Succeeded", "stored"), "main@sha1:22222222222222222222")},
		Kustomizations: []Kustomization{root, refused},
		Objects:        []Object{web, api},
		NotServed:      []Object{{Ref: gitops.ObjectRef{Kind: "HelmRelease", Name: "x"}, Name: "HelmRelease/x", NotServed: true}},
	}, now
}

func TestScreen(t *testing.T) {
	t.Parallel()
	s, state, now := shownState()
	want := `plumb try /fleet  main@sha1:22222222  42s  1/2 objects current
Kubernetes v1.37.2; workloads are simulated: pods become ready, nothing runs in them

SOURCE                                 READY  REVISION            CHANGED  MESSAGE
gitrepository flux-system/flux-system  True   main@sha1:22222222           stored

KUSTOMIZATION            READY       OBJECTS  REVISION            CHANGED  MESSAGE
flux-system/flux-system  True        1/2      main@sha1:22222222  5s       Applied revision: main@sha1:2222
flux-system/infra        not served  0/0                                   no

OBJECT               HEALTH      CHANGED  MESSAGE
Deployment/apps/api  InProgress  2h       so
HelmRelease/x        not served           this version of Plumb does not work on its kind
Deployment/apps/web  Current     5s       

03:03:05  kustomization flux-system/apps: Deployment/demo/web created
03:04:03  kustomization flux-system/apps: it failed

export KUBECONFIG=/session/kubeconfig   Ctrl-C ends`
	if diff := cmp.Diff(want, strings.Join(s.screen(state, terminal.Terminal{}, now), "\n")); diff != "" {
		t.Errorf("screen differs (-want +got):\n%s", diff)
	}
}

func TestScreenFitsTheTerminal(t *testing.T) {
	t.Parallel()
	s, state, now := shownState()
	for _, to := range []terminal.Terminal{{Width: 100, Height: 24}, {Width: 100, Height: 14}, {Width: 100, Height: 3}} {
		lines := s.screen(state, to, now)
		if len(lines) >= to.Height {
			t.Errorf("%d lines do not fit into %d", len(lines), to.Height)
		}
		for _, line := range lines {
			if utf8.RuneCountInString(line) > to.Width {
				t.Errorf("%q is wider than %d", line, to.Width)
			}
		}
	}
	if colours := strings.Join(s.screen(state, terminal.Terminal{Colour: true}, now), "\n"); !strings.Contains(colours, "\x1b[32mTrue\x1b[0m") || !strings.Contains(colours, "\x1b[31m03:04:03") {
		t.Errorf("colours are missing in %q", colours)
	}
}

func TestLinesTellWhatChanged(t *testing.T) {
	t.Parallel()
	s, state, _ := shownState()
	s.started = time.Now()
	var out bytes.Buffer
	l := newLines(s, &out)
	l.print(state)
	l.print(state)
	state.Kustomizations = state.Kustomizations[:1]
	state.Kustomizations[0].Current = 2
	l.print(state)
	// What stands before a line is the time since the start.
	got := regexp.MustCompile(`(?m)^ +\d+\.\ds  `).ReplaceAllString(out.String(), "")
	want := `kustomization flux-system/apps: Deployment/demo/web created
kustomization flux-system/apps: it failed
gitrepository flux-system/flux-system: Ready True, main@sha1:22222222
kustomization flux-system/flux-system: Ready True, 1/2 objects current, main@sha1:22222222
kustomization flux-system/infra: Ready not served, 0/0 objects current, no revision: no
HelmRelease/x: created; its kind is not served
kustomization flux-system/flux-system: Ready True, 2/2 objects current, main@sha1:22222222
kustomization flux-system/infra: gone
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lines differ (-want +got):\n%s", diff)
	}
}
