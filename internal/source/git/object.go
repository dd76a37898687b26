package git

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/plumb-gitops/plumb/internal/source/git/pack"
)

// Commit describes a commit.
type Commit struct {
	// Hash is its name in hexadecimal.
	Hash string
	// Author and Committer say who made it and when.
	Author, Committer Person
	// Message is the whole text.
	Message string
}

// Person is somebody at a time.
type Person struct {
	Name  string
	Email string
	When  time.Time
}

// String is "Name <email>".
func (p Person) String() string { return p.Name + " <" + p.Email + ">" }

// commitObject is what a commit object says.
type commitObject struct {
	Commit
	tree    pack.ID
	parents []pack.ID
}

// header lines of commits and tags end with an empty line.
func parseHeader(data []byte, line func(key, value string) error) (body []byte, err error) {
	for len(data) > 0 {
		text, rest, found := bytes.Cut(data, []byte("\n"))
		if len(text) == 0 {
			return rest, nil
		}
		if !found {
			break
		}
		data = rest
		if text[0] == ' ' {
			continue // goes on with a signature
		}
		key, value, _ := strings.Cut(string(text), " ")
		if err := line(key, value); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

func parseCommit(id pack.ID, data []byte) (commitObject, error) {
	c := commitObject{Commit: Commit{Hash: id.String()}}
	body, err := parseHeader(data, func(key, value string) (err error) {
		switch key {
		case "tree":
			if !c.tree.IsZero() {
				return fmt.Errorf("two trees")
			}
			c.tree, err = pack.ParseID(value)
		case "parent":
			var parent pack.ID
			if parent, err = pack.ParseID(value); err == nil {
				c.parents = append(c.parents, parent)
			}
		case "author":
			c.Author = parsePerson(value)
		case "committer":
			c.Committer = parsePerson(value)
		}
		return err
	})
	if err != nil {
		return commitObject{}, fmt.Errorf("commit %s: %w", id, err)
	}
	if c.tree.IsZero() {
		return commitObject{}, fmt.Errorf("commit %s has no tree", id)
	}
	c.Message = string(body)
	return c, nil
}

// parsePerson reads "Name <email> seconds zone"; what is missing stays empty.
func parsePerson(text string) Person {
	open, end := strings.IndexByte(text, '<'), strings.LastIndexByte(text, '>')
	if open < 0 || end < open {
		return Person{Name: strings.TrimSpace(text)}
	}
	p := Person{Name: strings.TrimSpace(text[:open]), Email: text[open+1 : end]}
	fields := strings.Fields(text[end+1:])
	if len(fields) == 0 {
		return p
	}
	seconds, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		return p
	}
	p.When = time.Unix(seconds, 0).UTC()
	if len(fields) > 1 {
		if zone, err := time.Parse("-0700", fields[1]); err == nil {
			p.When = p.When.In(zone.Location())
		}
	}
	return p
}

// tagName is the name that an annotated tag gives itself.
func tagName(data []byte) string {
	var name string
	_, _ = parseHeader(data, func(key, value string) error {
		if key == "tag" && name == "" {
			name = value
		}
		return nil
	})
	return name
}

// parseTag gives the object that an annotated tag names.
func parseTag(id pack.ID, data []byte) (pack.ID, error) {
	var object pack.ID
	_, err := parseHeader(data, func(key, value string) (err error) {
		if key == "object" && object.IsZero() {
			object, err = pack.ParseID(value)
		}
		return err
	})
	if err == nil && object.IsZero() {
		err = fmt.Errorf("no object")
	}
	if err != nil {
		return pack.ID{}, fmt.Errorf("tag %s: %w", id, err)
	}
	return object, nil
}

// entryKind is what a tree's entry is.
type entryKind uint8

const (
	kindFile entryKind = iota
	kindExecutable
	kindDir
	kindSymlink
	kindSubmodule
)

// entry is an entry of a directory.
type entry struct {
	name string
	id   pack.ID
	kind entryKind
}

// shown tells whether the entry is, or may lead to, a regular file.
func (e entry) shown() bool { return e.kind <= kindDir }

// entryCost is about what an entry holds in memory.
const entryCost = 64

// parseTree reads a tree object. Names that could mean another place than a
// file in this directory are an error.
func parseTree(id pack.ID, data []byte) ([]entry, error) {
	entries := make([]entry, 0, bytes.Count(data, []byte{0})/2+1)
	for len(data) > 0 {
		modeText, rest, ok := bytes.Cut(data, []byte(" "))
		name, rest, ok2 := bytes.Cut(rest, []byte{0})
		if !ok || !ok2 || len(rest) < len(pack.ID{}) {
			return nil, fmt.Errorf("tree %s is cut off", id)
		}
		mode, err := strconv.ParseUint(string(modeText), 8, 32)
		if err != nil {
			return nil, fmt.Errorf("tree %s has an entry of an invalid mode", id)
		}
		e := entry{name: string(name), id: pack.ID(rest), kind: kindOf(mode)}
		data = rest[len(e.id):]
		if err := checkName(e.name); err != nil {
			return nil, fmt.Errorf("tree %s: %w", id, err)
		}
		// io/fs has no names but those of UTF-8.
		if utf8.ValidString(e.name) {
			entries = append(entries, e)
		}
	}
	return entries, nil
}

func kindOf(mode uint64) entryKind {
	switch mode & 0o170000 {
	case 0o040000:
		return kindDir
	case 0o120000:
		return kindSymlink
	case 0o160000:
		return kindSubmodule
	}
	if mode&0o100 != 0 {
		return kindExecutable
	}
	return kindFile
}
