package repotest

import (
	"fmt"
	"slices"
	"strings"
)

// operatorRoot is the package that links all that the operator is.
const operatorRoot = "internal/server"

// Programs finds packages of the operator that start programs. What comes from a repository, a
// server or a Secret is then an argument of none: URLs such as ext::sh -c and names such as
// --upload-pack=x have nobody to talk to. Packages of other modules are not looked at:
// kustomize runs git for remote bases, where these are allowed, and client-go plugins of
// kubeconfigs, where these are.
func Programs(packages []Package) []string {
	byPath := index(packages)
	var wrong []string
	var look func(p Package, way []string)
	seen := map[string]bool{}
	look = func(p Package, way []string) {
		if p.Path() == "" || seen[p.ImportPath] {
			return
		}
		seen[p.ImportPath] = true
		way = append(slices.Clone(way), p.Path())
		for _, imported := range p.Imports {
			if imported == "os/exec" {
				wrong = append(wrong, fmt.Sprintf("%s imports os/exec (%s): the operator starts no programs", p.Path(), strings.Join(way, " → ")))
			}
			look(byPath[imported], way)
		}
	}
	operator, found := byPath[Module+"/"+operatorRoot]
	if !found {
		return []string{operatorRoot + " is not there: nothing is looked at"}
	}
	look(operator, nil)
	return wrong
}
