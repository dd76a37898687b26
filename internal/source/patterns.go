package source

import "strings"

// Patterns judge files by their names alone, for sources that are told what they
// hold before it is fetched. Unlike for Filter no pattern is built in. Its zero value
// excludes nothing.
type Patterns struct{ patterns []pattern }

// ParsePatterns reads texts in the form of an IgnoreFile at the root. Later ones have
// the last word.
func ParsePatterns(texts ...string) (Patterns, error) {
	var p Patterns
	for _, text := range texts {
		p.patterns = append(p.patterns, parsePatterns(text, ".")...)
		if len(p.patterns) > mostPatterns {
			return Patterns{}, tooManyPatterns()
		}
	}
	return p, nil
}

// Exclude tells whether a file is excluded.
func (p Patterns) Exclude(name string) bool {
	return len(p.patterns) > 0 && ignored(p.patterns, strings.Split(name, "/"), false)
}
