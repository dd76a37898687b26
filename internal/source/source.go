// Package source brings the content of the outside world in: it defines what
// fetching means for every kind of source, and how the files of a source are
// narrowed and joined before anybody sees them.
//
// A Fetcher is bound to one source: a repository and a branch with a
// credential, say. What it fetches is a gitops.Tree, which shows exactly the
// regular files that the packed artifact holds. Filter, Sparse and Overlay take
// a Tree and give another one, lazily: nothing is read before it is asked for.
// Their sums stay as cheap as those of the Tree below, and two equal sums still
// mean that everything below the path is equal.
//
// Adapters (git, oci and others) import this package, and keep what they fetched in
// a Folder; front ends use the interface and hand in adapters. sourcetest holds the
// tests that every adapter has to pass.
package source

import (
	"context"
	"io"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// Fetcher gets the present revision of one source.
type Fetcher interface {
	// Fetch finds out what the source holds now and gets what is missing. Known
	// is the revision that the caller has, empty where it has none: when the
	// source still holds it, the Result says Unchanged, and the remote was
	// asked for nothing but that.
	//
	// It ends at the deadline of ctx whatever the remote does. Errors are
	// *gitops.Error with a reason and a text that names the remote, with
	// credentials left out, and what to do; the text of a failure that repeats
	// is the same each time. A failed Fetch takes nothing away: what was
	// fetched before can still be read.
	Fetch(ctx context.Context, known string) (Result, error)
}

// Result is what a Fetch found.
type Result struct {
	// Revision names what the source holds, in the form of its kind.
	Revision string
	// Unchanged is set when Revision is the one that the caller knew.
	Unchanged bool
	// Rewritten is set when the revision that the caller knew is not a
	// predecessor of this one: somebody force-pushed.
	Rewritten bool
	// Files are the files of the revision. They can be read until Release.
	Files gitops.Tree
	// Packed opens the file that is to be served for others, where that is not what
	// the files make when they are packed: a chart, or a layer that is copied as it
	// is. It is nil for all others, and can be called until Release.
	Packed func() (io.ReadCloser, error)
	// Release gives the files back; it may be called more than once. It is
	// never nil in a Result without an error.
	Release func()
	// Metadata describes the revision for events, such as its author; for OCI it is the
	// annotations of the artifact.
	Metadata map[string]string
	// Verified says which signature of the revision was verified; empty where none was
	// asked for.
	Verified string
}
