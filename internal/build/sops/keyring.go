package sops

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/getsops/sops/v3"
	"github.com/getsops/sops/v3/aes"
	"github.com/getsops/sops/v3/cmd/sops/formats"
	"github.com/getsops/sops/v3/keyservice"
	utiljson "k8s.io/apimachinery/pkg/util/json"

	"github.com/plumb-gitops/plumb/internal/build"
)

const (
	// maxBytes is the length of an encrypted document, as in Flux.
	maxBytes = 5 << 20
	// maxKeys is for how many keys a document may be encrypted: each can cost a
	// question to a service.
	maxKeys = 100
	// patience is how long the services may take for one document, together.
	patience = 30 * time.Second
)

// keyring implements build.Keyring.
type keyring struct {
	keys  keys
	marks marks
	// from names where the keys are kept, for messages.
	from string
}

// File decrypts a file of the form that its name promises. One whose name promises
// none is decrypted in the form that it has. The checksum is verified.
func (k *keyring) File(ctx context.Context, file build.EncryptedFile) (build.Opened, bool, error) {
	format := formatOf(file.Name)
	if format == formats.Binary {
		if file.Environment {
			format = formats.Dotenv
		} else if found, ok := k.marks.found(file.Content); ok {
			format = found
		}
	}
	if !k.marks[format].Match(file.Content) {
		return build.Opened{}, false, nil
	}
	return k.open(ctx, document{content: file.Content, in: format, out: format, whole: true})
}

// Object decrypts an object that has SOPS's own field, or the values of a Secret.
func (k *keyring) Object(ctx context.Context, object []byte) ([]byte, bool, error) {
	if !bytes.Contains(object, []byte(`"sops"`)) && !bytes.Contains(object, []byte(`"Secret"`)) {
		return nil, false, nil
	}
	var value struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		SOPS       struct {
			MAC string `json:"mac"`
		} `json:"sops"`
		Data map[string]any `json:"data"`
	}
	// Where the fields are of other types, the object is not encrypted.
	switch err := json.Unmarshal(object, &value); {
	case err == nil && value.SOPS.MAC != "":
		// kustomize has added to the object, so that its checksum cannot fit.
		opened, encrypted, err := k.open(ctx, document{content: object, in: formats.Json, out: formats.Json})
		return opened.Content, encrypted, err
	case value.Kind == "Secret" && value.APIVersion == "v1":
		return k.secret(ctx, object, value.Data)
	}
	return nil, false, nil
}

// secret decrypts the values of a Secret that are encrypted documents.
func (k *keyring) secret(ctx context.Context, object []byte, data map[string]any) ([]byte, bool, error) {
	changed := map[string]any{}
	for _, key := range slices.Sorted(maps.Keys(data)) {
		text, _ := data[key].(string)
		content, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			continue // The apply says what is wrong with it.
		}
		in, found := k.marks.found(content)
		if !found {
			continue
		}
		out := formatOf(key)
		if out == formats.Binary {
			out = in
		} else if in == formats.Binary {
			in = formats.Json
		}
		opened, encrypted, err := k.open(ctx, document{content: content, in: in, out: out, whole: true})
		if err != nil {
			return nil, true, fmt.Errorf("data.%s: %w", key, err)
		}
		if encrypted {
			changed[key] = base64.StdEncoding.EncodeToString(opened.Content)
		}
	}
	if len(changed) == 0 {
		return nil, false, nil
	}
	var whole map[string]any
	if err := utiljson.Unmarshal(object, &whole); err != nil {
		return nil, true, errors.New("the object cannot be read")
	}
	maps.Copy(whole["data"].(map[string]any), changed)
	plain, err := json.Marshal(whole)
	return plain, true, err
}

// document is something encrypted, and the form that it is to have.
type document struct {
	content []byte
	in, out formats.Format
	// whole is set where it is as SOPS wrote it, so that its checksum counts.
	whole bool
}

// open decrypts a document. Encrypted is false for one that only looks like it.
func (k *keyring) open(ctx context.Context, d document) (opened build.Opened, encrypted bool, err error) {
	defer func() {
		// Odd input makes SOPS panic, and what it panics with may quote it.
		if recover() != nil {
			opened, encrypted, err = build.Opened{}, true, fmt.Errorf("SOPS cannot print it as %s", formatName(d.out))
		}
	}()
	if len(d.content) > maxBytes {
		return build.Opened{}, true, fmt.Errorf("it has %d bytes, and what is encrypted may have %d: split it", len(d.content), maxBytes)
	}
	tree, err := formFor(d.in).load(d.content)
	switch {
	case errors.Is(err, sops.MetadataNotFound):
		return build.Opened{}, false, nil
	case errors.Is(err, errUnreadable):
		return build.Opened{}, true, fmt.Errorf("it is no %s document that SOPS can read", formatName(d.in))
	case err != nil:
		return build.Opened{}, true, err
	}
	dataKey, err := k.dataKey(ctx, &tree.Metadata)
	if err != nil {
		return build.Opened{}, true, err
	}
	cipher := &recorder{Cipher: aes.NewCipher()}
	sum, err := tree.Decrypt(dataKey, cipher)
	if err != nil {
		return build.Opened{}, true, cipher.explain()
	}
	if d.whole {
		if err := checkSum(tree.Metadata, dataKey, sum); err != nil {
			return build.Opened{}, true, err
		}
	}
	content, err := formFor(d.out).print(tree.Branches)
	if err != nil {
		return build.Opened{}, true, fmt.Errorf("SOPS cannot print it as %s: give its key the ending of its form", formatName(d.out))
	}
	return build.Opened{Content: content, Values: cipher.values}, true, nil
}

// dataKey asks for the key of a document.
func (k *keyring) dataKey(ctx context.Context, metadata *sops.Metadata) ([]byte, error) {
	if n := metadata.MasterKeyCount(); n > maxKeys {
		return nil, fmt.Errorf("it is encrypted for %d keys, the limit is %d", n, maxKeys)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s := &service{ctx: ctx, keys: k.keys}
	dataKey, err := metadata.GetDataKeyWithKeyServices([]keyservice.KeyServiceClient{s}, sops.DefaultDecryptionOrder)
	if err != nil {
		return nil, s.explain(k.from)
	}
	return dataKey, nil
}

// checkSum verifies the checksum over the values of a document.
func checkSum(metadata sops.Metadata, dataKey []byte, sum string) error {
	want, err := aes.NewCipher().Decrypt(metadata.MessageAuthenticationCode, dataKey, metadata.LastModified.Format(time.RFC3339))
	if err != nil || want != sum {
		return errors.New("its checksum (MAC) does not fit: it was changed after SOPS had encrypted it; change it with sops edit, or encrypt it again")
	}
	return nil
}

// recorder is a cipher that remembers what it decrypted.
type recorder struct {
	sops.Cipher
	values []string
	// open is set where a value that had to be encrypted was not.
	open bool
}

// Decrypt decrypts one value.
func (r *recorder) Decrypt(text string, key []byte, additionalData string) (any, error) {
	value, err := r.Cipher.Decrypt(text, key, additionalData)
	switch v := value.(type) {
	case nil:
		r.open = err != nil && !bytes.HasPrefix([]byte(text), []byte("ENC["))
	case []byte:
		r.values = append(r.values, string(v))
	case sops.Comment:
		r.values = append(r.values, v.Value)
	default:
		r.values = append(r.values, fmt.Sprint(v))
	}
	return value, err
}

// explain tells why a value could not be decrypted, without the value.
func (r *recorder) explain() error {
	if r.open {
		return errors.New("a value in it is not encrypted and has to be, by the rules that it was encrypted with: change it with sops edit, and see that kustomize adds nothing to what is encrypted")
	}
	return errors.New("a value in it cannot be decrypted: it was moved or changed after SOPS had encrypted it; change it with sops edit, or encrypt it again")
}
