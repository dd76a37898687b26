package testenv

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFind(t *testing.T) {
	root := t.TempDir()
	inside := filepath.Join(root, "internal", "deep")
	for _, dir := range []string{inside, filepath.Join(root, "bin")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write := func(path string) {
		if err := os.WriteFile(path, nil, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PLUMB_X", "")
	t.Chdir(inside)

	if _, err := find("PLUMB_X", "x"); err == nil || !strings.Contains(err.Error(), "set PLUMB_X") {
		t.Errorf("outside of a module: %v", err)
	}
	write(filepath.Join(root, "go.mod"))
	if _, err := find("PLUMB_X", "x"); err == nil || !strings.Contains(err.Error(), "build it with `make build`") {
		t.Errorf("not built: %v", err)
	}
	write(filepath.Join(root, "bin", "x"))
	if got, err := find("PLUMB_X", "x"); err != nil || got != filepath.Join(root, "bin", "x") {
		t.Errorf("built: %q, %v", got, err)
	}
	t.Setenv("PLUMB_X", "/elsewhere/x")
	if got, err := find("PLUMB_X", "x"); err != nil || got != "/elsewhere/x" {
		t.Errorf("named: %q, %v", got, err)
	}
}
