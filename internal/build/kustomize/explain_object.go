package kustomize

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"

	yamlv3 "go.yaml.in/yaml/v3"
	"sigs.k8s.io/yaml"

	"github.com/plumb-gitops/plumb/internal/build"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// duplicateID finds the object in kustomize's error about a repeated one.
var duplicateID = regexp.MustCompile(`already registered id: ([^/\s]+)/([^\s']+)\.(\[noNs\]|[a-z0-9-]+)`)

// explainDuplicate names both places of an object that is declared twice.
func explainDuplicate(text string, fsys *snapshotFS, _ prepared) error {
	id := duplicateID.FindStringSubmatch(text)
	if id == nil {
		return nil
	}
	kind, _, _ := strings.Cut(id[1], ".")
	namespace := id[3]
	if namespace == "[noNs]" {
		namespace = ""
	}
	ref := gitops.ObjectRef{Kind: kind, Namespace: namespace, Name: id[2]}
	var places []string
	for _, name := range fsys.order {
		for _, doc := range documents(fsys.read[name]) {
			if doc.kind == kind && doc.name == ref.Name && (doc.namespace == namespace || namespace == "") {
				places = append(places, gitops.Origin{File: name, Line: doc.line}.String())
				if group, _, grouped := strings.Cut(doc.apiVersion, "/"); grouped {
					ref.Group = group
				}
			}
		}
	}
	cause := errors.New("declared twice in one build: remove one of the declarations")
	switch {
	case len(places) >= 2:
		cause = fmt.Errorf("declared twice, in %s and in %s: remove one of them", places[0], places[1])
	case len(places) == 1:
		cause = fmt.Errorf("declared in %s, which is part of the build twice: include it once", places[0])
	}
	return invalidObject(ref, cause)
}

func invalidObject(ref gitops.ObjectRef, cause error) error {
	return &gitops.Error{Stage: gitops.StageBuild, Kind: gitops.Invalid, Reason: build.ReasonBuildFailed, Ref: ref, Cause: cause}
}

// conflicting is as much of an object in an error as may be shown.
type conflicting struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name        string            `json:"name"`
		Namespace   string            `json:"namespace"`
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
}

// explainConflict names objects that became the same by a change of namespace.
// kustomize prints them whole, with the values of a Secret.
func explainConflict(text string, _ *snapshotFS, start prepared) error {
	_, list, found := strings.Cut(text, "produces ID conflict: [")
	if !found {
		return nil
	}
	var first conflicting
	var places []string
	for decoder := json.NewDecoder(strings.NewReader(list)); ; {
		var object conflicting
		if err := decoder.Decode(&object); err != nil {
			break
		}
		if len(places) == 0 {
			first = object
		}
		var from struct{ Path, ConfiguredIn string }
		_ = yaml.Unmarshal([]byte(object.Metadata.Annotations[originAnnotation]), &from)
		if from.Path == "" {
			from.Path = from.ConfiguredIn
		}
		places = append(places, path.Join(start.dir, from.Path))
	}
	cause := errors.New("two objects become the same in the target namespace: rename or remove one")
	if len(places) > 1 {
		cause = fmt.Errorf("two objects, from %s and from %s, become the same in the target namespace: rename or remove one", places[0], places[1])
	}
	group, _, grouped := strings.Cut(first.APIVersion, "/")
	if !grouped {
		group = ""
	}
	return invalidObject(gitops.ObjectRef{Group: group, Kind: first.Kind, Namespace: first.Metadata.Namespace, Name: first.Metadata.Name}, cause)
}

// missingField finds what an object lacks.
var missingField = regexp.MustCompile(`missing (metadata\.name|kind|apiVersion|Resource metadata)`)

// explainIdentity names the document that is not an object, or one without name.
func explainIdentity(text string, fsys *snapshotFS, start prepared) error {
	lacking := missingField.FindStringSubmatch(text)
	if lacking == nil {
		return nil
	}
	for _, name := range fsys.order {
		if !strings.HasSuffix(name, ".yaml") && !strings.HasSuffix(name, ".yml") || isKustomization(name) {
			continue
		}
		if !strings.Contains(text, "'"+name+"'") && !strings.Contains(text, "/"+path.Base(name)+"'") && !strings.Contains(text, "'"+path.Base(name)+"'") {
			continue
		}
		for _, p := range split(fsys.read[name]) {
			var node yamlv3.Node
			if yamlv3.Unmarshal(p.text, &node) != nil || len(node.Content) == 0 || node.Content[0].Tag == "!!null" {
				continue
			}
			doc := identify(node.Content[0], p.line-1)
			switch {
			case doc.kind == "" || doc.apiVersion == "":
				return invalid(name, doc.line, fmt.Errorf("the YAML document is not a Kubernetes object: missing %s; add it, move the file out of %q, or list the files to build in a kustomization.yaml", lacking[1], start.dir))
			case doc.name == "" && !strings.HasSuffix(doc.kind, "List"):
				return invalid(name, doc.line, fmt.Errorf("the YAML document is not a Kubernetes object: %s has no metadata.name: give it one", doc.kind))
			}
		}
	}
	return nil
}

// patchPath finds the path in an object that a JSON patch is about.
var patchPath = regexp.MustCompile(`(?:operation does not apply.*?(?:path|key):|testing value) "?(/[^\s":]+)`)

// explainPatch names the JSON patch that does not fit its target.
func explainPatch(text string, fsys *snapshotFS, start prepared) error {
	about := patchPath.FindStringSubmatch(text)
	if about == nil {
		return nil
	}
	problem := fmt.Errorf("JSON patch: %s: correct its path or its target", clean(text))
	for _, name := range fsys.order {
		if line := lineWith(fsys.read[name], about[1]); line > 0 {
			return invalid(name, line, problem)
		}
	}
	return invalid("", 0, fmt.Errorf("spec.patches of the build of %q: %w", start.dir, problem))
}
