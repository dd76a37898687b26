package git

import (
	"fmt"
	"strings"
)

// checkName refuses names in a directory that could mean another place than a file
// in it: here, or where somebody unpacks the artifact.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." || strings.Contains(name, "/") || isDotGit(name) {
		return fmt.Errorf("%s is not a valid file name", quoted(name))
	}
	return nil
}

// isDotGit tells whether some file system takes a name for .git: those that know no
// case, HFS+, which leaves out characters that nobody sees, and NTFS, which leaves out
// dots and spaces at the end, has short names, and streams behind a colon. Git refuses
// the same.
func isDotGit(name string) bool {
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= 0x200c && r <= 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x206a && r <= 0x206f, r == 0xfeff:
			return -1
		}
		return r
	}, name)
	name, _, _ = strings.Cut(name, ":")
	name, _, _ = strings.Cut(name, "\\")
	name = strings.TrimRight(name, ". ")
	return strings.EqualFold(name, ".git") || strings.EqualFold(name, "git~1")
}
