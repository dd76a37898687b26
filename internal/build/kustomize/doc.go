// Package kustomize renders directories as Flux does: a directory without a
// kustomization file gets one generated, the owner's own wishes are merged into
// it, and kustomize builds it.
//
// kustomize reads through a file system over the snapshot, with the files made
// here in an overlay in memory: nothing touches a disk, nothing outside the
// snapshot can be read, and what was read is known. Programs, plugins and Helm
// are off. Remote bases are refused before anything is fetched, unless they are
// allowed; a build that fetched one is never used again.
//
// Inputs of generators and files of patches may be encrypted: they are decrypted as
// they are read, after the read has been traced, and their plain text stays in the
// file system of the build. An object that holds any of it is marked, and an error
// that would quote it is masked.
//
// What a file may cost is checked before kustomize parses it (Limits), and an
// error says which file, line and object are at fault. kustomize keeps its
// OpenAPI schema in variables of its process: it is loaded once and then only
// read, so builds run in parallel; a tree that sets a schema of its own builds
// alone, and the schema is restored after it.
//
// The composition root hands a Renderer to package build.
package kustomize
