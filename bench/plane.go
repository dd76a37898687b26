package main

import (
	"bufio"
	"context"
	"encoding/json"
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

	"github.com/plumb-gitops/plumb/internal/frontend/flux/crds"
)

// planeReadyWithin is how long a control plane may take to be ready.
const planeReadyWithin = 2 * time.Minute

// plane is a control plane of its own for one measurement.
type plane struct {
	*client
	// dir holds all files of the measurement, also the repository and what the
	// operator keeps. It is removed at the end, and by the control plane itself
	// when the benchmark is killed.
	dir        string
	kubeconfig string
	audit      *auditLog
	cmd        *exec.Cmd
	gone       chan struct{}
}

// startPlane starts a control plane with nothing in it but the definitions of the
// custom resources and the fleet's namespaces.
func startPlane(ctx context.Context, program string, f *fleet) (*plane, error) {
	dir, err := os.MkdirTemp("", "plumb-bench-")
	if err != nil {
		return nil, err
	}
	p := &plane{
		dir: dir, kubeconfig: filepath.Join(dir, "kubeconfig"),
		audit: &auditLog{path: filepath.Join(dir, "audit.log")}, gone: make(chan struct{}),
	}
	if err := p.launch(ctx, program); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	if p.client, err = newClient(p.kubeconfig); err == nil {
		err = p.prepare(ctx, f)
	}
	if err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

// launch starts the program and waits for its line that says ready.
func (p *plane) launch(ctx context.Context, program string) error {
	p.cmd = exec.Command(program, "--dir", filepath.Join(p.dir, "data"), "--kubeconfig", p.kubeconfig,
		"--audit-log", p.audit.path, "--parent", strconv.Itoa(os.Getpid()), "--remove", p.dir)
	// A group of its own, so that Ctrl-C is not its signal too. It notices by
	// itself when this process is gone, and then still removes the folder.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var stderr strings.Builder
	p.cmd.Stderr = &stderr
	stdout, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		close(p.gone)
		return fmt.Errorf("start %q: %w", program, err)
	}
	ready := make(chan struct{})
	go func() {
		lines := bufio.NewScanner(stdout)
		if lines.Scan() && strings.HasPrefix(lines.Text(), "ready") {
			close(ready)
		}
		_, _ = io.Copy(io.Discard, stdout) // until the program ends
		_ = p.cmd.Wait()
		close(p.gone)
	}()
	select {
	case <-ready:
		return nil
	case <-p.gone:
		return fmt.Errorf("%q ended before it was ready: %s", program, stderr.String())
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(planeReadyWithin):
		return fmt.Errorf("%q was not ready after %v", program, planeReadyWithin)
	}
}

// prepare writes what is there before anything is measured.
func (p *plane) prepare(ctx context.Context, f *fleet) error {
	definitions, err := crds.All()
	if err != nil {
		return err
	}
	kind := resource{"CustomResourceDefinition", "apiextensions.k8s.io", "v1", "customresourcedefinitions"}
	var items []item
	for _, d := range definitions {
		it, err := newItem(kind, "", d.Name(), d.Object.Object)
		if err != nil {
			return err
		}
		items = append(items, it)
	}
	spaces, err := f.allNamespaces()
	if err != nil {
		return err
	}
	for _, it := range append(items, spaces...) {
		if err := p.apply(ctx, it, foreignManager, false); err != nil {
			return err
		}
	}
	for _, it := range items {
		if err := p.established(ctx, it); err != nil {
			return err
		}
	}
	if err := p.defaultAccounts(ctx, f); err != nil {
		return err
	}
	referred, err := f.tenantObjects()
	if err != nil {
		return err
	}
	for _, it := range referred {
		if err := p.apply(ctx, it, foreignManager, false); err != nil {
			return err
		}
	}
	return nil
}

// established waits until a definition is served.
func (p *plane) established(ctx context.Context, definition item) error {
	return poll(ctx, time.Minute, "definition "+definition.name, func() (bool, error) {
		data, err := p.send(ctx, "GET", definition.path, "", nil)
		if err != nil {
			return false, err
		}
		var d struct {
			Status struct{ Conditions []condition }
		}
		if err := json.Unmarshal(data, &d); err != nil {
			return false, err
		}
		return conditionTrue(d.Status.Conditions, "Established"), nil
	})
}

// defaultAccounts waits until the control plane has made what it makes in every
// new namespace, so that this is not measured.
func (p *plane) defaultAccounts(ctx context.Context, f *fleet) error {
	spaces, err := f.allNamespaces()
	if err != nil {
		return err
	}
	for _, space := range spaces {
		err := poll(ctx, time.Minute, "service account of "+space.name, func() (bool, error) {
			_, err := p.send(ctx, "GET", "/api/v1/namespaces/"+space.name+"/serviceaccounts/default", "", nil)
			if isNotFound(err) {
				return false, nil
			}
			return err == nil, err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// version of the server.
func (p *plane) version(ctx context.Context) (string, error) {
	data, err := p.send(ctx, "GET", "/version", "", nil)
	if err != nil {
		return "", err
	}
	var v struct{ GitVersion string }
	err = json.Unmarshal(data, &v)
	return v.GitVersion, err
}

// stop ends the control plane and removes its folder.
func (p *plane) stop() error {
	var late error
	if p.cmd != nil && p.cmd.Process != nil {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended just now
		select {
		case <-p.gone:
		case <-time.After(stopWithin):
			late = fmt.Errorf("%s was still there %v after SIGTERM", p.cmd.Path, stopWithin)
			_ = p.cmd.Process.Kill()
			<-p.gone
		}
	}
	return errors.Join(late, os.RemoveAll(p.dir))
}

// condition is one of an object's status.
type condition struct {
	Type, Status, Reason, Message string
	ObservedGeneration            int64
}

func conditionTrue(conditions []condition, kind string) bool {
	for _, c := range conditions {
		if c.Type == kind {
			return c.Status == "True"
		}
	}
	return false
}

// poll asks until the answer is yes, an error, or the time is over.
func poll(ctx context.Context, within time.Duration, what string, ask func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("%s: not there after %v", what, within))
	defer cancel()
	for {
		yes, err := ask()
		if yes || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
