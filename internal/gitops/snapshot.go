package gitops

import (
	"io/fs"
	"time"
)

// Artifact describes one immutable revision of a source.
type Artifact struct {
	// Source is what the artifact was made for.
	Source OwnerRef
	// Revision names the revision in the form of the source's kind, such as
	// main@sha1:… for Git.
	Revision string
	// Digest is algorithm:hex of the packed artifact, empty until it is packed.
	Digest string
	// Size is the length of the packed artifact in bytes.
	Size int64
	// Time is when the artifact was made.
	Time time.Time
	// Metadata holds the annotations of the upstream revision, if it has any.
	Metadata map[string]string
}

// Tree is the read-only view of an artifact's files: exactly the regular files
// that the packed artifact holds, and the directories that lead to them. There
// are no symbolic links in it. Paths are those of io/fs: slash-separated,
// relative, without "." and ".." elements.
type Tree interface {
	fs.ReadFileFS
	fs.ReadDirFS
	fs.StatFS

	// Sum identifies the content at a path without reading it: of a file its
	// bytes and its executable bit, of a directory everything below it. Equal
	// sums of one kind mean equal content; sums are comparable between trees of
	// one source. The error wraps fs.ErrNotExist where the path is missing.
	Sum(path string) (string, error)
}

// Snapshot is an artifact together with its files. It can be read until Release
// is called; the files of a released snapshot may be collected.
type Snapshot struct {
	Artifact Artifact
	Files    Tree
	// Sum is that of all Files, found out once; nil where nobody has to know it.
	Sum func() (string, error)
	// Release gives the snapshot back. It is nil where nothing has to be given back.
	Release func()
}
