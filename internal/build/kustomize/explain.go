package kustomize

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"sigs.k8s.io/kustomize/api/types"

	"github.com/plumb-gitops/plumb/internal/build"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// invalid is a failure that the author of the files has to mend. The place is
// put before the text; file and line may be unknown.
func invalid(file string, line int, err error) error {
	if file != "" {
		err = fmt.Errorf("%s: %w", gitops.Origin{File: file, Line: line}, err)
	}
	return &gitops.Error{Stage: gitops.StageBuild, Kind: gitops.Invalid, Reason: build.ReasonBuildFailed, Cause: err}
}

// missingPath is the failure of a directory that does not exist. Flux counts it
// as one of the artifact.
func missingPath(asked, dir string) error {
	cause := fmt.Errorf("kustomization path not found: there is no directory %q in the source", dir)
	for _, element := range strings.Split(path.Clean(asked), "/") {
		if element == ".." {
			cause = fmt.Errorf("%w (spec.path %q leads out of the source and is taken from its root)", cause, asked)
			break
		}
	}
	return &gitops.Error{Stage: gitops.StageBuild, Kind: gitops.Invalid, Reason: build.ReasonArtifactFailed,
		Cause: fmt.Errorf("%w: correct spec.path, or add the directory", cause)}
}

// unreadable is the failure of a kustomization file that cannot be decoded.
func unreadable(file string, content []byte, err error) error {
	if line, problem, found := malformed(content); found {
		return invalid(file, line, fmt.Errorf("malformed YAML: %s", problem))
	}
	return invalid(file, 0, fmt.Errorf("not a kustomization: %s", clean(err.Error())))
}

// explain turns an error of kustomize, which names the steps it was taking,
// into one that names what to mend. It looks only at what was read, so it is the
// same for the same files.
func explain(err error, fsys *snapshotFS, start prepared) error {
	if fsys.fault != nil {
		return fsys.fault
	}
	if err := explainMalformed(fsys); err != nil {
		return err
	}
	if err := explainKustomization(fsys, start); err != nil {
		return err
	}
	text := err.Error()
	for _, explanation := range []func(string, *snapshotFS, prepared) error{explainDuplicate, explainConflict, explainIdentity, explainPatch} {
		if err := explanation(text, fsys, start); err != nil {
			return err
		}
	}
	file := start.file
	if start.generated {
		file = start.dir
	}
	if fsys.outside != "" {
		return invalid(file, 0, fmt.Errorf("a path leads out of the source (%s): only files of the source can be used", outsidePath(fsys.outside)))
	}
	return invalid(file, 0, errors.New(clean(text)))
}

// explainMalformed looks for a file that is not YAML though its name says so.
func explainMalformed(fsys *snapshotFS) error {
	for _, name := range fsys.order {
		if ext := path.Ext(name); ext != ".yaml" && ext != ".yml" && !isKustomization(name) {
			continue
		}
		if _, made := fsys.overlay[name]; made && fsys.read[name] == nil {
			continue
		}
		if line, problem, found := malformed(fsys.read[name]); found {
			return invalid(name, line, fmt.Errorf("malformed YAML: %s", problem))
		}
	}
	return nil
}

// parserLine finds the line in an error of the YAML parser.
var parserLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

// malformed finds the first syntax error of a file and its line.
func malformed(content []byte) (line int, problem string, found bool) {
	for _, p := range split(content) {
		var node yaml.Node
		err := yaml.Unmarshal(p.text, &node)
		if err == nil {
			continue
		}
		parts := parserLine.FindStringSubmatch(strings.SplitN(err.Error(), "\n", 2)[0])
		if parts == nil {
			return p.line, "cannot be parsed", true
		}
		line, problem = p.line, parts[2]
		if n, convErr := strconv.Atoi(parts[1]); convErr == nil && n > 0 {
			line = p.line + n - 1
		}
		return line, problem, true
	}
	return 0, "", false
}

// explainKustomization looks for a kustomization file that cannot be used, and
// for one that refers to something missing or outside.
func explainKustomization(fsys *snapshotFS, start prepared) error {
	for _, name := range fsys.order {
		if !isKustomization(name) {
			continue
		}
		content, made := fsys.overlay[name]
		if !made {
			content = fsys.read[name]
		}
		var k types.Kustomization
		if err := k.Unmarshal(content); err != nil {
			return invalid(name, 0, fmt.Errorf("not a kustomization: %s", clean(err.Error())))
		}
		if len(k.HelmCharts)+len(k.HelmChartInflationGenerator) > 0 {
			return invalid(name, lineWith(fsys.read[name], "helmChart"), errors.New("helmCharts are not rendered here: use a HelmRelease"))
		}
		for _, ref := range references(&k) {
			if err := explainReference(fsys, start, name, ref); err != nil {
				return err
			}
		}
	}
	return nil
}

// explainReference tells why a reference cannot be followed, or nil where it can.
func explainReference(fsys *snapshotFS, start prepared, file string, ref reference) error {
	if ref.inline || ref.file && isRemoteFile(ref.name) || ref.base && isRemoteBase(ref.name) || path.IsAbs(file) {
		return nil
	}
	line := lineWith(fsys.read[file], ref.name)
	from := file
	if start.generated && file == start.file {
		from, line = start.dir, 0
	}
	target := path.Join(root, path.Dir(file), ref.name)
	if path.IsAbs(ref.name) {
		target = path.Clean(ref.name)
	}
	if target != root && !strings.HasPrefix(target, root+"/") {
		return invalid(from, line, fmt.Errorf("%s: %q leads out of the source: only files of the source can be used", ref.field, ref.name))
	}
	isDir, found := fsys.IsDir(target), fsys.Exists(target)
	switch {
	case !found:
		return invalid(from, line, fmt.Errorf("%s: %q does not exist (symbolic links and files that are ignored are not part of a source): add it, or drop the reference", ref.field, ref.name))
	case isDir && !ref.base:
		return invalid(from, line, fmt.Errorf("%s: %q is a directory, a file is needed", ref.field, ref.name))
	case !isDir && !ref.file:
		return invalid(from, line, fmt.Errorf("%s: %q is a file, a directory is needed", ref.field, ref.name))
	case isDir && !holdsAny(fsys, target):
		return invalid(from, line, fmt.Errorf("%s: %q has no kustomization.yaml: add one, or refer to its files", ref.field, ref.name))
	}
	return nil
}

func holdsAny(fsys *snapshotFS, dir string) bool {
	for _, name := range []string{"kustomization.yaml", "kustomization.yml", "Kustomization"} {
		if file := path.Join(dir, name); fsys.Exists(file) && !fsys.IsDir(file) {
			return true
		}
	}
	return false
}

// Parts of kustomize's errors that can quote values of a Secret or are of no use.
var noise = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile("(?s)with config: `.*`:"), "with its config:"},
	{regexp.MustCompile(`(?s) in object .*`), ""},
	{regexp.MustCompile(`(?s)invalid literal source .*, expected`), "invalid literal source, expected"},
	{regexp.MustCompile(`(?s)literal sources \[.*\]: `), "literals: "},
	{regexp.MustCompile(`(?s)line \S+.* has invalid utf8 bytes.*`), "a line has invalid UTF-8"},
	{regexp.MustCompile(`(?s)id resid\.ResId\{.*?Kind:"([^"]*)".*?Name:"([^"]*)".*?\} `), "$1/$2 "},
	{regexp.MustCompile(`(?s)unable to parse SM or JSON patch from \[.*\]`), "a patch is neither a strategic merge patch nor a JSON patch"},
	{regexp.MustCompile(`(?s)(from|for) generator .*\}: `), "$1 a generator: "},
	{regexp.MustCompile(`(?s)(shouldn't modify the resource map).*`), "$1"},
	{regexp.MustCompile(`(?s):? *node contents:.*`), ""},
	{regexp.MustCompile(`(?s)value: [{\[].*`), "value"},
	{regexp.MustCompile(`0xc[0-9a-f]+`), "…"},
	{regexp.MustCompile(`/[^\s'"]*/kustomize-\d+`), "remote base"},
	{regexp.MustCompile(regexp.QuoteMeta(root + "/")), ""},
	{regexp.MustCompile(regexp.QuoteMeta(root)), "."},
	{regexp.MustCompile(`\s+`), " "},
}

// maxText bounds a message of kustomize.
const maxText = 1000

// clean makes a message of kustomize fit for a condition: without paths of this
// process, without values, on one line.
func clean(text string) string {
	for _, n := range noise {
		text = n.pattern.ReplaceAllString(text, n.with)
	}
	text = strings.TrimSpace(text)
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "…"
	}
	return text
}

// outsidePath is a path outside, without the place where kustomize sees the source.
func outsidePath(name string) string { return strings.ReplaceAll(name, root, ".") }

// absolute is where kustomize sees a directory of the snapshot.
func absolute(dir string) string { return path.Join(root, dir) }
