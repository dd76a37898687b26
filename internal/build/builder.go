package build

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// Reasons of conditions for failures of a build, as Flux names them.
const (
	ReasonBuildFailed    = "BuildFailed"
	ReasonArtifactFailed = "ArtifactFailed"
)

// Builder makes builds. It is safe for concurrent use.
type Builder struct {
	steps  Steps
	limits Limits
	// secret keys the spec's part of a trace. It lives as long as the process,
	// so that a trace tells nothing about the values of variables.
	secret []byte
}

// New makes a Builder of its steps. It panics where a step is missing: that is
// a mistake of the program that composes them.
func New(steps Steps) *Builder {
	if steps.Renderer == nil || steps.Substituter == nil || steps.Normaliser == nil {
		panic("build: a step is missing")
	}
	b := &Builder{steps: steps, limits: steps.Limits.withDefaults(), secret: make([]byte, sha256.Size)}
	// Read never fails: it ends the program where there is no randomness.
	_, _ = rand.Read(b.secret)
	return b
}

// Failure is a build that failed because of its files or its Spec. It is the
// same for every snapshot for which Builder.Current holds, and for such a
// snapshot there is nothing to try again.
type Failure struct {
	// Trace is what was read until the build failed.
	Trace gitops.Trace
	// Err is a *gitops.Error.
	Err error
}

// Error is the text of Err.
func (f *Failure) Error() string { return f.Err.Error() }

// Unwrap gives Err.
func (f *Failure) Unwrap() error { return f.Err }

// Current tells whether a build with this trace, finished or failed, would come
// out the same for spec on tree. It renders and reads nothing.
func (b *Builder) Current(trace gitops.Trace, tree gitops.Tree, spec Spec) bool {
	key, err := spec.key(b.secret)
	if err != nil {
		return false
	}
	return madeFor(trace, key) && Valid(trace, tree)
}

func madeFor(trace gitops.Trace, key string) bool {
	return slices.ContainsFunc(trace, func(r gitops.Read) bool { return r.Kind == readSpec && r.Seen == key })
}

// Build renders the snapshot. Where previous is still current it is returned
// and reused is set; previous may be nil. A new build of unchanged result has
// the digest of the old one.
//
// The error is a *Failure where files or Spec are to blame, the context's error
// where the context ended, and a *gitops.Error of another kind elsewhere.
func (b *Builder) Build(ctx context.Context, snapshot gitops.Snapshot, spec Spec, previous *gitops.Build) (build *gitops.Build, reused bool, err error) {
	key, err := spec.key(b.secret)
	if err != nil {
		return nil, false, &gitops.Error{Stage: gitops.StageBuild, Kind: gitops.Internal, Reason: ReasonBuildFailed, Cause: err}
	}
	if previous != nil && madeFor(previous.Trace, key) && Valid(previous.Trace, snapshot.Files) {
		return previous, true, nil
	}
	files := newRecorder(ctx, snapshot.Files)
	result, err := b.render(ctx, files, spec)
	trace := append(files.trace(), gitops.Read{Kind: readSpec, Seen: key})
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return nil, false, ctx.Err()
	case files.broken != nil:
		return nil, false, &gitops.Error{Stage: gitops.StageBuild, Kind: gitops.Transient, Reason: ReasonArtifactFailed,
			Cause: fmt.Errorf("read snapshot %q: %w", snapshot.Artifact.Revision, files.broken)}
	case isTransient(err):
		return nil, false, err
	default:
		return nil, false, &Failure{Trace: trace, Err: asError(err)}
	}
	if result.unrepeatable {
		trace = append(trace, gitops.Read{Kind: readUnrepeatable})
	}
	return &gitops.Build{
		Digest:    digestOf(result.manifests),
		Revision:  snapshot.Artifact.Revision,
		Manifests: result.manifests,
		Warnings:  result.warnings,
		Trace:     trace,
	}, false, nil
}

// rendered is the outcome of all steps.
type rendered struct {
	manifests    []gitops.Manifest
	warnings     []string
	unrepeatable bool
}

// render runs the steps.
func (b *Builder) render(ctx context.Context, files Files, spec Spec) (rendered, error) {
	keys, err := b.unlock(spec)
	if err != nil {
		return rendered{}, err
	}
	ignored, err := compileIgnored(spec.Ignore)
	if err != nil {
		return rendered{}, err
	}
	rendering, err := b.steps.Renderer.Render(ctx, files, spec, keys)
	if err != nil {
		return rendered{}, err
	}
	finish := finisher{steps: b.steps, limits: b.limits, spec: spec, keys: keys, ignored: ignored}
	result := rendered{warnings: rendering.Warnings, unrepeatable: rendering.Unrepeatable}
	result.manifests = make([]gitops.Manifest, 0, len(rendering.Objects))
	for _, object := range rendering.Objects {
		if err := ctx.Err(); err != nil {
			return rendered{}, err
		}
		manifests, err := finish.object(ctx, object)
		if err != nil {
			return rendered{}, err
		}
		result.manifests = append(result.manifests, manifests...)
		if len(result.manifests) > b.limits.Objects {
			return rendered{}, fmt.Errorf("more than %d objects in one build: split it into several", b.limits.Objects)
		}
	}
	if finish.bytes > b.limits.TotalBytes {
		return rendered{}, fmt.Errorf("the objects are %d bytes together, the limit is %d: split the build into several", finish.bytes, b.limits.TotalBytes)
	}
	slices.SortFunc(result.manifests, func(a, b gitops.Manifest) int { return gitops.CompareRefs(a.Ref, b.Ref) })
	return result, checkDuplicates(result.manifests)
}

// checkDuplicates looks for an object that is declared twice. Objects that
// become the same only by the default namespace are left to the plan.
func checkDuplicates(ordered []gitops.Manifest) error {
	for i := 1; i < len(ordered); i++ {
		a, b := ordered[i-1], ordered[i]
		if a.Ref == b.Ref {
			first, second := a.Origin.String(), b.Origin.String()
			if second < first {
				first, second = second, first
			}
			return &gitops.Error{Stage: gitops.StageBuild, Kind: gitops.Invalid, Reason: ReasonBuildFailed, Ref: a.Ref,
				Cause: fmt.Errorf("declared twice, in %s and in %s: remove one of them", first, second)}
		}
	}
	return nil
}

// isTransient tells whether a step says that the same build may succeed later.
func isTransient(err error) bool {
	var known *gitops.Error
	return errors.As(err, &known) && known.Kind == gitops.Transient
}

// asError makes sure that an error can be reported.
func asError(err error) error {
	var known *gitops.Error
	if errors.As(err, &known) {
		return err
	}
	return &gitops.Error{Stage: gitops.StageBuild, Kind: gitops.Invalid, Reason: ReasonBuildFailed, Cause: err}
}

// digestOf identifies ordered manifests.
func digestOf(ordered []gitops.Manifest) gitops.Digest {
	h := sha256.New()
	for _, m := range ordered {
		h.Write(m.Digest[:])
	}
	return gitops.Digest(h.Sum(nil))
}
