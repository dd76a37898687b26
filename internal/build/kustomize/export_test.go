package kustomize

import "context"

// AloneWithSchema lets a test run something else that changes the process-wide
// schema: Flux's own package resets it around each build.
func AloneWithSchema(build func()) { _ = aloneWithSchema(context.Background(), build) }
