package testenv

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// KubectlCommand returns the command that runs kubectl with args as the cluster's
// administrator. The program is the one that PLUMB_KUBECTL names or bin/kubectl
// at the module's root; its caches and settings are those of this cluster, not of
// the person who runs the test.
func (c *Cluster) KubectlCommand(ctx context.Context, args ...string) (*exec.Cmd, error) {
	program, err := find("PLUMB_KUBECTL", "kubectl")
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(),
		"KUBECONFIG="+c.Kubeconfig,
		"KUBECACHEDIR="+filepath.Join(filepath.Dir(c.Kubeconfig), "kubectl-cache"),
		"KUBERC=off",
	)
	return cmd, nil
}

// Kubectl runs kubectl with args, fails t if that fails, and returns what it
// printed to the standard output.
func (c *Cluster) Kubectl(t testing.TB, args ...string) string {
	t.Helper()
	return c.kubectl(t, "", args...)
}

// Apply applies manifests, a stream of YAML documents, by `kubectl apply` with
// args, and fails t if that fails. It returns what kubectl printed.
func (c *Cluster) Apply(t testing.TB, manifests string, args ...string) string {
	t.Helper()
	return c.kubectl(t, manifests, append([]string{"apply", "-f", "-"}, args...)...)
}

func (c *Cluster) kubectl(t testing.TB, input string, args ...string) string {
	t.Helper()
	cmd, err := c.KubectlCommand(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String()
}
