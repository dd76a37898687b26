package build

import (
	"strings"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// A trace also holds what a build depended on that is not in a tree. These
// kinds are used by this package only.
const (
	// readSpec stands for the Spec; Seen is its key.
	readSpec gitops.ReadKind = 0xfe
	// readUnrepeatable stands for what cannot be asked again, such as a remote
	// base: a trace that holds it is never valid.
	readUnrepeatable gitops.ReadKind = 0xff
)

// Valid tells whether a build with this trace would see the same in tree. It
// reads no file: it compares sums, and lists a directory only where its sum
// differs. It does not look at the Spec; Builder.Current does that too.
func Valid(trace gitops.Trace, tree gitops.Tree) bool {
	// A directory whose sum is as it was answers for everything below it.
	var same []string
	for _, read := range trace {
		switch read.Kind {
		case readUnrepeatable:
			return false
		case gitops.ReadListing:
			if covered(same, read.Path) {
				continue
			}
			whole, ok := sameListing(read, tree)
			if !ok {
				return false
			}
			if whole {
				same = append(same, read.Path)
			}
		}
	}
	for _, read := range trace {
		switch read.Kind {
		case gitops.ReadFile:
			if !covered(same, read.Path) && !sameFile(read, tree) {
				return false
			}
		case gitops.ReadKindOf:
			if !covered(same, read.Path) && !sameKind(read, tree) {
				return false
			}
		}
	}
	return true
}

// covered tells whether path is one of the directories or below one.
func covered(directories []string, path string) bool {
	for _, dir := range directories {
		if dir == "." || path == dir || len(path) > len(dir) && path[len(dir)] == '/' && strings.HasPrefix(path, dir) {
			return true
		}
	}
	return false
}

// sameListing compares a directory; whole is set where everything below it is
// the same too.
func sameListing(read gitops.Read, tree gitops.Tree) (whole, ok bool) {
	sum, err := tree.Sum(read.Path)
	if err != nil {
		return false, read.Seen == "" && isMissing(err)
	}
	seenSum, seenListing, found := strings.Cut(read.Seen, listingSeparator)
	if !found {
		return false, false
	}
	if sum == seenSum {
		return true, true
	}
	entries, err := tree.ReadDir(read.Path)
	if err != nil {
		return false, false
	}
	return false, listingDigest(entries) == seenListing
}

func sameFile(read gitops.Read, tree gitops.Tree) bool {
	sum, err := tree.Sum(read.Path)
	if err != nil {
		return read.Seen == "" && isMissing(err)
	}
	return sum == read.Seen
}

func sameKind(read gitops.Read, tree gitops.Tree) bool {
	info, err := tree.Stat(read.Path)
	if err != nil {
		return read.Seen == "" && isMissing(err)
	}
	return kindOf(info) == read.Seen
}
