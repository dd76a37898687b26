package kustomize

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"strings"

	"sigs.k8s.io/kustomize/api/resource"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/yaml"

	"github.com/plumb-gitops/plumb/internal/build"
)

// guard looks at each file before kustomize gets it. It refuses what costs too
// much and what is remote: kustomize fetches by itself, so what would be fetched
// has to be found before.
type guard struct {
	fsys          *snapshotFS
	remoteAllowed bool
	// alone is set where the build has the OpenAPI schema for itself.
	alone bool
	// uses are the files that kustomization files refer to: true for those that
	// are parsed, false for those that are only data.
	uses map[string]bool
	// nodes bounds those of the files seen; exact is set once they are counted.
	nodes int
	exact bool
	// copies are the copy and move operations of JSON patches seen.
	copies int
	// added estimates what vars and replacements add.
	added amplifier
	// remote is set once something remote is referred to.
	remote bool
}

// inspect checks one file.
func (g *guard) inspect(name string, content []byte) error {
	if parsed, known := g.uses[name]; known && !parsed {
		if err := checkYAML(content, g.fsys.limits); err != nil {
			return invalid(name, lineOf(err), err)
		}
	} else if err := g.parsed(name, content); err != nil {
		return err
	}
	if isKustomization(name) {
		return g.kustomization(name, content, content)
	}
	if g.added.files[name] {
		g.added.addFile(content)
	}
	return g.amplified(name)
}

// amplified refuses what vars and replacements would make too much of.
func (g *guard) amplified(name string) error {
	if err := g.added.check(g.fsys, g.fsys.limits.AddedBytes); err != nil {
		return invalid(name, 0, err)
	}
	return nil
}

// replacementsIn notes a file that holds replacements.
func (g *guard) replacementsIn(name string) {
	if g.added.files == nil {
		g.added.files = map[string]bool{}
	}
	if g.added.files[name] = true; g.fsys.read[name] != nil {
		g.added.addFile(g.fsys.read[name])
	}
}

// parsed checks a file that kustomize parses.
func (g *guard) parsed(name string, content []byte) error {
	limits := g.fsys.limits
	if len(content) > limits.YAMLBytes {
		return invalid(name, 0, fmt.Errorf("the file has %d bytes, the limit for YAML is %d: split it", len(content), limits.YAMLBytes))
	}
	if err := checkFile(content, limits); err != nil {
		return invalid(name, lineOf(err), err)
	}
	if err := g.patch(name, content, content); err != nil {
		return err
	}
	if g.nodes += atMost(content); g.exact {
		g.nodes += nodes(content) - atMost(content)
	}
	if g.nodes > limits.TotalNodes && !g.exact {
		g.exact, g.nodes = true, 0
		for _, file := range g.fsys.order {
			if use, known := g.uses[file]; use || !known {
				g.nodes += nodes(g.fsys.read[file])
			}
		}
	}
	if g.nodes > limits.TotalNodes {
		return invalid(name, 0, fmt.Errorf("the files of the build have more than %d YAML nodes together: split the build into several", limits.TotalNodes))
	}
	return nil
}

// patch counts the operations of a text that may be a JSON patch and that make
// an object grow. One text can be counted more than once, where it is patched
// into several places.
func (g *guard) patch(name string, source, text []byte) error {
	if !bytes.Contains(text, []byte("op")) {
		return nil
	}
	var operations []map[string]any
	if yaml.Unmarshal(text, &operations) != nil {
		return nil // Not a JSON patch, for kustomize neither.
	}
	for _, operation := range operations {
		if op := operation["op"]; op == "copy" || op == "move" {
			g.copies++
		}
	}
	if g.copies > g.fsys.limits.Copies {
		line := 0
		if len(source) != len(text) {
			line = lineWith(source, string(text))
		}
		return invalid(name, line, fmt.Errorf("the JSON patches of the build have more than %d copy and move operations: write out what they copy", g.fsys.limits.Copies))
	}
	return nil
}

// use notes how a file is used. One that was taken for data and is parsed after
// all is looked at again.
func (g *guard) use(name string, parsed bool) error {
	before, known := g.uses[name]
	if known && (before || !parsed) {
		return nil
	}
	content, read := g.fsys.read[name]
	if !parsed && read {
		return nil // Checked as parsed already.
	}
	if g.uses == nil {
		g.uses = map[string]bool{}
	}
	g.uses[name] = parsed
	if known && read {
		return g.parsed(name, content)
	}
	return nil
}

// kustomization checks a kustomization file. Source is the text that its author
// wrote, by which lines are counted.
func (g *guard) kustomization(name string, content, source []byte) error {
	var k types.Kustomization
	if err := k.Unmarshal(content); err != nil {
		// kustomize will refuse it too. The owner's own file may still pass
		// once it has been merged, and is inspected again then.
		return nil
	}
	if len(k.OpenAPI) > 0 && !g.alone {
		return errNeedsAlone
	}
	if len(k.HelmCharts)+len(k.HelmChartInflationGenerator) > 0 {
		return invalid(name, lineWith(source, "helmChart"), errors.New("helmCharts are not rendered here: use a HelmRelease"))
	}
	for _, text := range embedded(&k) {
		if err := checkYAML([]byte(text), g.fsys.limits); err != nil {
			return invalid(name, lineWith(source, text), err)
		}
		if err := g.patch(name, source, []byte(text)); err != nil {
			return err
		}
	}
	for _, ref := range references(&k) {
		if err := g.reference(name, source, ref); err != nil {
			return err
		}
		if ref.encrypted && !isRemoteFile(ref.name) {
			if err := g.fsys.expect(path.Join(path.Dir(name), ref.name), build.EncryptedFile{Name: ref.key, Environment: ref.environment}); err != nil {
				return err
			}
		}
		if !ref.inline {
			if err := g.use(path.Join(path.Dir(name), ref.name), !ref.data); err != nil {
				return err
			}
		}
	}
	//lint:ignore SA1019 repositories still use the old field
	g.added.add(k.Vars, k.Replacements)
	for _, field := range k.Replacements {
		if field.Path != "" {
			g.replacementsIn(path.Join(path.Dir(name), field.Path))
		}
	}
	for _, list := range [][]string{k.Generators, k.Transformers, k.Validators} {
		if err := g.plugins(name, list); err != nil {
			return err
		}
	}
	return g.amplified(name)
}

// embedded are the texts in a kustomization file that kustomize parses as YAML.
func embedded(k *types.Kustomization) []string {
	var texts []string
	//lint:ignore SA1019 repositories still use the old field
	for _, patch := range append(k.PatchesJson6902, k.Patches...) {
		texts = append(texts, patch.Patch)
	}
	//lint:ignore SA1019 repositories still use the old field
	for _, patch := range k.PatchesStrategicMerge {
		texts = append(texts, string(patch))
	}
	for _, plugins := range [][]string{k.Generators, k.Transformers, k.Validators} {
		texts = append(texts, plugins...)
	}
	return texts
}

// reference refuses or notes something remote. What kustomize takes for remote
// is remote here whatever else it could be: a file of that name may be there and
// still be cloned, where it is not what kustomize expects.
func (g *guard) reference(name string, source []byte, ref reference) error {
	text := strings.TrimSpace(ref.name)
	line := lineWith(source, text)
	if optionAsVersion(text) {
		return invalid(name, line, fmt.Errorf("%s: the ref or version of a remote base cannot begin with a dash", ref.field))
	}
	remote := isRemoteFile(text) || isRemoteBase(text) || !ref.inline && strings.Contains(text, "://")
	if remote {
		g.remote = true
	}
	switch {
	case g.remoteAllowed:
		return nil
	case remote:
		return refusedRemote(name, line, text)
	case !ref.inline && strings.ContainsFunc(ref.name, control):
		return invalid(name, line, fmt.Errorf("%s: %q has a line break or another control character: a path has none", ref.field, ref.name))
	}
	return nil
}

func refusedRemote(file string, line int, name string) error {
	return invalid(file, line, fmt.Errorf("remote base %q is refused: copy it into the repository, or start the operator with --no-remote-bases=false", redacted(name)))
}

// pluginsDir is the name of a directory that exists in the overlay only.
const pluginsDir = ".plumb-plugins"

// plugins looks at the configuration of generators, transformers and
// validators. It may come from a kustomization of its own, with patches, so it
// is built first, and the result is looked at.
func (g *guard) plugins(file string, entries []string) error {
	k := types.Kustomization{
		TypeMeta: types.TypeMeta{APIVersion: types.KustomizationVersion, Kind: types.KustomizationKind},
		// Local configuration is dropped from a build, but not from plugins.
		CommonAnnotations: map[string]string{"config.kubernetes.io/local-config": "false"},
	}
	for _, entry := range entries {
		configs, ok := inlinePlugin(entry)
		if !ok {
			k.Resources = append(k.Resources, path.Join("..", entry))
			continue
		}
		if err := g.configs(file, configs.Resources()); err != nil {
			return err
		}
	}
	if len(k.Resources) == 0 {
		return nil
	}
	text, err := yaml.Marshal(k)
	if err != nil {
		return err
	}
	dir := path.Join(path.Dir(file), pluginsDir)
	made := path.Join(dir, "kustomization.yaml")
	g.fsys.overlay[made] = text
	built, err := kustomize(g.fsys, dir)
	delete(g.fsys.overlay, made)
	if err != nil {
		if g.fsys.fault != nil {
			return g.fsys.fault
		}
		return invalid(file, 0, fmt.Errorf("configuration of plugins cannot be built: %w", err))
	}
	return g.configs(file, built.Resources())
}

// configs checks built configuration of plugins.
func (g *guard) configs(file string, configs []*resource.Resource) error {
	for _, config := range configs {
		text, err := config.MarshalJSON()
		if err != nil {
			return invalid(file, 0, err)
		}
		var replacing struct {
			Replacements []types.ReplacementField `json:"replacements"`
		}
		if config.GetKind() == "ReplacementTransformer" && yaml.Unmarshal(text, &replacing) == nil {
			g.added.add(nil, replacing.Replacements)
			for _, field := range replacing.Replacements {
				if field.Path != "" {
					g.replacementsIn(path.Join(path.Dir(file), field.Path))
				}
			}
		}
		var value any
		if err := yaml.Unmarshal(text, &value); err != nil {
			return invalid(file, 0, err)
		}
		if err := g.config(file, config.GetKind(), "", value); err != nil {
			return err
		}
	}
	return nil
}

// config checks every text of a plugin's configuration that may be loaded or
// parsed.
func (g *guard) config(file, kind, key string, value any) error {
	switch v := value.(type) {
	case map[string]any:
		for k, inner := range v {
			if err := g.config(file, kind, k, inner); err != nil {
				return err
			}
		}
	case []any:
		for _, inner := range v {
			if err := g.config(file, kind, key, inner); err != nil {
				return err
			}
		}
	case string:
		return g.configText(file, kind, key, v)
	}
	return nil
}

func (g *guard) configText(file, kind, key, text string) error {
	if err := checkYAML([]byte(text), g.fsys.limits); err != nil {
		return invalid(file, 0, fmt.Errorf("configuration of plugin %s: %w", kind, err))
	}
	if err := g.patch(file, nil, []byte(text)); err != nil {
		return err
	}
	if !loads(key) {
		return nil
	}
	if lower := strings.ToLower(key); lower == "files" || lower == "envs" || lower == "env" {
		if err := g.use(path.Join(path.Dir(file), fileOf(text)), false); err != nil {
			return err
		}
	}
	if _, after, found := strings.Cut(text, "="); found && isRemoteFile(strings.TrimSpace(after)) {
		text = after
	}
	if text = strings.TrimSpace(text); !isRemoteFile(text) {
		return nil
	}
	g.remote = true
	if g.remoteAllowed {
		return nil
	}
	return refusedRemote(file, 0, text)
}

// loads tells whether a plugin may load what stands under a key: every builtin
// one calls it a path, a file or an environment.
func loads(key string) bool {
	key = strings.ToLower(key)
	return strings.Contains(key, "path") || strings.Contains(key, "file") || strings.Contains(key, "env")
}

// lineWith is the line that a text begins on, 0 where it cannot be told.
func lineWith(content []byte, text string) int {
	first, _, _ := strings.Cut(text, "\n")
	if first == "" {
		return 0
	}
	i := bytes.Index(content, []byte(first))
	if i < 0 {
		return 0
	}
	return 1 + bytes.Count(content[:i], []byte("\n"))
}

// lineOf is the line that an error names, 0 where it names none.
func lineOf(err error) int {
	var at *lineError
	if errors.As(err, &at) {
		return at.line
	}
	return 0
}
