package build

import (
	"context"
	"io/fs"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// Files is the part of a snapshot that a renderer may look at. What it is asked
// is written down in the build's trace. It is not safe for concurrent use.
type Files interface {
	fs.ReadFileFS
	fs.ReadDirFS
	fs.StatFS
}

// Object is one object on its way through the steps.
type Object struct {
	// JSON is the object.
	JSON []byte
	// Origin is where it is declared.
	Origin gitops.Origin
	// Sensitive is set where it holds something that was decrypted.
	Sensitive bool
}

// Rendering is what a Renderer made.
type Rendering struct {
	// Objects are in the renderer's own order.
	Objects []Object
	// Warnings are sentences for people.
	Warnings []string
	// Unrepeatable marks a rendering that depends on more than the files and
	// the Spec, such as a remote base. It is never used again.
	Unrepeatable bool
}

// Renderer makes objects of files. Whatever it depends on must come from files
// and spec, unless it says that the rendering is unrepeatable. An error for
// which the author of the files is to blame is a *gitops.Error; its text names
// file, line and object where they are known, is the same for the same files, and
// holds nothing that was decrypted. Keys opens the encrypted files that objects are
// made of; it is nil where nothing is to be decrypted.
type Renderer interface {
	Render(ctx context.Context, files Files, spec Spec, keys Keyring) (Rendering, error)
}

// Substituter replaces variables in one object and returns the new object.
type Substituter interface {
	Substitute(object []byte, substitution Substitution) ([]byte, error)
}

// Normaliser gives an object the form in which it is to be applied. It may
// change its argument and return it.
type Normaliser interface {
	Normalise(object map[string]any) (map[string]any, error)
}

// Steps are the replaceable parts of a build. All are needed but for the
// Decrypter, without which a Spec that asks for decryption cannot be built.
type Steps struct {
	Renderer    Renderer
	Decrypter   Decrypter
	Substituter Substituter
	Normaliser  Normaliser
	// Limits bound the result; the zero value takes the defaults.
	Limits Limits
}

// Limits bound what a build may produce. A zero field takes its default.
type Limits struct {
	// Objects is the number of objects of one build. Default 10,000.
	Objects int
	// ObjectBytes is the length of one object as JSON. Default 3 MiB, which is
	// what an API server takes in one request.
	ObjectBytes int
	// TotalBytes is the length of all objects together. Default 64 MiB.
	TotalBytes int
}

func (l Limits) withDefaults() Limits {
	if l.Objects == 0 {
		l.Objects = 10_000
	}
	if l.ObjectBytes == 0 {
		l.ObjectBytes = 3 << 20
	}
	if l.TotalBytes == 0 {
		l.TotalBytes = 64 << 20
	}
	return l
}
