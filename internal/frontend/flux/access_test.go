package flux

import (
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
)

func TestAccess(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		account, standard string
		want              string
	}{
		"the operator's own rights where nothing is named":   {want: ""},
		"the account that is named":                          {account: "deployer", want: "system:serviceaccount:apps:deployer"},
		"the account of the configuration":                   {standard: "default", want: "system:serviceaccount:apps:default"},
		"the account that is named before the configuration": {account: "deployer", standard: "default", want: "system:serviceaccount:apps:deployer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := &kustomizations{options: KustomizationOptions{DefaultServiceAccount: test.standard}}
			obj := &kustomizev1.Kustomization{}
			obj.Namespace, obj.Spec.ServiceAccountName = "apps", test.account
			if got, err := k.access(obj); err != nil || got.User != test.want || got.Remote != nil {
				t.Errorf("got %+v and %v, want %q", got, err, test.want)
			}
		})
	}
}
