package source

import (
	"path"
	"slices"
	"strings"
)

// pattern is a line of an ignore file. It means what it means to Flux, which
// differs from git in one thing: every file is judged by itself, so that a file
// in an excluded directory can be included again.
type pattern struct {
	text   string
	domain string // the directory of its file, "." for the root
	// include brings back what earlier patterns exclude.
	include bool
	dirOnly bool
	// anchored patterns hold a slash and begin at the domain; others match any
	// element of a path.
	anchored bool
	parts    []string
}

// parsePatterns reads the lines of an ignore file in a directory.
func parsePatterns(text, domain string) []pattern {
	var patterns []pattern
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		if strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "" {
			continue
		}
		patterns = append(patterns, parsePattern(line, domain))
	}
	return patterns
}

func parsePattern(line, domain string) pattern {
	p := pattern{text: line, domain: domain}
	line, p.include = strings.CutPrefix(line, "!")
	if !strings.HasSuffix(line, `\ `) {
		line = strings.TrimRight(line, " ")
	}
	line, p.dirOnly = strings.CutSuffix(line, "/")
	p.anchored = strings.Contains(line, "/")
	p.parts = strings.Split(line, "/")
	return p
}

// match tells whether the pattern speaks of a path, given by its elements.
func (p *pattern) match(elements []string, isDir bool) bool {
	if p.domain != "." {
		if !contains(p.domain, strings.Join(elements, "/")) {
			return false
		}
		elements = elements[strings.Count(p.domain, "/")+1:]
	}
	if len(elements) == 0 {
		return false
	}
	if p.anchored {
		return p.matchAnchored(elements, isDir)
	}
	for i, element := range elements {
		if matched, err := path.Match(p.parts[0], element); err != nil {
			return false
		} else if matched {
			return !p.dirOnly || isDir || i < len(elements)-1
		}
	}
	return false
}

// matchAnchored goes through pattern and path side by side. What is below a
// path that matches, matches too.
func (p *pattern) matchAnchored(elements []string, isDir bool) bool {
	matched, anywhere := false, false
	for i, part := range p.parts {
		switch {
		case part == "":
			anywhere = false
			continue
		case part == "**":
			anywhere = i < len(p.parts)-1
			continue
		case strings.Contains(part, "**") || len(elements) == 0:
			return false
		}
		at := find(part, elements, anywhere)
		if at < 0 {
			return false
		}
		matched, elements, anywhere = true, elements[at+1:], false
	}
	return matched && (!p.dirOnly || isDir || len(elements) > 0)
}

// find gives the place of the first element that matches a part, looking at the
// very first element only or anywhere; -1 where none does.
func find(part string, elements []string, anywhere bool) int {
	if !anywhere {
		elements = elements[:1]
	}
	return slices.IndexFunc(elements, func(element string) bool {
		matched, err := path.Match(part, element)
		return err == nil && matched
	})
}

// The patterns that hold where nobody says otherwise.
const (
	vcsPatterns = ".git/\n.gitignore\n.gitmodules\n.gitattributes\n"

	defaultPatterns = "*.jpg\n*.jpeg\n*.gif\n*.png\n*.wmv\n*.flv\n*.tar.gz\n*.zip\n" +
		".github/\n.circleci/\n.travis.yml\n.gitlab-ci.yml\nappveyor.yml\n.drone.yml\n" +
		"cloudbuild.yaml\ncodeship-services.yml\ncodeship-steps.yml\n" +
		"**/.goreleaser.yml\n**/.sops.yaml\n**/.flux.yaml\n"
)

// ignored gives the word of the last pattern that speaks of a path.
func ignored(patterns []pattern, elements []string, isDir bool) bool {
	for i := len(patterns) - 1; i >= 0; i-- {
		if patterns[i].match(elements, isDir) {
			return !patterns[i].include
		}
	}
	return false
}
