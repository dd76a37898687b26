package flux

import (
	"context"

	"github.com/plumb-gitops/plumb/internal/source"
)

// Git follows Git repositories for GitRepositories. The composition root hands
// in the adapter that does it.
type Git interface {
	// Fetch is that of source.Fetcher, for a request.
	Fetch(ctx context.Context, request GitRequest, known string) (source.Result, error)
	// Last gives what an earlier Fetch brought, from disk and without asking
	// the server; an error where there is nothing.
	Last(ctx context.Context, request GitRequest) (source.Result, error)
	// Retain removes what none of the requests needs.
	Retain(requests []GitRequest) error
}

// GitRequest is what a GitRepository follows, and how it is reached.
type GitRequest struct {
	// URL is that of the repository: http, https or ssh.
	URL   string
	Ref   GitRef
	Auth  GitAuth
	Proxy GitProxy
	// RecurseSubmodules shows the files of submodules too.
	RecurseSubmodules bool
	// Sparse are the only directories that are shown; all where it is empty.
	Sparse []string
}

// GitRef chooses a commit; see sourcev1.GitRepositoryRef.
type GitRef struct {
	Branch, Tag, SemVer, Name, Commit string
}

// GitAuth is a credential; its zero value is none.
type GitAuth struct {
	Username, Password string
	BearerToken        string
	// CA, Certificate and Key are in PEM.
	CA, Certificate, Key []byte
	// Identity is an SSH private key, Passphrase what opens it.
	Identity   []byte
	Passphrase string
	// KnownHosts are the keys of SSH servers.
	KnownHosts []byte
}

// GitProxy is a proxy to be used instead of that of the environment.
type GitProxy struct {
	// Address is its URL: http, https or socks5.
	Address            string
	Username, Password string
}
