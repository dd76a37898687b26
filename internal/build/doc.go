// Package build renders a snapshot for an owner: (Snapshot, Spec) → gitops.Build.
//
// A build is a pure function of the files it really read and of its Spec. The
// Builder hands the renderer a file system that writes down every observation
// (content, listing, existence, and what was looked for and missing), so that a
// later snapshot can be asked, without rendering anything, whether the same
// build would see the same. A build that failed is traced in the same way: its
// Failure carries the trace, and only a snapshot or a Spec that differs in what
// was observed is worth another try.
//
// The way of a build: the Renderer makes objects, the Substituter replaces their
// variables, the Builder adds common metadata and the owner's labels, the
// Normaliser gives the object the form in which it is applied, and the Builder
// checks and orders the result. The steps are handed in; this package knows
// neither kustomize nor an API group.
//
// The engine uses it.
package build
