package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"

	utiljson "k8s.io/apimachinery/pkg/util/json"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// kustomizeGroup is the API group of kustomization files. Flux never applies
// an object of kind Kustomization of this group.
const kustomizeGroup = "kustomize.config.k8s.io"

// finisher makes manifests of rendered objects.
type finisher struct {
	steps  Steps
	limits Limits
	spec   Spec
	keys   Keyring
	// ignored are the rules of the spec.
	ignored []ignored
	// bytes is the length of all manifests so far.
	bytes int
}

// errDecrypted stands for every error about an object with decrypted values.
var errDecrypted = errors.New("it holds decrypted values and is not valid; what is wrong is not told, as that may quote them: decrypt it and build it by hand to see")

// object decrypts, substitutes, expands a list, and finishes each object. It gives
// no manifest for what is not meant for a cluster.
func (f *finisher) object(ctx context.Context, object Object) (manifests []gitops.Manifest, err error) {
	value, err := decode(object.JSON)
	if err != nil {
		return nil, f.fail(gitops.ObjectRef{}, object.Origin, err)
	}
	if object, value, err = f.decrypt(ctx, object, value); err != nil {
		return nil, err
	}
	defer func() {
		err = f.withoutSecrets(err)
		// Whatever is wrong with it now may quote what was encrypted.
		if err != nil && object.Sensitive {
			manifests, err = nil, f.fail(gitops.ObjectRef{}, object.Origin, errDecrypted)
		}
	}()
	var secrets []string
	if f.wantsVariables(object.JSON, value) {
		text, err := f.steps.Substituter.Substitute(object.JSON, *f.spec.Substitute)
		if err != nil {
			return nil, f.fail(refOf(value), object.Origin, err)
		}
		if value, err = decode(text); err != nil {
			return nil, f.fail(refOf(value), object.Origin, fmt.Errorf("after variable substitution: %w", err))
		}
		secrets = f.spec.Substitute.secretsIn(value)
	}
	items, isList := value["items"].([]any)
	if !isList || !strings.HasSuffix(text(value, "kind"), "List") {
		manifest, err := f.manifest(value, object, secrets)
		if err != nil || manifest == nil {
			return nil, err
		}
		return []gitops.Manifest{*manifest}, nil
	}
	for i, item := range items {
		value, ok := item.(map[string]any)
		if !ok {
			return nil, f.fail(gitops.ObjectRef{}, object.Origin, fmt.Errorf("item %d of the list is not an object", i))
		}
		manifest, err := f.manifest(value, object, secrets)
		if err != nil {
			return nil, err
		}
		if manifest != nil {
			manifests = append(manifests, *manifest)
		}
	}
	return manifests, nil
}

// decrypt opens an object, unless it asks to be left as it is.
func (f *finisher) decrypt(ctx context.Context, object Object, value map[string]any) (Object, map[string]any, error) {
	if f.keys == nil {
		return object, value, nil
	}
	if annotations, labels := metadataMaps(value); f.spec.Keys.StaysEncrypted(annotations, labels) {
		return object, value, nil
	}
	plain, encrypted, err := f.keys.Object(ctx, object.JSON)
	if err != nil {
		return object, nil, CannotDecrypt(object.Origin, refOf(value), err)
	}
	if !encrypted {
		return object, value, nil
	}
	if value, err = decode(plain); err != nil {
		return object, nil, f.fail(gitops.ObjectRef{}, object.Origin, errors.New("what was decrypted is not an object"))
	}
	object.JSON, object.Sensitive = plain, true
	return object, value, nil
}

// wantsVariables tells whether variables are to be replaced in the object.
// Without a dollar sign there is none to replace.
func (f *finisher) wantsVariables(text []byte, value map[string]any) bool {
	if !f.spec.Substitute.active() || bytes.IndexByte(text, '$') < 0 {
		return false
	}
	annotations, labels := metadataMaps(value)
	return !f.spec.Keys.KeepsVariables(annotations, labels)
}

// manifest checks one object, labels and normalises it. It is nil for what is
// not applied. Secrets are values in it that must not be shown.
func (f *finisher) manifest(value map[string]any, object Object, secrets []string) (*gitops.Manifest, error) {
	origin := object.Origin
	ref, version := refOf(value), versionOf(value)
	if ref.Group == kustomizeGroup && strings.EqualFold(ref.Kind, "Kustomization") {
		return nil, nil
	}
	if err := checkIdentity(ref, value); err != nil {
		return nil, f.fail(ref, origin, err)
	}
	f.mark(value)
	value, err := f.steps.Normaliser.Normalise(value)
	if err != nil {
		return nil, f.fail(ref, origin, err)
	}
	text, err := json.Marshal(value)
	if err != nil {
		return nil, f.fail(ref, origin, err)
	}
	if len(text) > f.limits.ObjectBytes {
		return nil, f.fail(ref, origin, fmt.Errorf("the object is %d bytes, the limit is %d: an API server would refuse it", len(text), f.limits.ObjectBytes))
	}
	f.bytes += len(text)
	annotations, labels := metadataMaps(value)
	return &gitops.Manifest{
		Ref:       ref,
		Version:   version,
		JSON:      text,
		Digest:    sha256.Sum256(text),
		Policy:    f.spec.Keys.Policy(annotations, labels),
		Ignored:   ignoredIn(f.ignored, ref, version, annotations, labels),
		Secrets:   secrets,
		Sensitive: object.Sensitive || ref.Group == "" && ref.Kind == "Secret",
		Origin:    origin,
	}, nil
}

// mark sets common metadata, and over it the labels that name the owner.
func (f *finisher) mark(value map[string]any) {
	owner := map[string]string{}
	if f.spec.Keys.OwnerNameLabel != "" {
		owner[f.spec.Keys.OwnerNameLabel] = f.spec.Owner.Name
	}
	if f.spec.Keys.OwnerNamespaceLabel != "" {
		owner[f.spec.Keys.OwnerNamespaceLabel] = f.spec.Owner.Namespace
	}
	metadata, _ := value["metadata"].(map[string]any)
	setAll(metadata, "labels", f.spec.CommonLabels, owner)
	setAll(metadata, "annotations", f.spec.CommonAnnotations)
}

func setAll(metadata map[string]any, field string, sets ...map[string]string) {
	target, _ := metadata[field].(map[string]any)
	merged := maps.Clone(target)
	for _, set := range sets {
		for k, v := range set {
			if merged == nil {
				merged = make(map[string]any)
			}
			merged[k] = v
		}
	}
	if len(merged) > 0 {
		metadata[field] = merged
	}
}

// withoutSecrets takes the values of secret variables out of an error.
func (f *finisher) withoutSecrets(err error) error {
	var e *gitops.Error
	if err == nil || f.spec.Substitute == nil || !errors.As(err, &e) {
		return err
	}
	hide := f.spec.Substitute.hide
	hidden := *e
	if ref := e.Ref.String(); hide(ref) != ref {
		hidden.Ref = gitops.ObjectRef{}
	}
	if text := e.Cause.Error(); hide(text) != text {
		hidden.Cause = errors.New(hide(text))
	}
	return &hidden
}

func (f *finisher) fail(ref gitops.ObjectRef, origin gitops.Origin, err error) error {
	var known *gitops.Error
	if errors.As(err, &known) {
		return err
	}
	if ref.Name == "" || ref.Kind == "" {
		if origin.File != "" || origin.Generator != "" {
			err = fmt.Errorf("%s: %w", origin, err)
		}
		ref = gitops.ObjectRef{}
	}
	return &gitops.Error{Stage: gitops.StageBuild, Kind: gitops.Invalid, Reason: ReasonBuildFailed, Ref: ref, Origin: origin, Cause: err}
}

// decode reads an object as the API machinery does: whole numbers stay whole.
func decode(text []byte) (map[string]any, error) {
	var value map[string]any
	if err := utiljson.Unmarshal(text, &value); err != nil {
		return nil, fmt.Errorf("not an object: %w", err)
	}
	if value == nil {
		return nil, errors.New("not an object")
	}
	return value, nil
}
