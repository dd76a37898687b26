package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// document is what matters of a manifest, and of an index, which has manifests instead of
// layers.
type document struct {
	SchemaVersion int64             `json:"schemaVersion"`
	MediaType     types.MediaType   `json:"mediaType"`
	Layers        []v1.Descriptor   `json:"layers"`
	Manifests     []v1.Descriptor   `json:"manifests"`
	Annotations   map[string]string `json:"annotations"`
}

// mostIndexes is how many indexes may stand above a manifest.
const mostIndexes = 4

// artifact finds the manifest of the artifact: an index stands for what it has for Linux
// on amd64, which Flux takes on every platform.
func (c *client) artifact(ctx context.Context, m manifest) (document, error) {
	for range mostIndexes {
		d, err := parseManifest(m)
		if err != nil {
			return document{}, unusable(err.Error())
		}
		if !d.MediaType.IsIndex() {
			return d, c.checkAnnotations(d.Annotations)
		}
		i := slices.IndexFunc(d.Manifests, forLinux)
		if i < 0 {
			return document{}, unusable("the index has no manifest for linux/amd64")
		}
		if d.Manifests[i].Digest.Hex == "" {
			return document{}, unusable("the index has a manifest without a digest")
		}
		if m, err = c.get(ctx, d.Manifests[i].Digest.String()); err != nil {
			return document{}, err
		}
	}
	return document{}, unusable(fmt.Sprintf("more than %d indexes stand above the manifest", mostIndexes))
}

// forLinux tells whether a manifest of an index is for Linux on amd64, as one is that does
// not say what it is for.
func forLinux(d v1.Descriptor) bool {
	return d.Platform == nil || d.Platform.OS == "linux" && d.Platform.Architecture == "amd64"
}

// parseManifest reads a manifest or an index. What it is for other readers it must be for
// us: nothing may be in it twice, and it may not be both.
func parseManifest(m manifest) (document, error) {
	if err := unambiguous(m.content); err != nil {
		return document{}, err
	}
	var d document
	if err := json.Unmarshal(m.content, &d); err != nil {
		return document{}, errors.New("the manifest cannot be read")
	}
	if d.MediaType == "" {
		d.MediaType = types.MediaType(m.mediaType)
	}
	if d.SchemaVersion == 1 || d.MediaType == types.DockerManifestSchema1 || d.MediaType == types.DockerManifestSchema1Signed {
		return document{}, errors.New("the manifest is of version 1, which is not supported; push the artifact again")
	}
	if d.Layers != nil && d.Manifests != nil {
		return document{}, errors.New("the manifest has both layers and manifests")
	}
	return d, nil
}

// level is an object or a list around what is read of JSON.
type level struct {
	keys map[string]bool // those that were there; nil for a list
	key  bool            // whether a key comes next
}

// unambiguous refuses JSON with an object that has a key twice.
func unambiguous(content []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(content))
	levels := []level{{}} // the text as a whole is like a list
	for {
		t, err := decoder.Token()
		if errors.Is(err, io.EOF) && len(levels) == 1 {
			return nil
		}
		if err != nil {
			return errors.New("the manifest is not JSON")
		}
		top := &levels[len(levels)-1]
		if text, isText := t.(string); isText && top.key {
			key := field(text)
			if top.keys[key] {
				return fmt.Errorf("the manifest has %s twice in one place", egress.Quote(text))
			}
			top.keys[key], top.key = true, false
			continue
		}
		top.key = top.keys != nil // a value ends here, or is about to begin
		switch t {
		case json.Delim('{'):
			levels = append(levels, level{keys: map[string]bool{}, key: true})
		case json.Delim('['):
			levels = append(levels, level{})
		case json.Delim('}'), json.Delim(']'):
			levels = levels[:len(levels)-1]
		}
	}
}

// field is the name of a field for which a key stands: Go does not mind its case.
func field(key string) string {
	for _, name := range []string{"schemaVersion", "mediaType", "layers", "manifests", "annotations", "digest", "size", "platform", "os", "architecture"} {
		if strings.EqualFold(name, key) {
			return name
		}
	}
	return key
}

// checkAnnotations bounds what will be part of a status.
func (c *client) checkAnnotations(annotations map[string]string) error {
	total := 0
	for key, value := range annotations {
		total += len(key) + len(value)
	}
	if len(annotations) > c.limits.Annotations || total > c.limits.AnnotationBytes {
		return unusable(fmt.Sprintf("the manifest has more than %d annotations or %d bytes of them", c.limits.Annotations, c.limits.AnnotationBytes))
	}
	return nil
}

// selectLayer picks the layer of a media type, the first where that is empty.
func (d document) selectLayer(mediaType string, most int64) (v1.Descriptor, error) {
	i := 0
	if mediaType != "" {
		i = slices.IndexFunc(d.Layers, func(l v1.Descriptor) bool { return string(l.MediaType) == mediaType })
	}
	switch {
	case len(d.Layers) == 0:
		return v1.Descriptor{}, unusable("the artifact has no layers")
	case i < 0:
		return v1.Descriptor{}, unusable(fmt.Sprintf("the artifact has no layer of the media type %s; its layers are %s", egress.Quote(mediaType), d.mediaTypes()))
	case d.Layers[i].Digest.Hex == "":
		return v1.Descriptor{}, unusable("the layer has no digest")
	case d.Layers[i].Size < 0:
		return v1.Descriptor{}, unusable("the layer has a negative size")
	case d.Layers[i].Size > most:
		return v1.Descriptor{}, &tooLarge{"the layer", most}
	}
	return d.Layers[i], nil
}

// mostNamed is how many media types a message names.
const mostNamed = 8

// mediaTypes names those of the layers.
func (d document) mediaTypes() string {
	var names []string
	for _, l := range d.Layers[:min(len(d.Layers), mostNamed)] {
		names = append(names, egress.Quote(string(l.MediaType)))
	}
	more := ""
	if n := len(d.Layers) - len(names); n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	return strings.Join(names, ", ") + more
}

// unusable is the error of an artifact that has not what is wanted.
func unusable(text string) error {
	return &fault{kind: gitops.Invalid, reason: ReasonLayer, text: text}
}
