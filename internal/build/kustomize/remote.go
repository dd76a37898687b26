package kustomize

import (
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
)

// isRemoteFile tells whether kustomize would fetch the file over HTTP.
func isRemoteFile(name string) bool {
	u, err := url.Parse(name)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https")
}

// userPrefix is the user of an address in the form of scp.
var userPrefix = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9-]*@`)

// isRemoteBase tells whether kustomize would clone the directory with Git. It
// follows the rules of kustomize's own parser, which also takes addresses
// without a scheme, and errs on the side of remote.
func isRemoteBase(name string) bool {
	if filepath.IsAbs(name) {
		return false
	}
	name, _, _ = strings.Cut(name, "?")
	lower := strings.ToLower(name)
	if strings.HasPrefix(lower, "git::") {
		name, lower = name[len("git::"):], lower[len("git::"):]
	}
	for _, scheme := range []string{"ssh://", "https://", "http://", "file://"} {
		if strings.HasPrefix(lower, scheme) {
			return true
		}
	}
	rest := name
	if user := userPrefix.FindString(name); user != "" {
		rest = name[len(user):]
	} else if !strings.HasPrefix(lower, "github.com/") && !strings.HasPrefix(lower, "github.com:") {
		return false
	}
	// host:path or host/path, with a path that can name a repository.
	i := strings.IndexAny(rest, ":/")
	if i <= 0 {
		return false
	}
	repository := rest[i+1:]
	return strings.Contains(repository, "/") || strings.Contains(repository, ".git")
}

// redacted hides the password of an address.
func redacted(address string) string {
	scheme, rest, found := strings.Cut(address, "://")
	if !found {
		return address
	}
	authority, path, _ := strings.Cut(rest, "/")
	user, host, found := cutLast(authority, "@")
	if !found {
		return address
	}
	if name, _, hasPassword := strings.Cut(user, ":"); hasPassword {
		user = name + ":***"
	} else {
		user = "***"
	}
	return scheme + "://" + user + "@" + host + "/" + path
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
