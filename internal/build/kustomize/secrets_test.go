package kustomize_test

import (
	"bytes"
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plumb-gitops/plumb/internal/build"
	"github.com/plumb-gitops/plumb/internal/build/kustomize"
	"github.com/plumb-gitops/plumb/internal/build/substitute"
	"github.com/plumb-gitops/plumb/internal/build/typed"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// sealedValue is what counts as encrypted in a sealed file.
var sealedValue = regexp.MustCompile(`canary[-\w]*`)

// seal makes a file that sealKeys opens.
func seal(plain string) string { return "SEALED\n" + plain }

// sealKeys is a Decrypter and its Keyring for files made by seal. With a key "fails"
// nothing can be opened, with "away" not now.
type sealKeys struct{ build.Decryption }

func (sealKeys) Unlock(decryption build.Decryption) (build.Keyring, error) {
	return sealKeys{decryption}, nil
}

func (k sealKeys) File(_ context.Context, file build.EncryptedFile) (build.Opened, bool, error) {
	plain, sealed := bytes.CutPrefix(file.Content, []byte("SEALED\n"))
	switch {
	case !sealed:
		return build.Opened{}, false, nil
	case k.Keys["fails"] != nil:
		return build.Opened{}, true, errors.New("no key fits")
	case k.Keys["away"] != nil:
		return build.Opened{}, true, &build.Unavailable{Err: errors.New("nobody answers")}
	}
	values := sealedValue.FindAllString(string(plain), -1)
	content := append([]byte(nil), plain...)
	if file.Name == "tell" {
		content = []byte("as " + file.Name)
	}
	if file.Environment {
		content = append([]byte("environment=true\n"), content...)
	}
	return build.Opened{Content: content, Values: values}, true, nil
}

func (k sealKeys) Object(context.Context, []byte) ([]byte, bool, error) { return nil, false, nil }

func newSealed() *build.Builder {
	return build.New(build.Steps{
		Renderer: kustomize.New(kustomize.Options{}), Decrypter: sealKeys{}, Substituter: substitute.New(0), Normaliser: typed.New(),
	})
}

func sealedSpec(key string) build.Spec {
	spec := specFor("app")
	spec.Decryption = &build.Decryption{Keys: map[string][]byte{key: []byte("x")}}
	return spec
}

func TestEncryptedFiles(t *testing.T) {
	t.Parallel()
	generators := "generatorOptions: {disableNameSuffixHash: true}\n"
	tests := map[string]struct {
		files map[string]string
		// want holds a part of each object, by its ref; an object is sensitive where
		// the part begins with an exclamation mark, which is left out.
		want map[string]string
	}{
		"files of a secretGenerator": {
			files: map[string]string{
				"app/kustomization.yaml": generators + "secretGenerator:\n- name: s\n  files: [token, tell=other.yaml, plain]\n",
				"app/token":              seal("canary"), "app/other.yaml": seal("x"), "app/plain": "open",
			},
			want: map[string]string{"Secret/s": `!"plain":"b3Blbg==","tell":"YXMgdGVsbA==","token":"Y2FuYXJ5"`},
		},
		"environments of a secretGenerator": {
			files: map[string]string{
				"app/kustomization.yaml": generators + "secretGenerator:\n- name: s\n  envs: [a.env]\n",
				"app/a.env":              seal("KEY=canary\n"),
			},
			want: map[string]string{"Secret/s": `!"KEY":"Y2FuYXJ5","environment":"dHJ1ZQ=="`},
		},
		"a configMapGenerator, whose object is then as secret": {
			files: map[string]string{
				"app/kustomization.yaml": generators + "configMapGenerator:\n- name: c\n  envs: [a.env]\n- name: open\n  literals: [a=b]\n",
				"app/a.env":              seal("KEY=canary\n"),
			},
			want: map[string]string{"ConfigMap/c": `!"KEY":"canary"`, "ConfigMap/open": `"a":"b"`},
		},
		"a component's generator": {
			files: map[string]string{
				"app/kustomization.yaml":  "resources: [a.yaml]\ncomponents: [../part]\n",
				"app/a.yaml":              named("a"),
				"part/kustomization.yaml": "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n" + generators + "secretGenerator:\n- name: s\n  files: [token]\n",
				"part/token":              seal("canary"),
			},
			want: map[string]string{"ConfigMap/a": `"key":"value"`, "Secret/s": `!"token":"Y2FuYXJ5"`},
		},
		"a file of a patch, whose target is then as secret": {
			files: map[string]string{
				"app/kustomization.yaml": "resources: [a.yaml, b.yaml]\npatches: [{path: patch.yaml}]\n",
				"app/a.yaml":             named("a"), "app/b.yaml": named("b"),
				"app/patch.yaml": seal(strings.Replace(named("a"), "value", "canary", 1)),
			},
			want: map[string]string{"ConfigMap/a": `!"key":"canary"`, "ConfigMap/b": `"key":"value"`},
		},
		"a file that was read as a resource before": {
			files: map[string]string{
				"app/kustomization.yaml":  generators + "resources: [a.yaml, ../base]\nconfigMapGenerator:\n- name: c\n  files: [key=a.yaml]\n",
				"app/a.yaml":              "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n",
				"base/kustomization.yaml": "resources: [b.yaml]\n",
				"base/b.yaml":             named("b"),
			},
			want: map[string]string{"ConfigMap/a": `"name":"a"`, "ConfigMap/b": `"key":"value"`, "ConfigMap/c": `kind: ConfigMap`},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, _, err := newSealed().Build(context.Background(), snapshotOf(newTree(tt.files)), sealedSpec("good"), nil)
			if err != nil {
				t.Fatal(err)
			}
			var refs []string
			for _, m := range b.Manifests {
				refs = append(refs, m.Ref.String())
				part, sensitive := strings.CutPrefix(tt.want[m.Ref.String()], "!")
				if !strings.Contains(string(m.JSON), part) || m.Sensitive != sensitive {
					t.Errorf("%s (sensitive: %v) is %s, want %q (sensitive: %v)", m.Ref, m.Sensitive, m.JSON, part, sensitive)
				}
			}
			if len(refs) != len(tt.want) {
				t.Errorf("objects are %v", refs)
			}
		})
	}
}

func TestEncryptedFilesAreTracedAsTheyAre(t *testing.T) {
	t.Parallel()
	files := map[string]string{
		"app/kustomization.yaml": "secretGenerator:\n- name: s\n  files: [token]\n",
		"app/token":              seal("one"),
	}
	builder := newSealed()
	first, _, err := builder.Build(context.Background(), snapshotOf(newTree(files)), sealedSpec("good"), nil)
	if err != nil {
		t.Fatal(err)
	}
	tree := newTree(files)
	sum, _ := tree.Sum("app/token")
	if !slices.Contains(first.Trace, gitops.Read{Kind: gitops.ReadFile, Path: "app/token", Seen: sum}) {
		t.Errorf("the trace has not the encrypted file: %v", first.Trace)
	}
	other := map[string]string{"app/kustomization.yaml": files["app/kustomization.yaml"], "app/token": seal("two")}
	tests := map[string]struct {
		files map[string]string
		spec  build.Spec
		want  bool
	}{
		"the same":       {files, sealedSpec("good"), true},
		"another file":   {other, sealedSpec("good"), false},
		"another key":    {files, sealedSpec("better"), false},
		"no decryption":  {files, specFor("app"), false},
		"another source": {files, func() build.Spec { s := sealedSpec("good"); s.Decryption.From = "x"; return s }(), false},
	}
	for name, tt := range tests {
		if got := builder.Current(first.Trace, newTree(tt.files), tt.spec); got != tt.want {
			t.Errorf("%s: current is %v", name, got)
		}
	}
}

func TestDecryptionFailures(t *testing.T) {
	t.Parallel()
	files := map[string]string{
		"app/kustomization.yaml": "resources: [a.yaml]\nsecretGenerator:\n- name: s\n  files: [token]\n",
		"app/a.yaml":             named("a"),
		"app/token":              seal("canary"),
	}
	for key, want := range map[string]string{
		"fails": "invalid: app/token cannot be decrypted: no key fits",
		"away":  "transient: app/token cannot be decrypted: nobody answers",
	} {
		t.Run(key, func(t *testing.T) {
			t.Parallel()
			_, _, err := newSealed().Build(context.Background(), snapshotOf(newTree(files)), sealedSpec(key), nil)
			if got := string(gitops.KindOf(err)) + ": " + errorText(err); got != want {
				t.Errorf("error is %q, want %q", got, want)
			}
			// What may go away by itself is no failure to be remembered.
			var failure *build.Failure
			if remembered := errors.As(err, &failure); remembered != (key == "fails") {
				t.Errorf("remembered: %v", remembered)
			}
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestErrorsHideDecrypted breaks builds with what was decrypted in the place that the
// error is about.
func TestErrorsHideDecrypted(t *testing.T) {
	t.Parallel()
	patched := func(patch string) map[string]string {
		return map[string]string{
			"app/kustomization.yaml": "resources: [a.yaml]\npatches: [{path: patch.yaml, target: {kind: ConfigMap}}]\n",
			"app/a.yaml":             named("a"),
			"app/patch.yaml":         seal(patch),
		}
	}
	tests := map[string]struct {
		files map[string]string
		want  string
	}{
		"an alias that is a password": {patched("data:\n  key: *canary-one\n"), "app/patch.yaml:1: malformed YAML: unknown anchor '***' referenced"},
		"a patch of no known form":    {patched("canary-one canary-two\n"), "app/kustomization.yaml: "},
		"the path of a JSON patch":    {patched("- {op: remove, path: /data/canary-one}\n"), "/data/***"},
		"a test in a JSON patch":      {patched("- {op: test, path: /data/key, value: canary-one}\n"), "/data/key"},
		"a number in place of a map":  {patched("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: canary-one\n"), ""},
		"an environment that is no text": {map[string]string{
			"app/kustomization.yaml": "secretGenerator:\n- name: s\n  envs: [a.env]\n",
			"app/a.env":              seal("KEY=canary-one\xff\n"),
		}, "invalid UTF-8"},
		"a key that is given twice": {map[string]string{
			"app/kustomization.yaml": "secretGenerator:\n- name: s\n  envs: [a.env]\n  literals: [KEY=b]\n",
			"app/a.env":              seal("KEY=canary-one\n"),
		}, "KEY"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := newSealed().Build(context.Background(), snapshotOf(newTree(tt.files)), sealedSpec("good"), nil)
			text := errorText(err)
			if err == nil || strings.Contains(text, "canary") || strings.Contains(text, "Y2FuYXJ5") || !strings.Contains(text, tt.want) {
				t.Errorf("error is %q, want one with %q and without the plain text", text, tt.want)
			}
			t.Log(text)
			_, _, again := newSealed().Build(context.Background(), snapshotOf(newTree(tt.files)), sealedSpec("good"), nil)
			if diff := cmp.Diff(text, errorText(again)); diff != "" {
				t.Errorf("another time the error is another one:\n%s", diff)
			}
		})
	}
}
