package kustomize

import (
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/kustomize/api/konfig"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/yaml"

	"github.com/plumb-gitops/plumb/internal/build"
)

// placeholder is the namespace of a generated kustomization without resources:
// kustomize refuses one that says nothing at all.
const placeholder = "_placeholder"

// prepared is the kustomization file that a build starts from.
type prepared struct {
	// dir is the directory to build, in the snapshot.
	dir string
	// file is the path of the kustomization file, which is in the overlay.
	file string
	// generated is set where the repository has no such file.
	generated bool
	// metadata is what the author's buildMetadata asks for.
	metadata []string
	// deprecated are warnings about the author's own file.
	deprecated []string
}

// directory resolves the path of a spec as Flux does: inside the snapshot,
// whatever it says.
func directory(name string) string {
	clean := strings.TrimPrefix(path.Clean("/"+filepath.ToSlash(name)), "/")
	if clean == "" {
		return "."
	}
	return clean
}

// prepare finds or generates the kustomization file, merges the spec into it,
// and puts the result into the overlay.
func (s *snapshotFS) prepare(spec build.Spec) (prepared, error) {
	p := prepared{dir: directory(spec.Path)}
	info, err := s.files.Stat(p.dir)
	if err != nil {
		return p, missingPath(spec.Path, p.dir)
	}
	if !info.IsDir() {
		return p, invalid(p.dir, 0, fmt.Errorf("spec.path is a file: name its directory"))
	}
	kustomization := types.Kustomization{TypeMeta: types.TypeMeta{APIVersion: types.KustomizationVersion, Kind: types.KustomizationKind}}
	if err := s.find(&p, &kustomization); err != nil {
		return p, err
	}
	if err := s.merge(&p, &kustomization, spec); err != nil {
		return p, err
	}
	p.metadata = kustomization.BuildMetadata
	kustomization.BuildMetadata = withOrigins(p.metadata)
	text, err := yaml.Marshal(kustomization)
	if err != nil {
		return p, fmt.Errorf("print %s: %w", p.file, err)
	}
	s.overlay[p.file] = text
	return p, nil
}

// withOrigins asks for the origin of objects on top of what the author wants.
func withOrigins(metadata []string) []string {
	result := slices.Clone(metadata)
	for _, option := range []string{types.OriginAnnotations, types.TransformerAnnotations} {
		if !slices.Contains(result, option) {
			result = append(result, option)
		}
	}
	return result
}

// find reads the author's kustomization file, or generates one.
func (s *snapshotFS) find(p *prepared, into *types.Kustomization) error {
	for _, name := range konfig.RecognizedKustomizationFileNames() {
		file := path.Join(p.dir, name)
		info, err := s.files.Stat(file)
		if err != nil || info.IsDir() {
			continue
		}
		p.file = file
		content, err := s.load(file)
		if err != nil {
			return err
		}
		if err := s.look(file, content); err != nil {
			return err
		}
		if err := yaml.Unmarshal(content, into); err != nil {
			return unreadable(file, content, err)
		}
		if len(into.Resources) == 0 {
			// Flux lets kustomize annotate origins here, which keeps kustomize
			// from refusing an empty file, and applies the annotations.
			into.BuildMetadata = []string{types.OriginAnnotations}
		}
		if warnings := into.CheckDeprecatedFields(); warnings != nil {
			for _, w := range *warnings {
				p.deprecated = append(p.deprecated, file+": "+strings.TrimPrefix(w, "# Warning: "))
			}
		}
		return nil
	}
	p.generated = true
	p.file = path.Join(p.dir, konfig.DefaultKustomizationFileName())
	resources, err := s.scan(p.dir, "")
	if err != nil {
		return err
	}
	into.Resources = resources
	if len(resources) == 0 {
		into.Namespace = placeholder
	}
	return nil
}

// scan lists the YAML files below a directory, relative to the first one. A
// sub-directory with a kustomization file is listed itself and not entered. It
// looks at listings only: kustomize decodes the files, and refuses what Flux
// refuses.
func (s *snapshotFS) scan(dir, relative string) ([]string, error) {
	if err := s.count(dir); err != nil {
		return nil, err
	}
	entries, err := s.files.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list %q: %w", dir, err)
	}
	var resources []string
	for _, entry := range entries {
		name := path.Join(relative, entry.Name())
		if !entry.IsDir() {
			if ext := path.Ext(name); ext == ".yaml" || ext == ".yml" {
				resources = append(resources, "./"+name)
			}
			continue
		}
		sub := path.Join(dir, entry.Name())
		inner, err := s.files.ReadDir(sub)
		if err != nil {
			return nil, fmt.Errorf("list %q: %w", sub, err)
		}
		if slices.ContainsFunc(inner, holdsKustomization) {
			resources = append(resources, "./"+name)
			continue
		}
		below, err := s.scan(sub, name)
		if err != nil {
			return nil, err
		}
		resources = append(resources, below...)
	}
	return resources, nil
}

func holdsKustomization(entry fs.DirEntry) bool {
	return !entry.IsDir() && isKustomization(entry.Name())
}

// merge puts the wishes of the spec into the kustomization file.
func (s *snapshotFS) merge(p *prepared, k *types.Kustomization, spec build.Spec) error {
	if spec.TargetNamespace != "" {
		k.Namespace = spec.TargetNamespace
	}
	if spec.NamePrefix != "" {
		k.NamePrefix = spec.NamePrefix
	}
	if spec.NameSuffix != "" {
		k.NameSuffix = spec.NameSuffix
	}
	for _, patch := range spec.Patches {
		k.Patches = append(k.Patches, types.Patch{Patch: patch.Patch, Target: selector(patch.Target)})
	}
	for _, component := range spec.Components {
		if err := checkComponent(component); err != nil {
			return err
		}
		if spec.IgnoreMissingComponents && !s.Exists(path.Join(root, p.dir, component)) {
			continue
		}
		k.Components = append(k.Components, component)
	}
	if len(spec.Metadata) > 0 {
		// As in Flux it stands in place of the author's.
		k.BuildMetadata = slices.Clone(spec.Metadata)
	}
	for _, image := range spec.Images {
		k.Images = mergeImage(k.Images, image)
	}
	return nil
}

// mergeImage overrides an image of the same name field by field. Tag and digest
// are one choice of a version and are replaced together.
func mergeImage(images []types.Image, image build.Image) []types.Image {
	i := slices.IndexFunc(images, func(known types.Image) bool { return known.Name == image.Name })
	if i < 0 {
		return append(images, types.Image{Name: image.Name, NewName: image.NewName, NewTag: image.NewTag, Digest: image.Digest})
	}
	if image.NewName != "" {
		images[i].NewName = image.NewName
	}
	if image.NewTag != "" || image.Digest != "" {
		images[i].NewTag, images[i].Digest = image.NewTag, image.Digest
	}
	return images
}

func selector(from *build.Selector) *types.Selector {
	if from == nil {
		return nil
	}
	to := &types.Selector{LabelSelector: from.LabelSelector, AnnotationSelector: from.AnnotationSelector}
	to.Group, to.Version, to.Kind = from.Group, from.Version, from.Kind
	to.Name, to.Namespace = from.Name, from.Namespace
	return to
}

// checkComponent refuses a component that is not a local, relative directory.
func checkComponent(name string) error {
	if path.IsAbs(name) || isRemoteFile(name) || isRemoteBase(name) {
		return invalid("", 0, fmt.Errorf("component %q must be a relative path in the repository", redacted(name)))
	}
	return nil
}
