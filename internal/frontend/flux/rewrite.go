package flux

import "strings"

// Rewrite says where the sources are whose URLs begin with From: at To, followed by the
// rest of the URL. It is for machines that cannot reach the first.
type Rewrite struct {
	From, To string
}

// Of is where a URL is to be looked for, and whether the rule is one for it. From ends at a
// part of the path: one without a slash at its end does not fit a longer name.
func (r Rewrite) Of(url string) (string, bool) {
	rest, ok := strings.CutPrefix(url, r.From)
	if ok && (rest == "" || strings.HasSuffix(r.From, "/") || strings.HasPrefix(rest, "/") || rest == ".git" || strings.HasPrefix(rest, ".git/")) {
		return r.To + rest, true
	}
	return url, false
}

// rewritten is where a URL is to be looked for, by the first rule that is one for it.
func rewritten(rules []Rewrite, url string) string {
	for _, rule := range rules {
		if to, ok := rule.Of(url); ok {
			return to
		}
	}
	return url
}
