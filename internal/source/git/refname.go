package git

import (
	"fmt"
	"strings"

	"github.com/plumb-gitops/plumb/internal/source/git/wire"
)

const (
	// longestName is the most bytes of the name of a ref, with refs/heads/ and the
	// like. Names go to the server in requests that several objects share.
	longestName = wire.LongestRef
	// longestRange is the most bytes of a semver range, which is compared with each tag.
	longestRange = 1 << 10
	// longestShown is the most bytes of a name, or of a URL, in a message.
	longestShown = 256
)

// checkRef refuses a whole name that Git does not let a ref have, by the rules of git
// check-ref-format. Names of one part, such as HEAD, are allowed.
func checkRef(name string) error {
	if len(name) > longestName {
		return fmt.Errorf("the name %s has %d bytes; a ref has at most %d", quoted(name), len(name), longestName)
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || strings.HasPrefix(part, ".") || strings.HasSuffix(part, ".lock") {
			return notRef(name)
		}
	}
	wrong := func(r rune) bool { return r < ' ' || r == 0x7f || strings.ContainsRune(" ~^:?*[\\", r) }
	if name == "@" || strings.HasSuffix(name, ".") || strings.Contains(name, "..") || strings.Contains(name, "@{") || strings.ContainsFunc(name, wrong) {
		return notRef(name)
	}
	return nil
}

func notRef(name string) error { return fmt.Errorf("%s is not a name for a ref", quoted(name)) }

// quoted is a text in quotes, cut off where it is too long for a message.
func quoted(text string) string { return fmt.Sprintf("%q", cut(text)) }

func cut(text string) string {
	if len(text) > longestShown {
		return strings.ToValidUTF8(text[:longestShown], "") + "…"
	}
	return text
}
