package gitops

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// Digest is the SHA-256 of rendered bytes.
type Digest [sha256.Size]byte

// String is sha256:hex, the form in which digests appear in a status.
func (d Digest) String() string { return "sha256:" + hex.EncodeToString(d[:]) }

// Origin says where in its source an object is declared.
type Origin struct {
	// File is the path in the artifact, empty where it is not known.
	File string
	// Line is the first line of the YAML document in File, counted from 1; 0
	// where it is not known.
	Line int
	// Generator names the generator of a generated object, such as
	// "configMapGenerator in apps/kustomization.yaml"; empty for others.
	Generator string
	// Patches are the files of the patches that changed the object.
	Patches []string
}

// String is file:line, or "unknown origin".
func (o Origin) String() string {
	var b strings.Builder
	switch {
	case o.File != "" && o.Line > 0:
		fmt.Fprintf(&b, "%s:%d", o.File, o.Line)
	case o.File != "":
		b.WriteString(o.File)
	case o.Generator != "":
		b.WriteString(o.Generator)
	default:
		return "unknown origin"
	}
	if len(o.Patches) > 0 {
		b.WriteString(" (patched by " + strings.Join(o.Patches, ", ") + ")")
	}
	return b.String()
}

// ApplyMode is how an object is written.
type ApplyMode string

const (
	// ApplyOverride applies the object, takes over the fields of the managers
	// on the take-over list and removes what they added. It is the default.
	ApplyOverride ApplyMode = ""
	// ApplyMerge applies the object and leaves what other managers added.
	ApplyMerge ApplyMode = "Merge"
	// ApplyIfNotPresent creates the object and never changes it afterwards.
	ApplyIfNotPresent ApplyMode = "IfNotPresent"
	// ApplyIgnore never writes the object.
	ApplyIgnore ApplyMode = "Ignore"
)

// ObjectPolicy is what an object's own annotations and labels ask for.
type ObjectPolicy struct {
	Apply ApplyMode
	// Force recreates the object where an immutable field changed.
	Force bool
	// KeepOnPrune never deletes the object when it is no longer declared.
	KeepOnPrune bool
	// Unguarded lets the deletion of the object need no confirmation.
	Unguarded bool
	// Paused leaves the object alone: neither applied nor compared nor part of
	// the health of its owner; it stays in the inventory.
	Paused bool
}

// Manifest is one rendered object.
type Manifest struct {
	Ref ObjectRef
	// Version is the API version without its group, such as v1.
	Version string
	// JSON is the object as it is to be applied: compact JSON with sorted keys,
	// owner labels included, status excluded. It must not be changed.
	JSON []byte
	// Digest is that of JSON.
	Digest Digest
	Policy ObjectPolicy
	// Ignored are fields that are left to others once the object exists, as JSON
	// pointers into it (RFC 6901).
	Ignored []string
	// Sensitive marks an object whose values must not be shown: a Secret, or
	// one with decrypted values.
	Sensitive bool
	// Secrets are values in the object that must not be shown, of variables whose values
	// come from Secrets: unlike those of a Sensitive object they are known one by one.
	Secrets []string
	Origin  Origin
}

// APIVersion is group/version, or the version alone for the core group.
func (m Manifest) APIVersion() string {
	if m.Ref.Group == "" {
		return m.Version
	}
	return m.Ref.Group + "/" + m.Version
}

// ReadKind says what was asked of a Tree.
type ReadKind uint8

const (
	// ReadFile is the content of a file.
	ReadFile ReadKind = iota
	// ReadListing is the names and kinds of a directory's entries.
	ReadListing
	// ReadKindOf is whether a path exists and is a file or a directory.
	ReadKindOf
)

// Read is one observation that a build made of its snapshot. What it saw is
// kept as a sum, so that a later snapshot can be asked whether the same build
// would see the same.
type Read struct {
	Kind ReadKind
	Path string
	// Seen identifies what was seen: the sum of a file, the digest of a
	// listing, "file" or "dir"; "" where the path was missing.
	Seen string
}

// Trace is everything that a build read, in no particular order and without
// repetition: files, listings, and paths that were looked for and missing.
type Trace []Read

// Build is the result of rendering a snapshot for an owner.
type Build struct {
	// Digest is that of all rendered objects; equal digests mean that there is
	// nothing new to apply.
	Digest Digest
	// Revision is that of the snapshot. A build that is still valid for a later
	// revision is used again and keeps the one it was made from.
	Revision string
	// Manifests are ordered by ref and have no duplicates.
	Manifests []Manifest
	// Warnings are sentences for people, such as a deprecated field.
	Warnings []string
	Trace    Trace
}
