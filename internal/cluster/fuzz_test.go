package cluster_test

import (
	"strings"
	"testing"

	"github.com/plumb-gitops/plumb/internal/cluster"
)

// FuzzParseKubeconfig: whatever somebody writes into a Secret, no program and no file is
// named by the configuration that is made of it, and a certificate is looked at.
func FuzzParseKubeconfig(f *testing.F) {
	const server = `server: "https://far.example:6443"`
	for _, text := range []string{
		kubeconfig(server, `token: x`),
		kubeconfig(server+`, insecure-skip-tls-verify: true`, `token: x`),
		kubeconfig(server+`, certificate-authority: /etc/passwd`, `client-certificate: /etc/passwd, client-key: /etc/passwd`),
		kubeconfig(server+`, proxy-url: "socks5://127.0.0.1:1", tls-server-name: x`, `username: a, password: b, as: c, as-groups: [d]`),
		kubeconfig(server, `tokenFile: /etc/passwd`),
		kubeconfig(server, `exec: {apiVersion: client.authentication.k8s.io/v1, command: x, interactiveMode: Never}`),
		kubeconfig(server, `auth-provider: {name: gcp}`),
		kubeconfig(`server: "http://far.example"`, `token: x`),
		kubeconfig(server+`, extensions: [{name: client.authentication.k8s.io/exec, extension: {a: b}}]`, `client-certificate-data: !!binary eA==`),
		strings.Replace(kubeconfig(server, `token: x`), "user: me}", "user: me, namespace: there}", 1),
		`{"apiVersion":"v1","kind":"Config","clusters":null,"contexts":[{"name":"a","context":null}],"current-context":"a"}`,
		"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
		"\x00", "",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := cluster.ParseKubeconfig(data, cluster.KubeconfigPolicy{})
		_, again := cluster.ParseKubeconfig(data, cluster.KubeconfigPolicy{})
		if (err == nil) != (again == nil) || err != nil && err.Error() != again.Error() {
			t.Errorf("once %v, then %v", err, again)
		}
		if err != nil {
			return
		}
		if cfg.ExecProvider != nil || cfg.AuthProvider != nil || cfg.BearerTokenFile != "" || cfg.CAFile != "" || cfg.CertFile != "" || cfg.KeyFile != "" {
			t.Errorf("a program or a file is named: %+v", cfg)
		}
		if cfg.Insecure || !strings.HasPrefix(cfg.Host, "https://") {
			t.Errorf("the server is not looked at: %s", cfg.Host)
		}
	})
}
