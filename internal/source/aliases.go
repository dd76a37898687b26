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

// Written is about what YAML has once its aliases are written out, all its documents together.
type Written struct {
	Bytes int64
	// Nodes are its texts, lists and maps. They are counted only where it has aliases.
	Nodes int64
}

// WrittenOut is what YAML has once its aliases are written out. More than most bytes are an
// error: a few lines can name a text as often as to fill any memory. It is asked before
// anything decodes the text. What has no aliases is not parsed; what may have some and cannot
// be read is an error, for another parser might read it.
func WrittenOut(text []byte, most int64) (Written, error) {
	if bytes.IndexByte(text, '*') < 0 || bytes.IndexByte(text, '&') < 0 {
		return Written{Bytes: int64(len(text))}, nil
	}
	// Some readers take the first document only, others one after the other, and not all of
	// them find the same borders.
	first, err := documentWrittenOut(text, most)
	if err != nil || !bytes.Contains(text, []byte("---")) {
		return first.or(Written{Bytes: int64(len(text))}), err
	}
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(append(bytes.Clone(text), '\n'))))
	for total := (Written{}); ; {
		document, err := documents.Read()
		switch {
		case errors.Is(err, io.EOF):
			return first.or(total).or(Written{Bytes: int64(len(text))}), nil
		case err != nil:
			return Written{}, err
		}
		more, err := documentWrittenOut(document, most)
		total.Bytes += more.Bytes
		total.Nodes += more.Nodes
		if err == nil && total.Bytes > most {
			err = tooLong(most)
		}
		if err != nil {
			return Written{}, err
		}
	}
}

// or is the more of both.
func (w Written) or(other Written) Written {
	return Written{Bytes: max(w.Bytes, other.Bytes), Nodes: max(w.Nodes, other.Nodes)}
}

func documentWrittenOut(text []byte, most int64) (Written, error) {
	var node yaml.Node
	if err := yaml.Unmarshal(text, &node); err != nil {
		return Written{}, err
	}
	w := writtenOut{most: most, known: map[*yaml.Node]Written{}}
	all := w.of(&node)
	if all.Bytes > most {
		return Written{}, tooLong(most)
	}
	return all, nil
}

func tooLong(most int64) error { return fmt.Errorf("its aliases make more than %d bytes of it", most) }

// writtenOut sums up nodes with their aliases written out, each node once.
type writtenOut struct {
	most  int64
	known map[*yaml.Node]Written
}

// perNode is what a node has beside its text: a sign and some spaces.
const perNode = 4

// of is about what a node has, and never much more than the most of either.
func (w writtenOut) of(n *yaml.Node) Written {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if all, ok := w.known[n]; ok {
		return all
	}
	// An alias inside of what it names has no end.
	w.known[n] = Written{Bytes: w.most + 1, Nodes: w.most + 1}
	all := Written{Bytes: int64(len(n.Value)) + perNode, Nodes: 1}
	for _, below := range n.Content {
		more := w.of(below)
		all.Bytes = min(all.Bytes+more.Bytes, w.most+1)
		all.Nodes = min(all.Nodes+more.Nodes, w.most+1)
	}
	w.known[n] = all
	return all
}
