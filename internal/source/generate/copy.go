package generate

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// rule is one that is being followed.
type rule struct {
	*composing
	Copy
	src Source
	// base is the directory that patterns of what is left out are seen from, beside the
	// root of the source.
	base string
}

// copy follows one rule.
func (b *composing) copy(c Copy) error {
	if b.copies--; b.copies < 0 {
		return tooManyRules()
	}
	src, pattern, err := b.source(c.From)
	if err != nil {
		return err
	}
	to, err := destination(c.To)
	if err != nil {
		return err
	}
	for _, exclude := range c.Exclude {
		if err := checkPattern(exclude); err != nil {
			return fmt.Errorf("exclude: %w", err)
		}
	}
	r := rule{composing: b, Copy: c, src: src, base: "."}
	if !isGlob(pattern) {
		return r.copyOne(path.Clean("./"+pattern), to, strings.HasPrefix(pattern, "/"))
	}
	r.base = literalRoot(pattern)
	return r.copyMatches(pattern, to)
}

func tooManyRules() error {
	return fmt.Errorf("the artifacts of one generator have more than %d copy rules", mostCopies)
}

// destination is the path in the artifact that a rule copies to.
func destination(to string) (string, error) {
	rest, ok := strings.CutPrefix(to, "@artifact/")
	if !ok {
		return "", errors.New("what is copied to has to be @artifact/path")
	}
	if rest == "" {
		return ".", nil
	}
	if len(rest) > mostPath || strings.Count(rest, "/") > mostFolders {
		return "", fmt.Errorf("what is copied to has more than %d bytes or %d folders", mostPath, mostFolders)
	}
	if clean := path.Clean(rest); fs.ValidPath(clean) {
		return clean, nil
	}
	return "", errors.New("what is copied to is outside of the artifact")
}

// isGlob tells whether a path is one that files are looked for by.
func isGlob(pattern string) bool { return strings.ContainsAny(pattern, "*?[]") }

// literalRoot is the directory that all matches of a glob are in, by its text.
func literalRoot(pattern string) string {
	var parts []string
	for _, part := range strings.Split(path.Clean(pattern), "/") {
		if isGlob(part) {
			break
		}
		parts = append(parts, part)
	}
	if len(parts) == 0 {
		return "."
	}
	return path.Join(parts...)
}

// copyOne copies a file or a directory that is named. A directory keeps its name below
// the path that it is copied to, as with cp.
func (r *rule) copyOne(name, to string, absolute bool) error {
	if absolute || !fs.ValidPath(name) {
		return errors.New("what is copied from is outside of the source")
	}
	info, err := r.src.Files.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the source has no file or directory %q", name)
	case err != nil:
		return err
	case info.IsDir() && r.Strategy == Extract:
		return fmt.Errorf("%q is a directory: only archives are extracted", name)
	case info.IsDir():
		r.base = name
		target := to
		if name != "." {
			target = join(to, path.Base(name))
		}
		return r.copyDirectory(name, target)
	case r.excludes(name):
		return nil
	case r.Strategy == Extract && !isArchive(name):
		return fmt.Errorf("%q is no archive: only files called *.tar.gz and *.tgz are extracted", name)
	case r.Strategy == Extract:
		return r.extract(name, to)
	}
	into := strings.HasSuffix(r.To, "/")
	if !into {
		there, err := r.find(to)
		if err != nil {
			return err
		}
		into = there != nil && there.dir
	}
	if into {
		to = join(to, path.Base(name))
	}
	return r.copyFile(name, to)
}

// copyMatches copies what a glob matches, each file and directory below its whole path;
// after dir/** it is the path from dir.
func (r *rule) copyMatches(pattern, to string) error {
	matches, err := r.matches(pattern)
	if err != nil {
		return err
	}
	if len(matches) == 0 {
		return errors.New("no file of the source matches")
	}
	copied := false
	for _, match := range matches {
		if match == "." || match == ".." || r.excludes(match) {
			continue
		}
		copied = true
		if err := r.copyMatch(pattern, match, to); err != nil {
			return err
		}
	}
	if !copied {
		return errors.New("every file that matches is excluded")
	}
	return nil
}

func (r *rule) copyMatch(pattern, match, to string) error {
	if r.Strategy == Extract {
		if !isArchive(match) {
			return nil
		}
		return r.extract(match, to)
	}
	target := match
	if dir, ok := strings.CutSuffix(pattern, "/**"); ok {
		target = strings.TrimPrefix(match, dir+"/")
	}
	target = path.Join(to, target)
	if !fs.ValidPath(target) {
		return errors.New("what is copied to is outside of the artifact")
	}
	info, err := r.src.Files.Stat(match)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return r.copyDirectory(match, target)
	}
	return r.copyFile(match, target)
}

// matches finds what a glob matches. ** is only more than * where archives are looked for.
func (r *rule) matches(pattern string) ([]string, error) {
	files := &listing{tree: r.src.Files, look: func(n int) error { return r.look(r.ctx, n) }}
	var matches []string
	var err error
	if r.Strategy == Extract {
		if err := checkPattern(pattern); err != nil {
			return nil, err
		}
		matches, err = doublestar.Glob(files, pattern)
	} else {
		matches, err = fs.Glob(files, pattern)
	}
	switch {
	case files.err != nil:
		return nil, files.err
	case err != nil:
		return nil, fmt.Errorf("pattern %q: %w", pattern, err)
	}
	return matches, nil
}

// copyFile copies a file to a path.
func (r *rule) copyFile(name, to string) error {
	if err := r.look(r.ctx, 1); err != nil {
		return err
	}
	n := &node{from: r.src, at: name}
	if r.Strategy == Merge {
		there, err := r.find(to)
		if err != nil {
			return err
		}
		if there != nil {
			return r.merge(to, there, n)
		}
	}
	return r.put(to, n)
}

// copyDirectory copies all files of a directory to a path. Strategies other than
// Overwrite are for single files.
func (r *rule) copyDirectory(name, to string) error {
	if len(r.Exclude) == 0 {
		if err := r.look(r.ctx, 1); err != nil {
			return err
		}
		return r.put(to, &node{from: r.src, at: name, dir: true})
	}
	// The directory is there even if all of its files are excluded.
	if err := r.put(to, newDirectory()); err != nil {
		return err
	}
	entries, err := r.src.Files.ReadDir(name)
	if err != nil {
		return err
	}
	if err := r.look(r.ctx, len(entries)); err != nil {
		return err
	}
	for _, e := range entries {
		below := join(name, e.Name())
		switch {
		case r.excludes(below):
			continue
		case e.IsDir():
			err = r.copyDirectory(below, join(to, e.Name()))
		default:
			err = r.put(join(to, e.Name()), &node{from: r.src, at: below})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// excludes tells whether a path is left out: a pattern matches it, or what follows base
// in it, or it has no slash and matches the name.
func (r *rule) excludes(name string) bool {
	if len(r.Exclude) == 0 {
		return false
	}
	if excluded(r.Exclude, name) {
		return true
	}
	below, ok := strings.CutPrefix(name, r.base+"/")
	return ok && r.base != "." && excluded(r.Exclude, below)
}

func excluded(patterns []string, name string) bool {
	for _, pattern := range patterns {
		if doublestar.MatchUnvalidated(pattern, name) ||
			!strings.Contains(pattern, "/") && doublestar.MatchUnvalidated(pattern, path.Base(name)) {
			return true
		}
	}
	return false
}

// checkPattern refuses a pattern that is wrong, or whose braces can be read in so many
// ways that matching it would not end.
func checkPattern(pattern string) error {
	ways := 1
	for _, group := range strings.Split(pattern, "{")[1:] {
		if ways *= 1 + strings.Count(group, ","); ways > mostAlternatives {
			return fmt.Errorf("the pattern %q has more than %d alternatives in braces", pattern, mostAlternatives)
		}
	}
	if !doublestar.ValidatePattern(pattern) {
		return fmt.Errorf("syntax error in the pattern %q", pattern)
	}
	return nil
}

// listing is a Tree in which what is listed counts. Globbing ignores errors, so that the
// first one is kept.
type listing struct {
	tree fs.ReadDirFS
	look func(n int) error
	err  error
}

// Open opens a file or directory.
func (l *listing) Open(name string) (fs.File, error) {
	if l.err != nil {
		return nil, l.err
	}
	return l.tree.Open(name)
}

// Stat describes a file or directory.
func (l *listing) Stat(name string) (fs.FileInfo, error) {
	if l.err != nil {
		return nil, l.err
	}
	return fs.Stat(l.tree, name)
}

// ReadDir lists a directory.
func (l *listing) ReadDir(name string) ([]fs.DirEntry, error) {
	if l.err != nil {
		return nil, l.err
	}
	entries, err := l.tree.ReadDir(name)
	if l.err = l.look(1 + len(entries)); l.err != nil {
		return nil, l.err
	}
	return entries, err
}
