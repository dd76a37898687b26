package testenv_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plumb-gitops/plumb/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }

func TestGet(t *testing.T) {
	c := testenv.Get(t)
	namespace := c.Namespace(t)
	if !strings.HasPrefix(namespace, "testget-") {
		t.Errorf("namespace %q does not tell its test", namespace)
	}
	c.Apply(t, "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}", "-n", namespace)
	if got := c.Kubectl(t, "get", "configmap", "a", "-n", namespace, "-o", "name"); got != "configmap/a\n" {
		t.Errorf("got %q", got)
	}
	found := false
	for _, r := range c.Requests(t, "kubectl/") {
		if r.Verb == "create" || r.Verb == "patch" {
			found = found || r.ObjectRef.Resource == "configmaps" && r.ObjectRef.Namespace == namespace && r.ResponseStatus.Code == 201
		}
	}
	if !found {
		t.Error("the creation of the ConfigMap is not in the audit log")
	}
	if testenv.Get(t) != c {
		t.Error("a second Get is another control plane")
	}
}

func TestStart(t *testing.T) {
	shared := testenv.Get(t)
	var own *testenv.Cluster
	t.Run("a control plane of its own", func(t *testing.T) {
		own = testenv.Start(t)
		namespace := own.Namespace(t)
		if got := shared.Kubectl(t, "get", "namespace", namespace, "--ignore-not-found"); got != "" {
			t.Errorf("the shared control plane has it too: %s", got)
		}
	})
	if _, err := os.Stat(filepath.Dir(own.Kubeconfig)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder is still there after the test: %v", err)
	}
	if _, err := net.Dial("tcp", strings.TrimPrefix(own.REST.Host, "https://")); err == nil {
		t.Error("the API server still listens after the test")
	}
}
