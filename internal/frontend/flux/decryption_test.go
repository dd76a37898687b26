package flux

import (
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/google/go-cmp/cmp"
)

func TestReadVaults(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		content string
		err     string
		want    map[string]string
	}{
		"two Vaults": {
			content: "instances:\n- {address: https://a:8200, loginPath: auth/kubernetes/login}\n- {address: https://b, loginPath: ns/auth/jwt/login}\n",
			want:    map[string]string{"https://a:8200": "auth/kubernetes/login", "https://b": "ns/auth/jwt/login"},
		},
		"none":           {content: "instances: []\n", want: map[string]string{}},
		"no entry":       {err: `no entry "config.yaml"`},
		"no YAML":        {content: "instances: [", err: "no YAML with instances"},
		"another type":   {content: "instances: canary", err: "no YAML with instances"},
		"no login path":  {content: "instances:\n- {address: https://a}\n", err: "instances[0] needs address and loginPath"},
		"too many":       {content: "instances:\n" + strings.Repeat("- {address: a, loginPath: b}\n", maxVaults+1), err: "has 1001 instances, the limit is 1000"},
		"unknown fields": {content: "instances:\n- {address: a, loginPath: b, new: c}\n", want: map[string]string{"a": "b"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := readVaults([]byte(test.content))
			switch {
			case test.err == "" && err != nil, test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err) || strings.Contains(err.Error(), "canary")):
				t.Fatalf("got error %v, want %q", err, test.err)
			case err == nil && cmp.Diff(test.want, got) != "":
				t.Error(cmp.Diff(test.want, got))
			}
		})
	}
}

func TestRefusedDecryption(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		account string
		gate    bool
		want    string
	}{
		"nobody is named":       {"", false, ""},
		"the gate is off":       {"sops", false, "needs the operator's feature gate ObjectLevelWorkloadIdentity"},
		"the gate is on":        {"sops", true, ""},
		"a name that is none":   {"a/b", true, "is no name of a service account"},
		"a name with a colon":   {"a:b", false, "is no name of a service account"},
		"a name that goes away": {"../b", true, "is no name of a service account"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := refuseDecryption(&kustomizev1.Decryption{ServiceAccountName: test.account}, KustomizationOptions{ServiceAccountLogins: test.gate})
			if (b == nil) != (test.want == "") || b != nil && (!b.stalled || !strings.Contains(b.Error(), test.want)) {
				t.Errorf("got %v, want %q", b, test.want)
			}
		})
	}
}
