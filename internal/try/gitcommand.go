package try

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"

	"github.com/plumb-gitops/plumb/internal/gitserver"
)

// gitCommand is a way to run git: with which options before the command's name and
// which variables.
type gitCommand struct {
	options, env []string
}

// in is the git command for a folder.
func in(folder string) gitCommand { return gitCommand{options: []string{"-C", folder}} }

// with is the same command with further variables.
func (g gitCommand) with(env ...string) gitCommand {
	return gitCommand{options: g.options, env: append(append([]string(nil), g.env...), env...)}
}

// gitError is what git said when it failed.
type gitError struct {
	command, said string
}

func (e *gitError) Error() string { return "git " + e.command + ": " + e.said }

// run runs a command and gives what it printed, without the newline at the end.
// Git neither asks for anything nor starts anything that outlives it, and
// refreshes no index.
func (g gitCommand) run(ctx context.Context, args ...string) (string, error) {
	options := append([]string{"-c", "core.fsmonitor=false", "-c", "gc.auto=0", "-c", "maintenance.auto=false"}, g.options...)
	cmd := exec.CommandContext(ctx, "git", append(options, args...)...)
	cmd.Env = append(gitserver.Environment(""), "LC_ALL=C", "GIT_TERMINAL_PROMPT=0", "GIT_OPTIONAL_LOCKS=0",
		"GIT_AUTHOR_NAME=plumb try", "GIT_AUTHOR_EMAIL=plumb@localhost", "GIT_COMMITTER_NAME=plumb try", "GIT_COMMITTER_EMAIL=plumb@localhost")
	cmd.Env = append(cmd.Env, g.env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		said := strings.TrimSpace(errs.String())
		if said == "" {
			said = err.Error()
		}
		return "", &gitError{args[0], said}
	}
	return strings.TrimSuffix(out.String(), "\n"), nil
}

// needGit says what to do where there is no git.
func needGit() error {
	if _, err := exec.LookPath("git"); err != nil {
		return fmt.Errorf("plumb try needs the git program: %w", err)
	}
	return nil
}
