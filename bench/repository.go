package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitserver"
)

// repository is the one Git repository of a fleet, served over HTTP on loopback.
type repository struct {
	fleet *fleet
	// url is what the GitRepository names.
	url    string
	dir    string
	server *http.Server
	// versions are those that the apps have in the newest commit.
	versions []int
}

// newRepository makes the repository with version 0 of every app in a folder that
// does not exist yet, and serves it.
func newRepository(ctx context.Context, f *fleet, dir string) (*repository, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	r := &repository{fleet: f, dir: dir, versions: make([]int, f.apps)}
	if err := r.fill(ctx); err != nil {
		return nil, errors.Join(err, r.stop())
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, r.stop())
	}
	r.url = "http://" + listener.Addr().String() + "/fleet.git"
	r.server = &http.Server{
		Handler:           &gitserver.Handler{Resolve: gitserver.Single("fleet", dir)},
		ReadHeaderTimeout: time.Minute,
	}
	go r.server.Serve(listener) // ends in stop
	return r, nil
}

func (r *repository) fill(ctx context.Context) error {
	for _, args := range [][]string{
		{"init", "-q", "-b", "main"},
		{"config", "user.name", "bench"}, {"config", "user.email", "bench@localhost"},
		// Nothing runs in the background while something is measured.
		{"config", "gc.auto", "0"}, {"config", "maintenance.auto", "false"}, {"config", "commit.gpgsign", "false"},
	} {
		if _, err := r.git(ctx, args...); err != nil {
			return err
		}
	}
	for app := range r.fleet.apps {
		if err := r.write(app, 0); err != nil {
			return err
		}
	}
	_, err := r.commit(ctx, "version 0")
	return err
}

// bump gives apps their next version in the working tree.
func (r *repository) bump(apps ...int) error {
	for _, app := range apps {
		if err := r.write(app, r.versions[app]+1); err != nil {
			return err
		}
	}
	return nil
}

func (r *repository) write(app, version int) error {
	data, err := r.fleet.file(app, version)
	if err != nil {
		return err
	}
	path := filepath.Join(r.dir, "apps", r.fleet.name(app), "app.yaml")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if f := r.fleet; f.tenancy != nil && version == 0 {
		secret, err := f.secretFile(app)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(filepath.Dir(path), "secret.yaml"), []byte(secret), 0o644); err != nil {
			return err
		}
	}
	r.versions[app] = version
	return os.WriteFile(path, data, 0o644)
}

// commit records what was written, which is the push: the branch that is served
// moves. It returns the revision as Flux writes it.
func (r *repository) commit(ctx context.Context, message string) (string, error) {
	if _, err := r.git(ctx, "add", "-A"); err != nil {
		return "", err
	}
	if _, err := r.git(ctx, "commit", "-q", "-m", message); err != nil {
		return "", err
	}
	sha, err := os.ReadFile(filepath.Join(r.dir, ".git", "refs", "heads", "main"))
	return "main@sha1:" + strings.TrimSpace(string(sha)), err
}

func (r *repository) git(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = r.dir
	cmd.Env = append(gitserver.Environment(""), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+os.DevNull)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, bytes.TrimSpace(out))
	}
	return string(out), nil
}

// stop ends the server and removes the repository.
func (r *repository) stop() error {
	var closed error
	if r.server != nil {
		closed = r.server.Close()
	}
	return errors.Join(closed, os.RemoveAll(r.dir))
}
