package git

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source"
	"github.com/plumb-gitops/plumb/internal/source/git/pack"
	"github.com/plumb-gitops/plumb/internal/source/git/wire"
)

// Result is what a Fetch found.
type Result struct {
	source.Result
	// Commit describes the commit.
	Commit Commit
	// Ref is the name of the ref; empty for a commit alone.
	Ref string
}

// Fetch finds out what a request's ref stands for, and gets what is missing of
// it. See source.Fetcher for what it promises.
func (s *Store) Fetch(ctx context.Context, request Request) (Result, error) {
	result, err := s.fetch(ctx, request, 0)
	if err != nil {
		return Result{}, failure(request, err)
	}
	return result, nil
}

func (s *Store) fetch(ctx context.Context, request Request, depth int) (Result, error) {
	if err := request.Ref.check(); err != nil {
		return Result{}, &gitops.Error{Stage: gitops.StageFetch, Kind: gitops.Stalled, Reason: ReasonFailed, Cause: err}
	}
	r, err := s.remote(request)
	if err != nil {
		return Result{}, err
	}
	found, err := r.choose(ctx, request.Ref)
	if err != nil {
		return Result{}, err
	}
	t, objects, err := r.bring(ctx, request.Ref, found)
	if err != nil {
		return Result{}, err
	}
	release := sync.OnceFunc(objects.set.Release)
	result, err := r.show(t, objects, request)
	if err == nil && request.RecurseSubmodules {
		err = s.addSubmodules(ctx, r, request, &result, objects, depth)
	}
	if err == nil && len(request.Sparse) > 0 {
		if result.Files, err = source.Sparse(result.Files, request.Sparse); err != nil {
			err = invalid(err)
		}
	}
	if err != nil {
		release()
		if result.Release != nil {
			result.Release()
		}
		return Result{}, err
	}
	below := result.Release
	result.Release = func() {
		release()
		if below != nil {
			below()
		}
	}
	return result, nil
}

// choose asks the server what the ref stands for.
func (r *remote) choose(ctx context.Context, ref Ref) (choice, error) {
	var refs []wire.Ref
	var err error
	if prefixes := ref.prefixes(); len(prefixes) > 0 {
		if refs, err = r.lists.ask(ctx, prefixes, r.client.Refs); err != nil {
			return choice{}, err
		}
	}
	if found, ok := ref.choose(refs); ok {
		return found, nil
	}
	return choice{}, r.missing(ctx, ref)
}

// mostListed is how many refs a message names.
const mostListed = 8

// missing says that there is no such ref, and which ones there are.
func (r *remote) missing(ctx context.Context, ref Ref) error {
	all, err := r.client.Refs(ctx, []string{"refs/heads/", "refs/tags/"})
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return &gitops.Error{
			Stage: gitops.StageFetch, Kind: gitops.Invalid, Reason: ReasonEmpty,
			Cause: errors.New("the repository is empty; push a commit"),
		}
	}
	prefix, what := "refs/heads/", "branches"
	if p := ref.prefixes()[0]; strings.HasPrefix(p, "refs/tags/") {
		prefix, what = "refs/tags/", "tags"
	}
	var names []string
	for _, ref := range all {
		if name, ok := strings.CutPrefix(ref.Name, prefix); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	text := fmt.Sprintf("the repository does not have it; its %s are %s", what, listNames(names))
	if len(names) == 0 {
		text = fmt.Sprintf("the repository does not have it, and no %s at all", what)
	}
	return invalid(errors.New(text))
}

func listNames(names []string) string {
	more := ""
	if len(names) > mostListed {
		more = fmt.Sprintf(" and %d more", len(names)-mostListed)
		names = names[:mostListed]
	}
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = fmt.Sprintf("%q", name)
	}
	return strings.Join(quoted, ", ") + more
}

// bring makes sure that the store has the chosen commit. The caller releases
// the Set of the objects.
func (r *remote) bring(ctx context.Context, ref Ref, found choice) (tip, *objects, error) {
	key, want := ref.key(), found.want.String()
	if t, objects, ok := r.acquire(key); ok {
		if t.Want == want {
			return t, objects, nil
		}
		objects.set.Release()
	}
	if err := r.lock(ctx); err != nil {
		return tip{}, nil, err
	}
	defer r.unlock()
	if err := r.open(); err != nil {
		return tip{}, nil, err
	}
	if t, objects, ok := r.acquire(key); ok {
		if t.Want == want {
			return t, objects, nil
		}
		objects.set.Release()
	}
	if err := r.update(ctx, ref, found); err != nil {
		return tip{}, nil, err
	}
	t, objects, ok := r.acquire(key)
	if !ok {
		return tip{}, nil, &wire.Error{Code: wire.CodeCanceled, Text: "the repository is not followed any more"}
	}
	r.tidy()
	return t, objects, nil
}

// update moves a tip to the chosen commit, and fetches what it needs. The
// caller has the turn.
func (r *remote) update(ctx context.Context, ref Ref, found choice) error {
	r.mu.Lock()
	st, set := r.state.clone(), r.set
	set.Acquire()
	r.mu.Unlock()
	defer set.Release()

	next := tip{Want: found.want.String(), Ref: found.name}
	old, followed := st.Tips[ref.key()]
	same := followed && old.Ref == next.Ref && found.name != ""
	for _, other := range st.Tips {
		// Another tip stands there already; but only a fetch tells whether
		// the old commit of this one is behind it.
		if other.Want == next.Want && !same {
			next.Commit = other.Commit
			return r.add(nil, ref.key(), next)
		}
	}
	if ref.Commit != "" && ref.Branch != "" {
		if err := r.onBranch(ctx, ref); err != nil {
			return err
		}
	}
	p, answer, err := r.receive(ctx, ref, found, set, st, old)
	if err != nil {
		return err
	}
	read := set
	if p != nil {
		read = set.With(p)
		defer read.Release()
	}
	commit, err := r.read(read).peel(found.want)
	if err == nil {
		_, err = r.read(read).commit(commit)
	}
	if err != nil {
		return err
	}
	next.Commit = commit.String()
	if same {
		next.Lost = old.Lost
		if !answer.Descends && old.Commit != next.Commit {
			next.Lost = append(slices.Clone(old.Lost), old.Commit)
			next.Lost = next.Lost[max(0, len(next.Lost)-mostLost):]
		}
		next.Lost = slices.DeleteFunc(slices.Clone(next.Lost), func(c string) bool { return c == next.Commit })
	}
	return r.add(p, ref.key(), next)
}

// receive fetches the chosen commit into a new pack; nil where nothing new came.
func (r *remote) receive(ctx context.Context, ref Ref, found choice, set *pack.Set, st state, old tip) (*pack.Pack, wire.Answer, error) {
	want := wire.Want{ID: found.want, Have: haves(st, old)}
	if ref.Commit == "" && old.Commit != "" {
		want.Old, _ = pack.ParseID(old.Commit)
	}
	var p *pack.Pack
	take := func(in io.Reader) (err error) {
		p, err = pack.Receive(ctx, in, r.dir, r.name(), r.store.serial.Add(1), set, r.limits())
		return err
	}
	answer, err := r.client.Fetch(ctx, want, take)
	if wire.CodeOf(err) == wire.CodeMissing && ref.Commit != "" {
		// Some servers give out only what a ref names.
		answer, err = r.throughBranches(ctx, ref, found, take)
	}
	if err != nil && p != nil {
		set.With(p).Release()
		err = errors.Join(err, pack.Remove(r.dir, p.Name))
		p = nil
	}
	return p, answer, err
}

// mostHaves is how many tips are told to the server.
const mostHaves = 64

// haves are the commits that the store has, that of the same ref first.
func haves(st state, old tip) []pack.ID {
	commits := make([]string, 0, len(st.Tips)+1)
	for _, t := range st.Tips {
		commits = append(commits, t.Commit)
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

// onBranch makes sure that a commit is on the branch that goes with it.
func (r *remote) onBranch(ctx context.Context, ref Ref) error {
	refs, err := r.lists.ask(ctx, ref.prefixes(), r.client.Refs)
	if err != nil {
		return err
	}
	branch, ok := pick(refs, "refs/heads/"+ref.Branch)
	commit, err := pack.ParseID(ref.Commit)
	if err != nil || !ok {
		return r.missing(ctx, ref)
	}
	if branch.commit == commit {
		return nil
	}
	descends, err := r.client.Descends(ctx, branch.want, commit)
	if err == nil && !descends {
		err = invalid(fmt.Errorf("the commit is not on the branch"))
	}
	return err
}

// throughBranches fetches a commit that the server does not give out by name,
// with the whole history of the branch that it is on.
func (r *remote) throughBranches(ctx context.Context, ref Ref, found choice, take func(io.Reader) error) (wire.Answer, error) {
	if ref.Branch == "" {
		return wire.Answer{}, &wire.Error{Code: wire.CodeMissing, Text: "the server does not have the commit, or gives out only what is named by a ref; name its branch too"}
	}
	refs, err := r.client.Refs(ctx, ref.prefixes())
	if err != nil {
		return wire.Answer{}, err
	}
	branch, ok := pick(refs, "refs/heads/"+ref.Branch)
	if !ok {
		return wire.Answer{}, r.missing(ctx, ref)
	}
	answer, err := r.client.Fetch(ctx, wire.Want{ID: branch.want, History: true}, take)
	if err != nil {
		return answer, err
	}
	return wire.Answer{}, nil
}

// show makes a result of a tip.
func (r *remote) show(t tip, o *objects, request Request) (Result, error) {
	id, err := pack.ParseID(t.Commit)
	if err != nil {
		r.broken.Store(true)
		return Result{}, err
	}
	commit, err := o.commit(id)
	if err != nil {
		return Result{}, err
	}
	revision := request.Ref.revision(choice{commit: id, name: t.Ref})
	result := Result{Commit: commit.Commit, Ref: t.Ref}
	result.Revision = revision
	result.Unchanged = request.Known == revision
	result.Files = &tree{objects: o, root: commit.tree}
	result.Metadata = map[string]string{
		"commit":  commit.Hash,
		"author":  commit.Author.String(),
		"message": firstLine(commit.Message),
	}
	if _, hash, ok := strings.Cut(request.Known, "sha1:"); ok {
		result.Rewritten = slices.Contains(t.Lost, hash)
	}
	return result, nil
}

// longestLine is the most of a commit's message that is handed on.
const longestLine = 200

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	if len(line) > longestLine {
		line = strings.ToValidUTF8(line[:longestLine], "") + "…"
	}
	return line
}
