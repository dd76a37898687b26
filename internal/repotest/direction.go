package repotest

import (
	"fmt"
	"slices"
	"strings"
)

// rows is the order of the house, from the top: a package imports only from rows
// below its own. docs/architecture.md draws the same table.
func rows() [][]string {
	return [][]string{
		{"cmd", "bench"},
		{"cli"},
		{"try", "install"},
		{"server"},
		{"web", "frontend/flux"},
		{"webhook", "notify", "image"},
		{"state"},
		{"engine"},
		{"source", "build", "apply", "release", "observe", "verify", "auth"},
		{"event", "artifact", "cluster", "config", "egress", "telemetry", "gitserver", "terminal"},
		{"plan", "health", "ownership", "paging"},
		{"gitops"},
	}
}

// adapters are the parents whose children are chosen by the composition root:
// a stage works with what it is handed and does not know them.
func adapters() []string { return []string{"source", "build", "verify", "auth"} }

// transformations are children of those parents that are no implementations: they make
// values of values, and whoever stands above their parent may use them.
func transformations() []string { return []string{"source/generate"} }

// testOnly are the units that no program links.
func testOnly() []string { return []string{"testenv", "repotest", "test"} }

// unit is the part of the house that a package belongs to: build for
// internal/build/kustomize, frontend/flux for all below it.
func unit(path string) string {
	path = strings.TrimPrefix(path, "internal/")
	first, rest, _ := strings.Cut(path, "/")
	if first == "frontend" {
		second, _, _ := strings.Cut(rest, "/")
		return first + "/" + second
	}
	return first
}

// row is the index in rows, -1 where the unit stands in none.
func row(unit string) int {
	if strings.HasPrefix(unit, "frontend/") {
		unit = "frontend/flux"
	}
	return slices.IndexFunc(rows(), func(row []string) bool { return slices.Contains(row, unit) })
}

// adapter is the implementation of a stage's interface that a package is or is a
// part of: source/git for internal/source/git/pack; "" where it is none.
func adapter(path string) string {
	parts := strings.SplitN(strings.TrimPrefix(path, "internal/"), "/", 3)
	if len(parts) < 2 || !slices.Contains(adapters(), parts[0]) {
		return ""
	}
	name := parts[0] + "/" + parts[1]
	if slices.Contains(transformations(), name) {
		return ""
	}
	return name
}

// Direction finds imports that point upwards or sideways.
func Direction(packages []Package) []string {
	var wrong []string
	for _, p := range packages {
		from := p.Path()
		if from == "" || slices.Contains(testOnly(), unit(from)) {
			continue
		}
		if row(unit(from)) < 0 {
			wrong = append(wrong, fmt.Sprintf("%s stands in no row: add it to rows in internal/repotest/direction.go and to docs/architecture.md", from))
			continue
		}
		for _, imported := range p.Imports {
			if to := inside(imported); to != "" {
				if why := whyNot(from, to); why != "" {
					wrong = append(wrong, fmt.Sprintf("%s imports %s: %s", from, to, why))
				}
			}
		}
	}
	return wrong
}

// whyNot is the reason for which a package may not import another, "" where it may.
func whyNot(from, to string) string {
	upper, lower := unit(from), unit(to)
	switch {
	case slices.Contains(testOnly(), lower):
		return "only tests may import it"
	case adapter(to) != "" && adapter(from) == adapter(to):
		return ""
	case adapter(to) != "" && upper != "server" && upper != "bench":
		return "an adapter is imported by server, which hands it in, by testenv and by its own tests"
	case upper == lower:
		return ""
	case row(upper) < row(lower):
		return ""
	case row(upper) == row(lower):
		return fmt.Sprintf("%s and %s stand in one row; they share only vocabulary, and the row above composes them", upper, lower)
	default:
		return fmt.Sprintf("%s stands above %s; imports point downwards", lower, upper)
	}
}

// Pure finds clients and API groups in the packages that decide and do no I/O.
func Pure(packages []Package) []string {
	byPath := index(packages)
	var wrong []string
	for _, p := range packages {
		switch unit(p.Path()) {
		case "gitops", "plan", "health", "ownership":
		default:
			continue
		}
		for _, imported := range p.Imports {
			if strings.HasPrefix(imported, "k8s.io/api/") || fluxAPI(imported) {
				wrong = append(wrong, fmt.Sprintf("%s imports %s: a pure package knows no API group", p.Path(), imported))
			}
		}
		for _, client := range []string{"k8s.io/client-go", "sigs.k8s.io/controller-runtime"} {
			if chain := reach(byPath, p, client); chain != nil {
				wrong = append(wrong, fmt.Sprintf("%s links %s (%s): a pure package has no client", p.Path(), client, strings.Join(chain, " → ")))
			}
		}
	}
	return wrong
}
