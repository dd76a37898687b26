package kustomize

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/api/types"

	"github.com/plumb-gitops/plumb/internal/build"
)

// Options configure a Renderer.
type Options struct {
	// RemoteBases allows kustomizations to fetch bases and files from other
	// repositories and servers, with the git command of the machine and over
	// HTTP. They are refused without it.
	RemoteBases bool
	// Limits bound what a build may read; the zero value takes the defaults.
	Limits Limits
}

// Renderer implements build.Renderer. It is safe for concurrent use.
type Renderer struct {
	options Options
}

// New makes a Renderer.
func New(options Options) *Renderer {
	options.Limits = options.Limits.withDefaults()
	return &Renderer{options: options}
}

// errNeedsAlone ends a build that turns out to set a schema of its own.
var errNeedsAlone = errors.New("the kustomization sets an OpenAPI schema")

// Render renders the directory of the spec.
func (r *Renderer) Render(ctx context.Context, files build.Files, spec build.Spec, keys build.Keyring) (build.Rendering, error) {
	result, err := r.attempt(ctx, files, spec, keys, false)
	if errors.Is(err, errNeedsAlone) {
		result, err = r.attempt(ctx, files, spec, keys, true)
	}
	return result, err
}

// attempt renders once, with the schema for itself or shared.
func (r *Renderer) attempt(ctx context.Context, files build.Files, spec build.Spec, keys build.Keyring, alone bool) (build.Rendering, error) {
	fsys := newSnapshotFS(files, r.options.Limits)
	fsys.secrets.keys = keys
	guard := &guard{fsys: fsys, remoteAllowed: r.options.RemoteBases, alone: alone}
	fsys.inspect, fsys.ctx = guard.inspect, ctx
	if r.options.RemoteBases {
		clones, err := newCloneFS()
		if err != nil {
			return build.Rendering{}, err
		}
		fsys.clones = clones
	}
	for i, patch := range spec.Patches {
		guard.added.count([]byte(patch.Patch))
		if err := checkYAML([]byte(patch.Patch), r.options.Limits); err != nil {
			return build.Rendering{}, invalid("", 0, fmt.Errorf("spec.patches[%d]: %w", i, err))
		}
	}
	var result build.Rendering
	var start prepared
	var err error
	run := func() {
		if start, err = fsys.prepare(spec); err == nil {
			guard.copies, guard.added.replacements = 0, nil // The merged file has those of the author's once more.
			err = guard.kustomization(start.file, fsys.overlay[start.file], fsys.read[start.file])
		}
		if err != nil {
			err = first(fsys.fault, err)
			return
		}
		if result, err = r.run(fsys, start); err != nil && ctx.Err() == nil {
			err = explain(err, fsys, start)
		}
	}
	hold := withSchema
	if alone {
		hold = aloneWithSchema
	}
	if waitErr := hold(ctx, run); waitErr != nil {
		return build.Rendering{}, waitErr
	}
	result.Unrepeatable = guard.remote || fsys.clones != nil && fsys.clones.used
	return result, fsys.secrets.conceal(err)
}

// run builds, and once more without origins where asking for them could have
// changed the result.
func (r *Renderer) run(fsys *snapshotFS, start prepared) (build.Rendering, error) {
	annotated, err := kustomize(fsys, start.dir)
	plain := annotated
	if fsys.fault == nil && mentionsAnnotations(fsys) {
		plain, err = kustomizePlain(fsys, start)
	}
	if err != nil {
		return build.Rendering{}, err
	}
	return objects(fsys, start, annotated, plain)
}

// kustomizePlain builds with the buildMetadata that the author asked for only.
func kustomizePlain(fsys *snapshotFS, start prepared) (resmap.ResMap, error) {
	annotated := fsys.overlay[start.file]
	text, err := withMetadata(annotated, start.metadata)
	if err != nil {
		return nil, err
	}
	fsys.overlay[start.file] = text
	defer func() { fsys.overlay[start.file] = annotated }()
	fsys.kustoms, fsys.docs, fsys.redocs = 0, 0, -fsys.docs
	return kustomize(fsys, start.dir)
}

// kustomize runs one build. A panic in it, which odd input is known to cause,
// becomes an error.
func kustomize(fsys *snapshotFS, dir string) (result resmap.ResMap, err error) {
	defer func() {
		p := recover()
		if end, ok := p.(stopped); ok {
			result, err = nil, end.err
		} else if p != nil {
			result, err = nil, fmt.Errorf("kustomize cannot handle the input: %v", p)
		}
	}()
	options := &krusty.Options{LoadRestrictions: types.LoadRestrictionsNone, PluginConfig: types.DisabledPluginConfig()}
	return krusty.MakeKustomizer(options).Run(stoppingFS{fsys}, absolute(dir))
}

// objects prints the objects of a build. Annotated is the same build with
// origins, or nil where that failed.
func objects(fsys *snapshotFS, start prepared, annotated, plain resmap.ResMap) (build.Rendering, error) {
	result := build.Rendering{Warnings: start.deprecated}
	where := newOrigins(fsys, start)
	for i, res := range plain.Resources() {
		var source = res
		if annotated != plain {
			source = nil
			if annotated != nil && i < annotated.Size() && annotated.Resources()[i].CurId() == res.CurId() {
				source = annotated.Resources()[i]
			}
		}
		origin := where.of(res, source)
		if source == res {
			if err := strip(res, start.metadata); err != nil {
				return build.Rendering{}, err
			}
		}
		text, err := res.MarshalJSON()
		if err != nil {
			return build.Rendering{}, fmt.Errorf("print %s: %w", res.CurId(), err)
		}
		result.Objects = append(result.Objects, build.Object{JSON: text, Origin: origin, Sensitive: fsys.secrets.in(text)})
	}
	return result, nil
}

func wants(metadata []string, option string) bool { return slices.Contains(metadata, option) }

// first is the first error there is.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
