package flux

import (
	"strings"
	"testing"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"github.com/google/go-cmp/cmp"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

func TestGitCredential(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		url  string
		data map[string]string
		want GitAuth
		err  string
	}{
		"basic auth": {
			url: "https://host/r", data: map[string]string{"username": "u", "password": "p"}, want: GitAuth{Username: "u", Password: "p"},
		},
		"a bearer token": {
			url: "https://host/r", data: map[string]string{"bearerToken": "t"}, want: GitAuth{BearerToken: "t"},
		},
		"an authority under its old name": {
			url: "https://host/r", data: map[string]string{"caFile": "c"}, want: GitAuth{CA: []byte("c")},
		},
		"an SSH key with its passphrase": {
			url:  "ssh://git@host/r",
			data: map[string]string{"identity": "i", "known_hosts": "k", "password": "p"},
			want: GitAuth{Identity: []byte("i"), KnownHosts: []byte("k"), Passphrase: "p"},
		},
		"an SSH URL without known_hosts is refused": {
			url: "ssh://git@host/r", data: map[string]string{"identity": "i"}, err: "'known_hosts'",
		},
		"an SSH URL with a password only is refused": {
			url: "ssh://git@host/r", data: map[string]string{"username": "u", "password": "p"}, err: "'identity'",
		},
		"a user without password is refused": {
			url: "https://host/r", data: map[string]string{"username": "u"}, err: "both 'username' and 'password'",
		},
		"two kinds of credential are refused": {
			url: "https://host/r", data: map[string]string{"username": "u", "password": "p", "bearerToken": "t"}, err: "keep one of them",
		},
		"a certificate without its key is refused": {
			url: "https://host/r", data: map[string]string{"tls.crt": "c"}, err: "'tls.key'",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data := map[string][]byte{}
			for k, v := range test.data {
				data[k] = []byte(v)
			}
			got, err := gitCredential(gitops.OwnerRef{Namespace: "ns"}, "auth", test.url, data)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) || !strings.Contains(err.Error(), "'ns/auth'") {
					t.Fatalf("error %v, want one that names the secret and %s", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestRefuseGitRepository(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		spec sourcev1.GitRepositorySpec
		want string
	}{
		"nothing that is served is refused":    {spec: sourcev1.GitRepositorySpec{URL: "https://host/r"}},
		"the default provider is no use of it": {spec: sourcev1.GitRepositorySpec{Provider: "generic"}},
		"another provider":                     {spec: sourcev1.GitRepositorySpec{Provider: "azure"}, want: "spec.provider: azure"},
		"verification":                         {spec: sourcev1.GitRepositorySpec{Verification: &sourcev1.GitRepositoryVerification{}}, want: "spec.verify"},
		"a service account":                    {spec: sourcev1.GitRepositorySpec{ServiceAccountName: "x"}, want: "spec.serviceAccountName"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := gitRepositories{}.refuse(&sourcev1.GitRepository{Spec: test.spec})
			switch {
			case test.want == "" && got != nil:
				t.Errorf("refused: %v", got)
			case test.want != "" && (got == nil || !strings.HasPrefix(got.Error(), test.want+" ") || !got.stalled || got.reason != meta.FeatureGateDisabledReason):
				t.Errorf("got %v, want a stall that begins with %q", got, test.want)
			}
		})
	}
}

func TestRedactedURL(t *testing.T) {
	t.Parallel()
	if got := redactedURL("https://user:secret@host/r?token=x#y"); got != "https://host/r" {
		t.Errorf("got %q", got)
	}
}

func TestRewritten(t *testing.T) {
	t.Parallel()
	rules := []Rewrite{{"https://host/org", "http://127.0.0.1:1/mirror"}, {"oci://ghcr.io/", "oci://127.0.0.1:2/"}}
	for url, want := range map[string]string{
		"https://host/org":           "http://127.0.0.1:1/mirror",
		"https://host/org/app.git":   "http://127.0.0.1:1/mirror/app.git",
		"https://host/org.git":       "http://127.0.0.1:1/mirror.git",
		"https://host/organisation":  "https://host/organisation",
		"https://other/org":          "https://other/org",
		"oci://ghcr.io/org/manifest": "oci://127.0.0.1:2/org/manifest",
	} {
		if got := rewritten(rules, url); got != want {
			t.Errorf("%s becomes %s, want %s", url, got, want)
		}
	}
}
