package install

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	manifests "github.com/plumb-gitops/plumb/install"
	"github.com/plumb-gitops/plumb/internal/config"
	"github.com/plumb-gitops/plumb/internal/frontend/flux/crds"
)

// Profile says which rights the operator has of its own.
type Profile string

const (
	// Single lets the operator do everything, as Flux's may: for a cluster of one
	// team.
	Single Profile = "single"
	// Tenants lets it do nothing but act as the service accounts that custom
	// resources name: for a shared cluster.
	Tenants Profile = "tenants"
)

// Profiles are all profiles.
func Profiles() []Profile { return []Profile{Single, Tenants} }

// What the manifests say where an installation has a word of its own.
const (
	writtenNamespace = "flux-system"
	writtenVersion   = "unreleased"
	writtenImage     = repository + ":" + writtenVersion
	writtenService   = "source-controller"
	writtenURLs      = "--storage-adv-addr=" + writtenService + "."

	// repository is where released images are.
	repository = "ghcr.io/plumb-gitops/plumb"
	// ownName is that of the Deployment, its account and its label, and of the
	// Service where Flux's own is not to be shared.
	ownName = "plumb"
)

// The labels of what is installed.
const (
	componentLabel = "app.kubernetes.io/component"
	instanceLabel  = "app.kubernetes.io/instance"
	managedByLabel = "app.kubernetes.io/managed-by"
	partOfLabel    = "app.kubernetes.io/part-of"
	versionLabel   = "app.kubernetes.io/version"
)

// Options say what is installed.
type Options struct {
	// Namespace is where the operator runs.
	Namespace string
	Profile   Profile
	// Image is that of the operator's container; see DefaultImage.
	Image string
	// Version is the version of this program, for the labels.
	Version string
	// BesideFlux gives the Service and the pods names of their own, so that Flux's
	// source-controller can go on beside the operator.
	BesideFlux bool
	// Arguments are flags of the operator, to follow those of the manifests.
	Arguments []string
}

// DefaultImage is the image of a released version; "" for a version that was built
// from something else, of which there is no image.
func DefaultImage(version string) string {
	if !regexp.MustCompile(`^v\d+\.\d+\.\d+(-(alpha|beta|rc)\.\d+)?$`).MatchString(version) {
		return ""
	}
	return repository + ":" + version
}

// Validate says what is wrong with the options.
func (o Options) Validate() error {
	if problems := validation.IsDNS1123Label(o.Namespace); len(problems) > 0 {
		return fmt.Errorf("%q is no name of a namespace", o.Namespace)
	}
	if !slices.Contains(Profiles(), o.Profile) {
		return fmt.Errorf("no profile %q; there are %s and %s", o.Profile, Single, Tenants)
	}
	if o.Image == "" || strings.ContainsAny(o.Image, " \t\n") {
		return fmt.Errorf("%q is no name of an image", o.Image)
	}
	set := pflag.NewFlagSet("operator", pflag.ContinueOnError)
	flags := config.Bind(set, func(string) string { return "" })
	if err := set.Parse(o.Arguments); err != nil {
		return fmt.Errorf("the operator would refuse its arguments: %w", err)
	}
	if rest := set.Args(); len(rest) > 0 {
		return fmt.Errorf("the operator would refuse its arguments: %q is no flag", rest[0])
	}
	if _, err := flags.Operator(); err != nil {
		return fmt.Errorf("the operator would refuse its arguments: %w", err)
	}
	return nil
}

// Objects are what is installed, in the order in which it is applied: the same for
// the same options. They belong to the caller.
func Objects(o Options) ([]*unstructured.Unstructured, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	var objects []*unstructured.Unstructured
	for _, folder := range []string{"base", string(o.Profile)} {
		read, err := readFolder(folder)
		if err != nil {
			return nil, err
		}
		objects = append(objects, read...)
	}
	for i, object := range objects {
		object.Object = replace(object.Object, o.word).(map[string]any)
		if object.GetKind() == "Deployment" {
			changed, err := o.arguments(object)
			if err != nil {
				return nil, err
			}
			objects[i] = changed
		}
	}
	definitions, err := crds.All()
	if err != nil {
		return nil, err
	}
	for _, d := range definitions {
		labels := d.Object.GetLabels()
		labels[instanceLabel] = o.Namespace
		d.Object.SetLabels(labels)
		objects = append(objects, d.Object)
	}
	slices.SortStableFunc(objects, func(a, b *unstructured.Unstructured) int {
		return cmp.Or(cmp.Compare(rank(a.GetKind()), rank(b.GetKind())), cmp.Compare(a.GetName(), b.GetName()))
	})
	return objects, nil
}

// rank is the order of kinds: what others need comes first, the operator last.
func rank(kind string) int {
	return slices.Index([]string{
		"Namespace", "CustomResourceDefinition", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role",
		"RoleBinding", "ResourceQuota", "NetworkPolicy", "Service", "Deployment",
	}, kind)
}

// readFolder reads the objects of a folder of the manifests.
func readFolder(folder string) ([]*unstructured.Unstructured, error) {
	entries, err := manifests.Files.ReadDir(folder)
	if err != nil {
		return nil, fmt.Errorf("manifests: %w", err)
	}
	var objects []*unstructured.Unstructured
	for _, entry := range entries {
		if entry.Name() == "kustomization.yaml" || entry.Name() == argumentsFile {
			continue
		}
		data, err := manifests.Files.ReadFile(path.Join(folder, entry.Name()))
		if err != nil {
			return nil, fmt.Errorf("manifests: %w", err)
		}
		for documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data))); ; {
			document, err := documents.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			object := &unstructured.Unstructured{}
			if err == nil {
				document, err = yaml.YAMLToJSON(document)
			}
			if err == nil {
				err = object.UnmarshalJSON(document)
			}
			if err != nil {
				return nil, fmt.Errorf("manifests: %s/%s: %w", folder, entry.Name(), err)
			}
			objects = append(objects, object)
		}
	}
	return objects, nil
}

// argumentsFile is the patch by which a profile adds to the operator's arguments.
const argumentsFile = "arguments.yaml"

// arguments adds the arguments of the profile and those that were asked for.
func (o Options) arguments(deployment *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	type operation struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value string `json:"value"`
	}
	var operations []operation
	if data, err := manifests.Files.ReadFile(path.Join(string(o.Profile), argumentsFile)); err == nil {
		if err := yaml.Unmarshal(data, &operations); err != nil {
			return nil, fmt.Errorf("manifests: %s/%s: %w", o.Profile, argumentsFile, err)
		}
	}
	for _, argument := range o.Arguments {
		operations = append(operations, operation{"add", "/spec/template/spec/containers/0/args/-", argument})
	}
	if len(operations) == 0 {
		return deployment, nil
	}
	encoded, err := json.Marshal(operations)
	if err != nil {
		return nil, err
	}
	patch, err := jsonpatch.DecodePatch(encoded)
	if err != nil {
		return nil, fmt.Errorf("manifests: %s/%s: %w", o.Profile, argumentsFile, err)
	}
	before, err := deployment.MarshalJSON()
	if err != nil {
		return nil, err
	}
	after, err := patch.Apply(before)
	if err != nil {
		return nil, fmt.Errorf("manifests: %s/%s: %w", o.Profile, argumentsFile, err)
	}
	changed := &unstructured.Unstructured{}
	return changed, changed.UnmarshalJSON(after)
}

// word gives what stands in place of a word of the manifests.
func (o Options) word(word string) string {
	switch word {
	case writtenNamespace:
		return o.Namespace
	case writtenVersion:
		return labelValue(o.Version)
	case writtenImage:
		return o.Image
	}
	if o.BesideFlux {
		if word == writtenService {
			return ownName
		}
		if rest, ok := strings.CutPrefix(word, writtenURLs); ok {
			return "--storage-adv-addr=" + ownName + "." + rest
		}
	}
	if beginning, ok := strings.CutSuffix(word, "-"+writtenNamespace); ok {
		return beginning + "-" + o.Namespace
	}
	return word
}

// labelValue makes a version one that a label may have.
func labelValue(version string) string {
	value := regexp.MustCompile(`[^A-Za-z0-9_.-]+`).ReplaceAllString(version, "_")
	return strings.Trim(value[:min(len(value), validation.LabelValueMaxLength)], "_.-")
}

// replace puts other words in place of all strings of a value.
func replace(value any, word func(string) string) any {
	switch v := value.(type) {
	case string:
		return word(v)
	case []any:
		for i := range v {
			v[i] = replace(v[i], word)
		}
	case map[string]any:
		for key := range v {
			v[key] = replace(v[key], word)
		}
	}
	return value
}

// Write writes objects as one stream of YAML documents, ready for kubectl apply.
func Write(w io.Writer, objects []*unstructured.Unstructured) error {
	for _, object := range objects {
		data, err := yaml.Marshal(object.Object)
		if err != nil {
			return fmt.Errorf("encode %s: %w", nameOf(object), err)
		}
		if _, err := fmt.Fprintf(w, "---\n%s", data); err != nil {
			return err
		}
	}
	return nil
}

// nameOf is Kind/name or Kind/namespace/name.
func nameOf(object *unstructured.Unstructured) string {
	if object.GetNamespace() == "" {
		return object.GetKind() + "/" + object.GetName()
	}
	return object.GetKind() + "/" + object.GetNamespace() + "/" + object.GetName()
}
