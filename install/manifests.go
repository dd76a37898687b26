// Package install holds the manifests of the operator as it runs in a cluster.
//
// The folder is what kustomize builds (kubectl apply -k) and what plumb install
// renders: the files are the one source of both, and a test compares them. They
// are written for namespace flux-system and the version "unreleased";
// internal/install puts others in their place.
package install

import "embed"

// Files are base, single and tenants, each a folder for kustomize.
//
//go:embed base/*.yaml single/*.yaml tenants/*.yaml
var Files embed.FS
