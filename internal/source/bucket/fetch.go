package bucket

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/source"
)

// Fetch finds out what a bucket holds, and gets what is missing of it. Known is the
// revision that the caller has. See source.Fetcher for what it promises.
func (s *Store) Fetch(ctx context.Context, request Request, known string) (source.Result, error) {
	request = request.withDefaults()
	t, err := s.fetch(ctx, request)
	if err != nil {
		return source.Result{}, failure(ctx, request, err)
	}
	s.folder.Ask(ctx, t.remote.key, request.view(), t.bytes)
	return t.result(known), nil
}

// Last gives what an earlier Fetch of the same request brought, from disk and without
// asking the server: what can be worked with after a restart while the server is away.
// It is an error where there is nothing.
func (s *Store) Last(ctx context.Context, request Request) (source.Result, error) {
	request = request.withDefaults()
	if ctx.Err() != nil {
		return source.Result{}, failure(ctx, request, ctx.Err())
	}
	r, v, err := s.remote(ctx, request)
	if err == nil {
		err = r.open()
	}
	if err != nil {
		return source.Result{}, failure(ctx, request, err)
	}
	t := v.last()
	if t == nil {
		return source.Result{}, failure(ctx, request, &fault{text: "nothing was fetched before"})
	}
	s.folder.Ask(ctx, t.remote.key, request.view(), t.bytes)
	return t.result(""), nil
}

func (s *Store) fetch(ctx context.Context, request Request) (*tree, error) {
	if ctx.Err() != nil {
		return nil, ended(ctx, "no answer within the timeout")
	}
	r, v, err := s.remote(ctx, request)
	if err != nil {
		return nil, err
	}
	arrived := v.stamp()
	if err := waitFor(ctx, v.turn); err != nil {
		return nil, err
	}
	defer func() { <-v.turn }()
	if t, err, shared := v.since(arrived); shared {
		return t, err
	}
	if err := r.open(); err != nil {
		return nil, err
	}
	asked := v.stamp()
	t, err := v.update(ctx, request)
	// What did not fit for one namespace may for another.
	if ctx.Err() == nil && artifact.Full(ctx) == nil {
		v.end(asked, err)
	}
	return t, err
}

// rounds is how often a bucket is listed that changes while it is fetched.
const rounds = 3

// update lists the bucket and gets what is missing. The caller has the turn.
func (v *view) update(ctx context.Context, request Request) (*tree, error) {
	v.remote.fetchBegins()
	defer v.remote.fetchEnds()
	for round := 1; ; round++ {
		t, err := v.try(ctx, request)
		switch codeOf(err) {
		case codeChanged, codeNoObject:
			if round == rounds {
				return nil, &fault{code: codeChanged, text: "the bucket changes while it is fetched"}
			}
		default:
			return t, err
		}
	}
}

// try is one round of update.
func (v *view) try(ctx context.Context, request Request) (*tree, error) {
	listed, err := v.list(ctx, request.Prefix)
	if err != nil {
		return nil, err
	}
	patterns, err := v.patterns(ctx, request, listed)
	if err != nil {
		return nil, err
	}
	chosen, err := v.remote.store.options.choose(listed, patterns)
	if err != nil {
		return nil, err
	}
	listed = nil //nolint:ineffassign,wastedassign // all of them need not outlive the choice
	revision := revisionOf(chosen)
	if t := v.at(revision); t != nil {
		v.keep(ctx, nil) // what failed fetches of other revisions have brought
		return t, nil
	}
	entries, err := v.bring(ctx, chosen)
	if err != nil {
		v.keep(ctx, entries)
		return nil, err
	}
	if entries, err = v.withIgnore(entries); err != nil {
		v.keep(ctx, entries)
		return nil, err
	}
	made, err := newTable(entries)
	if err != nil {
		v.keep(ctx, entries)
		return nil, refused("the objects cannot stand side by side: %s", err)
	}
	t, err := v.publish(ctx, revision, entries, made)
	if err != nil {
		v.remote.dropAll(entries)
	}
	return t, err
}

// list asks for all objects below a prefix.
func (v *view) list(ctx context.Context, prefix string) ([]object, error) {
	c, most := v.remote.connection, v.remote.store.options.Listed
	var listed []object
	bytes := 0
	err := c.session.do(ctx, func(ctx context.Context) error {
		listed, bytes = listed[:0], 0
		return c.client.list(ctx, prefix, func(o object) error {
			if !strings.HasPrefix(o.key, prefix) {
				return refused("the server lists the key %s, which does not begin with the prefix", egress.Quote(o.key))
			}
			if len(listed) == most {
				return refused("the bucket has more than %d objects, which is the most that is listed; choose a narrower prefix", most)
			}
			if len(o.etag) > mostTag {
				return refused("the ETag of %s is too long", named(o.key))
			}
			if bytes += objectCost + len(o.key) + len(o.etag) + len(o.generation); bytes > mostListed {
				return refused("the listing takes more than %d bytes of memory, most of them of keys and ETags; choose a narrower prefix", mostListed)
			}
			listed = append(listed, o)
			return nil
		})
	})
	return listed, err
}

const (
	// mostListed is how many bytes the objects of a listing have at most, which is held in
	// memory while the server is slow: 100,000 with keys and ETags of 260 bytes together.
	mostListed = 32 << 20
	// objectCost is about what an object holds in memory beside its texts.
	objectCost = 72
	// mostTag is the longest ETag.
	mostTag = 1 << 10
)

// mostIgnore is the most bytes of a .sourceignore file.
const mostIgnore = 1 << 20

// patterns are those of the .sourceignore file at the root of the bucket and, with the
// last word, the request's own. The file counts where the prefix does not begin its key,
// too.
func (v *view) patterns(ctx context.Context, request Request, listed []object) (source.Patterns, error) {
	if !strings.HasPrefix(source.IgnoreFile, request.Prefix) {
		var err error
		if listed, err = v.list(ctx, source.IgnoreFile); err != nil {
			return source.Patterns{}, err
		}
	}
	at := slices.IndexFunc(listed, func(o object) bool { return o.key == source.IgnoreFile })
	if at < 0 {
		if err := v.setIgnore(nil); err != nil {
			return source.Patterns{}, err
		}
		return parsePatterns("", request.Ignore)
	}
	o := listed[at]
	if err := checkTag(o); err != nil {
		return source.Patterns{}, err
	}
	if o.size > mostIgnore {
		return source.Patterns{}, refused("the file %q has %d bytes, at most %d are allowed", source.IgnoreFile, o.size, mostIgnore)
	}
	e := v.ignoreAt(o)
	if e == nil {
		entries, err := v.bring(ctx, []object{o})
		if err != nil {
			return source.Patterns{}, err
		}
		e = &entries[0]
		if err := v.setIgnore(e); err != nil {
			return source.Patterns{}, err
		}
	}
	text, err := v.remote.content(e)
	if err != nil {
		return source.Patterns{}, err
	}
	return parsePatterns(string(text), request.Ignore)
}

func parsePatterns(file, own string) (source.Patterns, error) {
	patterns, err := source.ParsePatterns(file, own)
	if err != nil {
		return source.Patterns{}, refused("%s", err)
	}
	return patterns, nil
}

// withIgnore adds the .sourceignore file, which Flux has in its artifacts, to the
// entries.
func (v *view) withIgnore(entries []entry) ([]entry, error) {
	r := v.remote
	defer r.change()()
	uses := r.count()
	r.mu.Lock()
	defer r.mu.Unlock()
	if v.ignore == nil {
		return entries, nil
	}
	at, _ := slices.BinarySearchFunc(entries, source.IgnoreFile, func(e entry, key string) int { return strings.Compare(e.key, key) })
	if uses[v.ignore.sum] == 0 || r.damaged[v.ignore.sum] {
		return entries, &fault{code: codeChanged, text: "the bucket changes while it is fetched"}
	}
	for _, e := range entries {
		if strings.HasPrefix(e.key, source.IgnoreFile+"/") {
			return entries, refused("the key %q is a file and, for %s, a directory; rename one of the objects", source.IgnoreFile, egress.Quote(e.key))
		}
	}
	uses[v.ignore.sum]++
	return slices.Insert(entries, at, *v.ignore), nil
}

// bring makes sure that the contents of objects, which are in the order of their keys, are on
// disk, each for one use. Of an
// error it gives those that are.
func (v *view) bring(ctx context.Context, objects []object) ([]entry, error) {
	entries, missing, err := v.reuse(ctx, objects)
	if err != nil {
		return nil, err
	}
	brought, err := v.download(ctx, missing)
	entries = append(entries, brought...)
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.key, b.key) })
	return entries, err
}

// download gets objects, some at a time, in order. After a failure it begins no more
// and waits for those under way, so that it is always the same failure of several that
// it gives: the first in order.
func (v *view) download(ctx context.Context, missing []object) ([]entry, error) {
	var (
		wait sync.WaitGroup
		mu   sync.Mutex // guards all below
		next int
		got  []entry
		errs = map[int]error{}
	)
	begin := func() int {
		mu.Lock()
		defer mu.Unlock()
		if len(errs) > 0 || next == len(missing) {
			return -1
		}
		next++
		return next - 1
	}
	for range min(v.remote.store.options.Downloads, len(missing)) {
		wait.Go(func() {
			for i := begin(); i >= 0; i = begin() {
				e, err := v.get(ctx, missing[i])
				mu.Lock()
				if err != nil {
					errs[i] = err
				} else {
					got = append(got, e)
				}
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	for i := range next {
		if errs[i] != nil {
			return got, errs[i]
		}
	}
	return got, nil
}

// get brings the content of one object, for one use.
func (v *view) get(ctx context.Context, o object) (entry, error) {
	c := v.remote.connection
	var got entry
	err := c.session.do(ctx, func(ctx context.Context) error {
		in, err := c.client.open(ctx, o)
		if err != nil {
			return err
		}
		defer in.Close()
		got, err = v.store(ctx, o, in)
		return err
	})
	var f *fault
	if errors.As(err, &f) && f.code != codeChanged && f.code != codeNoObject && f.code != codeClosed {
		return entry{}, &fault{code: f.code, text: named(o.key) + ": " + f.text}
	}
	return got, err
}

// store writes a content to disk, and checks that it is what was listed.
func (v *view) store(ctx context.Context, o object, in content) (_ entry, err error) {
	r := v.remote
	file, name, err := r.create()
	if err != nil {
		return entry{}, err
	}
	placed := false
	ctx, lost := r.store.folder.Bring(ctx, r.key)
	defer func() {
		if !placed {
			lost()
			err = errors.Join(err, r.discard(name))
		}
	}()
	most := o.size
	if in.converted {
		most = r.store.options.ObjectBytes
	}
	h, crc := sha256.New(), crc32.New(crc32.MakeTable(crc32.Castagnoli))
	n, err := io.Copy(io.MultiWriter(file, h, crc), io.LimitReader(source.Counted(ctx, in), most+1))
	if err := errors.Join(err, file.Close()); err != nil {
		return entry{}, err
	}
	switch {
	case in.converted && n > most:
		return entry{}, refused("it unpacks to more than %d bytes, which is the most that is fetched", most)
	case in.converted:
	case n != o.size:
		return entry{}, &fault{code: codeServer, text: fmt.Sprintf("the server lists %d bytes and sends another number", o.size)}
	case o.crc != nil && crc.Sum32() != *o.crc:
		return entry{}, &fault{code: codeServer, text: "what the server sends does not have the checksum that it lists"}
	}
	if err := artifact.Filled(ctx, n); err != nil {
		return entry{}, err
	}
	e := entry{key: o.key, etag: o.etag, size: n, sum: sum(h.Sum(nil))}
	if err := r.place(name, e.sum); err != nil {
		return entry{}, err
	}
	placed = true
	return e, nil
}
