package credentials

import (
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/tools/clientcmd"
)

var serviceIP = net.IPv4(10, 96, 0, 1)

// read returns the content of every file in f.
func read(t *testing.T, f Folder) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(string(f))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s is open to others: %v", entry.Name(), info.Mode())
		}
		data, err := os.ReadFile(f.Path(entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[entry.Name()] = string(data)
	}
	return files
}

func TestEnsureKeepsWhatIsThere(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "credentials")
	first, err := Ensure(dir, serviceIP)
	if err != nil {
		t.Fatal(err)
	}
	before := read(t, first)
	if _, err := Ensure(dir, serviceIP); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, read(t, first)); diff != "" {
		t.Errorf("files changed (-before +after):\n%s", diff)
	}
}

func TestEnsureStartsOverWhenInterrupted(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "credentials")
	f, err := Ensure(dir, serviceIP)
	if err != nil {
		t.Fatal(err)
	}
	before := read(t, f)
	for _, file := range []string{complete, ServerCert} {
		if err := os.Remove(f.Path(file)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Ensure(dir, serviceIP); err != nil {
		t.Fatal(err)
	}
	after := read(t, f)
	if after[CACert] == before[CACert] || after[ServerCert] == "" {
		t.Error("a half-made set was not made anew")
	}
	verify(t, f, "localhost")
}

// verify checks that the server's certificate is valid for name.
func verify(t *testing.T, f Folder, name string) {
	t.Helper()
	parse := func(file string) *x509.Certificate {
		data, err := os.ReadFile(f.Path(file))
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(data)
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	roots := x509.NewCertPool()
	roots.AddCert(parse(CACert))
	if _, err := parse(ServerCert).Verify(x509.VerifyOptions{DNSName: name, Roots: roots}); err != nil {
		t.Error(err)
	}
}

func TestServerNames(t *testing.T) {
	t.Parallel()
	f, err := Ensure(t.TempDir(), serviceIP)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"127.0.0.1", "::1", "localhost", "10.96.0.1", "kubernetes.default.svc"} {
		verify(t, f, name)
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	f, err := Ensure(t.TempDir(), serviceIP)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for _, user := range []string{Admin, ControllerManager, Scheduler, Nodes} {
		token, err := f.Token(user)
		if err != nil {
			t.Error(err)
		}
		if other, dup := seen[token]; dup || len(token) != 64 {
			t.Errorf("token of %s: %d characters, also of %q", user, len(token), other)
		}
		seen[token] = user
	}
	_, err = f.Token("nobody")
	if err == nil {
		t.Fatal("a token for nobody")
	}
	for token := range seen {
		if strings.Contains(err.Error(), token) {
			t.Error("the error tells a token")
		}
	}
}

func TestWriteKubeconfig(t *testing.T) {
	t.Parallel()
	f, err := Ensure(filepath.Join(t.TempDir(), "credentials"), serviceIP)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "kubeconfig")
	for _, url := range []string{"https://127.0.0.1:1", "https://127.0.0.1:2"} {
		if err := f.WriteKubeconfig(path, Admin, url); err != nil {
			t.Fatal(err)
		}
		got, err := clientcmd.BuildConfigFromFlags("", path)
		if err != nil {
			t.Fatal(err)
		}
		want, err := f.Token(Admin)
		if err != nil {
			t.Fatal(err)
		}
		if got.Host != url || got.BearerToken != want || len(got.CAData) == 0 {
			t.Errorf("host %q, want %q; token and authority: %v, %v", got.Host, url, got.BearerToken == want, len(got.CAData) > 0)
		}
	}
	if files := read(t, Folder(dir)); len(files) != 1 {
		t.Errorf("%d files beside the kubeconfig, want none", len(files)-1)
	}
	if err := f.WriteKubeconfig(filepath.Join(dir, "missing", "kubeconfig"), Admin, ""); err == nil {
		t.Error("no error for a folder that is missing")
	}
}
