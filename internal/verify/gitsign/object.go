package gitsign

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// object is a commit or tag, taken apart.
type object struct {
	kind string
	// payload are the bytes that are signed, and signature is the armored signature;
	// empty where there is none.
	payload, signature []byte
}

const (
	pgpBegin = "-----BEGIN PGP SIGNATURE-----\n"
	pgpEnd   = "-----END PGP SIGNATURE-----"
	sshBegin = "-----BEGIN SSH SIGNATURE-----\n"
	sshEnd   = "-----END SSH SIGNATURE-----"
)

const (
	// longestSignature is the most bytes of an armored signature.
	longestSignature = 64 << 10
	// longestHeader is the most bytes of all header lines, signatures and merged tags
	// included.
	longestHeader = 1 << 20
)

// begins are how a signature at the end of a tag begins, of the kinds that Git knows.
func begins() []string {
	return []string{"-----BEGIN PGP SIGNATURE-----", "-----BEGIN PGP MESSAGE-----", "-----BEGIN SSH SIGNATURE-----", "-----BEGIN SIGNED MESSAGE-----"}
}

// parse takes an object apart. It refuses what another reader could read otherwise:
// the order and number of the headers is that of Git, header lines end with a newline
// alone, and there is at most one signature.
func parse(data []byte) (object, error) {
	var o object
	var err error
	switch {
	case bytes.HasPrefix(data, []byte("tree ")):
		o, err = parseCommit(data)
	case bytes.HasPrefix(data, []byte("object ")):
		o, err = parseTag(data)
	default:
		return object{}, errors.New("it is neither a commit nor a tag")
	}
	if err != nil {
		return object{}, err
	}
	return o, o.check()
}

// check looks at the frame of the signature.
func (o object) check() error {
	switch {
	case len(o.signature) == 0:
		return nil
	case len(o.signature) > longestSignature:
		return fmt.Errorf("the signature of the %s has more than %d bytes", o.kind, longestSignature)
	case bytes.ContainsAny(o.signature, "\r\x00"):
		return fmt.Errorf("the signature of the %s has a carriage return or a zero byte", o.kind)
	case bytes.Count(o.signature, []byte("-----BEGIN ")) != 1:
		return fmt.Errorf("the %s does not have exactly one signature", o.kind)
	}
	for begin, end := range map[string]string{pgpBegin: pgpEnd, sshBegin: sshEnd} {
		if !bytes.HasPrefix(o.signature, []byte(begin)) {
			continue
		}
		_, after, ok := bytes.Cut(o.signature, []byte("\n"+end))
		if !ok {
			return fmt.Errorf("the signature of the %s has no end", o.kind)
		}
		if len(bytes.TrimSpace(after)) > 0 {
			return fmt.Errorf("there is something behind the signature of the %s", o.kind)
		}
	}
	return nil
}

// field is a header of an object: the bytes from start to end, with the lines that
// go on with it.
type field struct {
	key, value string
	start, end int
	lines      int
}

// headers reads the lines up to the first empty one; the body begins behind it.
func headers(kind string, data []byte) (fields []field, body int, err error) {
	end := bytes.Index(data, []byte("\n\n"))
	if end < 0 {
		return nil, 0, fmt.Errorf("the header of the %s has no end", kind)
	}
	head := data[:end+1]
	switch {
	case len(head) > longestHeader:
		return nil, 0, fmt.Errorf("the header of the %s has more than %d bytes", kind, longestHeader)
	case bytes.ContainsAny(head, "\r\x00"):
		return nil, 0, fmt.Errorf("the header of the %s has a carriage return or a zero byte", kind)
	}
	at := 0
	for line := range bytes.Lines(head) {
		next := at + len(line)
		key, value, ok := strings.Cut(strings.TrimSuffix(string(line), "\n"), " ")
		switch {
		case ok && key == "" && len(fields) > 0:
			last := &fields[len(fields)-1]
			last.end, last.lines = next, last.lines+1
		case ok && key != "":
			fields = append(fields, field{key: key, value: value, start: at, end: next, lines: 1})
		default:
			return nil, 0, fmt.Errorf("the header of the %s has a line that is none", kind)
		}
		at = next
	}
	return fields, end + 2, nil
}

// take gives the values of the fields with a key at the front, at least and at most so
// many, and the fields behind them.
func take(kind, key string, least, most int, fields []field) (values []string, rest []field, err error) {
	for len(fields) > 0 && fields[0].key == key {
		if fields[0].lines > 1 {
			return nil, nil, fmt.Errorf("the %s has a %q of several lines", kind, key)
		}
		values, fields = append(values, fields[0].value), fields[1:]
	}
	if len(values) < least || len(values) > most {
		return nil, nil, fmt.Errorf("the %s has %d times %q where Git writes it", kind, len(values), key)
	}
	return values, fields, nil
}

// mostParents is how many parents a commit may name.
const mostParents = 1000

// parseCommit reads a commit, which holds its signature in its header.
func parseCommit(data []byte) (object, error) {
	o := object{kind: "commit"}
	fields, _, err := headers(o.kind, data)
	if err != nil {
		return object{}, err
	}
	for _, part := range []struct {
		key         string
		least, most int
		name        bool
	}{{"tree", 1, 1, true}, {"parent", 0, mostParents, true}, {"author", 1, 1, false}, {"committer", 1, 1, false}} {
		var values []string
		if values, fields, err = take(o.kind, part.key, part.least, part.most, fields); err != nil {
			return object{}, err
		}
		if part.name && slices.ContainsFunc(values, notName) {
			return object{}, fmt.Errorf("the commit has a %q that is not the name of an object", part.key)
		}
	}
	encoded := false
	for _, f := range fields {
		switch f.key {
		case "encoding":
			if encoded || f.lines > 1 {
				return object{}, errors.New("the commit has several encodings")
			}
			encoded = true
		case "gpgsig":
			if o.signature != nil {
				return object{}, errors.New("the commit has several signatures")
			}
			o.signature = unfold(data[f.start:f.end])
			o.payload = slices.Concat(data[:f.start], data[f.end:])
		case "tree", "parent", "author", "committer", "object", "type", "tag", "tagger":
			return object{}, fmt.Errorf("the commit has %q where Git does not write it", f.key)
		case "gpgsig-sha256":
			return object{}, errors.New("the commit has a signature for another kind of repository, which is not supported")
		}
	}
	return o, nil
}

// unfold is the value of a header of several lines.
func unfold(raw []byte) []byte {
	_, value, _ := bytes.Cut(raw, []byte(" "))
	return bytes.ReplaceAll(value, []byte("\n "), []byte("\n"))
}

// notName tells whether a text is no name of an object in the form that Git writes.
func notName(text string) bool {
	return len(text) != 40 || strings.Trim(text, "0123456789abcdef") != ""
}

// parseTag reads a tag, which holds its signature at the end of its text.
func parseTag(data []byte) (object, error) {
	o := object{kind: "tag", payload: data}
	fields, body, err := headers(o.kind, data)
	if err != nil {
		return object{}, err
	}
	for _, part := range []struct {
		key   string
		least int
	}{{"object", 1}, {"type", 1}, {"tag", 1}, {"tagger", 0}} {
		var values []string
		if values, fields, err = take(o.kind, part.key, part.least, 1, fields); err != nil {
			return object{}, err
		}
		if part.key == "object" && notName(values[0]) {
			return object{}, errors.New("the tag has an \"object\" that is not the name of an object")
		}
	}
	if len(fields) > 0 {
		return object{}, fmt.Errorf("the tag has a header that Git does not write")
	}
	at := body
	for line := range bytes.Lines(data[body:]) {
		if slices.ContainsFunc(begins(), func(begin string) bool { return bytes.HasPrefix(line, []byte(begin)) }) {
			if o.signature != nil {
				return object{}, errors.New("the tag has several signatures")
			}
			o.payload, o.signature = data[:at], data[at:]
		}
		at += len(line)
	}
	return o, nil
}
