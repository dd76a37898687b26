package kustomize

// AloneWithSchema lets a test run something else that changes the process-wide
// schema: Flux's own package resets it around each build.
var AloneWithSchema = aloneWithSchema
