package source

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
)

// WrittenOut is about how many bytes YAML has once its aliases are written out, all its
// documents together. More than most are an error: a few lines can name a text as often as
// to fill any memory. It is asked before anything decodes the text. What has no aliases is
// not parsed; what may have some and cannot be read is an error, for another parser might
// read it.
func WrittenOut(text []byte, most int64) (int64, error) {
	if bytes.IndexByte(text, '*') < 0 || bytes.IndexByte(text, '&') < 0 {
		return int64(len(text)), nil
	}
	// Some readers take the first document only, others one after the other, and not all of
	// them find the same borders.
	first, err := documentWrittenOut(text, most)
	if err != nil || !bytes.Contains(text, []byte("---")) {
		return max(first, int64(len(text))), err
	}
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(append(bytes.Clone(text), '\n'))))
	for total := int64(0); ; {
		document, err := documents.Read()
		switch {
		case errors.Is(err, io.EOF):
			return max(first, total, int64(len(text))), nil
		case err != nil:
			return 0, err
		}
		length, err := documentWrittenOut(document, most)
		if total += length; err == nil && total > most {
			err = tooLong(most)
		}
		if err != nil {
			return 0, err
		}
	}
}

func documentWrittenOut(text []byte, most int64) (int64, error) {
	var node yaml.Node
	if err := yaml.Unmarshal(text, &node); err != nil {
		return 0, err
	}
	w := writtenOut{most: most, known: map[*yaml.Node]int64{}}
	length := w.length(&node)
	if length > most {
		return 0, tooLong(most)
	}
	return length, nil
}

func tooLong(most int64) error { return fmt.Errorf("its aliases make more than %d bytes of it", most) }

// writtenOut sums the lengths of nodes with their aliases written out, each node once.
type writtenOut struct {
	most  int64
	known map[*yaml.Node]int64
}

// perNode is what a node has beside its text: a sign and some spaces.
const perNode = 4

// length is about that of a node in bytes, and never much more than the most.
func (w writtenOut) length(n *yaml.Node) int64 {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if length, ok := w.known[n]; ok {
		return length
	}
	// An alias inside of what it names has no end.
	w.known[n] = w.most + 1
	length := int64(len(n.Value)) + perNode
	for _, below := range n.Content {
		length = min(length+w.length(below), w.most+1)
	}
	w.known[n] = length
	return length
}
