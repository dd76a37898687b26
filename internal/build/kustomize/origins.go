package kustomize

import (
	"bytes"
	"path"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/kustomize/api/resource"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/yaml"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// Annotations in which kustomize writes where an object comes from.
const (
	originAnnotation      = "config.kubernetes.io/origin"
	transformerAnnotation = "alpha.config.kubernetes.io/transformations"
)

// origins tells where the objects of one build are declared.
type origins struct {
	fsys  *snapshotFS
	start prepared
	// index and kustomizations hold what was parsed so far, by file.
	index          map[string][]document
	kustomizations map[string]*types.Kustomization
}

func newOrigins(fsys *snapshotFS, start prepared) *origins {
	return &origins{fsys: fsys, start: start, index: map[string][]document{}, kustomizations: map[string]*types.Kustomization{}}
}

// of is the origin of an object, read off its annotated form, which may be nil.
func (o *origins) of(object, annotated *resource.Resource) gitops.Origin {
	if annotated == nil {
		return o.search(object)
	}
	from, err := annotated.GetOrigin()
	if err != nil || from == nil || strings.HasSuffix(from.ConfiguredBy.Kind, "Transformer") {
		// A patch took the annotation away.
		return o.search(object)
	}
	var origin gitops.Origin
	var declared document
	switch i := strings.Index(from.Path, "http"); {
	case from.Repo != "":
		return gitops.Origin{Generator: "remote base " + redacted(from.Repo)}
	case i >= 0 && remotePath.MatchString(from.Path[i:]):
		return gitops.Origin{Generator: "remote base " + redacted(strings.Replace(from.Path[i:], ":/", "://", 1))}
	case from.ConfiguredIn != "":
		origin.Generator = generatorName(from.ConfiguredBy.Kind) + " in " + o.inSnapshot(from.ConfiguredIn)
		declared = document{kind: object.GetKind(), name: object.GetName(), namespace: object.GetNamespace()}
	case from.Path != "":
		origin.File = o.inSnapshot(from.Path)
		declared = o.find(origin.File, object)
		origin.Line = declared.line
	}
	origin.Patches = o.patches(annotated, declared)
	return origin
}

// remotePath is an address after it has been cleaned as a path.
var remotePath = regexp.MustCompile(`^https?:/[^/]`)

// search looks for the only document that has the object's kind and name, in
// all files. It is the last resort.
func (o *origins) search(object *resource.Resource) gitops.Origin {
	var found gitops.Origin
	for _, name := range o.fsys.order {
		if ext := path.Ext(name); ext != ".yaml" && ext != ".yml" || isKustomization(name) {
			continue
		}
		doc := o.find(name, object)
		if doc.name != object.GetName() {
			continue
		}
		if found.File != "" {
			return gitops.Origin{}
		}
		found = gitops.Origin{File: name, Line: doc.line}
	}
	return found
}

// generatorName is the field of a kustomization file for a kind of plugin.
func generatorName(kind string) string {
	if kind == "ConfigMapGenerator" || kind == "SecretGenerator" {
		return strings.ToLower(kind[:1]) + kind[1:]
	}
	return kind
}

// inSnapshot translates a path from the directory of the build.
func (o *origins) inSnapshot(name string) string { return path.Join(o.start.dir, name) }

// find is the document that declares an object. kustomize may have renamed it,
// so the best match of its kind is taken; where no name fits, and several could
// be it, the line stays unknown.
func (o *origins) find(file string, object *resource.Resource) document {
	docs, known := o.index[file]
	if !known {
		docs = documents(o.fsys.read[file])
		o.index[file] = docs
	}
	best, rank := document{}, 0
	sameKind := 0
	for _, doc := range docs {
		if doc.kind != object.GetKind() {
			continue
		}
		sameKind++
		if r := likeness(doc, object); r > rank {
			best, rank = doc, r
		}
	}
	if rank == 0 && sameKind == 1 {
		i := slices.IndexFunc(docs, func(d document) bool { return d.kind == object.GetKind() })
		return docs[i]
	}
	return best
}

// likeness ranks how well a document fits an object of the same kind.
func likeness(doc document, object *resource.Resource) int {
	rank := 0
	switch name := object.GetName(); {
	case doc.name == "":
		return 0
	case doc.name == name:
		rank = 1 << 20
	case strings.Contains(name, doc.name):
		rank = 2 * len(doc.name) // The longest part of the name is the best.
	default:
		return 0
	}
	if doc.namespace == object.GetNamespace() {
		rank++
	}
	return rank
}

// patches are the files whose patches are meant for the object, in order. For
// a patch that is written in a kustomization file it is that file.
func (o *origins) patches(annotated *resource.Resource, declared document) []string {
	applied, err := annotated.GetTransformations()
	if err != nil {
		return nil
	}
	var files []string
	seen := map[string]bool{}
	for _, by := range applied {
		if by.Repo != "" || by.ConfiguredIn == "" || !strings.HasPrefix(by.ConfiguredBy.Kind, "Patch") {
			continue
		}
		name := o.inSnapshot(by.ConfiguredIn)
		if seen[name] {
			continue
		}
		seen[name] = true
		for _, file := range o.patchesIn(name, annotated, declared) {
			if !slices.Contains(files, file) {
				files = append(files, file)
			}
		}
	}
	return files
}

// patchesIn are the patches of one kustomization file that fit an object.
func (o *origins) patchesIn(name string, object *resource.Resource, declared document) []string {
	k, known := o.kustomizations[name]
	if !known {
		k = &types.Kustomization{}
		content, made := o.fsys.overlay[name]
		if !made {
			content = o.fsys.read[name]
		}
		_ = yaml.Unmarshal(content, k) // The build has read it already.
		o.kustomizations[name] = k
	}
	//lint:ignore SA1019 repositories still use the old field
	patches := slices.Concat(k.Patches, k.PatchesJson6902)
	//lint:ignore SA1019 repositories still use the old field
	for _, merge := range k.PatchesStrategicMerge {
		if inlinePatch(string(merge)) {
			patches = append(patches, types.Patch{Patch: string(merge)})
		} else {
			patches = append(patches, types.Patch{Path: string(merge)})
		}
	}
	var files []string
	for _, patch := range patches {
		file, text := name, []byte(patch.Patch)
		if patch.Path != "" {
			file = path.Join(path.Dir(name), patch.Path)
			text = o.fsys.read[file]
		}
		if fits(patch.Target, text, object, declared) {
			files = append(files, file)
		}
	}
	return files
}

// fits tells whether a patch is meant for an object, by the names that the
// object had in its file and has in the end.
func fits(target *types.Selector, text []byte, object *resource.Resource, declared document) bool {
	names := []string{declared.name, object.GetName()}
	if target != nil {
		gvk := object.GetGvk()
		return matches(target.Kind, gvk.Kind) && matches(target.Group, gvk.Group) && matches(target.Version, gvk.Version) &&
			slices.ContainsFunc(names, func(name string) bool { return matches(target.Name, name) }) &&
			selects(object, target)
	}
	return slices.ContainsFunc(documents(bytes.TrimSpace(text)), func(doc document) bool {
		return doc.kind == object.GetKind() && slices.Contains(names, doc.name)
	})
}

func selects(object *resource.Resource, target *types.Selector) bool {
	labels, err := object.MatchesLabelSelector(target.LabelSelector)
	if err != nil || !labels {
		return false
	}
	annotations, err := object.MatchesAnnotationSelector(target.AnnotationSelector)
	return err == nil && annotations
}

// matches tells whether an anchored pattern fits; an empty one fits everything.
func matches(pattern, value string) bool {
	if pattern == "" || pattern == value {
		return true
	}
	expression, err := regexp.Compile("^(?:" + pattern + ")$")
	return err == nil && expression.MatchString(value)
}

// strip removes the annotations that the author did not ask for.
func strip(object *resource.Resource, metadata []string) error {
	keepOrigin, keepTransformers := wants(metadata, types.OriginAnnotations), wants(metadata, types.TransformerAnnotations)
	if keepOrigin && keepTransformers {
		return nil
	}
	annotations := object.GetAnnotations()
	if !keepOrigin {
		delete(annotations, originAnnotation)
	}
	if !keepTransformers {
		delete(annotations, transformerAnnotation)
	}
	return object.SetAnnotations(annotations)
}

// mentionsAnnotations tells whether something that was read speaks of the
// annotations of objects as a path. A JSON patch can then tell whether an object
// has annotations at all, which asking for origins changes.
func mentionsAnnotations(fsys *snapshotFS) bool {
	speaks := func(text []byte) bool {
		return bytes.Contains(text, []byte("metadata/annotations")) || bytes.Contains(text, []byte("metadata.annotations"))
	}
	for _, content := range fsys.overlay {
		if speaks(content) {
			return true
		}
	}
	for _, content := range fsys.read {
		if speaks(content) {
			return true
		}
	}
	return false
}

// withMetadata is a kustomization file with another buildMetadata.
func withMetadata(text []byte, metadata []string) ([]byte, error) {
	var k types.Kustomization
	if err := yaml.Unmarshal(text, &k); err != nil {
		return nil, err
	}
	k.BuildMetadata = metadata
	return yaml.Marshal(k)
}
