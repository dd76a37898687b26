// Package gitserver serves Git repositories for reading over Git's smart HTTP
// protocol, versions 0 to 2, by running git upload-pack for each request.
//
// It is a small counterpart of git http-backend without pushing: `plumb try`
// serves the repository of a working copy with it, and tests serve theirs. A
// request can name nothing but what Resolve gives out, and a repository's own
// configuration cannot make the server accept a push.
package gitserver

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// maxRequest is the most bytes of an upload-pack request that are read, after
// decompression: wants and haves, fifty bytes each.
const maxRequest = 64 << 20

// Handler serves the repositories that Resolve knows. The zero value serves none.
type Handler struct {
	// Resolve gives the folder of a repository by the path in the URL, which
	// has neither a leading slash nor the protocol's own ending. The folder may
	// be a bare repository, a working copy, or a linked worktree. An error that
	// wraps fs.ErrNotExist is answered with 404, any other one with 500.
	Resolve func(name string) (folder string, err error)
	// Git is the git program; "git", looked up in PATH, where it is empty.
	Git string
	// OldProtocol speaks version 0 of the wire protocol, whatever is asked for.
	OldProtocol bool
}

// Folder resolves names to the repositories in a folder and its sub-folders,
// with or without ".git" behind the name. A name that leaves the folder, also
// by a symbolic link, does not exist.
func Folder(root string) func(name string) (string, error) {
	return func(name string) (string, error) {
		dir, err := os.OpenRoot(root)
		if err != nil {
			return "", err
		}
		defer dir.Close()
		for _, candidate := range []string{name, name + ".git", strings.TrimSuffix(name, ".git")} {
			local := filepath.FromSlash(candidate)
			if !filepath.IsLocal(local) {
				continue
			}
			if info, err := dir.Stat(local); err == nil && info.IsDir() {
				return filepath.Join(root, local), nil
			}
		}
		return "", fmt.Errorf("repository %q: %w", name, fs.ErrNotExist)
	}
}

// Single resolves one name to one folder, and no other name to anything.
func Single(name, folder string) func(string) (string, error) {
	return func(asked string) (string, error) {
		if strings.TrimSuffix(asked, ".git") != strings.TrimSuffix(name, ".git") {
			return "", fmt.Errorf("repository %q: %w", asked, fs.ErrNotExist)
		}
		return folder, nil
	}
}

const (
	refsPath   = "/info/refs"
	uploadPath = "/git-upload-pack"
)

// ServeHTTP answers reference advertisements and upload-pack requests.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-cache, max-age=0, must-revalidate")
	path := strings.TrimPrefix(r.URL.Path, "/")
	switch {
	case strings.HasSuffix(path, refsPath) && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		if r.URL.Query().Get("service") != "git-upload-pack" {
			http.Error(w, "only git-upload-pack is served here", http.StatusForbidden)
			return
		}
		h.serve(w, r, strings.TrimSuffix(path, refsPath), true)
	case strings.HasSuffix(path, uploadPath) && r.Method == http.MethodPost:
		h.serve(w, r, strings.TrimSuffix(path, uploadPath), false)
	case strings.HasSuffix(path, "/git-receive-pack"):
		http.Error(w, "this server is for reading only", http.StatusForbidden)
	default:
		http.NotFound(w, r)
	}
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request, name string, advertise bool) {
	folder, err := h.resolve(name)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			http.NotFound(w, r)
			return
		}
		http.Error(w, "the repository cannot be opened", http.StatusInternalServerError)
		return
	}
	body, err := requestBody(w, r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	// upload-pack may answer before it has read the whole request.
	_ = http.NewResponseController(w).EnableFullDuplex()

	protocol := h.protocol(r.Header.Get("Git-Protocol"))
	cmd := h.command(r, folder, protocol, advertise)
	cmd.Stdin = body
	out := &lazyWriter{w: w, kind: "application/x-git-upload-pack-result"}
	if advertise {
		out.kind = "application/x-git-upload-pack-advertisement"
		if protocol != "version=2" {
			out.preamble = "001e# service=git-upload-pack\n0000"
		}
	}
	cmd.Stdout = out
	if err := cmd.Run(); err != nil && !out.started {
		http.Error(w, "git upload-pack failed", http.StatusInternalServerError)
	}
}

func (h *Handler) resolve(name string) (string, error) {
	if h.Resolve == nil {
		return "", fs.ErrNotExist
	}
	return h.Resolve(name)
}

func requestBody(w http.ResponseWriter, r *http.Request) (io.Reader, error) {
	limited := http.MaxBytesReader(w, r.Body, maxRequest)
	switch r.Header.Get("Content-Encoding") {
	case "":
		return limited, nil
	case "gzip", "x-gzip":
		unpacked, err := gzip.NewReader(limited)
		if err != nil {
			return nil, fmt.Errorf("request body: %w", err)
		}
		return io.LimitReader(unpacked, maxRequest), nil
	default:
		return nil, fmt.Errorf("request body: unknown encoding %q", r.Header.Get("Content-Encoding"))
	}
}

// protocol is the value of GIT_PROTOCOL for what a client asked for. Nothing
// else of the client's text reaches the process.
func (h *Handler) protocol(asked string) string {
	if h.OldProtocol {
		return ""
	}
	version := 0
	for _, field := range strings.Split(asked, ":") {
		switch field {
		case "version=1":
			version = max(version, 1)
		case "version=2":
			version = max(version, 2)
		}
	}
	if version == 0 {
		return ""
	}
	return fmt.Sprintf("version=%d", version)
}

func (h *Handler) command(r *http.Request, folder, protocol string, advertise bool) *exec.Cmd {
	args := UploadPackArgs("--stateless-rpc")
	if advertise {
		args = append(args, "--advertise-refs")
	}
	git := h.Git
	if git == "" {
		git = "git"
	}
	cmd := exec.CommandContext(r.Context(), git, append(args, "--", folder)...)
	cmd.Env = Environment(protocol)
	// When git has ended, the last of its answer may still be on its way to a slow client;
	// a client that is gone ends it at once.
	cmd.WaitDelay = time.Minute
	return cmd
}

// UploadPackArgs are the arguments of a git command that serves a repository as
// this package does, up to the folder: partial clones and wants of any object
// are allowed, as the large hosting services do.
func UploadPackArgs(options ...string) []string {
	args := []string{
		"-c", "uploadpack.allowFilter=true",
		"-c", "uploadpack.allowAnySHA1InWant=true",
		"upload-pack",
	}
	return append(args, options...)
}

// Environment is that of this process without Git's own variables, which would
// point git at another repository, and with the wire protocol.
func Environment(protocol string) []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "GIT_") {
			env = append(env, kv)
		}
	}
	if protocol != "" {
		env = append(env, "GIT_PROTOCOL="+protocol)
	}
	return env
}

// lazyWriter sends the header with the first byte, so that a failure before it
// can still be told by the status code.
type lazyWriter struct {
	w        http.ResponseWriter
	kind     string
	preamble string
	started  bool
}

func (l *lazyWriter) Write(p []byte) (int, error) {
	if !l.started {
		l.started = true
		l.w.Header().Set("Content-Type", l.kind)
		if _, err := io.WriteString(l.w, l.preamble); err != nil {
			return 0, err
		}
	}
	return l.w.Write(p)
}
