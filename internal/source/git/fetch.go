package git

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

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
	// Verified are the signatures that were asked for.
	Verified []Verified
}

// Fetch finds out what a request's ref stands for, and gets what is missing of
// it. See source.Fetcher for what it promises.
func (s *Store) Fetch(ctx context.Context, request Request) (Result, error) {
	v := s.newVisit()
	defer s.leave(v)
	s.follow(request)
	result, err := s.fetch(ctx, request, v)
	if err != nil {
		return Result{}, failure(request, err)
	}
	return result, nil
}

func (s *Store) fetch(ctx context.Context, request Request, v *visit) (Result, error) {
	if err := ctx.Err(); err != nil {
		return Result{}, endOf(err)
	}
	if err := request.Ref.check(); err != nil {
		return Result{}, &gitops.Error{Stage: gitops.StageFetch, Kind: gitops.Stalled, Reason: ReasonFailed, Cause: err}
	}
	if err := request.Verify.check(request.Ref); err != nil {
		return Result{}, err
	}
	dirs, err := request.sparse()
	if err != nil {
		return Result{}, err
	}
	r, err := s.remote(ctx, request)
	if err != nil {
		return Result{}, err
	}
	found, err := r.choose(ctx, request, request.NotBefore)
	if err != nil {
		return Result{}, err
	}
	t, objects, err := r.bring(ctx, request, found)
	if wire.CodeOf(err) == wire.CodeMissing && !request.NotBefore.IsZero() {
		// The answer may be older than a force-push.
		if found, err = r.choose(ctx, request, time.Time{}); err == nil {
			t, objects, err = r.bring(ctx, request, found)
		}
	}
	if err != nil {
		return Result{}, err
	}
	release := sync.OnceFunc(objects.set.Release)
	result, err := r.show(t, objects, request)
	if err == nil {
		shown := result.Files.(*tree).within(ctx)
		defer shown.over()
		err = v.enter(ctx, r, request, shown, dirs)
	}
	if err == nil && request.RecurseSubmodules {
		err = s.addSubmodules(ctx, r, request, &result, objects, v)
	}
	if err == nil && len(request.Sparse) > 0 {
		if result.Files, err = source.Sparse(result.Files, request.Sparse); err != nil {
			err = endedOr(ctx, invalid(err))
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

// choose asks the server what the ref of a request stands for.
func (r *remote) choose(ctx context.Context, request Request, notBefore time.Time) (choice, error) {
	ref := request.Ref
	var refs []wire.Ref
	var err error
	if prefix := ref.prefix(); prefix != "" {
		if refs, err = r.lists.ask(ctx, question{prefix: prefix, notBefore: notBefore, follower: request.Follower}); err != nil {
			return choice{}, err
		}
	}
	if found, ok := ref.choose(refs); ok {
		return found, nil
	}
	if !notBefore.IsZero() {
		// It may be there by now.
		return r.choose(ctx, request, time.Time{})
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
	if strings.HasPrefix(ref.prefix(), "refs/tags/") {
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
func (r *remote) bring(ctx context.Context, request Request, found choice) (tip, *objects, error) {
	key, want := request.tip(), found.want.String()
	if t, objects, ok := r.standing(key, want); ok {
		return t, objects, nil
	}
	return r.endeavour(ctx, func(e *effort) (tip, *objects, error) { return r.move(e, request, found) })
}

// standing gives a tip where it stands for what is wanted. The caller releases the Set of
// the objects.
func (r *remote) standing(key, want string) (tip, *objects, bool) {
	t, objects, ok := r.acquire(key)
	if ok && t.Want != want {
		objects.set.Release()
		return tip{}, nil, false
	}
	return t, objects, ok
}

// move has the tip of a request stand for the chosen commit. The caller releases the Set of
// the objects.
func (r *remote) move(e *effort, request Request, found choice) (tip, *objects, error) {
	key, want := request.tip(), found.want.String()
	paths, err := request.paths()
	if err != nil {
		return tip{}, nil, err
	}
	// Who moves the same tip, or wants the same files, waits for the one who does it.
	for _, name := range []string{"tip " + key, "files " + want + strings.Join(paths, "\x00")} {
		leave, err := r.alone(e, name)
		if err != nil {
			return tip{}, nil, err
		}
		defer leave()
	}
	leave, err := r.begins(e)
	if err != nil {
		return tip{}, nil, err
	}
	defer leave()
	if err := r.open(); err != nil {
		return tip{}, nil, err
	}
	if t, objects, ok := r.standing(key, want); ok {
		return t, objects, nil
	}
	if err := r.refusal(key, want); err != nil {
		return tip{}, nil, err
	}
	if err := r.update(e.ctx, request, found); err != nil {
		r.refuse(key, want, err)
		return tip{}, nil, err
	}
	t, objects, ok := r.acquire(key)
	if !ok {
		return tip{}, nil, unfollowed()
	}
	r.tidy()
	return t, objects, nil
}

// update moves a tip to the chosen commit, and fetches what it needs. The
// caller has the turn of the tip.
func (r *remote) update(ctx context.Context, request Request, found choice) (err error) {
	ctx, lost := r.store.folder.Bring(ctx, r.key)
	defer func() {
		if err != nil {
			lost()
		}
	}()
	b, err := r.begin(ctx, len(request.Sparse) > 0)
	if err != nil {
		return err
	}
	defer r.end(b)
	st, set := b.state, b.set

	ref, key := request.Ref, request.tip()
	paths, err := request.paths()
	if err != nil {
		return err
	}
	old, followed := st.Tips[key]
	// The submodules stay those of before until those of the new commit are there, which
	// come as the difference to them.
	next := tip{Want: found.want.String(), Ref: found.name, Children: old.Children}
	same := followed && old.Ref == next.Ref && found.name != ""
	asks := same || ref.Commit != "" && ref.Branch != ""
	for _, other := range st.Tips {
		// Another tip stands there already; only what is to be known of the
		// history has to be asked.
		if other.Want == next.Want && other.covers(paths) && !asks {
			next.Commit, next.Paths = other.Commit, other.Paths
			if err := r.accept(request, found, &next, set); err != nil {
				return err
			}
			return r.add(b, nil, key, next)
		}
	}
	got, err := r.receive(ctx, request, found, gathering{read: set, dir: b.dir, state: st, old: old, paths: paths})
	if err != nil {
		return err
	}
	defer got.read.Release()
	next.Paths = got.paths
	err = r.judge(ctx, b.dir, ref, found, &next, old, same, r.read(got.read))
	if err == nil {
		err = r.accept(request, found, &next, got.read)
	}
	if err != nil {
		return errors.Join(err, remove(b.dir, got.packs))
	}
	return r.add(b, got.packs, key, next)
}

// accept makes sure that a tip is signed as the request wants it.
func (r *remote) accept(request Request, found choice, next *tip, set *pack.Set) error {
	if request.Verify.Mode == "" {
		return nil
	}
	commit, err := pack.ParseID(next.Commit)
	if err != nil {
		return err
	}
	next.Verified, err = r.read(set).verify(request.Verify, found, commit)
	return err
}

// judge checks what came and how it follows what was there before.
func (r *remote) judge(ctx context.Context, dir *os.Root, ref Ref, found choice, next *tip, old tip, same bool, o *objects) error {
	id, err := o.peel(found.want)
	if err != nil {
		return err
	}
	commit, err := o.commit(id)
	if err != nil {
		return err
	}
	next.Commit = commit.Hash
	if ref.Commit != "" && ref.Branch != "" {
		return r.onBranch(ctx, dir, ref, commit)
	}
	if !same {
		return nil
	}
	next.Lost = slices.DeleteFunc(slices.Clone(old.Lost), func(c string) bool { return c == next.Commit })
	before, err := pack.ParseID(old.Commit)
	if err != nil || old.Commit == next.Commit || slices.Contains(commit.parents, before) {
		return err
	}
	predecessor, err := o.commit(before)
	if err != nil {
		return err
	}
	descends, err := r.descends(ctx, dir, id, before, predecessor.parents)
	if err != nil {
		return err
	}
	if !descends {
		next.Lost = append(next.Lost, old.Commit)
		next.Lost = next.Lost[max(0, len(next.Lost)-mostLost):]
	}
	return nil
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
	result := Result{Commit: commit.Commit, Ref: t.Ref, Verified: t.Verified}
	result.Revision = revision
	result.Unchanged = request.Known == revision
	result.Files = newTree(o, commit.tree)
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
