package kustomize_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plumb-gitops/plumb/internal/build"
	"github.com/plumb-gitops/plumb/internal/build/kustomize"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// bomb is a YAML document whose aliases expand to 9⁹ values.
func bomb() string {
	var b strings.Builder
	b.WriteString("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bomb}\ndata:\n  a0: &a0 [x,x,x,x,x,x,x,x,x]\n")
	for i := 1; i < 9; i++ {
		fmt.Fprintf(&b, "  a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 9), ","))
	}
	return b.String()
}

func TestBuildErrors(t *testing.T) {
	t.Parallel()
	kustomization := func(text string, more ...string) map[string]string {
		files := map[string]string{"app/kustomization.yaml": text, "app/a.yaml": named("a")}
		for i := 0; i < len(more); i += 2 {
			files[more[i]] = more[i+1]
		}
		return files
	}
	plain := func(text string) map[string]string { return map[string]string{"app/a.yaml": text} }
	tests := map[string]struct {
		files  map[string]string
		change func(*build.Spec)
		want   string
		reason string
	}{
		"a path that does not exist is the artifact's failure": {
			files:  map[string]string{"other/a.yaml": named("a")},
			reason: build.ReasonArtifactFailed,
			want:   `kustomization path not found: there is no directory "app" in the source: correct spec.path, or add the directory`,
		},
		"a path that leads out says so": {
			files:  plain(named("a")),
			change: func(s *build.Spec) { s.Path = "../../etc" },
			reason: build.ReasonArtifactFailed,
			want:   `kustomization path not found: there is no directory "etc" in the source (spec.path "../../etc" leads out of the source and is taken from its root): correct spec.path, or add the directory`,
		},
		"a path that is a file": {
			files:  plain(named("a")),
			change: func(s *build.Spec) { s.Path = "app/a.yaml" },
			want:   `app/a.yaml: spec.path is a file: name its directory`,
		},
		"malformed YAML in a later document": {
			files: plain(named("a") + "---\nkind: ConfigMap\n a: b\n"),
			want:  `app/a.yaml:9: malformed YAML: mapping values are not allowed in this context`,
		},
		"a malformed kustomization file": {
			files: kustomization("resources:\n- a.yaml\n bad: [\n"),
			want:  `app/kustomization.yaml:3: malformed YAML: mapping values are not allowed in this context`,
		},
		"an unknown field of a base": {
			files: kustomization("resources: [../base]\n", "base/kustomization.yaml", "resource: [x.yaml]\n"),
			want:  `base/kustomization.yaml: not a kustomization: invalid Kustomization: json: unknown field "resource"`,
		},
		"an object that two files declare": {
			files: map[string]string{"app/a.yaml": named("same"), "app/b.yaml": "---\n" + named("other") + "---\n" + named("same")},
			want:  `ConfigMap/same: declared twice, in app/a.yaml:1 and in app/b.yaml:9: remove one of them`,
		},
		"a base that is included twice": {
			files: kustomization("resources: [../base, ../mid]\n", "base/kustomization.yaml", "resources: [x.yaml]\n", "base/x.yaml", named("x"),
				"mid/kustomization.yaml", "resources: [../base]\n"),
			want: `ConfigMap/x: declared in base/x.yaml:1, which is part of the build twice: include it once`,
		},
		"two objects that become one by the target namespace": {
			files:  plain(strings.ReplaceAll(named("a"), "name: a", "name: a\n  namespace: x") + "---\n" + strings.ReplaceAll(named("a"), "name: a", "name: a\n  namespace: y")),
			change: func(s *build.Spec) { s.TargetNamespace = "z" },
			want:   `ConfigMap/z/a: two objects, from app/a.yaml and from app/a.yaml, become the same in the target namespace: rename or remove one`,
		},
		"a resource that is missing": {
			files: kustomization("resources:\n- a.yaml\n- gone.yaml\n"),
			want:  `app/kustomization.yaml:3: resources: "gone.yaml" does not exist (symbolic links and files that are ignored are not part of a source): add it, or drop the reference`,
		},
		"a patch file that is missing": {
			files: kustomization("resources: [a.yaml]\npatches:\n- path: gone.yaml\n"),
			want:  `app/kustomization.yaml:3: patches: "gone.yaml" does not exist (symbolic links and files that are ignored are not part of a source): add it, or drop the reference`,
		},
		"a resource outside of the repository": {
			files: kustomization("resources: [a.yaml]\nconfigMapGenerator:\n- name: x\n  files: [../../../etc/passwd]\n"),
			want:  `app/kustomization.yaml:4: configMapGenerator: "../../../etc/passwd" leads out of the source: only files of the source can be used`,
		},
		"an absolute file": {
			files: kustomization("resources: [a.yaml]\nconfigMapGenerator:\n- name: x\n  files: [/etc/passwd]\n"),
			want:  `app/kustomization.yaml:4: configMapGenerator: "/etc/passwd" leads out of the source: only files of the source can be used`,
		},
		"a base without a kustomization file": {
			files: kustomization("resources: [../base]\n", "base/x.yaml", named("x")),
			want:  `app/kustomization.yaml:1: resources: "../base" has no kustomization.yaml: add one, or refer to its files`,
		},
		"a remote base": {
			files: kustomization("resources:\n- a.yaml\n- https://user:password@example.com/org/repo//base?ref=v1\n"),
			want:  `app/kustomization.yaml:3: remote base "https://user:***@example.com/org/repo//base?ref=v1" is refused: copy it into the repository, or start the operator with --no-remote-bases=false`,
		},
		"a remote base of a base, in the form of scp": {
			files: kustomization("resources: [../base]\n", "base/kustomization.yaml", "resources: [\"git@example.com:org/repo\"]\n"),
			want:  `base/kustomization.yaml:1: remote base "git@example.com:org/repo" is refused: copy it into the repository, or start the operator with --no-remote-bases=false`,
		},
		"a remote file under a key of another case": {
			files: kustomization("ConfigMapGenerator:\n- name: x\n  Files: [\"k=HTTPS://example.com/x\"]\n"),
			want:  `app/kustomization.yaml:3: remote base "HTTPS://example.com/x" is refused: copy it into the repository, or start the operator with --no-remote-bases=false`,
		},
		"a remote file that a patch puts into a transformer": {
			files: kustomization("resources: [a.yaml]\ntransformers: [plugins]\n",
				"app/plugins/kustomization.yaml", "resources: [t.yaml]\npatches:\n- target: {kind: PatchTransformer}\n  patch: '[{\"op\": \"add\", \"path\": \"/path\", \"value\": \"http://127.0.0.1:1/x\"}]'\n",
				"app/plugins/t.yaml", "apiVersion: builtin\nkind: PatchTransformer\nmetadata:\n  name: t\n  annotations: {config.kubernetes.io/local-config: \"true\"}\n"),
			want: `app/kustomization.yaml: remote base "http://127.0.0.1:1/x" is refused: copy it into the repository, or start the operator with --no-remote-bases=false`,
		},
		"a remote component of the spec": {
			files:  plain(named("a")),
			change: func(s *build.Spec) { s.Components = []string{"github.com/org/repo/x"} },
			want:   `component "github.com/org/repo/x" must be a relative path in the repository`,
		},
		"an alias bomb": {
			files: plain(named("a") + "---\n" + bomb()),
			want:  `app/a.yaml:8: aliases expand 111 YAML nodes to more than 100000: write them out or split the file`,
		},
		"an alias bomb in a patch of the repository": {
			files: kustomization("resources: [a.yaml]\npatches:\n- patch: |\n    " + strings.ReplaceAll(bomb(), "\n", "\n    ") + "\n"),
			want:  `app/kustomization.yaml:4: aliases expand 111 YAML nodes to more than 100000: write them out or split the file`,
		},
		"an alias bomb in a patch of the spec": {
			files:  plain(named("a")),
			change: func(s *build.Spec) { s.Patches = []build.Patch{{Patch: bomb()}} },
			want:   `spec.patches[0]: aliases expand 111 YAML nodes to more than 100000: write them out or split the file`,
		},
		"an alias inside of its anchor": {
			files: plain("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: &x\n  a: *x\n"),
			want:  `app/a.yaml:5: alias "*x" stands inside of what it names`,
		},
		"collections nested too deeply": {
			files: plain(named("a") + "deep: " + strings.Repeat("[", 300) + strings.Repeat("]", 300) + "\n"),
			want:  `app/a.yaml:7: collections are nested more than 200 deep`,
		},
		"a huge file": {
			files: plain("# " + strings.Repeat("x", 11<<20)),
			want:  `app/a.yaml: the file has 11534338 bytes, the limit is 10485760: split it`,
		},
		"bases that multiply": {
			files:  multiplying(),
			want:   `l2/right/kustomization.yaml: kustomization files are read more than 2000 times: bases include each other too often`,
			change: func(s *build.Spec) { s.Path = "l20" },
		},
		"an object without kind": {
			files: plain("apiVersion: v1\nmetadata: {name: a}\n"),
			want:  `app/a.yaml:1: the YAML document is not a Kubernetes object: missing kind; add it, move the file out of "app", or list the files to build in a kustomization.yaml`,
		},
		"an object without a name": {
			files: plain("apiVersion: v1\nkind: Pod\nmetadata: {generateName: a-}\n"),
			want:  `app/a.yaml:1: the YAML document is not a Kubernetes object: Pod has no metadata.name: give it one`,
		},
		"a name that no object can have": {
			files: plain(named("a/b")),
			want:  `ConfigMap/a/b (app/a.yaml:1): metadata.name "a/b" is not valid: may not contain '/'`,
		},
		"a namespace that no object can have": {
			files:  plain(named("a")),
			change: func(s *build.Spec) { s.TargetNamespace = "A" },
			want:   `ConfigMap/A/a (app/a.yaml:1): metadata.namespace "A" is not valid: a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')`,
		},
		"a JSON patch without its target": {
			files: kustomization("resources: [a.yaml]\npatches:\n- target: {kind: ConfigMap}\n  patch: |\n    - op: replace\n      path: /data/none/deep\n      value: x\n"),
			want:  `app/kustomization.yaml:6: JSON patch: replace operation does not apply: doc is missing path: /data/none/deep: missing value: correct its path or its target`,
		},
		"a strategic merge patch of nothing": {
			files: kustomization("resources: [a.yaml]\npatches:\n- path: p.yaml\n", "app/p.yaml", named("b")),
			want:  `app/kustomization.yaml: no resource matches strategic merge patch "ConfigMap.v1.[noGrp]/b.[noNs]": no matches for Id ConfigMap.v1.[noGrp]/b.[noNs]; failed to find unique target for patch ConfigMap.v1.[noGrp]/b.[noNs]`,
		},
		"a variable that is not set": {
			files:  plain(strings.ReplaceAll(named("a"), "key: value", "key: ${gone}")),
			change: func(s *build.Spec) { s.Substitute = &build.Substitution{Strict: true, Always: true} },
			want:   `ConfigMap/a (app/a.yaml:1): variable "gone" is not set and has no default: set it in postBuild, or write ${gone:=default}`,
		},
		"Helm charts": {
			files: kustomization("helmCharts:\n- name: x\n  repo: https://example.com\n"),
			want:  `app/kustomization.yaml:1: helmCharts are not rendered here: use a HelmRelease`,
		},
		"a program as generator": {
			files: kustomization("resources: [a.yaml]\ngenerators:\n- |-\n  apiVersion: x/v1\n  kind: Exec\n  metadata:\n    name: x\n    annotations:\n      config.kubernetes.io/function: |\n        exec: {path: ./run}\n"),
			want:  `app/kustomization.yaml: loading generator plugins: failed to load generator: external plugins disabled; unable to load external plugin 'Exec'`,
		},
		"two kustomization files": {
			files: kustomization("resources: [a.yaml]\n", "app/Kustomization", "resources: []\n"),
			want:  `app/kustomization.yaml: Found multiple kustomization files under: app`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spec := specFor("app")
			if test.change != nil {
				test.change(&spec)
			}
			tree := newTree(test.files)
			builder := newBuilder(kustomize.Options{})
			_, _, err := builder.Build(context.Background(), snapshotOf(tree), spec, nil)
			var failure *build.Failure
			var known *gitops.Error
			if !errors.As(err, &failure) || !errors.As(err, &known) {
				t.Fatalf("error is %T: %v", err, err)
			}
			if diff := cmp.Diff(test.want, err.Error()); diff != "" {
				t.Errorf("text (-want +got):\n%s", diff)
			}
			reason := test.reason
			if reason == "" {
				reason = build.ReasonBuildFailed
			}
			if known.Stage != gitops.StageBuild || known.Kind != gitops.Invalid || known.Reason != reason {
				t.Errorf("stage %q, kind %q, reason %q", known.Stage, known.Kind, known.Reason)
			}
			if !builder.Current(failure.Trace, tree, spec) {
				t.Errorf("the failure does not hold for its own snapshot")
			}
			_, _, again := builder.Build(context.Background(), snapshotOf(newTree(test.files)), spec, nil)
			if again == nil || again.Error() != err.Error() {
				t.Errorf("text is not the same again: %v", again)
			}
		})
	}
}

// multiplying are bases of which each includes the one below twice, under two
// prefixes: 2²⁰ builds.
func multiplying() map[string]string {
	files := map[string]string{"l0/kustomization.yaml": "resources: [a.yaml]\n", "l0/a.yaml": named("a")}
	for i := 1; i <= 20; i++ {
		files[fmt.Sprintf("l%d/kustomization.yaml", i)] = "resources: [left, right]\n"
		for _, side := range []string{"left", "right"} {
			files[fmt.Sprintf("l%d/%s/kustomization.yaml", i, side)] = fmt.Sprintf("namePrefix: %s\nresources: [../../l%d]\n", side, i-1)
		}
	}
	return files
}

func TestErrorsHideValues(t *testing.T) {
	t.Parallel()
	const value = "hunter2"
	secret := "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData:\n  password: hunter2\n"
	tests := map[string]map[string]string{
		"a literal that is not key=value": {"app/kustomization.yaml": "secretGenerator:\n- name: s\n  literals: [hunter2]\n"},
		"a generated secret that merges into nothing": {
			"app/kustomization.yaml": "secretGenerator:\n- name: s\n  behavior: merge\n  literals: [\"password=hunter2}: x\"]\n"},
		"an environment file that is not UTF-8": {
			"app/kustomization.yaml": "secretGenerator:\n- name: s\n  envs: [e]\n", "app/e": "hunter2\xff=x\n"},
		"two secrets that become one": {
			"app/s.yaml": strings.ReplaceAll(secret, "name: s", "name: s, namespace: a") + "---\n" + strings.ReplaceAll(secret, "name: s", "name: s, namespace: b")},
		"a secret that is declared twice":       {"app/s.yaml": secret, "app/t.yaml": secret},
		"a secret without a name":               {"app/s.yaml": strings.ReplaceAll(secret, "name: s", "labels: {a: b}")},
		"a secret that is not YAML":             {"app/s.yaml": secret + "  hunter2: hunter2: hunter2\n"},
		"a secret whose values are not text":    {"app/s.yaml": secret + "data: [hunter2]\n---\nhunter2\n"},
		"a patch of a secret that does not fit": {"app/s.yaml": secret, "app/kustomization.yaml": "resources: [s.yaml]\npatches:\n- patch: |\n    password: hunter2\n"},
		"a JSON patch that tests a value": {"app/s.yaml": secret,
			"app/kustomization.yaml": "resources: [s.yaml]\npatches:\n- target: {kind: Secret}\n  patch: |\n    - {op: test, path: /stringData/password, value: hunter2x}\n"},
		"a validator that modifies": {"app/s.yaml": secret,
			"app/kustomization.yaml": "resources: [s.yaml]\nvalidators:\n- |-\n  apiVersion: builtin\n  kind: PrefixTransformer\n  metadata: {name: p}\n  prefix: x\n  fieldSpecs: [{path: stringData/password}]\n"},
		"a replacement from below a value": {"app/s.yaml": secret,
			"app/kustomization.yaml": "resources: [s.yaml]\nreplacements:\n- source: {kind: Secret, fieldPath: stringData.password.x}\n  targets:\n  - select: {kind: Secret}\n    fieldPaths: [stringData.b]\n"},
		"a secret whose annotations are a list": {"app/s.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: s, annotations: [hunter2]}\n"},
		"a variable that breaks the YAML":       {"app/s.yaml": strings.ReplaceAll(secret, "password: hunter2", "password: ${password}")},
	}
	for name, files := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spec := specFor("app")
			spec.TargetNamespace = "z"
			spec.Substitute = &build.Substitution{Strict: true, Variables: map[string]string{"password": "\"hunter2: ["}}
			_, _, err := newBuilder(kustomize.Options{}).Build(context.Background(), snapshotOf(newTree(files)), spec, nil)
			if err == nil {
				t.Fatal("no error")
			}
			t.Log(err)
			if strings.Contains(err.Error(), value) {
				t.Errorf("the error shows the value: %v", err)
			}
			if strings.Contains(err.Error(), "0xc0") || strings.Contains(err.Error(), "~snapshot~") {
				t.Errorf("the error shows something of the process: %v", err)
			}
		})
	}
}
