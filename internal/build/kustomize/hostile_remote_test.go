package kustomize_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/plumb-gitops/plumb/internal/build/kustomize"
)

// fakeGit puts a git command first in PATH that does nothing but leave a file,
// and returns the path of that file.
func fakeGit(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	called := filepath.Join(dir, "called")
	script := fmt.Sprintf("#!/bin/sh\necho \"$@\" >> '%s'\nexit 1\n", called)
	if err := os.WriteFile(filepath.Join(dir, "git"), []byte(script), 0o755); err != nil { //nolint:gosec // It has to run.
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	return called
}

// TestRemoteBasesOffFetchNothing writes addresses in every form and field, and
// checks that neither git nor HTTP is ever reached. It is not parallel: PATH is
// the process'.
func TestRemoteBasesOffFetchNothing(t *testing.T) {
	called := fakeGit(t)
	var hits atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		hits.Add(1)
		_, _ = w.Write([]byte(named("a")))
	}))
	t.Cleanup(server.Close)
	addresses := map[string]string{
		"a file over HTTP":                  server.URL + "/x",
		"HTTP as a mapping":                 server.URL + "/x: y",
		"HTTP with a line break":            server.URL + "/x\n",
		"HTTP with a space before":          " " + server.URL + "/x",
		"a clone":                           "file:///nowhere/a/b",
		"a clone with a line break":         "file:///nowhere/a/b\n",
		"a clone that is a mapping":         "file:///nowhere/a?ref=--upload-pack=touch%20x%20%23&a: b",
		"a clone that is an object":         "file:///nowhere/a?x: y\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n",
		"a clone with an option":            "file:///nowhere/a?ref=--upload-pack=touch",
		"SSH":                               "ssh://127.0.0.1:1/a/b",
		"SSH in the form of scp":            "git@127.0.0.1:a/b.git\n",
		"a forge without scheme":            "github.com/org/repo\n",
		"a forced protocol":                 "git::https://127.0.0.1:1/org/repo",
		"a forge without scheme as mapping": "github.com/org/repo?x: y",
	}
	fields := map[string]string{
		"resources": "resources: [%s]\n", "bases": "bases: [%s]\n", "components": "components: [%s]\n",
		"transformers": "transformers: [%s]\n", "generators": "generators: [%s]\n", "validators": "validators: [%s]\n",
		"patchesStrategicMerge": "patchesStrategicMerge: [%s]\n", "crds": "crds: [%s]\n", "configurations": "configurations: [%s]\n",
		"patches":         "patches:\n- target: {kind: ConfigMap}\n  path: %s\n",
		"patchesJson6902": "patchesJson6902:\n- target: {version: v1, kind: ConfigMap, name: a}\n  path: %s\n",
		"openapi":         "openapi: {path: %s}\n", "replacements": "replacements:\n- path: %s\n",
		"files":        "configMapGenerator:\n- name: x\n  files: [%s]\n",
		"envs":         "secretGenerator:\n- name: x\n  envs: [%s]\n",
		"env":          "configMapGenerator:\n- name: x\n  env: %s\n",
		"helm values":  "helmCharts:\n- name: x\n  valuesFile: %s\n",
		"a plugin":     "transformers:\n- |-\n  apiVersion: builtin\n  kind: PatchTransformer\n  metadata: {name: p}\n  path: %s\n  target: {kind: ConfigMap}\n",
		"a value plug": "transformers:\n- |-\n  apiVersion: builtin\n  kind: ValueAddTransformer\n  metadata: {name: p}\n  value: x\n  targetFilePath: %s\n",
	}
	for field, text := range fields {
		for form, address := range addresses {
			t.Run(form+" in "+field, func(t *testing.T) {
				files := map[string]string{
					"app/kustomization.yaml": "resources: [a.yaml]\n" + fmt.Sprintf(text, quoted(address)),
					"app/a.yaml":             named("a"),
				}
				if field == "resources" {
					files["app/kustomization.yaml"] = fmt.Sprintf(text, quoted(address))
				}
				// A file of that name does not make the address a local one.
				if local := filepath.Join("app", address); !strings.HasSuffix(local, "/") && !strings.Contains(local, "\n") {
					files[local] = "a: b\n"
				}
				_, _, err := newBuilder(kustomize.Options{}).Build(context.Background(), snapshotOf(newTree(files)), specFor("app"), nil)
				if err == nil && field != "a plugin" && field != "a value plug" {
					t.Error("no error")
				}
				if calls, readErr := os.ReadFile(called); readErr == nil {
					t.Errorf("git was called: %s(%v)", calls, err)
					_ = os.Remove(called)
				}
				if n := hits.Swap(0); n > 0 {
					t.Errorf("%d requests (%v)", n, err)
				}
			})
		}
	}
}

// TestRefsAreNoOptions checks that a ref never reaches git as an option, also
// where remote bases are allowed.
func TestRefsAreNoOptions(t *testing.T) {
	called := fakeGit(t)
	for _, query := range []string{"?ref=--upload-pack=touch", "?version=-x", "?ref=%2d%2dupload-pack", "?a=b&ref=--x"} {
		tree := newTree(map[string]string{"app/kustomization.yaml": "resources: ['file:///nowhere/a" + query + "']\n"})
		_, _, err := newBuilder(kustomize.Options{RemoteBases: true}).Build(context.Background(), snapshotOf(tree), specFor("app"), nil)
		if err == nil || !strings.Contains(err.Error(), "cannot begin with a dash") {
			t.Errorf("%s: %v", query, err)
		}
		if calls, readErr := os.ReadFile(called); readErr == nil {
			t.Fatalf("%s: git was called: %s", query, calls)
		}
	}
}

// quoted is a text in YAML's double quotes.
func quoted(text string) string { return fmt.Sprintf("%q", text) }
