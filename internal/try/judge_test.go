package try

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

const head = "main@sha1:2222"

func ready(status, reason, message string) Ready {
	return Ready{Status: status, Reason: reason, Message: message}
}

func stalled(reason, message string) Ready {
	return Ready{Status: "False", Reason: reason, Message: message, Stalled: true}
}

func gitSource(r Ready, revision string) Source {
	return Source{Kind: "GitRepository", Namespace: rootName, Name: rootName, Revision: revision, Ready: r}
}

func kustomization(name string, r Ready, revision string, dependsOn ...string) Kustomization {
	return Kustomization{Namespace: rootName, Name: name, Revision: revision, Ready: r, DependsOn: dependsOn,
		Source: SourceRef{Kind: "GitRepository", Namespace: rootName, Name: rootName, Served: true}}
}

func notServedSource(k Kustomization) Kustomization {
	k.Source = SourceRef{Kind: "ExternalArtifact", Namespace: rootName, Name: "x"}
	return k
}

func object(kind, name string, health gitops.HealthStatus) Object {
	ref := gitops.ObjectRef{Kind: kind, Namespace: "apps", Name: name}
	return Object{Ref: ref, Name: ref.String(), Owner: rootName + "/" + rootName, Health: health, Message: "so"}
}

func undefined(kind, owner string) Object {
	o := object(kind, "x", gitops.HealthUnknown)
	o.Owner, o.Undefined = rootName+"/"+owner, true
	return o
}

func ownKustomization(name string, health gitops.HealthStatus) Object {
	o := object("Kustomization", name, health)
	o.Ref.Group, o.Ref.Namespace = kustomizeGroup, rootName
	o.Name = o.Ref.String()
	return o
}

func TestJudge(t *testing.T) {
	t.Parallel()
	good := ready("True", "Succeeded", "fine")
	source := []Source{gitSource(good, head)}
	root := kustomization(rootName, good, head)
	refused := notServedSource(kustomization("infra", stalled("FeatureGateDisabled", "not served"), ""))
	tests := map[string]struct {
		state State
		want  Verdict
	}{
		"nothing is there yet": {State{}, Verdict{Pending, []string{"the source is not there yet", "the Kustomization is not there yet"}}},
		"all is ready": {
			State{Sources: source, Kustomizations: []Kustomization{root}, Objects: []Object{object("Service", "web", gitops.HealthCurrent)}},
			Verdict{Outcome: Succeeded},
		},
		"the source is behind": {
			State{Sources: []Source{gitSource(good, "main@sha1:1111")}, Kustomizations: []Kustomization{kustomization(rootName, good, "main@sha1:1111")}},
			Verdict{Pending, []string{`gitrepository flux-system/flux-system: is at "main@sha1:1111", not yet at "main@sha1:2222"`}},
		},
		"a Kustomization is behind": {
			State{Sources: source, Kustomizations: []Kustomization{kustomization(rootName, good, "main@sha1:1111")}},
			Verdict{Pending, []string{`kustomization flux-system/flux-system: has applied "main@sha1:1111", not yet "main@sha1:2222"`}},
		},
		"an object is not current": {
			State{Sources: source, Kustomizations: []Kustomization{root}, Objects: []Object{object("Deployment", "web", gitops.HealthInProgress)}},
			Verdict{Pending, []string{"Deployment/apps/web is InProgress: so"}},
		},
		"a Kustomization of the inventory is not there": {
			State{Sources: source, Kustomizations: []Kustomization{root}, Objects: []Object{ownKustomization("apps", gitops.HealthNotFound)}},
			Verdict{Pending, []string{"Kustomization/flux-system/apps is NotFound: so"}},
		},
		"a build that fails may be mended by a retry": {
			State{Sources: source, Kustomizations: []Kustomization{kustomization(rootName, ready("False", "BuildFailed", "bad\nfile"), "")}},
			Verdict{Pending, []string{"kustomization flux-system/flux-system: bad …"}},
		},
		"what is stalled for another reason has failed": {
			State{Sources: source, Kustomizations: []Kustomization{root, kustomization("apps", stalled("FeatureGateDisabled", "spec.decryption"), "")}},
			Verdict{Failed, []string{"kustomization flux-system/apps: spec.decryption"}},
		},
		"only a kind is missing, and what waits for it": {
			State{
				Sources: source,
				Kustomizations: []Kustomization{root, refused,
					kustomization("config", ready("False", "DependencyNotReady", "waits"), "", rootName+"/infra"),
					kustomization("apps", ready("False", "DependencyNotReady", "waits too"), "", rootName+"/config")},
				Objects: []Object{ownKustomization("infra", gitops.HealthFailed)},
			},
			Verdict{OnlyNotServed, []string{
				"kustomization flux-system/infra: not served",
				"kustomization flux-system/config: waits",
				"kustomization flux-system/apps: waits too",
			}},
		},
		"who waits for the health of what is not served": {
			State{
				Sources:        source,
				Kustomizations: []Kustomization{kustomization(rootName, ready("False", "HealthCheckFailed", "infra failed"), head), refused},
				Objects:        []Object{ownKustomization("infra", gitops.HealthFailed), object("Service", "web", gitops.HealthCurrent)},
			},
			Verdict{OnlyNotServed, []string{"kustomization flux-system/flux-system: infra failed", "kustomization flux-system/infra: not served"}},
		},
		"an object that is not served is no obstacle for others": {
			State{Sources: source, Kustomizations: []Kustomization{root}, NotServed: []Object{{Name: "HelmRelease/apps/web"}},
				Objects: []Object{{Name: "HelmRelease/apps/web", Health: gitops.HealthInProgress, NotServed: true}}},
			Verdict{OnlyNotServed, []string{"HelmRelease/apps/web: its kind is not served"}},
		},
		"a kind that a release would define": {
			State{
				Sources: source,
				Kustomizations: []Kustomization{root, kustomization("issuers", ready("False", "ReconciliationFailed", "refused"), ""),
					kustomization("apps", ready("False", "DependencyNotReady", "waits"), "", rootName+"/issuers")},
				NotServed: []Object{{Ref: gitops.ObjectRef{Kind: "HelmRelease"}, Name: "HelmRelease/apps/manager"}},
				Objects:   []Object{undefined("Issuer", "issuers")},
			},
			Verdict{OnlyNotServed, []string{
				"kustomization flux-system/issuers: refused", "kustomization flux-system/apps: waits",
				"HelmRelease/apps/manager: its kind is not served", "Issuer/apps/x: so; a release that is not served may define it"}},
		},
		"a kind that nobody would define": {
			State{
				Sources: source, Kustomizations: []Kustomization{root, kustomization("issuers", ready("False", "ReconciliationFailed", "refused"), "")},
				Objects: []Object{undefined("Issuer", "issuers")},
			},
			Verdict{Pending, []string{"kustomization flux-system/issuers: refused", "Issuer/apps/x is Unknown: so"}},
		},
		"what is suspended is not waited for": {
			State{Sources: source, Kustomizations: []Kustomization{root, kustomization("apps", Ready{Suspended: true}, "")}},
			Verdict{Outcome: Succeeded},
		},
		"a failure counts more than a missing kind": {
			State{Sources: source, Kustomizations: []Kustomization{root, refused, kustomization("apps", stalled("AccessDenied", "no"), "")}},
			Verdict{Failed, []string{"kustomization flux-system/apps: no"}},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, judge(tt.state, head)); diff != "" {
				t.Errorf("verdict differs (-want +got):\n%s", diff)
			}
		})
	}
}
