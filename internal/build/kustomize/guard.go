package kustomize

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"strings"

	"sigs.k8s.io/kustomize/api/provider"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/api/resource"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/yaml"
)

// guard looks at each file before kustomize gets it. It refuses what costs too
// much and what is remote: kustomize fetches by itself, so what would be fetched
// has to be found before.
type guard struct {
	fsys          *snapshotFS
	remoteAllowed bool
	// alone is set where the build has the OpenAPI schema for itself.
	alone bool
	// remote is set once something remote is referred to.
	remote bool
}

// inspect checks one file.
func (g *guard) inspect(name string, content []byte) error {
	if err := checkYAML(content, g.fsys.limits); err != nil {
		return invalid(name, lineOf(err), err)
	}
	if !isKustomization(name) {
		return nil
	}
	return g.kustomization(name, content, content)
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
	for _, text := range embedded(&k) {
		if err := checkYAML([]byte(text), g.fsys.limits); err != nil {
			return invalid(name, lineWith(source, text), err)
		}
	}
	for _, ref := range references(&k) {
		if err := g.reference(name, source, ref); err != nil {
			return err
		}
	}
	for _, list := range [][]string{k.Generators, k.Transformers, k.Validators} {
		if err := g.plugins(name, list); err != nil {
			return err
		}
	}
	return nil
}

// reference is something that a kustomization file refers to.
type reference struct {
	field string
	name  string
	// base is set where it may be a directory.
	base bool
	// file is set where it may be a file.
	file bool
}

// references lists what kustomize would load for a kustomization file, but for
// what the configuration of a plugin refers to.
func references(k *types.Kustomization) []reference {
	var refs []reference
	add := func(field string, base, file bool, names ...string) {
		for _, name := range names {
			if name != "" && !strings.Contains(name, "\n") {
				refs = append(refs, reference{field, name, base, file})
			}
		}
	}
	add("resources", true, true, k.Resources...)
	//lint:ignore SA1019 repositories still use the old field
	add("bases", true, true, k.Bases...)
	add("components", true, false, k.Components...)
	add("crds", false, true, k.Crds...)
	add("configurations", false, true, k.Configurations...)
	add("openapi", false, true, k.OpenAPI["path"])
	for _, plugins := range [][]string{k.Generators, k.Transformers, k.Validators} {
		for _, plugin := range plugins {
			if !inline(plugin) {
				add("plugins", true, true, plugin)
			}
		}
	}
	//lint:ignore SA1019 repositories still use the old field
	for _, patch := range k.PatchesStrategicMerge {
		if !inline(string(patch)) {
			add("patchesStrategicMerge", false, true, string(patch))
		}
	}
	//lint:ignore SA1019 repositories still use the old field
	for _, patch := range append(k.PatchesJson6902, k.Patches...) {
		add("patches", false, true, patch.Path)
	}
	for _, replacement := range k.Replacements {
		add("replacements", false, true, replacement.Path)
	}
	for _, generator := range k.ConfigMapGenerator {
		addSources(add, "configMapGenerator", generator.KvPairSources)
	}
	for _, generator := range k.SecretGenerator {
		addSources(add, "secretGenerator", generator.KvPairSources)
	}
	return refs
}

func addSources(add func(string, bool, bool, ...string), field string, sources types.KvPairSources) {
	add(field, false, true, sources.EnvSources...)
	add(field, false, true, sources.EnvSource)
	for _, source := range sources.FileSources {
		if _, file, found := strings.Cut(source, "="); found {
			source = file
		}
		add(field, false, true, source)
	}
}

// inline tells whether an entry is an object itself and not the path of one.
func inline(entry string) bool {
	var object map[string]any
	return yaml.Unmarshal([]byte(entry), &object) == nil && len(object) > 0
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

// reference refuses or notes something remote.
func (g *guard) reference(file string, source []byte, ref reference) error {
	remote := ref.file && isRemoteFile(ref.name)
	if ref.base && !remote && isRemoteBase(ref.name) {
		// A local file of that name comes first.
		remote = !ref.file || !g.fsys.Exists(path.Join(root, path.Dir(file), ref.name)) ||
			g.fsys.IsDir(path.Join(root, path.Dir(file), ref.name))
	}
	if !remote {
		return nil
	}
	g.remote = true
	if g.remoteAllowed {
		return nil
	}
	return refusedRemote(file, lineWith(source, ref.name), ref.name)
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
		if !inline(entry) {
			k.Resources = append(k.Resources, path.Join("..", entry))
			continue
		}
		configs, err := resmap.NewFactory(provider.NewDefaultDepProvider().GetResourceFactory()).NewResMapFromBytes([]byte(entry))
		if err != nil {
			continue // kustomize refuses it as well.
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
	switch strings.ToLower(key) {
	case "path", "paths", "files", "envs", "env":
	default:
		return nil
	}
	if _, after, found := strings.Cut(text, "="); found && isRemoteFile(after) {
		text = after
	}
	if !isRemoteFile(text) {
		return nil
	}
	g.remote = true
	if g.remoteAllowed {
		return nil
	}
	return refusedRemote(file, 0, text)
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
