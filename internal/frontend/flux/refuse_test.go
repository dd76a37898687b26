package flux

import (
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
)

func TestRefusedAccounts(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{"deployer": true, "team.a": true, "a/b": false, "a:b": false, "../x": false, "A": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			obj := &kustomizev1.Kustomization{}
			obj.Spec.SourceRef.Kind, obj.Spec.ServiceAccountName = sourcev1.GitRepositoryKind, name
			switch b := refuseKustomization(obj, KustomizationOptions{}); {
			case want && b != nil:
				t.Errorf("refused: %v", b)
			case !want && (b == nil || !b.stalled || !strings.Contains(b.Error(), "is no name of a service account")):
				t.Errorf("not refused as it should be: %v", b)
			}
		})
	}
}

func TestManyNamedChecks(t *testing.T) {
	t.Parallel()
	obj := &kustomizev1.Kustomization{}
	for range maxNamedChecks {
		obj.Spec.HealthChecks = append(obj.Spec.HealthChecks, meta.NamespacedObjectKindReference{APIVersion: "v1", Kind: "Secret", Name: "x"})
	}
	if _, err := checks(obj); err != nil {
		t.Errorf("%d are refused: %v", maxNamedChecks, err)
	}
	obj.Spec.HealthChecks = append(obj.Spec.HealthChecks, obj.Spec.HealthChecks[0])
	if _, err := checks(obj); err == nil {
		t.Errorf("%d are taken", maxNamedChecks+1)
	}
}
