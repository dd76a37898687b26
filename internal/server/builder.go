package server

import (
	"github.com/plumb-gitops/plumb/internal/build"
	"github.com/plumb-gitops/plumb/internal/build/kustomize"
	"github.com/plumb-gitops/plumb/internal/build/substitute"
	"github.com/plumb-gitops/plumb/internal/build/typed"
)

// NewBuilder puts together what renders snapshots, for the operator and for
// commands that show what it would do. RemoteBases allows bases that are URLs.
func NewBuilder(remoteBases bool) *build.Builder {
	return build.New(build.Steps{
		Renderer:    kustomize.New(kustomize.Options{RemoteBases: remoteBases}),
		Substituter: substitute.New(0),
		Normaliser:  typed.New(),
	})
}
