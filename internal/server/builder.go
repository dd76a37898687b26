package server

import (
	"os"

	"github.com/plumb-gitops/plumb/internal/build"
	"github.com/plumb-gitops/plumb/internal/build/kustomize"
	"github.com/plumb-gitops/plumb/internal/build/sops"
	"github.com/plumb-gitops/plumb/internal/build/substitute"
	"github.com/plumb-gitops/plumb/internal/build/typed"
)

// NewBuilder puts together what renders snapshots, for the operator and for
// commands that show what it would do. RemoteBases allows bases that are URLs.
//
// Without it the build refuses every address before kustomize sees it. Should one
// slip through, git, which kustomize runs with the environment of this process,
// may not use any protocol: there is no other way to take git from kustomize.
// What else starts git drops Git's variables from the environment.
//
// It decrypts with the keys of Secrets only, and logs in nowhere.
func NewBuilder(remoteBases bool) *build.Builder { return newBuilder(remoteBases, sops.Options{}) }

func newBuilder(remoteBases bool, decryption sops.Options) *build.Builder {
	if !remoteBases {
		_ = os.Setenv("GIT_ALLOW_PROTOCOL", "none") // Fails for names that are none only.
	}
	return build.New(build.Steps{
		Renderer:    kustomize.New(kustomize.Options{RemoteBases: remoteBases}),
		Decrypter:   sops.New(decryption),
		Substituter: substitute.New(0),
		Normaliser:  typed.New(),
	})
}
