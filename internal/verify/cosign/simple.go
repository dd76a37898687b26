package cosign

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	kjson "sigs.k8s.io/json"

	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/verify"
)

// Annotations of a layer that is a signature, as cosign's specification has them
// (specs/SIGNATURE_SPEC.md).
const (
	signatureAnnotation   = "dev.cosignproject.cosign/signature"
	certificateAnnotation = "dev.sigstore.cosign/certificate"
	logAnnotation         = "dev.sigstore.cosign/bundle"
)

// largestPayload is the most bytes of a payload, which holds a digest, a name and what
// the signer adds to them.
const largestPayload = 1 << 20

// simple is a signature of cosign 2, a layer of the manifest under the tag sha256-….sig.
type simple struct {
	// payload is what is signed.
	payload, signature []byte
	// certificate is PEM, empty for a signature by key.
	certificate string
	// log is the entry in the transparency log in JSON; it may be empty.
	log string
}

// simples looks through the signatures of cosign 2: by is empty where none is accepted.
func (s search) simples(ctx context.Context) (by string) {
	tag := strings.Replace(s.image.DigestStr(), ":", "-", 1) + ".sig"
	manifest, err := s.registry.Manifest(ctx, s.registry.Tag(tag))
	if errors.Is(err, verify.ErrNotFound) {
		return ""
	}
	if err != nil {
		s.attempts.Unread(ctx, err)
		return ""
	}
	for _, layer := range manifest.Layers {
		if !s.attempts.Next() {
			return ""
		}
		read, err := s.readSimple(ctx, layer)
		if err != nil {
			if s.attempts.Unread(ctx, err) {
				return ""
			}
			continue
		}
		by, err := s.check.checkSimple(read, s.image)
		if err == nil {
			return by
		}
		s.attempts.Skip(err.Error())
	}
	return ""
}

func (s search) readSimple(ctx context.Context, layer v1.Descriptor) (simple, error) {
	encoded, ok := layer.Annotations[signatureAnnotation]
	if !ok {
		return simple{}, &verify.Malformed{Text: "a layer has no signature in its annotations"}
	}
	signature, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(signature) == 0 {
		return simple{}, &verify.Malformed{Text: "a signature is not base64"}
	}
	payload, err := s.registry.Blob(ctx, layer, largestPayload)
	if err != nil {
		return simple{}, err
	}
	return simple{
		payload: payload, signature: signature,
		certificate: layer.Annotations[certificateAnnotation], log: layer.Annotations[logAnnotation],
	}, nil
}

// payloadType is the type that cosign gives to what it signs.
const payloadType = "cosign container image signature"

// errSubject is the error of a signature that is valid and is for another artifact.
var errSubject = errors.New("it is a signature of another artifact")

// claims compares what is signed with the image. Keys that occur twice, or in another
// case, would let two readers see two digests.
func (s simple) claims(image name.Digest) error {
	var signed struct {
		Critical struct {
			Image struct {
				Digest string `json:"docker-manifest-digest"`
			} `json:"image"`
			Type string `json:"type"`
		} `json:"critical"`
	}
	ambiguous, err := kjson.UnmarshalStrict(s.payload, &signed, kjson.DisallowDuplicateFields)
	switch {
	case err != nil || len(ambiguous) > 0:
		return errors.New("what is signed is not cosign's JSON")
	case signed.Critical.Type != payloadType:
		return fmt.Errorf("what is signed is of type %s, cosign's is %q", egress.Quote(signed.Critical.Type), payloadType)
	case signed.Critical.Image.Digest != image.DigestStr():
		return errSubject
	}
	return nil
}

// logEntry is a signature's entry in a transparency log, as an annotation holds it.
type logEntry struct {
	// SignedEntryTimestamp is the log's promise that the entry is in it.
	SignedEntryTimestamp []byte
	Payload              struct {
		Body           []byte `json:"body"`
		IntegratedTime int64  `json:"integratedTime"`
		LogIndex       int64  `json:"logIndex"`
		LogID          string `json:"logID"`
	}
	// id, kind and version are parsed from the payload.
	id            []byte
	kind, version string
}

// parseLogEntry reads the annotation of an entry. It judges nothing.
func parseLogEntry(annotation string) (logEntry, error) {
	var entry logEntry
	if annotation == "" {
		return entry, errors.New("it has no entry in a transparency log, which a signature by certificate needs; sign it without --tlog-upload=false")
	}
	malformed := errors.New("its entry in the transparency log is not what cosign writes")
	if json.Unmarshal([]byte(annotation), &entry) != nil {
		return logEntry{}, malformed
	}
	id, err := hex.DecodeString(entry.Payload.LogID)
	if err != nil || len(id) == 0 {
		return logEntry{}, malformed
	}
	var body struct {
		Version string `json:"apiVersion"`
		Kind    string `json:"kind"`
	}
	if json.Unmarshal(entry.Payload.Body, &body) != nil {
		return logEntry{}, malformed
	}
	entry.id, entry.kind, entry.version = id, body.Kind, body.Version
	return entry, nil
}
