package try

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// programVariable names the control plane's program.
	programVariable = "PLUMB_LOCALCLUSTER"
	programName     = "localcluster"
	// controlPlaneWithin is how long the control plane may take to be ready.
	controlPlaneWithin = 2 * time.Minute
	// goneWithin is how long it may take to end after a signal.
	goneWithin = 30 * time.Second
)

// findProgram gives the path of the control plane's program: what the variable
// says, else the one beside this executable, else the one in PATH.
func findProgram() (string, error) {
	if path := os.Getenv(programVariable); path != "" {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("%s: %w", programVariable, err)
		}
		return path, nil
	}
	if self, err := os.Executable(); err == nil {
		if self, err = filepath.EvalSymlinks(self); err == nil {
			beside := filepath.Join(filepath.Dir(self), programName)
			if _, err := os.Stat(beside); err == nil {
				return beside, nil
			}
		}
	}
	if path, err := exec.LookPath(programName); err == nil {
		return path, nil
	}
	return "", fmt.Errorf("the local control plane's program %q is neither beside plumb nor in PATH: "+
		"build it in Plumb's repository with \"make build\", or set %s to its path", programName, programVariable)
}

// controlPlane is the child process.
type controlPlane struct {
	cmd  *exec.Cmd
	dir  string
	errs bytes.Buffer
	// gone is closed when the process has ended; ready when it can be used.
	gone, ready chan struct{}
	// said is the first line, such as "ready in 2.1s: Kubernetes v1.37.0 at …".
	said string
}

// startControlPlane starts the program with its data in dir. It ends with this
// process, however that goes; it removes the folder "remove" then, if one is given.
func startControlPlane(dir, kubeconfig, remove string) (*controlPlane, error) {
	program, err := findProgram()
	if err != nil {
		return nil, err
	}
	args := []string{"--dir", dir, "--kubeconfig", kubeconfig, "--parent", strconv.Itoa(os.Getpid())}
	if remove != "" {
		args = append(args, "--remove", remove)
	}
	c := &controlPlane{cmd: exec.Command(program, args...), dir: dir, gone: make(chan struct{}), ready: make(chan struct{})}
	// A group of its own: Ctrl-C goes to the terminal's group, and would end the
	// API server before the operator has let go of it.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.cmd.Stderr = &c.errs
	out, err := c.cmd.StdoutPipe()
	if err == nil {
		err = c.cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("start the control plane: %w", err)
	}
	go c.follow(out)
	return c, nil
}

func (c *controlPlane) follow(out io.Reader) {
	lines := bufio.NewScanner(out)
	if lines.Scan() && strings.HasPrefix(lines.Text(), "ready") {
		c.said = lines.Text()
		close(c.ready)
	}
	_, _ = io.Copy(io.Discard, out)
	_ = c.cmd.Wait()
	close(c.gone)
}

// await waits until the control plane can be used.
func (c *controlPlane) await(ctx context.Context) error {
	timeout := time.NewTimer(controlPlaneWithin)
	defer timeout.Stop()
	select {
	case <-c.ready:
		return nil
	case <-c.gone:
		return c.died()
	case <-timeout.C:
		return fmt.Errorf("the control plane was not ready after %s; its logs are in %q", controlPlaneWithin, c.dir)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// died says that the process ended by itself. It may be called once gone is closed.
func (c *controlPlane) died() error {
	said := strings.TrimSpace(c.errs.String())
	if said == "" {
		said = c.cmd.ProcessState.String()
	}
	return fmt.Errorf("the control plane ended: %s", said)
}

// stop ends the process. It returns when it is gone.
func (c *controlPlane) stop() error {
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	timeout := time.NewTimer(goneWithin)
	defer timeout.Stop()
	select {
	case <-c.gone:
		return nil
	case <-timeout.C:
		err := c.cmd.Process.Kill()
		<-c.gone
		return errors.Join(fmt.Errorf("the control plane was still there %s after a signal, and was killed", goneWithin), err)
	}
}

// version is Kubernetes' own, as in "Kubernetes v1.37.0"; "Kubernetes" where the
// program did not say it.
func (c *controlPlane) version() string {
	_, after, _ := strings.Cut(c.said, "Kubernetes ")
	version, _, _ := strings.Cut(after, " ")
	return strings.TrimSpace("Kubernetes " + version)
}
