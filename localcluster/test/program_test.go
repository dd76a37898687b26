package test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// patience is how long anything may take that is not what a test is about.
const patience = time.Minute

// readyLine is what the program prints when it is ready.
var readyLine = regexp.MustCompile(`^ready in ([0-9.]+)s: Kubernetes (v\S+) at (https://127\.0\.0\.1:\d+)$`)

// program is a running localcluster that is ready.
type program struct {
	dir, kubeconfig, auditLog string
	// line is what it printed when it was ready: all, seconds, version, URL.
	line []string
	cmd  *exec.Cmd
	// gone is closed when it has ended.
	gone   chan struct{}
	stderr *bytes.Buffer
}

// start starts the program in dir and returns when it says that it is ready. It
// is killed when t ends.
func start(t *testing.T, dir string, args ...string) *program {
	t.Helper()
	p := &program{
		dir:        dir,
		kubeconfig: filepath.Join(dir, "kubeconfig"),
		auditLog:   filepath.Join(dir, "audit.log"),
		gone:       make(chan struct{}),
		stderr:     &bytes.Buffer{},
	}
	p.cmd = exec.Command(binary(t, "PLUMB_LOCALCLUSTER", "localcluster"), append([]string{
		"--dir", filepath.Join(dir, "data"), "--kubeconfig", p.kubeconfig, "--audit-log", p.auditLog}, args...)...)
	p.cmd.Stderr = p.stderr
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.gone
	})
	first := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(stdout)
		if lines.Scan() {
			first <- lines.Text()
		}
		io.Copy(io.Discard, stdout)
		p.cmd.Wait()
		close(p.gone)
	}()
	select {
	case line := <-first:
		if p.line = readyLine.FindStringSubmatch(line); p.line == nil {
			t.Fatalf("printed %q, want %s", line, readyLine)
		}
	case <-p.gone:
		t.Fatalf("ended before it was ready: %s", p.stderr)
	case <-time.After(patience):
		t.Fatalf("not ready after %v", patience)
	}
	return p
}

// end sends sig and returns how long the program took to end, and its state.
func (p *program) end(t *testing.T, sig os.Signal) (time.Duration, *os.ProcessState) {
	t.Helper()
	sent := time.Now()
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.gone:
	case <-time.After(patience):
		t.Fatalf("still there %v after %v", patience, sig)
	}
	return time.Since(sent), p.cmd.ProcessState
}

// rest returns a client configuration for the administrator.
func (p *program) rest(t *testing.T) *rest.Config {
	t.Helper()
	cfg, err := clientcmd.BuildConfigFromFlags("", p.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	cfg.QPS = -1
	return cfg
}

// kubectl runs kubectl with input and returns what it printed; it fails t if
// kubectl fails.
func (p *program) kubectl(t *testing.T, input string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary(t, "PLUMB_KUBECTL", "kubectl"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+p.kubeconfig, "KUBERC=off", "KUBECACHEDIR="+filepath.Join(p.dir, "kubectl-cache"))
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// binary returns the absolute path of a program under test.
func binary(t *testing.T, variable, name string) string {
	t.Helper()
	path := os.Getenv(variable)
	if path == "" {
		path = filepath.Join("..", "..", "bin", name)
	}
	path, err := filepath.Abs(path)
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatalf("%v: build it with `make build`, or set %s to its path", err, variable)
	}
	return path
}

// alive reports whether there is a process pid that is not a zombie.
func alive(t *testing.T, pid int) bool {
	t.Helper()
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	out, err := exec.Command("ps", "-o", "stat=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && !strings.HasPrefix(strings.TrimSpace(string(out)), "Z")
}
