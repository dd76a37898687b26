package cluster_test

import (
	"strings"
	"testing"

	"github.com/plumb-gitops/plumb/internal/cluster"
)

// kubeconfig is one with fields of its own for the cluster and the user.
func kubeconfig(server, user string) string {
	return `apiVersion: v1
kind: Config
current-context: there
contexts:
- name: there
  context: {cluster: far, user: me}
clusters:
- name: far
  cluster: {` + server + `}
- name: bad
  cluster: {server: "https://bad.example", certificate-authority: /etc/passwd}
users:
- name: me
  user: {` + user + `}
`
}

func TestParseKubeconfig(t *testing.T) {
	t.Parallel()
	const server = `server: "https://far.example:6443"`
	for name, test := range map[string]struct {
		text   string
		policy cluster.KubeconfigPolicy
		want   string // part of the error; empty for none
	}{
		"a token":                           {text: kubeconfig(server, `token: canary`)},
		"a password":                        {text: kubeconfig(server, `username: a, password: canary`)},
		"no user at all":                    {text: strings.Replace(kubeconfig(server, ``), ", user: me", "", 1)},
		"a plugin":                          {text: kubeconfig(server, `exec: {apiVersion: client.authentication.k8s.io/v1, command: canary, interactiveMode: Never}`), want: "exec would run a program"},
		"a plugin that is allowed":          {text: kubeconfig(server, `exec: {apiVersion: client.authentication.k8s.io/v1, command: x, interactiveMode: Never}`), policy: cluster.KubeconfigPolicy{Exec: true}},
		"an authentication provider":        {text: kubeconfig(server, `auth-provider: {name: gcp}`), want: "auth-provider is not supported"},
		"a file with a token":               {text: kubeconfig(server, `tokenFile: /canary`), want: "tokenFile names a file"},
		"a file with a key":                 {text: kubeconfig(server, `client-key: /canary`), want: "client-key names a file"},
		"a file with a certificate":         {text: kubeconfig(server, `client-certificate: /canary`), want: "client-certificate names a file"},
		"a file with an authority":          {text: kubeconfig(server+`, certificate-authority: /canary`, `token: x`), want: "certificate-authority names a file"},
		"no look at certificates":           {text: kubeconfig(server+`, insecure-skip-tls-verify: true`, `token: x`), want: "insecure-skip-tls-verify is not allowed"},
		"no look at them, which is allowed": {text: kubeconfig(server+`, insecure-skip-tls-verify: true`, `token: x`), policy: cluster.KubeconfigPolicy{InsecureTLS: true}},
		"a password in the address":         {text: kubeconfig(`server: "https://canary:canary@far.example"`, `token: x`), want: "server is no address"},
		"no encryption":                     {text: kubeconfig(`server: "http://far.example"`, `token: x`), want: "without encryption"},
		"no address":                        {text: kubeconfig(`server: "far.example"`, `token: x`), want: "server is no address"},
		"no server":                         {text: kubeconfig(``, `token: x`), want: "server is missing"},
		"no context":                        {text: strings.Replace(kubeconfig(server, `token: x`), "current-context: there", "current-context: nowhere", 1), want: `current-context "nowhere"`},
		"no such user":                      {text: strings.Replace(kubeconfig(server, `token: x`), "user: me}", "user: you}", 1), want: `user "you"`},
		"no YAML":                           {text: "token: [canary", want: "no YAML document"},
		"another kind":                      {text: "apiVersion: v1\nkind: Secret\ndata: {a: canary}\n", want: "kubeconfig"},
		"too much":                          {text: strings.Repeat("#canary\n", 1<<18), want: "the limit is"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, err := cluster.ParseKubeconfig([]byte(test.text), test.policy)
			switch {
			case test.want == "" && err != nil:
				t.Fatal(err)
			case test.want == "" && cfg.Host != "https://far.example:6443":
				t.Errorf("the server is %q", cfg.Host)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("got the error %v, want one with %q", err, test.want)
			case err != nil && strings.Contains(err.Error(), "canary"):
				t.Errorf("the error tells what is in the file: %v", err)
			}
		})
	}
}
