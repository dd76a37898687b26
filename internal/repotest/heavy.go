package repotest

import (
	"fmt"
	"slices"
	"strings"
)

// library is one that costs seconds of linking or megabytes of memory.
type library struct {
	// name is for people.
	name string
	// match tells whether an import path belongs to it.
	match func(importPath string) bool
	// in are the packages, with all below them, that may link it.
	in []string
	// tests are packages whose tests may import it besides.
	tests []string
}

// libraries is the table of who may link what. The tests of everything else link
// in seconds, and the parts that make Plumb what it is stand on their own code.
func libraries() []library {
	return []library{
		{name: "Helm", match: prefix("helm.sh/helm"), in: []string{"internal/release", "internal/source/helmrepo"}},
		{name: "kustomize", match: prefix("sigs.k8s.io/kustomize"), in: []string{"internal/build/kustomize", "internal/image"}},
		{name: "SOPS", match: prefix("github.com/getsops/sops"), in: []string{"internal/build/sops"}},
		{name: "clients of object stores", match: objectStores, in: []string{"internal/source/bucket", "internal/build/sops/seal"}, tests: []string{"internal/build/sops"}},
		{name: "go-git", match: prefix("github.com/go-git/"), in: []string{"internal/image", "bench/fetch"}, tests: []string{"internal/source"}},
		{name: "go-containerregistry", match: prefix("github.com/google/go-containerregistry"), in: []string{"internal/source/oci", "internal/image", "internal/verify", "internal/auth", "bench/pull"}},
		{name: "cosign", match: prefix("github.com/sigstore"), in: []string{"internal/verify"}},
		{name: "notation", match: prefix("github.com/notaryproject"), in: []string{"internal/verify"}},
		{name: "AWS SDK", match: prefix("github.com/aws/"), in: []string{"internal/source/bucket", "internal/auth", "internal/build/sops"}},
		{name: "Azure SDK", match: prefix("github.com/Azure/azure-sdk-for-go"), in: []string{"internal/source/bucket", "internal/auth", "internal/build/sops"}},
		{name: "Google Cloud SDK", match: prefix("cloud.google.com/go"), in: []string{"internal/source/bucket", "internal/auth", "internal/build/sops"}},
		{name: "minio", match: prefix("github.com/minio"), in: []string{"internal/source/bucket"}},
		// azblob links it from 1.8 on, for listings that nobody asks for: 1.7 is what is used.
		{name: "Apache Arrow", match: prefix("github.com/apache/arrow-go")},
		{name: "Flux's build", match: prefix("github.com/fluxcd/pkg/kustomize"), tests: []string{"internal/build"}},
		{name: "Flux's apply", match: prefix("github.com/fluxcd/pkg/ssa")},
		{name: "Flux's API modules", match: fluxAPI, in: []string{"internal/frontend/flux", "internal/cli", "test"}, tests: []string{"internal/server"}},
	}
}

// objectStores tells whether an import path is that of a client of an object store. SOPS's
// own stores link three of them, 15 MB that nobody calls.
func objectStores(importPath string) bool {
	return strings.HasPrefix(importPath, "github.com/aws/aws-sdk-go-v2/service/s3") || strings.HasPrefix(importPath, "cloud.google.com/go/storage")
}

func prefix(p string) func(string) bool {
	return func(importPath string) bool { return strings.HasPrefix(importPath, p) }
}

// fluxAPI tells whether an import path is in one of the modules that hold Flux's
// API types.
func fluxAPI(importPath string) bool {
	rest, ok := strings.CutPrefix(importPath, "github.com/fluxcd/")
	if !ok {
		return false
	}
	if strings.HasPrefix(rest, "pkg/") {
		return strings.HasPrefix(rest, "pkg/apis/")
	}
	_, rest, _ = strings.Cut(rest, "/")
	return rest == "api" || strings.HasPrefix(rest, "api/")
}

// Heavy finds packages that link a heavy library and are not in its row of the
// table, be it directly or through a package of another module.
func Heavy(packages []Package) []string {
	byPath := index(packages)
	var wrong []string
	for _, p := range packages {
		if p.Path() == "" || unit(p.Path()) == "testenv" {
			continue
		}
		for _, l := range libraries() {
			if !below(p.Path(), l.in) {
				if chain := reachMatch(byPath, p, l.match); chain != nil {
					wrong = append(wrong, fmt.Sprintf("%s links %s: %s; the table in internal/repotest/heavy.go says who may", p.Path(), l.name, strings.Join(chain, " → ")))
				}
			}
			if below(p.Path(), l.in) || below(p.Path(), l.tests) {
				continue
			}
			for _, imported := range slices.Concat(p.TestImports, p.XTestImports) {
				if l.match(imported) {
					wrong = append(wrong, fmt.Sprintf("a test of %s links %s: it imports %s; the table in internal/repotest/heavy.go says who may", p.Path(), l.name, imported))
				}
			}
		}
	}
	return wrong
}

// below tells whether a path is one of the given ones or below one.
func below(path string, parents []string) bool {
	return slices.ContainsFunc(parents, func(parent string) bool {
		return path == parent || strings.HasPrefix(path, parent+"/")
	})
}

func index(packages []Package) map[string]Package {
	byPath := make(map[string]Package, len(packages))
	for _, p := range packages {
		byPath[p.ImportPath] = p
	}
	return byPath
}

func reach(byPath map[string]Package, from Package, beginning string) []string {
	return reachMatch(byPath, from, prefix(beginning))
}

// reachMatch is the way from a package to the first import that matches, through
// packages of other modules only: what one of ours imports is judged there.
func reachMatch(byPath map[string]Package, from Package, match func(string) bool) []string {
	type step struct {
		path  string
		chain []string
	}
	var queue []step
	for _, imported := range from.Imports {
		queue = append(queue, step{imported, []string{imported}})
	}
	seen := map[string]bool{}
	for len(queue) > 0 {
		next := queue[0]
		queue = queue[1:]
		if seen[next.path] || inside(next.path) != "" {
			continue
		}
		seen[next.path] = true
		if match(next.path) {
			return next.chain
		}
		for _, imported := range byPath[next.path].Imports {
			queue = append(queue, step{imported, append(slices.Clone(next.chain), imported)})
		}
	}
	return nil
}
