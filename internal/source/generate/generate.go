// Package generate composes new artifacts of the files of sources, after the copy
// rules of Flux's ArtifactGenerator: what is copied where, what is left out, what is
// merged and what is unpacked, and one artifact for each directory that a pattern finds.
//
// The result is a gitops.Tree over the Trees of the sources, made lazily: a directory
// that is copied as a whole is not even listed, nothing is written to a disk, and the sum
// of the result is made from those of the sources. What a commit does not touch has the
// sum that it had before.
//
// Patterns, archives and YAML come from others: all that is listed, unpacked, merged and
// generated in one run is bounded.
//
// This is no adapter of package source, but a transformation beside its Filter and
// Overlay; the front end uses it.
package generate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source"
)

// Strategy says what a copy does to a file that is there already, or with the file itself.
type Strategy string

// The strategies, as the API names them.
const (
	// Overwrite replaces files; it is the default.
	Overwrite Strategy = "Overwrite"
	// Merge merges YAML files as Helm merges values.
	Merge Strategy = "Merge"
	// Extract unpacks gzipped tars.
	Extract Strategy = "Extract"
)

// Source is one that is copied from.
type Source struct {
	// ID tells the source from others: sums are comparable between Trees of one ID.
	ID    string
	Files gitops.Tree
}

// Copy is one rule. Rules of an artifact are followed in order.
type Copy struct {
	// From is @alias/path or @alias/glob, To is @artifact/path.
	From, To string
	// Exclude are globs of what is left out, seen from the root of the source, or from
	// the part of From that is no glob. One without a slash is for names at any depth.
	Exclude  []string
	Strategy Strategy
}

// Unpack gives the regular files of the gzipped tar with a digest, algorithm:hex, which
// is opened where they are not at hand. They can be read until release is called.
type Unpack func(ctx context.Context, digest string, open func() (io.ReadCloser, error)) (files gitops.Tree, release func(), err error)

// Limits of one run, that is for all artifacts of a generator together.
const (
	// mostOutputs is how many artifacts one generator makes: all of them stand in its
	// status.
	mostOutputs = 2000
	// mostCopies is how many rules all artifacts have together, and mostRuleBytes how long
	// those are once placeholders are filled in.
	mostCopies    = 50_000
	mostRuleBytes = 32 << 20
	// mostNodes is how many files and directories are held for the artifacts: those that
	// are not copied as parts of whole directories.
	mostNodes = 500_000
	// mostPath and mostFolders bound the path that a rule copies to, in bytes and in depth:
	// no deeper artifact can be unpacked.
	mostPath    = 4096
	mostFolders = 100
	// mostListed is how many files and directories are looked at.
	mostListed = 2_000_000
	// mostMergedFile is how many bytes a file may have that is merged, with its
	// aliases written out, and mostMerged how many the results have together.
	mostMergedFile = 4 << 20
	mostMerged     = 32 << 20
	// mostExtracted is how many bytes the files of an archive may have, Flux's limit,
	// and mostExtractedFiles how many entries. What is compressed so well that the archive
	// holds more than twice as much is cut off, too.
	mostExtracted      = 100 << 20
	mostExtractedFiles = 100_000
	// mostArchives is how many archives are unpacked.
	mostArchives = 1000
	// deepest is how deep artifacts may be made of others in the process: each that a file
	// stands in is asked for it.
	deepest = 10
	// mostAlternatives is in how many ways the braces of a pattern can be read.
	mostAlternatives = 1000
)

// Composer composes the artifacts of one generator, in one run. It is for one goroutine.
type Composer struct {
	sources map[string]Source
	unpack  Unpack

	// What is left of the limits.
	listed, merged, archives, copies, nodes int
}

// New prepares a run over sources by their aliases.
func New(sources map[string]Source, unpack Unpack) *Composer {
	return &Composer{sources: sources, unpack: unpack, listed: mostListed, merged: mostMerged, archives: mostArchives, copies: mostCopies, nodes: mostNodes}
}

// Composition is a composed artifact.
type Composition struct {
	// Files are what is to be packed: all but what Flux's default ignore patterns leave
	// out. They can be read until Release is called, and for as long as the sources can.
	Files   gitops.Tree
	Release func()

	all gitops.Tree
}

// Compose follows the rules of one artifact. Errors are *gitops.Error, and say which rule
// cannot be followed and why.
func (c *Composer) Compose(ctx context.Context, rules []Copy) (Composition, error) {
	b := &composing{Composer: c, ctx: ctx, root: newDirectory()}
	depth, err := c.depth()
	if err != nil {
		return Composition{}, b.failure(err)
	}
	for _, rule := range rules {
		if err := b.copy(rule); err != nil {
			b.release()
			return Composition{}, b.failure(fmt.Errorf("copy from %q to %q: %w", rule.From, rule.To, err))
		}
	}
	b.root.prune()
	all := &composed{root: b.root, depth: depth}
	return Composition{Files: source.FilterDefaults(all), Release: b.release, all: all}, nil
}

// depth is how deep an artifact is made of others.
func (c *Composer) depth() (int, error) {
	depth := 1
	for alias, of := range c.sources {
		if depth = max(depth, 1+source.Depth(of.Files)); depth > deepest {
			return 0, fmt.Errorf("source @%s is made of artifacts that are made of others, %d deep already, which is the most that is allowed: copy from those", alias, deepest)
		}
	}
	return depth, nil
}

// composing is one artifact that is being composed.
type composing struct {
	*Composer
	ctx      context.Context
	root     *node
	releases []func()
}

func (b *composing) release() {
	for _, release := range b.releases {
		release()
	}
}

// failure says what kind of error it is: what the sources hold does not go with the
// rules, unless the run was ended or an archive could not be stored.
func (b *composing) failure(err error) error {
	kind := gitops.Invalid
	var stored *storageError
	if b.ctx.Err() != nil || errors.As(err, &stored) {
		kind = gitops.Transient
	}
	return &gitops.Error{Stage: gitops.StageFetch, Kind: kind, Reason: buildFailed, Cause: err}
}

// buildFailed is the reason of all errors.
const buildFailed = "BuildFailed"

// look counts files and directories that are looked at, and ends a run that is over.
func (c *Composer) look(ctx context.Context, n int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.listed -= n; c.listed < 0 {
		return fmt.Errorf("more than %d files and directories are looked at for the artifacts of one generator: copy less, or use several", mostListed)
	}
	return nil
}

// hold counts files and directories that an artifact is made of.
func (c *Composer) hold(n int) error {
	if c.nodes -= n; c.nodes < 0 {
		return fmt.Errorf("the artifacts of one generator are made of more than %d single files and directories: copy whole directories, or use several generators", mostNodes)
	}
	return nil
}

// source splits what a rule copies from into the source and a path or glob in it.
func (c *Composer) source(from string) (Source, string, error) {
	alias, pattern, ok := strings.Cut(from, "/")
	if alias, ok = cutAt(alias, ok); !ok {
		return Source{}, "", errors.New("what is copied from has to be @alias/path")
	}
	src, ok := c.sources[alias]
	if !ok {
		return Source{}, "", fmt.Errorf("no source has the alias %q", alias)
	}
	return src, pattern, nil
}

func cutAt(alias string, ok bool) (string, bool) {
	name, at := strings.CutPrefix(alias, "@")
	return name, at && ok
}
