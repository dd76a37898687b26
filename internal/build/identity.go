package build

import (
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// text is the string at a field, empty where it is not a string.
func text(value map[string]any, field string) string {
	s, _ := value[field].(string)
	return s
}

// refOf names the object; parts that it lacks are empty.
func refOf(value map[string]any) gitops.ObjectRef {
	metadata, _ := value["metadata"].(map[string]any)
	group, _ := splitVersion(text(value, "apiVersion"))
	return gitops.ObjectRef{Group: group, Kind: text(value, "kind"), Namespace: text(metadata, "namespace"), Name: text(metadata, "name")}
}

func versionOf(value map[string]any) string {
	_, version := splitVersion(text(value, "apiVersion"))
	return version
}

func splitVersion(apiVersion string) (group, version string) {
	group, version, found := strings.Cut(apiVersion, "/")
	if !found {
		return "", apiVersion
	}
	return group, version
}

// checkIdentity checks that the object can be named in a cluster and in an
// inventory.
func checkIdentity(ref gitops.ObjectRef, value map[string]any) error {
	switch {
	case text(value, "apiVersion") == "":
		return errors.New("the object has no apiVersion: add it")
	case ref.Kind == "":
		return errors.New("the object has no kind: add it")
	case versionOf(value) == "" || strings.Contains(versionOf(value), "/"):
		return fmt.Errorf("apiVersion %q is not group/version: correct it", text(value, "apiVersion"))
	case ref.Name == "":
		return fmt.Errorf("the object of kind %s has no metadata.name: add it (generateName cannot be reconciled)", ref.Kind)
	}
	if problems := content.IsPathSegmentName(ref.Name); len(problems) > 0 {
		return fmt.Errorf("metadata.name %q is not valid: %s", ref.Name, strings.Join(problems, "; "))
	}
	if strings.Contains(ref.Name, "_") {
		return fmt.Errorf("metadata.name %q is not valid: an underscore cannot be kept in an inventory", ref.Name)
	}
	if ref.Namespace != "" {
		if problems := validation.IsDNS1123Label(ref.Namespace); len(problems) > 0 {
			return fmt.Errorf("metadata.namespace %q is not valid: %s", ref.Namespace, strings.Join(problems, "; "))
		}
	}
	return nil
}

// metadataMaps are the annotations and labels of an object, without values that
// are not strings.
func metadataMaps(value map[string]any) (annotations, labels map[string]string) {
	metadata, _ := value["metadata"].(map[string]any)
	return stringsOf(metadata["annotations"]), stringsOf(metadata["labels"])
}

func stringsOf(value any) map[string]string {
	object, _ := value.(map[string]any)
	if len(object) == 0 {
		return nil
	}
	result := make(map[string]string, len(object))
	for k, v := range object {
		if s, ok := v.(string); ok {
			result[k] = s
		}
	}
	return result
}
