package kustomize

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// cloneFS reads the folders into which kustomize clones remote bases. They lie
// in the system's folder for temporary files under a name that kustomize gives
// them. A nil cloneFS has nothing.
type cloneFS struct {
	filesys.FileSystem
	// prefix is the beginning of the path of every clone.
	prefix string
	// used is set once something in a clone was asked for.
	used bool
}

func newCloneFS() (*cloneFS, error) {
	temp, err := filepath.EvalSymlinks(os.TempDir())
	if err != nil {
		return nil, fmt.Errorf("find folder for remote bases: %w", err)
	}
	return &cloneFS{FileSystem: filesys.MakeFsOnDisk(), prefix: filepath.Join(temp, "kustomize-")}, nil
}

// has tells whether a path lies in a clone, and notes that it was asked for.
func (c *cloneFS) has(name string) bool {
	if c == nil || !strings.HasPrefix(filepath.Clean(name), c.prefix) {
		return false
	}
	c.used = true
	return true
}

// ReadFile reads a file that lies in the clone also when links are followed.
func (c *cloneFS) ReadFile(name string) ([]byte, error) {
	real, err := filepath.EvalSymlinks(name)
	if err != nil {
		return nil, err
	}
	if c.folder(real) != c.folder(name) {
		return nil, fmt.Errorf("%q is a link out of the remote base", filepath.Base(name))
	}
	return c.FileSystem.ReadFile(real)
}

// folder is the clone that a path lies in, or "" outside all clones.
func (c *cloneFS) folder(name string) string {
	rest, ok := strings.CutPrefix(filepath.Clean(name), c.prefix)
	if !ok {
		return ""
	}
	id, _, _ := strings.Cut(rest, string(filepath.Separator))
	return c.prefix + id
}
