package build_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"strings"
	"testing/fstest"

	"github.com/plumb-gitops/plumb/internal/build"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// tree is a gitops.Tree of files in memory. Reading a file named "broken" fails.
type tree struct{ fstest.MapFS }

func treeOf(pairs ...string) tree {
	t := tree{fstest.MapFS{}}
	for i := 0; i < len(pairs); i += 2 {
		t.MapFS[pairs[i]] = &fstest.MapFile{Data: []byte(pairs[i+1])}
	}
	return t
}

var errBroken = errors.New("the store is broken")

func (t tree) ReadFile(name string) ([]byte, error) {
	if name == "broken" {
		return nil, errBroken
	}
	return t.MapFS.ReadFile(name)
}

// Sum hashes a file, or all files below a directory.
func (t tree) Sum(name string) (string, error) {
	info, err := t.Stat(name)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	err = fs.WalkDir(t.MapFS, name, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		h.Write([]byte(strings.TrimPrefix(path, name) + "\x00"))
		h.Write(t.MapFS[path].Data)
		return nil
	})
	return info.Mode().Type().String() + hex.EncodeToString(h.Sum(nil)), err
}

// rendererFunc is a Renderer.
type rendererFunc func(ctx context.Context, files build.Files, spec build.Spec) (build.Rendering, error)

func (f rendererFunc) Render(ctx context.Context, files build.Files, spec build.Spec, _ build.Keyring) (build.Rendering, error) {
	return f(ctx, files, spec)
}

// upper is a Substituter that writes in capitals what stands between $ signs.
type upper struct{}

func (upper) Substitute(object []byte, substitution build.Substitution) ([]byte, error) {
	parts := strings.Split(string(object), "$")
	if len(parts)%2 == 0 {
		return nil, errors.New("a dollar sign is missing")
	}
	for i := 1; i < len(parts); i += 2 {
		parts[i] = strings.ToUpper(parts[i])
	}
	return []byte(strings.Join(parts, "")), nil
}

// keep is a Normaliser that changes nothing.
type keep struct{}

func (keep) Normalise(object map[string]any) (map[string]any, error) { return object, nil }

// builderOf makes a Builder around a renderer.
func builderOf(render rendererFunc, limits build.Limits) *build.Builder {
	return build.New(build.Steps{Renderer: render, Substituter: upper{}, Normaliser: keep{}, Limits: limits})
}

// objectsOf renders the same objects, whatever the files.
func objectsOf(objects ...string) rendererFunc {
	return func(context.Context, build.Files, build.Spec) (build.Rendering, error) {
		var r build.Rendering
		for i, o := range objects {
			r.Objects = append(r.Objects, build.Object{JSON: []byte(o), Origin: gitops.Origin{File: "f.yaml", Line: i + 1}})
		}
		return r, nil
	}
}

func snapshot(t gitops.Tree) gitops.Snapshot {
	return gitops.Snapshot{Artifact: gitops.Artifact{Revision: "main@sha1:1"}, Files: t}
}
