package try

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitserver"
)

// repositoryName is the repository's name in the URL.
const repositoryName = "repository.git"

// detached is the branch that a commit is served as where no branch is checked out.
const detached = "detached"

// commit is what is served: a commit as the tip of a branch.
type commit struct {
	branch, id string
}

// String is the revision, as sources name it.
func (c commit) String() string { return c.branch + "@sha1:" + c.id }

// repository serves a folder of this machine: the commits of its Git repository,
// or its files.
type repository struct {
	// folder is the top of the working copy, the bare repository, or the folder
	// outside Git.
	folder string
	// inside is the sub-folder of it that the person named, "" for none.
	inside string
	// gitDir and commonDir are Git's own folders; empty outside Git.
	gitDir, commonDir string
	// branch is the only one that is followed; empty to follow what is checked out.
	branch string
	// files tells that the files are served and not the commits.
	files bool

	// scratch is a bare repository that borrows the objects of the person's.
	scratch string
	// index is the scratch index of the files.
	index string
	// served is what was published last.
	served commit
	// head is the commit that the published files were on top of.
	head string
}

// openRepository finds out what a path is. Branch is empty for what is checked
// out; watch serves uncommitted files too.
func openRepository(ctx context.Context, path, branch string, watch bool) (*repository, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return nil, err
	}
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, fmt.Errorf("%q is not a folder", path)
	}
	r := &repository{folder: path, branch: branch, files: watch}
	words, err := in(path).run(ctx, "rev-parse", "--path-format=absolute", "--is-bare-repository", "--git-dir", "--git-common-dir")
	var said *gitError
	switch {
	case errors.As(err, &said) && strings.Contains(said.said, "not a git repository"):
		if branch != "" {
			return nil, fmt.Errorf("%q is not in a Git repository, so there is no branch %q", path, branch)
		}
		r.files = true
		return r, nil
	case err != nil:
		return nil, err
	}
	lines := strings.Split(words, "\n")
	if len(lines) != 3 {
		return nil, fmt.Errorf("git rev-parse answered %q", words)
	}
	r.gitDir, r.commonDir = lines[1], lines[2]
	if lines[0] == "true" {
		if watch {
			return nil, fmt.Errorf("%q is a bare repository: it has no files to watch", path)
		}
		return r, nil
	}
	if r.folder, err = in(path).run(ctx, "rev-parse", "--show-toplevel"); err != nil {
		return nil, err
	}
	if r.inside, err = filepath.Rel(r.folder, path); err != nil {
		return nil, err
	}
	if r.inside == "." {
		r.inside = ""
	}
	return r, r.checkBranch(ctx)
}

func (r *repository) checkBranch(ctx context.Context) error {
	if r.branch == "" {
		return nil
	}
	now, err := r.checkedOut(ctx)
	if err != nil {
		return err
	}
	if r.files && now != r.branch {
		return fmt.Errorf("--watch takes the files of the working copy, which are those of %q, not of %q", now, r.branch)
	}
	if _, err := in(r.folder).run(ctx, "rev-parse", "--verify", "--quiet", "refs/heads/"+r.branch); err != nil && now != r.branch {
		names, _ := in(r.folder).run(ctx, "for-each-ref", "--format=%(refname:short)", "--count=20", "refs/heads")
		return fmt.Errorf("%q has no branch %q; there are: %s", r.folder, r.branch, strings.Join(strings.Fields(names), ", "))
	}
	return nil
}

// checkedOut is the branch that is checked out, "detached" where none is.
func (r *repository) checkedOut(ctx context.Context) (string, error) {
	ref, err := in(r.folder).run(ctx, "symbolic-ref", "--quiet", "HEAD")
	var said *gitError
	if errors.As(err, &said) {
		return detached, nil
	}
	return strings.TrimPrefix(ref, "refs/heads/"), err
}

// prepare makes the scratch repository, in a folder of the session.
func (r *repository) prepare(ctx context.Context, work string) error {
	r.scratch, r.index = filepath.Join(work, repositoryName), filepath.Join(work, "index")
	if err := os.Remove(r.index); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err := in(work).run(ctx, "init", "--quiet", "--bare", "--template=", r.scratch); err != nil {
		return err
	}
	if r.gitDir == "" {
		return nil
	}
	if format, err := in(r.folder).run(ctx, "rev-parse", "--show-object-format"); err != nil || format != "sha1" {
		return errors.Join(err, fmt.Errorf("%q has objects of format %q; only sha1 is served", r.folder, format))
	}
	objects, err := in(r.folder).run(ctx, "rev-parse", "--path-format=absolute", "--git-path", "objects")
	if err != nil {
		return err
	}
	info := filepath.Join(r.scratch, "objects", "info")
	if err := os.MkdirAll(info, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(info, "alternates"), []byte(objects+"\n"), 0o644); err != nil {
		return err
	}
	// What a shallow clone does not have must not be missed in the scratch one.
	shallow, err := os.ReadFile(filepath.Join(r.commonDir, "shallow"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.scratch, "shallow"), shallow, 0o644)
}

// publish makes the newest commit, or the files as they are, the tip of a branch
// of the scratch repository. It tells whether that is something new.
func (r *repository) publish(ctx context.Context) (changed bool, err error) {
	next, err := r.newest(ctx)
	if err != nil || next == r.served {
		return false, err
	}
	if _, err := r.scratchGit().run(ctx, "update-ref", "refs/heads/"+next.branch, next.id); err != nil {
		return false, err
	}
	if _, err := r.scratchGit().run(ctx, "symbolic-ref", "HEAD", "refs/heads/"+next.branch); err != nil {
		return false, err
	}
	r.served = next
	return true, nil
}

func (r *repository) scratchGit() gitCommand {
	return gitCommand{options: []string{"--git-dir=" + r.scratch}}
}

func (r *repository) newest(ctx context.Context) (commit, error) {
	if r.gitDir == "" {
		return r.commitFiles(ctx, "main", "")
	}
	branch := r.branch
	if branch == "" {
		var err error
		if branch, err = r.checkedOut(ctx); err != nil {
			return commit{}, err
		}
	}
	name := "refs/heads/" + branch
	if branch == detached && r.branch == "" {
		name = "HEAD"
	}
	id, err := in(r.folder).run(ctx, "rev-parse", "--verify", "--quiet", name+"^{commit}")
	var said *gitError
	switch {
	case errors.As(err, &said) && r.files:
		return r.commitFiles(ctx, branch, "") // nothing was committed yet
	case errors.As(err, &said):
		return commit{}, fmt.Errorf("%q has no commit on branch %q: commit something, or use --watch", r.folder, branch)
	case err != nil:
		return commit{}, err
	case r.files:
		return r.commitFiles(ctx, branch, id)
	}
	return commit{branch, id}, nil
}

// serve serves the scratch repository on loopback until the context ends. It
// gives the repository's URL.
func (r *repository) serve(ctx context.Context) (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("serve the repository: %w", err)
	}
	// The name is a secret: others on this machine can reach the port.
	name := rand.Text() + "/" + repositoryName
	server := &http.Server{
		Handler:           &gitserver.Handler{Resolve: gitserver.Single(name, r.scratch)},
		ReadHeaderTimeout: 10 * time.Second,
	}
	go func() { _ = server.Serve(listener) }()
	context.AfterFunc(ctx, func() { _ = server.Close() })
	return fmt.Sprintf("http://%s/%s", listener.Addr(), name), nil
}
