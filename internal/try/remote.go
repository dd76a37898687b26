package try

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// scpLike matches git's short form of an SSH address.
var scpLike = regexp.MustCompile(`^[\w.-]+@[\w.-]+:`)

// isURL tells whether a target is an address and not a path.
func isURL(target string) bool {
	return strings.Contains(target, "://") || scpLike.MatchString(target)
}

// checkURL refuses addresses that the operator cannot follow without a secret.
func checkURL(target string) error {
	u, err := url.Parse(target)
	if err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.User == nil {
		return nil
	}
	return errors.New("only http and https addresses without credentials are followed: clone the repository and give its path")
}

// remoteBranch is the branch that a remote repository has checked out.
func remoteBranch(ctx context.Context, address string) (string, error) {
	out, err := anonymous(ctx, "ls-remote", "--symref", "--", address, "HEAD")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(out) {
		if ref, found := strings.CutPrefix(strings.TrimSpace(line), "ref: refs/heads/"); found {
			branch, _, _ := strings.Cut(ref, "\t")
			return branch, nil
		}
	}
	return "", fmt.Errorf("%s does not say which branch it has checked out: name one with --branch", address)
}

// remoteFiles lists the files at the tip of a remote branch, without fetching them
// where the server can leave them out.
func remoteFiles(ctx context.Context, address, branch, work string) ([]string, error) {
	folder := filepath.Join(work, "listing.git")
	defer os.RemoveAll(folder)
	if _, err := anonymous(ctx, "clone", "--quiet", "--bare", "--depth=1", "--filter=blob:none", "--branch="+branch, "--", address, folder); err != nil {
		return nil, err
	}
	return listFiles(ctx, gitCommand{options: []string{"--git-dir=" + folder}}, "HEAD")
}

// anonymous runs git as the operator will: without the person's credentials.
func anonymous(ctx context.Context, args ...string) (string, error) {
	return gitCommand{options: []string{"-c", "credential.helper=", "-c", "core.askPass="}}.with("GIT_ASKPASS=", "SSH_ASKPASS=").run(ctx, args...)
}

// listFiles lists the files of a commit.
func listFiles(ctx context.Context, git gitCommand, commit string) ([]string, error) {
	out, err := git.run(ctx, "ls-tree", "-r", "-z", "--name-only", "--full-tree", commit)
	if err != nil {
		return nil, err
	}
	return strings.FieldsFunc(out, func(r rune) bool { return r == 0 }), nil
}
