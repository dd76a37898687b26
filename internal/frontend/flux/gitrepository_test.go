package flux

import (
	"strings"
	"testing"

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
	for url, want := range map[string]string{
		"https://host/r":     "",
		"ssh://git@host/r":   "",
		"file:///etc":        "is not a URL with a host",
		"gopher://host/r":    "is not supported; use http or https or ssh",
		"ext::sh -c id":      "is not a URL with a host",
		"--upload-pack=/x/y": "is not a URL with a host",
	} {
		t.Run(url, func(t *testing.T) {
			t.Parallel()
			got := gitRepositories{}.refuse(&sourcev1.GitRepository{Spec: sourcev1.GitRepositorySpec{URL: url}})
			switch {
			case want == "" && got != nil:
				t.Errorf("refused: %v", got)
			case want != "" && (got == nil || !strings.Contains(got.Error(), want) || !got.stalled || got.reason != sourcev1.URLInvalidReason):
				t.Errorf("got %v, want a stall with %q", got, want)
			}
		})
	}
}

func TestGitHubApp(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		data map[string]string
		err  string
	}{
		"by owner":                {map[string]string{"githubAppID": "1", "githubAppPrivateKey": "k", "githubAppInstallationOwner": "o"}, ""},
		"by installation":         {map[string]string{"githubAppID": "1", "githubAppPrivateKey": "k", "githubAppInstallationID": "2"}, ""},
		"without a key":           {map[string]string{"githubAppID": "1", "githubAppInstallationID": "2"}, "needs 'githubAppID' and 'githubAppPrivateKey'"},
		"without an installation": {map[string]string{"githubAppID": "1", "githubAppPrivateKey": "k"}, "needs one of"},
		"with two installations":  {map[string]string{"githubAppID": "1", "githubAppPrivateKey": "k", "githubAppInstallationID": "2", "githubAppInstallationOwner": "o"}, "needs one of"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data := map[string][]byte{}
			for k, v := range test.data {
				data[k] = []byte(v)
			}
			auth, err := gitHubApp(gitops.OwnerRef{Namespace: "ns"}, "app", data)
			if test.err == "" && (err != nil || auth.App == nil || auth.App.ID != "1") || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
				t.Errorf("%+v, %v", auth, err)
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
		"https://host/org.github.io": "https://host/org.github.io",
		"https://host:8443/org":      "https://host:8443/org",
		"oci://ghcr.io/org/manifest": "oci://127.0.0.1:2/org/manifest",
	} {
		if got := rewritten(rules, url); got != want {
			t.Errorf("%s becomes %s, want %s", url, got, want)
		}
	}
}
