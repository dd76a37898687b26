package git

import (
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"slices"

	"github.com/plumb-gitops/plumb/internal/source"
	"github.com/plumb-gitops/plumb/internal/source/git/pack"
	"github.com/plumb-gitops/plumb/internal/source/git/wire"
)

// gathering is what a fetch builds on, and what it brought.
type gathering struct {
	// read are the packs that are there and those that came. Who has a gathering
	// releases it.
	read  *pack.Set
	dir   *os.Root
	state state
	// old is the tip that is moved.
	old tip
	// paths are those of which files are needed; none where all are.
	paths []string
	// packs are what came, bytes its length, and made what it was when it was inflated.
	packs       []*pack.Pack
	bytes, made int64
}

// begin makes a gathering of its own that builds on the same.
func (g gathering) begin() *gathering {
	g.read.Acquire()
	return &g
}

// take adds a pack that came.
func (g *gathering) take(p *pack.Pack) {
	read := g.read.With(p)
	g.read.Release()
	g.read, g.packs = read, append(g.packs, p)
	g.bytes, g.made = g.bytes+p.Size, g.made+p.Made
}

// drop gives up what came.
func (g *gathering) drop(because error) error {
	g.read.Release()
	return errors.Join(because, remove(g.dir, g.packs))
}

// receive fetches the chosen commit. With paths, only files below them are fetched
// where the server can leave the others out; the result says so by its own paths.
func (r *remote) receive(ctx context.Context, request Request, found choice, g gathering) (*gathering, error) {
	if len(g.paths) > 0 {
		got := g.begin()
		err := r.receiveSome(ctx, found, got)
		if err == nil {
			return got, nil
		}
		err = got.drop(err)
		if !errors.Is(err, wire.ErrNoFilter) && wire.CodeOf(err) != wire.CodeMissing {
			return nil, err
		}
	}
	got := g.begin()
	got.paths = nil
	want := wire.Want{ID: found.want, Have: haves(g.state, g.old, true)}
	err := r.client.Fetch(ctx, want, r.taker(ctx, got))
	if ref := request.Ref; wire.CodeOf(err) == wire.CodeMissing && ref.Commit != "" {
		// Some servers give out only what a ref names.
		err = r.throughBranch(ctx, ref, r.taker(ctx, got))
	}
	if err != nil {
		return nil, got.drop(err)
	}
	return got, nil
}

// taker stores the packs that come in.
func (r *remote) taker(ctx context.Context, g *gathering) func(io.Reader) error {
	return func(in io.Reader) error {
		limits := r.limits()
		limits.Bytes, limits.Made = max(1, limits.Bytes-g.bytes), max(1, limits.Made-g.made)
		p, err := pack.Receive(ctx, source.Counted(ctx, in), g.dir, r.name(), r.store.serial.Add(1), g.read, limits)
		if p != nil {
			g.take(p)
		}
		return err
	}
}

// batch is how many files are asked for at once: a request of half a megabyte.
const batch = 10_000

// receiveSome fetches the chosen commit with all directories, and then the files below
// the paths that are not there yet, so that nothing has to be fetched when they are
// read. The error wraps wire.ErrNoFilter where the server cannot do it.
func (r *remote) receiveSome(ctx context.Context, found choice, g *gathering) error {
	want := wire.Want{ID: found.want, Have: haves(g.state, g.old, false), NoFiles: true}
	if err := r.client.Fetch(ctx, want, r.taker(ctx, g)); err != nil {
		return err
	}
	missing, err := r.missingFiles(ctx, found.want, g)
	if err != nil {
		return err
	}
	for names := range slices.Chunk(missing, batch) {
		if err := r.client.Objects(ctx, names, r.taker(ctx, g)); err != nil {
			return err
		}
	}
	if missing, err = r.missingFiles(ctx, found.want, g); err == nil && len(missing) > 0 {
		err = &wire.Error{Code: wire.CodeMissing, Text: "the server does not send a file by its name"}
	}
	return err
}

// missingFiles are the files below the paths that are in no pack.
func (r *remote) missingFiles(ctx context.Context, want pack.ID, g *gathering) ([]pack.ID, error) {
	objects := r.read(g.read)
	id, err := objects.peel(want)
	if err != nil {
		return nil, err
	}
	commit, err := objects.commit(id)
	if err != nil {
		return nil, err
	}
	var missing []pack.ID
	err = objects.filesBelow(ctx, commit.tree, g.paths, func(id pack.ID) {
		if !g.read.Has(id) {
			missing = append(missing, id)
		}
	})
	return missing, err
}

// mostHaves is how many tips are told to the server.
const mostHaves = 64

// haves are the commits that the store has, that of the same ref first; with whole
// only those of which it has all files: a server takes them for granted.
func haves(st state, old tip, whole bool) []pack.ID {
	commits := make([]string, 0, len(st.Tips)+1)
	for _, t := range st.Tips {
		if t.whole() || !whole {
			commits = append(commits, t.Commit)
		}
	}
	slices.SortFunc(commits, func(a, b string) int {
		return cmp.Or(-compareBool(a == old.Commit, b == old.Commit), cmp.Compare(a, b))
	})
	commits = slices.Compact(commits)
	var ids []pack.ID
	for _, commit := range commits[:min(len(commits), mostHaves)] {
		if id, err := pack.ParseID(commit); err == nil {
			ids = append(ids, id)
		}
	}
	return ids
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	default:
		return -1
	}
}
