// Package repotest holds the repository's rules as code: which package may
// import which, where heavy libraries may be linked, where an API group may be
// named, and how long a file may be. Each rule is a function from what the go
// command lists to sentences that say what is wrong and why; the tests run them
// on this repository, and on bad examples that each rule must find. Nothing
// imports the package.
package repotest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
)

// Module is the module whose packages the rules are about.
const Module = "github.com/plumb-gitops/plumb"

// Package is what the go command says of a package. Those of other modules have
// no test imports.
type Package struct {
	ImportPath   string
	Dir          string
	Name         string
	Doc          string
	GoFiles      []string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

// Path is the import path inside the module, such as internal/plan; "" for a
// package of another module.
func (p Package) Path() string { return inside(p.ImportPath) }

func inside(importPath string) string {
	path, ok := strings.CutPrefix(importPath, Module+"/")
	if !ok {
		return ""
	}
	return path
}

// Load lists the packages of the module at root and all that they import.
func Load(root string) ([]Package, error) {
	command := exec.Command("go", "list", "-deps", "-json=ImportPath,Dir,Name,Doc,GoFiles,Imports,TestImports,XTestImports", "./...")
	command.Dir = root
	var stderr bytes.Buffer
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w: %s", err, stderr.String())
	}
	var packages []Package
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p Package
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages, nil
		} else if err != nil {
			return nil, fmt.Errorf("decode go list: %w", err)
		}
		packages = append(packages, p)
	}
}
