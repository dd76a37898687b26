package bucket

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/source"
)

const (
	// longestKey is the longest key in bytes, which is also what the stores allow.
	longestKey = 1024
	// longestElement is the longest name of a file or directory, in bytes: consumers
	// write them to disk.
	longestElement = 255
	// deepest is how many directories lead to a file at most.
	deepest = 100
	// mostDirectories is how many directories the keys of a bucket make at most: each key
	// alone may make many.
	mostDirectories = 200_000
	// longestTag is the longest entity tag in bytes.
	longestTag = 1024
)

// checkKey refuses a key that is no path of a file below the root, or that no file
// system takes. It is checked before anything of the object is fetched.
func checkKey(key string) error {
	bad := func(why string) error {
		return refused("the key %s %s; rename the object or exclude it in ignore", egress.Quote(key), why)
	}
	switch {
	case len(key) > longestKey:
		return bad(fmt.Sprintf("has more than %d bytes", longestKey))
	case !utf8.ValidString(key):
		return bad("is not in UTF-8")
	case strings.Contains(key, `\`):
		return bad("holds a backslash")
	case strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return bad("holds a control character")
	case key == "." || !fs.ValidPath(key):
		return bad("is no path below the root of the bucket")
	case strings.Count(key, "/") > deepest:
		return bad(fmt.Sprintf("is nested deeper than %d directories", deepest))
	}
	for element := range strings.SplitSeq(key, "/") {
		if len(element) > longestElement {
			return bad(fmt.Sprintf("holds a name of more than %d bytes", longestElement))
		}
	}
	return nil
}

// checkTag refuses an entity tag that could be taken for something else in the text
// that the revision is the sum of, or in a header.
func checkTag(o object) error {
	if len(o.etag) > longestTag || strings.ContainsFunc(o.etag, func(r rune) bool { return r < ' ' || r > '~' }) {
		return refused("the object %s has an entity tag that is not printable or too long", egress.Quote(o.key))
	}
	return nil
}

// choose gives the objects that are counted, in the order of their keys. It is an error
// where they are more than may be, or cannot stand side by side as files.
func (o Options) choose(listed []object, patterns source.Patterns) ([]object, error) {
	var chosen []object
	for _, object := range listed {
		if !strings.HasSuffix(object.key, "/") && object.key != source.IgnoreFile && !patterns.Exclude(object.key) {
			chosen = append(chosen, object)
		}
	}
	slices.SortStableFunc(chosen, func(a, b object) int { return strings.Compare(a.key, b.key) })
	files := make(map[string]int, len(chosen))
	for i, object := range chosen {
		if err := checkKey(object.key); err != nil {
			return nil, err
		}
		if err := checkTag(object); err != nil {
			return nil, err
		}
		if twice, ok := files[object.key]; ok && chosen[twice].etag != object.etag {
			return nil, &fault{code: codeChanged, text: "the bucket changes while it is listed"}
		}
		files[object.key] = i
	}
	folders, err := emptyFolders(chosen, files)
	if err != nil {
		return nil, err
	}
	last := ""
	chosen = slices.DeleteFunc(chosen, func(object object) bool {
		twice := object.key == last
		last = object.key
		return twice || folders[object.key]
	})
	return chosen, o.checkSizes(chosen)
}

// emptyFolders finds objects that stand for a folder: those without content whose key
// leads to others. One with content cannot be a file and a folder at once.
func emptyFolders(chosen []object, files map[string]int) (map[string]bool, error) {
	folders := map[string]bool{}
	for _, object := range chosen {
		for i := range len(object.key) {
			if object.key[i] != '/' {
				continue
			}
			at, ok := files[object.key[:i]]
			if !ok {
				continue
			}
			if chosen[at].size > 0 {
				return nil, refused("the key %s is a file and, for %s, a directory; rename one of the objects or exclude it in ignore",
					egress.Quote(object.key[:i]), egress.Quote(object.key))
			}
			folders[object.key[:i]] = true
		}
	}
	return folders, nil
}

func (o Options) checkSizes(chosen []object) error {
	if len(chosen) > o.Objects {
		return refused("the bucket has more than %d objects that are not ignored, which is the most that is fetched; choose a narrower prefix or more in ignore", o.Objects)
	}
	total := int64(0)
	for _, object := range chosen {
		if object.size < 0 || object.size > o.ObjectBytes {
			return refused("the object %s has %d bytes, at most %d are fetched; exclude it in ignore", egress.Quote(object.key), object.size, o.ObjectBytes)
		}
		if total += object.size; total > o.TotalBytes {
			return refused("the objects of the bucket have more than %d bytes together, which is the most that is fetched; choose a narrower prefix or more in ignore", o.TotalBytes)
		}
	}
	return nil
}

// revisionOf is the sum that Flux makes of keys and entity tags, in the order of the
// keys: a line for each.
func revisionOf(chosen []object) string {
	h := sha256.New()
	for _, o := range chosen {
		_, _ = io.WriteString(h, o.key+" "+o.etag+"\n")
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}
