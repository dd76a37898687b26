package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/source/git/pack"
	"github.com/plumb-gitops/plumb/internal/source/git/wire"
)

// farthest is how many commits back a predecessor is looked for.
const farthest = 1000

// descends tells whether a commit descends from another one, whose parents are
// known. The store has no history, so the server is asked for the commits that
// are not behind those parents; the other commit is among them or it is not a
// predecessor. What comes is in the folder meanwhile.
func (r *remote) descends(ctx context.Context, dir *os.Root, commit, from pack.ID, parents []pack.ID) (bool, error) {
	found := false
	err := r.client.Commits(ctx, commit, parents, farthest, func(in io.Reader) error {
		history, err := pack.Receive(ctx, artifact.Counted(ctx, in), dir, r.name(), r.store.serial.Add(1), nil, r.limits())
		if err != nil || history == nil {
			return err
		}
		// It is gone before the answer ends, which may be with an error.
		set := pack.NewSet(nil, r.limits(), history)
		defer set.Release()
		found = set.Has(from)
		return pack.Remove(dir, history.Name)
	})
	if errors.Is(err, wire.ErrNoFilter) {
		return r.client.Descends(ctx, commit, from)
	}
	return found, err
}

// onBranch makes sure that a commit is on the branch that goes with it.
func (r *remote) onBranch(ctx context.Context, dir *os.Root, ref Ref, commit commitObject) error {
	refs, err := r.lists.ask(ctx, question{prefix: ref.prefix()})
	if err != nil {
		return err
	}
	branch, ok := pick(refs, "refs/heads/"+ref.Branch)
	if !ok {
		return r.missing(ctx, ref)
	}
	id, err := pack.ParseID(commit.Hash)
	if err != nil || branch.commit == id {
		return err
	}
	descends, err := r.descends(ctx, dir, branch.want, id, commit.parents)
	if err == nil && !descends {
		err = invalid(fmt.Errorf("the commit is not among the last %d of the branch", farthest))
	}
	return err
}

// throughBranch fetches a commit that the server does not give out by name,
// with the whole history of the branch that it is on.
func (r *remote) throughBranch(ctx context.Context, ref Ref, take func(io.Reader) error) error {
	if ref.Branch == "" {
		return &wire.Error{Code: wire.CodeMissing, Text: "the server does not have the commit, or gives out only what a ref names; name its branch too"}
	}
	refs, err := r.client.Refs(ctx, []string{ref.prefix()})
	if err != nil {
		return err
	}
	i := slices.IndexFunc(refs, func(have wire.Ref) bool { return have.Name == "refs/heads/"+ref.Branch })
	if i < 0 {
		return r.missing(ctx, ref)
	}
	return r.client.Fetch(ctx, wire.Want{ID: refs[i].ID, History: true}, take)
}
