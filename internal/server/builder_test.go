package server

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestNewBuilderTakesProtocolsFromGit checks that a git command which inherits
// the environment cannot fetch. It is not parallel: the environment is the
// process'.
func TestNewBuilderTakesProtocolsFromGit(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("no git command")
	}
	t.Setenv("GIT_ALLOW_PROTOCOL", "file")
	NewBuilder(true)
	if got := os.Getenv("GIT_ALLOW_PROTOCOL"); got != "file" {
		t.Errorf("with remote bases the variable is %q", got)
	}
	NewBuilder(false)
	mark := filepath.Join(t.TempDir(), "mark")
	out, err := exec.Command("git", "ls-remote", "--upload-pack=touch "+mark+" #", "file://"+t.TempDir()).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "not allowed") {
		t.Errorf("git fetches: %v: %s", err, out)
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("a program was run")
	}
}
