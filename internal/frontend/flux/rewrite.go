package flux

import "strings"

// Rewrite says where the sources are whose URLs begin with From: at To, followed by the
// rest of the URL. It is for machines that cannot reach the first.
type Rewrite struct {
	From, To string
}

// rewritten is where a URL is to be looked for. From ends at a part of the path: one
// without a slash at its end does not fit a longer name.
func rewritten(rules []Rewrite, url string) string {
	for _, rule := range rules {
		rest, ok := strings.CutPrefix(url, rule.From)
		if ok && (rest == "" || strings.HasSuffix(rule.From, "/") || strings.HasPrefix(rest, "/") || rest == ".git" || strings.HasPrefix(rest, ".git/")) {
			return rule.To + rest
		}
	}
	return url
}
