package test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// atOnce is how long an end may take that is to be immediate.
const atOnce = time.Second

func TestContinue(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := start(t, dir)
	p.kubectl(t, "", "create", "deployment", "web", "--image=example.invalid/web", "--replicas=3")
	p.kubectl(t, "", "rollout", "status", "deployment/web", "--timeout=60s")
	p.kubectl(t, "", "create", "configmap", "last")
	uid := p.kubectl(t, "", "get", "configmap", "last", "-o", "jsonpath={.metadata.uid}")
	before := p.rest(t)
	p.end(t, os.Kill)

	p = start(t, dir)
	t.Logf("again: %s", p.line[0])
	after := p.rest(t)
	if before.BearerToken != after.BearerToken || !bytes.Equal(before.CAData, after.CAData) {
		t.Error("token or authority changed")
	}
	if got := p.kubectl(t, "", "get", "configmap", "last", "-o", "jsonpath={.metadata.uid}"); got != uid {
		t.Errorf("the ConfigMap made just before the kill has uid %q, want %q", got, uid)
	}
	p.kubectl(t, "", "scale", "deployment/web", "--replicas=5")
	p.kubectl(t, "", "rollout", "status", "deployment/web", "--timeout=60s")
}

func TestSignals(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		t.Run(sig.String(), func(t *testing.T) {
			p := start(t, t.TempDir())
			took, state := p.end(t, sig)
			t.Logf("ended after %v", took)
			if took > atOnce || state.ExitCode() != 0 || p.stderr.Len() > 0 {
				t.Errorf("ended after %v with %v: %s", took, state, p.stderr)
			}
		})
	}
}

// TestParentGone kills the parent of a control plane, at several points of its
// start and after it.
func TestParentGone(t *testing.T) {
	t.Parallel()
	for _, after := range []string{"0s", "50ms", "300ms", "1s", "ready"} {
		t.Run(after, func(t *testing.T) {
			dir := t.TempDir()
			kubeconfig := filepath.Join(dir, "kubeconfig")
			// $$ is the shell's own pid, which stays the parent.
			shell := exec.Command("sh", "-c", `"$0" --dir "$1/data" --kubeconfig "$1/kubeconfig" --parent $$ --remove "$1" & echo $!; wait`,
				binary(t, "PLUMB_LOCALCLUSTER", "localcluster"), dir)
			stdout, err := shell.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := shell.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(stdout)
			lines.Scan()
			pid, err := strconv.Atoi(lines.Text())
			if err != nil {
				t.Fatal(err)
			}
			if after == "ready" {
				lines.Scan()
				if !readyLine.MatchString(lines.Text()) {
					t.Fatalf("printed %q", lines.Text())
				}
				if _, err := os.Stat(kubeconfig); err != nil {
					t.Error(err)
				}
			} else if pause, err := time.ParseDuration(after); err != nil {
				t.Fatal(err)
			} else {
				time.Sleep(pause) // the point in time is what is tested
			}
			shell.Process.Kill()
			killed := time.Now()
			shell.Wait()
			eventually(t, func() error {
				if alive(t, pid) {
					return fmt.Errorf("process %d is still there %v after its parent", pid, time.Since(killed))
				}
				return nil
			})
			if took := time.Since(killed); took > 2*time.Second {
				t.Errorf("gone %v after its parent", took)
			} else {
				t.Logf("gone %v after its parent", took)
			}
			if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the folder is still there: %v", err)
			}
		})
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no folder":                         {[]string{"--kubeconfig", "f"}, "--dir is missing"},
		"no kubeconfig":                     {[]string{"--dir", dir}, "--kubeconfig is missing"},
		"an argument too many":              {[]string{"--dir", dir, "--kubeconfig", "f", "x"}, `unexpected argument "x"`},
		"no node":                           {[]string{"--dir", dir, "--kubeconfig", "f", "--nodes", "0"}, "--nodes is 0"},
		"a folder to remove that is others": {[]string{"--dir", dir, "--kubeconfig", "f", "--remove", dir + "/x"}, "does not hold the data folder"},
		"a parent that is gone":             {[]string{"--dir", dir, "--kubeconfig", dir + "/f", "--parent", "1000000000"}, "parent process 1000000000 is gone"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := exec.Command(binary(t, "PLUMB_LOCALCLUSTER", "localcluster"), c.args...).CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(string(out), c.want) {
				t.Errorf("%v: %s, want exit code 1 and %q", err, out, c.want)
			}
		})
	}
}

func (p *program) testLock(t *testing.T) {
	other := filepath.Join(t.TempDir(), "kubeconfig")
	out, err := exec.Command(binary(t, "PLUMB_LOCALCLUSTER", "localcluster"),
		"--dir", filepath.Join(p.dir, "data"), "--kubeconfig", other).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another control plane runs in") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestPort(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := start(t, dir)
	address := strings.TrimPrefix(p.line[3], "https://")
	p.end(t, os.Kill)
	again := start(t, dir)
	if again.line[3] != p.line[3] {
		t.Errorf("serves at %s, before at %s though the port is free", again.line[3], p.line[3])
	}
	again.end(t, os.Kill)
	taken, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if other := start(t, dir); other.line[3] == p.line[3] {
		t.Errorf("serves at %s though that port is taken", other.line[3])
	}
}
