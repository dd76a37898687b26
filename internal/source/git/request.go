package git

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/Masterminds/semver/v3"
	"github.com/plumb-gitops/plumb/internal/source"
	"github.com/plumb-gitops/plumb/internal/source/git/pack"
	"github.com/plumb-gitops/plumb/internal/source/git/wire"
)

// Auth is a credential; its zero value is none.
type Auth = wire.Auth

// Proxy is a proxy to be used instead of that of the environment.
type Proxy = wire.Proxy

// SSH are the algorithms that servers are offered over ssh.
type SSH = wire.SSH

// Request says what is followed, and how it is reached.
type Request struct {
	// URL is that of the repository: http, https or ssh.
	URL   string
	Ref   Ref
	Auth  Auth
	Proxy Proxy
	// RecurseSubmodules shows the files of submodules too.
	RecurseSubmodules bool
	// Sparse are the only directories that are shown; all where it is empty.
	Sparse []string
	// Verify is what must be signed.
	Verify Verify
	// Known is the revision that the caller has.
	Known string
	// NotBefore is the moment from which on what the server said of its refs is new
	// enough. Zero is the call itself: what was pushed before it is seen. A poll that
	// is due takes what somebody else heard in the interval that has passed, so that all
	// who follow a repository cost one poll.
	NotBefore time.Time
	// Follower names who asks, where that is the same one again and again. An answer that
	// it was given already is new enough for half of the time only, and Options.News tells
	// it of newer ones.
	Follower string
}

// tip names what is kept for the request among the tips of a store. Requests that
// want other signatures share no tip, so that one never shows what the other one
// refuses; nor do those that show other directories, of which others may be missing.
func (r Request) tip() string {
	key := r.Ref.key() + r.Verify.key()
	if paths, err := r.paths(); err == nil && len(paths) > 0 {
		sum := sha256.Sum256([]byte(strings.Join(paths, "\x00")))
		key += " sparse " + hex.EncodeToString(sum[:12])
	}
	return key
}

// mostSparse is how many directories a request may show: each is looked up in the revision.
const mostSparse = 1000

// sparse gives the directories that are shown, as source.SparseDirs does.
func (r Request) sparse() ([]string, error) {
	if len(r.Sparse) > mostSparse {
		return nil, invalid(fmt.Errorf("sparse checkout of %d directories, at most %d are allowed", len(r.Sparse), mostSparse))
	}
	dirs, err := source.SparseDirs(r.Sparse)
	if err != nil {
		return nil, invalid(err)
	}
	return dirs, nil
}

// paths are those of which files are read; none where all may be.
func (r Request) paths() ([]string, error) {
	paths, err := r.sparse()
	if err != nil {
		return nil, err
	}
	if r.RecurseSubmodules && len(paths) > 0 {
		paths = append(paths, modulesFile)
	}
	return paths, nil
}

// Ref chooses a commit. The first field that is set, from the bottom up,
// decides; without any it is the branch master.
type Ref struct {
	Branch string
	// Tag is a tag's name without refs/tags/.
	Tag string
	// SemVer is a range; the newest version among the tags that is in it is
	// taken.
	SemVer string
	// Name is a whole ref, such as refs/pull/1/head.
	Name string
	// Commit is forty hexadecimal digits. With a Branch, it must be on it.
	Commit string
}

const defaultBranch = "master"

// key names the ref among the tips of a store.
func (r Ref) key() string {
	switch {
	case r.Commit != "":
		return "commit " + r.Commit + " " + r.Branch
	case r.Name != "":
		return "name " + r.Name
	case r.SemVer != "":
		return "semver " + r.SemVer
	case r.Tag != "":
		return "tag " + r.Tag
	default:
		return "branch " + cmp.Or(r.Branch, defaultBranch)
	}
}

// String says what is looked for, for messages.
func (r Ref) String() string {
	switch {
	case r.Commit != "" && r.Branch != "":
		return fmt.Sprintf("commit %s on branch %s", quoted(r.Commit), quoted(r.Branch))
	case r.Commit != "":
		return "commit " + quoted(r.Commit)
	case r.Name != "":
		return "ref " + quoted(r.Name)
	case r.SemVer != "":
		return "a tag in the range " + quoted(r.SemVer)
	case r.Tag != "":
		return "tag " + quoted(r.Tag)
	default:
		return "branch " + quoted(cmp.Or(r.Branch, defaultBranch))
	}
}

// check refuses what cannot be a ref.
func (r Ref) check() error {
	if r.Commit != "" {
		if len(r.Commit) > longestShown {
			return fmt.Errorf("commit %s has %d characters, not 40", quoted(r.Commit), len(r.Commit))
		}
		if _, err := pack.ParseID(r.Commit); err != nil {
			return err
		}
	}
	if r.SemVer != "" && r.Name == "" && r.Commit == "" {
		if len(r.SemVer) > longestRange {
			return fmt.Errorf("semver range %s has %d bytes, at most %d are allowed", quoted(r.SemVer), len(r.SemVer), longestRange)
		}
		if _, err := semver.NewConstraint(r.SemVer); err != nil {
			return fmt.Errorf("semver range %s: %w", quoted(r.SemVer), err)
		}
	}
	names := []string{r.Name}
	if r.Branch != "" {
		names = append(names, "refs/heads/"+r.Branch)
	}
	if r.Tag != "" {
		names = append(names, "refs/tags/"+r.Tag)
	}
	for _, name := range names {
		if name == "" {
			continue
		}
		if err := checkRef(name); err != nil {
			return err
		}
	}
	return nil
}

// prefix is what the server is asked to list; empty for nothing.
func (r Ref) prefix() string {
	switch {
	case r.Commit != "" && r.Branch == "":
		return ""
	case r.Commit != "":
		return "refs/heads/" + r.Branch
	case r.Name != "":
		return r.Name
	case r.SemVer != "":
		return "refs/tags/"
	case r.Tag != "":
		return "refs/tags/" + r.Tag
	default:
		return "refs/heads/" + cmp.Or(r.Branch, defaultBranch)
	}
}

// choice is the commit that a ref stands for.
type choice struct {
	// want is the object to be fetched: a commit or an annotated tag.
	want pack.ID
	// commit is what it stands for, as far as the server says.
	commit pack.ID
	// name is the ref; empty for a commit alone.
	name string
}

// choose picks the commit among what the server lists. It is false where the
// server has no such ref.
func (r Ref) choose(refs []wire.Ref) (choice, bool) {
	if r.Commit != "" {
		id, err := pack.ParseID(r.Commit)
		if r.Branch == "" {
			return choice{want: id, commit: id}, err == nil
		}
		branch, ok := pick(refs, "refs/heads/"+r.Branch)
		return choice{want: id, commit: id, name: branch.name}, ok && err == nil
	}
	if r.SemVer != "" && r.Name == "" {
		return r.newest(refs)
	}
	return pick(refs, r.prefix())
}

func pick(refs []wire.Ref, name string) (choice, bool) {
	for _, ref := range refs {
		if ref.Name == name {
			return choice{want: ref.ID, commit: ref.Target(), name: name}, true
		}
	}
	return choice{}, false
}

// newest picks the tag of the newest version in the range. Like Flux it takes
// only tags with all three numbers, with or without a leading v.
func (r Ref) newest(refs []wire.Ref) (choice, bool) {
	constraint, err := semver.NewConstraint(r.SemVer)
	if err != nil {
		return choice{}, false
	}
	var best *semver.Version
	var chosen choice
	for _, ref := range refs {
		tag := strings.TrimPrefix(ref.Name, "refs/tags/")
		version, err := semver.StrictNewVersion(strings.TrimPrefix(tag, "v"))
		if err != nil || !constraint.Check(version) {
			continue
		}
		// Versions that differ in build metadata only are equal; the names
		// decide then, so that the answer does not depend on the order.
		if best == nil || version.GreaterThan(best) || version.Equal(best) && ref.Name > chosen.name {
			best, chosen = version, choice{want: ref.ID, commit: ref.Target(), name: ref.Name}
		}
	}
	return chosen, best != nil
}

// revision is the text by which Flux names the commit.
func (r Ref) revision(c choice) string {
	hash := "sha1:" + c.commit.String()
	switch {
	case c.name == "":
		return hash
	case r.Name != "" && r.Commit == "":
		return c.name + "@" + hash
	}
	short := c.name
	for _, prefix := range []string{"refs/heads/", "refs/tags/"} {
		short = strings.TrimPrefix(short, prefix)
	}
	return short + "@" + hash
}

// parseURL reads the URL of a repository.
func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, &wire.Error{Code: wire.CodeURL, Text: "it is not a URL"}
	}
	switch u.Scheme {
	case "http", "https", "ssh":
	default:
		return nil, &wire.Error{Code: wire.CodeURL, Text: fmt.Sprintf("scheme %s is not supported; use http, https or ssh", quoted(u.Scheme))}
	}
	if u.Hostname() == "" || strings.HasPrefix(u.Hostname(), "-") {
		return nil, &wire.Error{Code: wire.CodeURL, Text: "it names no host"}
	}
	return u, nil
}

// hidden stands for a URL of which it cannot be told where its secret is.
const hidden = "a URL that cannot be read"

// redacted is a URL for messages: without password, and for HTTP without a user,
// which may be a token.
func redacted(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Opaque != "" || u.Host == "" && strings.Contains(text, "@") {
		return hidden
	}
	if u.Scheme != "ssh" {
		u.User = nil
	} else if u.User != nil {
		u.User = url.User(u.User.Username())
	}
	u.RawQuery, u.Fragment = "", ""
	return cut(u.String())
}

// Fetcher binds a request, so that it can be fetched again and again.
func (s *Store) Fetcher(request Request) source.Fetcher { return fetcher{s, request} }

type fetcher struct {
	store   *Store
	request Request
}

// Fetch fetches the request.
func (f fetcher) Fetch(ctx context.Context, known string) (source.Result, error) {
	request := f.request
	request.Known = known
	result, err := f.store.Fetch(ctx, request)
	return result.Result, err
}
