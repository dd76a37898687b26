package kustomize

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"
)

// checkYAML refuses a file whose aliases expand to far more than is written, or
// whose collections are nested too deeply, before anything expands or walks it.
// A file that has no aliases and is not deep is not parsed here, and what is
// not YAML is left for kustomize to refuse.
func checkYAML(content []byte, limits Limits) error {
	if !suspicious(content, limits.Depth) {
		return nil
	}
	parts := split(content)
	if len(parts) > 1 {
		// What kustomize does not cut, it reads as one stream.
		parts = append(parts, part{1, content})
	}
	for _, p := range parts {
		decoder := yaml.NewDecoder(bytes.NewReader(p.text))
		for {
			var node yaml.Node
			if err := decoder.Decode(&node); err != nil {
				if !errors.Is(err, io.EOF) && bytes.Contains([]byte(err.Error()), []byte("exceeded max depth")) {
					return &lineError{p.line, fmt.Errorf("collections are nested more than %d deep", limits.Depth)}
				}
				break
			}
			m := measure{limits: limits, offset: p.line - 1, sizes: map[*yaml.Node]int{}}
			expanded, err := m.node(&node, 0)
			if err != nil {
				return err
			}
			if expanded > limits.Nodes && expanded/10 > m.written {
				return &lineError{p.line, fmt.Errorf("aliases expand %d YAML nodes to more than %d: write them out or split the file", m.written, limits.Nodes)}
			}
		}
	}
	return nil
}

// checkFile is checkYAML for a file that has to be YAML: one that could hide a
// bomb and cannot be decoded is refused.
func checkFile(content []byte, limits Limits) error {
	if err := checkYAML(content, limits); err != nil || !suspicious(content, limits.Depth) {
		return err
	}
	if line, problem, found := malformed(content); found {
		return &lineError{line, fmt.Errorf("malformed YAML: %s", problem)}
	}
	return nil
}

// atMost is a number that the nodes of a file do not exceed: each has a line,
// or a sign of a flow collection, of its own.
func atMost(content []byte) int {
	lines := bytes.Count(content, []byte("\n")) + bytes.Count(content, []byte("\r")) + 1
	nodes := 2*lines + bytes.Count(content, []byte("- ")) + bytes.Count(content, []byte("? "))
	for _, sign := range []string{"[", "{", ",", ":"} {
		nodes += 2 * bytes.Count(content, []byte(sign))
	}
	return nodes
}

// nodes counts the nodes that are written in a file.
func nodes(content []byte) int {
	total := 0
	for _, p := range split(content) {
		var node yaml.Node
		if yaml.Unmarshal(p.text, &node) == nil {
			total += written(&node)
		}
	}
	return total
}

func written(node *yaml.Node) int {
	total := 1
	for _, child := range node.Content {
		total += written(child)
	}
	return total
}

// lineError is an error at a line of the file that was checked.
type lineError struct {
	line int
	err  error
}

func (e *lineError) Error() string { return e.err.Error() }
func (e *lineError) Unwrap() error { return e.err }

// suspicious tells whether a file could hold aliases or deep nesting: it has
// both an anchor's and an alias' sign, as many brackets or dashes as are too
// deep, or such an indentation.
func suspicious(content []byte, depth int) bool {
	if bytes.IndexByte(content, '&') >= 0 && bytes.IndexByte(content, '*') >= 0 {
		return true
	}
	if bytes.IndexByte(content, 0) >= 0 {
		return true // It may be encoded in another way than looked for here.
	}
	if bytes.Count(content, []byte("[")) > depth || bytes.Count(content, []byte("{")) > depth {
		return true
	}
	for rest := content; len(rest) > 0; {
		var line []byte
		line, rest, _ = bytes.Cut(rest, []byte("\n"))
		trimmed := bytes.TrimLeft(line, " -?")
		if len(line)-len(trimmed) > depth {
			return true
		}
	}
	return false
}

// bytesPerNode makes a long scalar count as several nodes.
const bytesPerNode = 64

// measure counts the nodes of a document with its aliases expanded.
type measure struct {
	limits  Limits
	offset  int
	written int
	// sizes are those of anchored nodes; -1 while a node is being counted.
	sizes map[*yaml.Node]int
}

// node is the number of nodes at and below a node, never much more than the limit.
func (m *measure) node(n *yaml.Node, depth int) (int, error) {
	if depth > m.limits.Depth+1 { // The document node is one more.
		return 0, &lineError{m.offset + n.Line, fmt.Errorf("collections are nested more than %d deep", m.limits.Depth)}
	}
	if n.Kind == yaml.AliasNode {
		m.written++
		size, known := m.sizes[n.Alias]
		if !known || size < 0 {
			return 0, &lineError{m.offset + n.Line, fmt.Errorf("alias %q stands inside of what it names", "*"+n.Value)}
		}
		return size, nil
	}
	if n.Anchor != "" {
		m.sizes[n] = -1
	}
	size := 1 + len(n.Value)/bytesPerNode
	m.written += size
	for _, child := range n.Content {
		below, err := m.node(child, depth+1)
		if err != nil {
			return 0, err
		}
		size = min(size+below, 2*m.limits.Nodes*10)
	}
	if n.Anchor != "" {
		m.sizes[n] = size
	}
	return size, nil
}
