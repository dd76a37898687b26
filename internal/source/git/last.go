package git

import (
	"context"
	"fmt"
	"sync"

	"github.com/plumb-gitops/plumb/internal/source"
	"github.com/plumb-gitops/plumb/internal/source/git/wire"
)

// Last gives what an earlier Fetch of the same request brought, from disk and
// without asking the server: what can be worked with after a restart while the
// server is away. It is an error where there is nothing, and for a request with
// submodules, whose other repositories would have to be asked.
func (s *Store) Last(ctx context.Context, request Request) (Result, error) {
	dirs, err := request.sparse()
	if err != nil {
		return Result{}, err
	}
	r, err := s.remote(ctx, request)
	if err != nil {
		return Result{}, err
	}
	if err := r.open(); err != nil {
		return Result{}, fmt.Errorf("open store of %q: %w", redacted(request.URL), err)
	}
	t, objects, ok := r.acquire(request.tip())
	if !ok {
		return Result{}, &wire.Error{Code: wire.CodeMissing, Text: "nothing was fetched before"}
	}
	result, err := r.show(t, objects, request)
	if err == nil {
		shown := result.Files.(*tree).within(ctx)
		defer shown.over()
		err = s.newVisit().enter(ctx, r, request, shown, dirs)
	}
	if err == nil && request.RecurseSubmodules {
		// It is kept for the namespace nevertheless, which enter has said.
		err = fmt.Errorf("the last revision of %q has submodules", redacted(request.URL))
	}
	if err == nil && len(request.Sparse) > 0 {
		result.Files, err = source.Sparse(result.Files, request.Sparse)
	}
	if err != nil {
		objects.set.Release()
		return Result{}, err
	}
	result.Release = sync.OnceFunc(objects.set.Release)
	return result, nil
}
