package ownership

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// node is a fieldsV1 document: path elements and what is below them. The element
// "." says that the path itself is a member of the set; a node without elements
// is a member without children.
type node map[string]node

// The kinds of path elements.
const (
	self        = "."
	fieldPrefix = "f:"
	keyPrefix   = "k:"
	valuePrefix = "v:"
	indexPrefix = "i:"
)

// parseFields reads a fieldsV1 document. Elements of a kind that is not known are
// an error: what they mean cannot be told.
func parseFields(raw []byte) (node, error) {
	var n node
	if err := json.Unmarshal(raw, &n); err != nil {
		return nil, fmt.Errorf("fieldsV1 is not readable: %w", err)
	}
	return n, n.check()
}

func (n node) check() error {
	for element, child := range n {
		if !knownElement(element) {
			return fmt.Errorf("fieldsV1 has the unknown element %q", element)
		}
		if err := child.check(); err != nil {
			return err
		}
	}
	return nil
}

func knownElement(element string) bool {
	if element == self {
		return true
	}
	for _, prefix := range []string{fieldPrefix, keyPrefix, valuePrefix, indexPrefix} {
		if strings.HasPrefix(element, prefix) {
			return true
		}
	}
	return false
}

// children is the number of elements below the node.
func (n node) children() int {
	if _, ok := n[self]; ok {
		return len(n) - 1
	}
	return len(n)
}

// leaf tells whether the node is a member without children.
func (n node) leaf() bool { return n.children() == 0 }

// merge adds what other holds. A member without children that gets some stays a
// member.
func (n node) merge(other node) {
	for element, child := range other {
		have, ok := n[element]
		if !ok {
			n[element] = child.clone()
			continue
		}
		member := have.member() || child.member()
		merged := have.clone()
		merged.merge(child)
		if member && element != self && !merged.leaf() {
			merged[self] = node{}
		}
		n[element] = merged
	}
}

// member tells whether the path of the node is itself in the set.
func (n node) member() bool {
	_, ok := n[self]
	return ok || len(n) == 0
}

func (n node) clone() node {
	c := make(node, len(n))
	for element, child := range n {
		c[element] = child.clone()
	}
	return c
}

// appendTo writes the node with its elements in order, each with its length, so
// that no name can be taken for another structure.
func (n node) appendTo(out []byte) []byte {
	out = append(out, '{')
	for _, element := range slices.Sorted(maps.Keys(n)) {
		out = strconv.AppendInt(out, int64(len(element)), 10)
		out = append(out, ' ')
		out = append(out, element...)
		out = n[element].appendTo(out)
	}
	return append(out, '}')
}

// decode reads one JSON document and keeps numbers as they are written.
func decode(raw []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("text after the document")
	}
	return nil
}
