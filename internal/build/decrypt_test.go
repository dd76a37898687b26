package build_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/plumb-gitops/plumb/internal/build"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// sealed is a Decrypter, and its own Keyring, of objects in which a value begins with
// "sealed:". The key "fails" opens nothing, "away" not now, and "broken" is none.
type sealed struct{ build.Decryption }

func (sealed) Unlock(d build.Decryption) (build.Keyring, error) {
	if d.Keys["broken"] != nil {
		return nil, errors.New(`entry "broken": no key`)
	}
	return sealed{d}, nil
}

func (sealed) File(context.Context, build.EncryptedFile) (build.Opened, bool, error) {
	return build.Opened{}, false, nil
}

func (s sealed) Object(_ context.Context, object []byte) ([]byte, bool, error) {
	switch {
	case !bytes.Contains(object, []byte("sealed:")):
		return nil, false, nil
	case s.Keys["fails"] != nil:
		return nil, true, errors.New("no key fits")
	case s.Keys["away"] != nil:
		return nil, true, &build.Unavailable{Err: errors.New("nobody answers")}
	case s.Keys["odd"] != nil:
		return []byte("canary"), true, nil
	}
	return bytes.ReplaceAll(object, []byte("sealed:"), nil), true, nil
}

func sealedBuilder(objects ...string) *build.Builder {
	return build.New(build.Steps{Renderer: objectsOf(objects...), Decrypter: sealed{}, Substituter: upper{}, Normaliser: keep{}})
}

func TestDecryptObjects(t *testing.T) {
	t.Parallel()
	object := func(metadata, value string) string {
		return `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"` + metadata + `},"data":{"a":"` + value + `"}}`
	}
	variables := &build.Substitution{Always: true}
	tests := map[string]struct {
		object    string
		key       string // none asks for no decryption
		variables *build.Substitution
		want      string // a part of the object, or of the error after "error: "
		sensitive bool
	}{
		"an encrypted object":                      {object("", "sealed:v"), "good", nil, `"a":"v"`, true},
		"one that is not encrypted":                {object("", "v"), "good", nil, `"a":"v"`, false},
		"variables in what was encrypted":          {object("", "sealed:$v$"), "good", variables, `"a":"V"`, true},
		"one that an annotation leaves":            {object(`,"annotations":{"owner/decrypt":"Disabled"}`, "sealed:v"), "good", nil, `"a":"sealed:v"`, false},
		"one that a label leaves":                  {object(`,"labels":{"owner/decrypt":"disabled"}`, "sealed:v"), "good", nil, `"a":"sealed:v"`, false},
		"one whose annotation says something else": {object(`,"annotations":{"owner/decrypt":"enabled"}`, "sealed:v"), "good", nil, `"a":"v"`, true},
		"no decryption":                            {object("", "sealed:v"), "", nil, `"a":"sealed:v"`, false},
		"no key that fits": {object("", "sealed:v"), "fails", nil,
			"error: invalid: ConfigMap/x (f.yaml:1): cannot be decrypted: no key fits", false},
		"a service that does not answer": {object("", "sealed:v"), "away", nil,
			"error: transient: ConfigMap/x (f.yaml:1): cannot be decrypted: nobody answers", false},
		"something else than an object": {object("", "sealed:v"), "odd", nil, "error: invalid: f.yaml:1: what was decrypted is not an object", false},
		"a key that is none":            {object("", "v"), "broken", nil, `error: invalid: read decryption keys: entry "broken": no key`, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := spec()
			s.Keys.Decrypt, s.Substitute = "owner/decrypt", tt.variables
			if tt.key != "" {
				s.Decryption = &build.Decryption{Keys: map[string][]byte{tt.key: []byte("x")}}
			}
			b, _, err := sealedBuilder(tt.object).Build(context.Background(), snapshot(treeOf("a", "")), s, nil)
			if want, failed := strings.CutPrefix(tt.want, "error: "); failed {
				if err == nil || string(gitops.KindOf(err))+": "+err.Error() != want {
					t.Errorf("error is %s: %v, want %q", gitops.KindOf(err), err, want)
				}
				// What may go away by itself is not remembered as a failure.
				var failure *build.Failure
				if errors.As(err, &failure) == (gitops.KindOf(err) == gitops.Transient) {
					t.Errorf("error is %T", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if m := b.Manifests[0]; !strings.Contains(string(m.JSON), tt.want) || m.Sensitive != tt.sensitive {
				t.Errorf("object (sensitive: %v) is %s, want %q (sensitive: %v)", m.Sensitive, m.JSON, tt.want, tt.sensitive)
			}
		})
	}
}

func TestDecryptionWithoutDecrypter(t *testing.T) {
	t.Parallel()
	s := spec()
	s.Decryption = &build.Decryption{}
	_, _, err := builderOf(objectsOf(), build.Limits{}).Build(context.Background(), snapshot(treeOf()), s, nil)
	if gitops.KindOf(err) != gitops.Internal {
		t.Errorf("error is %v", err)
	}
}
