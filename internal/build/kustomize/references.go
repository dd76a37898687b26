package kustomize

import (
	"net/url"
	"strings"

	"sigs.k8s.io/kustomize/api/provider"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/api/types"
)

// reference is something that a kustomization file refers to.
type reference struct {
	field string
	name  string
	// base is set where it may be a directory.
	base bool
	// file is set where it may be a file.
	file bool
	// data is set where the file is taken as it is, and not parsed as YAML.
	data bool
	// inline is set where the entry is an object itself and not its path.
	inline bool
	// encrypted is set where the file is decrypted, should it be encrypted.
	encrypted bool
	// key is the name that tells the form of the file: its own, or one that the
	// entry gives it.
	key string
	// environment is set where the file holds variables, whatever its name.
	environment bool
}

// references lists what kustomize could load for a kustomization file, but for
// what the configuration of a plugin refers to. Nothing but what is empty is
// left out: what an entry is, is for kustomize's own code to tell.
func references(k *types.Kustomization) []reference {
	var refs []reference
	add := func(as reference, names ...string) {
		for _, name := range names {
			if name == "" {
				continue
			}
			ref := as
			if ref.name = name; ref.key == "" {
				ref.key = name
			}
			refs = append(refs, ref)
		}
	}
	add(reference{field: "resources", base: true, file: true}, k.Resources...)
	//lint:ignore SA1019 repositories still use the old field
	add(reference{field: "bases", base: true, file: true}, k.Bases...)
	add(reference{field: "components", base: true}, k.Components...)
	add(reference{field: "crds", file: true}, k.Crds...)
	add(reference{field: "configurations", file: true}, k.Configurations...)
	add(reference{field: "openapi", file: true}, k.OpenAPI["path"])
	for _, plugins := range [][]string{k.Generators, k.Transformers, k.Validators} {
		for _, plugin := range plugins {
			_, inline := inlinePlugin(plugin)
			add(reference{field: "plugins", base: true, file: true, inline: inline}, plugin)
		}
	}
	//lint:ignore SA1019 repositories still use the old field
	for _, patch := range k.PatchesStrategicMerge {
		inline := inlinePatch(string(patch))
		add(reference{field: "patchesStrategicMerge", file: true, inline: inline, encrypted: !inline}, string(patch))
	}
	//lint:ignore SA1019 repositories still use the old field
	for _, patches := range [][]types.Patch{k.PatchesJson6902, k.Patches} {
		for _, patch := range patches {
			add(reference{field: "patches", file: true, encrypted: true}, patch.Path)
		}
	}
	for _, replacement := range k.Replacements {
		add(reference{field: "replacements", file: true}, replacement.Path)
	}
	for _, generator := range k.ConfigMapGenerator {
		addSources(add, "configMapGenerator", generator.KvPairSources)
	}
	for _, generator := range k.SecretGenerator {
		addSources(add, "secretGenerator", generator.KvPairSources)
	}
	return refs
}

func addSources(add func(reference, ...string), field string, sources types.KvPairSources) {
	as := reference{field: field, file: true, data: true, encrypted: true, environment: true}
	add(as, sources.EnvSources...)
	add(as, sources.EnvSource)
	as.environment = false
	for _, source := range sources.FileSources {
		as.key, _, _ = strings.Cut(source, "=")
		add(as, fileOf(source))
	}
}

// fileOf is the path in an entry of a generator's files, which may have a key.
func fileOf(source string) string {
	if _, file, found := strings.Cut(source, "="); found {
		return file
	}
	return source
}

// inlinePlugin reads an entry that is the configuration of a plugin itself, by
// the function with which kustomize tells it from a path.
func inlinePlugin(entry string) (resmap.ResMap, bool) {
	configs, err := resmap.NewFactory(provider.NewDefaultDepProvider().GetResourceFactory()).NewResMapFromBytes([]byte(entry))
	return configs, err == nil
}

// inlinePatch tells whether an entry is a patch itself, by the function with
// which kustomize tells it from a path.
func inlinePatch(entry string) bool {
	_, err := provider.NewDefaultDepProvider().GetResourceFactory().SliceFromBytes([]byte(entry))
	return err == nil
}

// control tells whether a character is one of the C0 set, or deletes.
func control(r rune) bool { return r < ' ' || r == 0x7f }

// optionAsVersion tells whether the ref of a remote base would reach git as one
// of its options.
func optionAsVersion(name string) bool {
	_, query, found := strings.Cut(name, "?")
	if !found {
		return false
	}
	values, _ := url.ParseQuery(query) // Keeps what it understands.
	for key, list := range values {
		if key = strings.ToLower(key); key != "ref" && key != "version" {
			continue
		}
		for _, value := range list {
			if strings.HasPrefix(strings.TrimSpace(value), "-") {
				return true
			}
		}
	}
	return false
}
