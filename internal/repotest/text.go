package repotest

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

// SoftLines and HardLines are the lengths of a file, in lines, from which on a
// second idea is looked for, and which fails.
const (
	SoftLines = 400
	HardLines = 600
)

// Comments finds packages without a package comment.
func Comments(packages []Package) []string {
	var wrong []string
	for _, p := range packages {
		if p.Path() != "" && len(p.GoFiles) > 0 && strings.TrimSpace(p.Doc) == "" {
			wrong = append(wrong, fmt.Sprintf("%s has no package comment: say its idea, its invariants and who uses it", p.Path()))
		}
	}
	return wrong
}

// Names finds packages whose name says nothing.
func Names(packages []Package) []string {
	empty := []string{"util", "utils", "common", "helper", "helpers", "types", "misc", "base", "shared"}
	var wrong []string
	for _, p := range packages {
		if p.Path() != "" && slices.Contains(empty, path.Base(p.ImportPath)) {
			wrong = append(wrong, fmt.Sprintf("%s: the name %q holds no idea", p.Path(), path.Base(p.ImportPath)))
		}
	}
	return wrong
}

// ForeignGroups finds the API groups of front ends in files of the engine and
// the rows below it. files holds the repository.
func ForeignGroups(files fs.FS) ([]string, error) {
	var wrong []string
	err := goFiles(files, func(name string, data []byte) {
		if strings.HasSuffix(name, "_test.go") || !strings.HasPrefix(name, "internal/") {
			return
		}
		if r := row(unit(path.Dir(name))); r < row("engine") {
			return
		}
		for i, line := range strings.Split(string(data), "\n") {
			for _, group := range []string{"fluxcd.io", "argoproj.io"} {
				if strings.Contains(line, group) {
					wrong = append(wrong, fmt.Sprintf("%s:%d names %q: only a front end knows it; pass it in as data", name, i+1, group))
				}
			}
		}
	})
	return wrong, err
}

// Lengths finds files that are too long, and those that soon are. Generated files
// have any length.
func Lengths(files fs.FS) (tooLong, long []string, err error) {
	generated := regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)
	err = goFiles(files, func(name string, data []byte) {
		lines := strings.Count(string(data), "\n")
		if lines <= SoftLines || generated.Match(data) {
			return
		}
		what := fmt.Sprintf("%s has %d lines; look for the second idea in it", name, lines)
		if lines > HardLines {
			tooLong = append(tooLong, what)
		} else {
			long = append(long, what)
		}
	})
	return tooLong, long, err
}

// goFiles calls visit for every Go file, in order.
func goFiles(files fs.FS, visit func(name string, data []byte)) error {
	return fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			base := entry.Name()
			if name != "." && (strings.HasPrefix(base, ".") || base == "bin" || base == "testdata") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		data, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		visit(name, data)
		return nil
	})
}

// Requirements reads the versions that a go.mod file asks for.
func Requirements(goMod string) map[string]string {
	versions := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^(?:require)?\s*(\S+\.\S+/\S+) (v\S+)`).FindAllStringSubmatch(goMod, -1) {
		versions[m[1]] = m[2]
	}
	return versions
}

// APIVersions finds modules of Flux's API types that the operator compiles in
// another version than its CRDs are generated from. Both are go.mod files.
func APIVersions(operator, tools string) []string {
	generated := Requirements(tools)
	var wrong []string
	for module, version := range Requirements(operator) {
		if fluxAPI(module) && !strings.HasPrefix(module, "github.com/fluxcd/pkg/") && generated[module] != version {
			wrong = append(wrong, fmt.Sprintf("%s is %s in go.mod and %q in tools/go.mod: the CRDs would not fit the types", module, version, generated[module]))
		}
	}
	slices.Sort(wrong)
	return wrong
}

// Conflicts finds what a merge has left undecided, in texts and in code.
func Conflicts(files fs.FS) ([]string, error) {
	var wrong []string
	err := fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (name == "bin" || strings.HasPrefix(path.Base(name), ".") && name != "."):
			return fs.SkipDir
		case entry.IsDir() || !slices.Contains([]string{".go", ".md", ".mod", ".sum", ".txtar", ".yaml"}, path.Ext(name)):
			return nil
		}
		data, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		for i, line := range strings.Split(string(data), "\n") {
			if strings.HasPrefix(line, strings.Repeat("<", 7)+" ") || strings.HasPrefix(line, strings.Repeat(">", 7)+" ") {
				wrong = append(wrong, fmt.Sprintf("%s:%d: a merge was not decided here", name, i+1))
			}
		}
		return nil
	})
	return wrong, err
}
