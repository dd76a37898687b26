package git

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/plumb-gitops/plumb/internal/source"
	"github.com/plumb-gitops/plumb/internal/source/git/pack"
)

const (
	// modulesFile says where submodules come from.
	modulesFile = ".gitmodules"
	// deepestSubmodule is how deep submodules of submodules are followed.
	deepestSubmodule = 8
	// mostSubmodules is how many submodules a repository may have, with those
	// of its submodules.
	mostSubmodules = 200
	// longestModules is the most bytes of .gitmodules.
	longestModules = 1 << 20
)

// addSubmodules shows the files of submodules where the tree links to them. A
// link that .gitmodules does not know is left out.
func (s *Store) addSubmodules(ctx context.Context, r *remote, request Request, result *Result, o *objects, v *visit) error {
	children, err := s.mountSubmodules(ctx, request, result, o, v)
	moved, failed := r.setChildren(request.tip(), children, err != nil)
	v.moved = v.moved || moved
	if err != nil {
		return err
	}
	return failed
}

// mountSubmodules fetches the submodules. It gives their tips, also where it
// fails: those so far.
func (s *Store) mountSubmodules(ctx context.Context, request Request, result *Result, o *objects, v *visit) ([]child, error) {
	shown := result.Files.(*tree)
	data, err := shown.ReadFile(modulesFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if len(data) > longestModules {
		return nil, invalid(fmt.Errorf("%s has %d bytes, at most %d are read", modulesFile, len(data), longestModules))
	}
	if len(v.above) == deepestSubmodule {
		return nil, invalid(fmt.Errorf("submodules are nested deeper than %d", deepestSubmodule))
	}
	modules, err := parseModules(string(data))
	if err != nil {
		return nil, invalid(err)
	}
	if len(modules) > mostSubmodules {
		return nil, invalid(fmt.Errorf("the repository has %d submodules, at most %d are followed", len(modules), mostSubmodules))
	}
	var mounts []source.Mount
	var children []child
	var releases []func()
	result.Release = func() {
		for _, release := range releases {
			release()
		}
	}
	for _, m := range modules {
		if err := ctx.Err(); err != nil {
			return children, endOf(err)
		}
		commit, ok, err := o.link(shown.root, m.path)
		if err != nil {
			return children, err
		}
		if !ok {
			continue
		}
		inner, err := submoduleRequest(request, m, commit)
		if err != nil {
			return children, invalid(fmt.Errorf("submodule %s: %w", quoted(m.path), err))
		}
		if err := v.descend(request, result.Commit.Hash, inner); err != nil {
			return children, invalid(fmt.Errorf("submodule %s: %w", quoted(m.path), err))
		}
		children = append(children, s.hold(v, inner))
		below, err := s.fetch(ctx, inner, v)
		v.ascend()
		if err != nil {
			return children, failure(request, fmt.Errorf("submodule %s: %w", quoted(m.path), failure(inner, err)))
		}
		releases = append(releases, below.Release)
		mounts = append(mounts, source.Mount{At: m.path, Tree: below.Files})
	}
	if result.Files, err = source.Overlay(shown, mounts...); err != nil {
		return children, invalid(err)
	}
	return children, nil
}

// link gives the commit that a path of the tree links to.
func (o *objects) link(root pack.ID, name string) (pack.ID, bool, error) {
	at := root
	for rest := name; ; {
		first, after, more := strings.Cut(rest, "/")
		d, err := o.dir(at)
		if err != nil {
			return pack.ID{}, false, err
		}
		e, ok := d.find(first)
		switch {
		case !ok:
			return pack.ID{}, false, nil
		case !more:
			return e.id, e.kind == kindSubmodule, nil
		case e.kind != kindDir:
			return pack.ID{}, false, nil
		}
		at, rest = e.id, after
	}
}

// submoduleRequest is what is fetched for a submodule: with the credential of
// its parent where it is on the same host, and without one elsewhere.
func submoduleRequest(parent Request, m module, commit pack.ID) (Request, error) {
	base, err := parseURL(parent.URL)
	if err != nil {
		return Request{}, err
	}
	target, err := submoduleURL(base, m.url)
	if err != nil {
		return Request{}, err
	}
	if base.Scheme == "https" && target.Scheme == "http" {
		return Request{}, fmt.Errorf("url %q leads from https to http, which is refused", redacted(m.url))
	}
	inner := Request{
		URL: target.String(), Ref: Ref{Commit: commit.String()}, Proxy: parent.Proxy, RecurseSubmodules: true,
	}
	switch {
	case target.Scheme == base.Scheme && strings.EqualFold(target.Host, base.Host):
		if target.User == nil {
			target.User = base.User
			inner.URL = target.String()
		}
		inner.Auth = parent.Auth
	default:
		// Who is trusted is not a secret; who we are is.
		inner.Auth = Auth{CA: parent.Auth.CA, KnownHosts: parent.Auth.KnownHosts}
	}
	return inner, nil
}

// submoduleURL resolves the URL of a submodule: relative to its parent's, or
// whole, also in the short form host:path of ssh.
func submoduleURL(base *url.URL, text string) (*url.URL, error) {
	if strings.HasPrefix(text, "./") || strings.HasPrefix(text, "../") {
		u := *base
		u.Path, u.RawPath = path.Join("/", base.Path, text), ""
		return &u, nil
	}
	if !strings.Contains(text, "://") {
		host, file, ok := strings.Cut(text, ":")
		if !ok || host == "" || strings.ContainsAny(host, "/") || strings.HasPrefix(host, "-") || file == "" || strings.HasPrefix(file, ":") {
			return nil, fmt.Errorf("url %q is neither http, https, ssh nor relative", redacted(text))
		}
		text = "ssh://" + host + "/" + strings.TrimPrefix(file, "/")
	}
	u, err := parseURL(text)
	if err != nil {
		return nil, fmt.Errorf("url %q: %w", redacted(text), err)
	}
	return u, nil
}

// module is a section of .gitmodules.
type module struct {
	path string
	url  string
}

// parseModules reads .gitmodules: sections called submodule, with path and url.
func parseModules(text string) ([]module, error) {
	var modules []module
	current := -1
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case line == "", line[0] == '#', line[0] == ';':
		case line[0] == '[':
			current = -1
			if strings.HasPrefix(strings.ToLower(line), "[submodule ") && strings.HasSuffix(line, "]") {
				modules = append(modules, module{})
				current = len(modules) - 1
			}
		case current >= 0:
			key, value, _ := strings.Cut(line, "=")
			value = unquote(strings.TrimSpace(value))
			switch strings.ToLower(strings.TrimSpace(key)) {
			case "path":
				modules[current].path = value
			case "url":
				modules[current].url = value
			}
		}
	}
	modules = slices.DeleteFunc(modules, func(m module) bool { return m.path == "" || m.url == "" })
	for _, m := range modules {
		if !fs.ValidPath(m.path) || m.path == "." {
			return nil, fmt.Errorf(".gitmodules: %s is not a path below the root", quoted(m.path))
		}
	}
	return modules, nil
}

// unquote takes quotes and what they escape away, and a comment behind a value.
func unquote(value string) string {
	var out strings.Builder
	quoted := false
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case c == '"':
			quoted = !quoted
		case c == '\\' && i+1 < len(value):
			i++
			out.WriteByte(value[i])
		case (c == '#' || c == ';') && !quoted:
			return strings.TrimSpace(out.String())
		default:
			out.WriteByte(c)
		}
	}
	return out.String()
}
