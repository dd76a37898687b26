package kustomize

import (
	"bytes"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// document is a declaration of one object in a file.
type document struct {
	// line is where it begins, counted from 1.
	line       int
	apiVersion string
	kind       string
	namespace  string
	name       string
}

// documents finds the objects that a file declares: its YAML documents, and the
// items of lists among them. It never fails; what it does not understand it
// leaves out. It splits a file where kustomize does.
func documents(content []byte) []document {
	var found []document
	for _, part := range split(content) {
		if doc, ok := skim(part); ok && !strings.HasSuffix(doc.kind, "List") {
			found = append(found, doc)
			continue
		}
		found = append(found, parseDocument(part)...)
	}
	return found
}

// part is the text of one YAML document.
type part struct {
	// line is that of the first line of text in its file.
	line int
	text []byte
}

// separator is where kustomize cuts a file into documents.
var separator = regexp.MustCompile(`\n---.*\n`)

// split cuts a file as kustomize does: its lines end with a line feed only, and
// a separator takes the line breaks on both sides of it, so of two in a row the
// second is part of the next document.
func split(content []byte) []part {
	content = bytes.ReplaceAll(content, []byte("\r\n"), []byte("\n"))
	var parts []part
	start, line := 0, 1
	for _, at := range separator.FindAllIndex(content, -1) {
		text := content[start : at[0]+1 : at[0]+1]
		parts = append(parts, part{line, text})
		line += bytes.Count(text, []byte("\n")) + 1
		start = at[1]
	}
	return append(parts, part{line, content[start:]})
}

// skim reads the identity of a document in plain block style without parsing
// all of it. It is false where that is not certain.
func skim(p part) (document, bool) {
	var doc document
	inMetadata, indent := false, 0
	line := p.line - 1
	for rest := p.text; len(rest) > 0; {
		var text []byte
		text, rest, _ = bytes.Cut(rest, []byte("\n"))
		line++
		trimmed := bytes.TrimLeft(text, " ")
		if len(bytes.TrimSpace(trimmed)) == 0 || trimmed[0] == '#' {
			continue
		}
		if after, found := bytes.CutPrefix(text, []byte("---")); found && doc.line == 0 {
			if after = bytes.TrimSpace(after); len(after) > 0 && after[0] != '#' {
				return doc, false
			}
			continue
		}
		if doc.line == 0 {
			doc.line = line
		}
		depth := len(text) - len(trimmed)
		if depth == 0 {
			key, value, ok := entry(trimmed)
			if !ok {
				return doc, false
			}
			inMetadata, indent = key == "metadata" && value == "", 0
			switch key {
			case "metadata":
				if value != "" {
					return doc, false
				}
			case "kind":
				doc.kind = value
			case "apiVersion":
				doc.apiVersion = value
			}
			continue
		}
		if !inMetadata {
			continue
		}
		if indent == 0 {
			indent = depth
		}
		if depth != indent {
			continue
		}
		key, value, ok := entry(trimmed)
		if !ok {
			return doc, false
		}
		switch key {
		case "name":
			doc.name = value
		case "namespace":
			doc.namespace = value
		}
	}
	return doc, doc.kind != "" && doc.name != "" && doc.apiVersion != ""
}

// entry reads "key: value" where both are plain, or the value is simply quoted.
// Everything else is not ok.
func entry(text []byte) (key, value string, ok bool) {
	before, after, found := strings.Cut(string(bytes.TrimRight(text, "\r \t")), ":")
	if !found || before == "" || strings.ContainsAny(before, "\"'{}[]&*!|>?%@`#,\t ") || after != "" && after[0] != ' ' {
		return "", "", false
	}
	if i := strings.Index(after, " #"); i >= 0 {
		after = after[:i]
	}
	value = strings.TrimSpace(after)
	if value == "" {
		return before, "", true
	}
	if quote := value[0]; quote == '"' || quote == '\'' {
		if len(value) < 2 || value[len(value)-1] != quote || strings.ContainsAny(value[1:len(value)-1], `\'"`) {
			return "", "", false
		}
		return before, value[1 : len(value)-1], true
	}
	if strings.ContainsAny(value, "{}[]&*!|>?%@`'\"\\\t") || strings.Contains(value, ": ") {
		return "", "", false
	}
	return before, value, true
}

// parseDocument reads a document of any style, and the items of a list.
func parseDocument(p part) []document {
	var node yaml.Node
	if err := yaml.Unmarshal(p.text, &node); err != nil || len(node.Content) == 0 {
		return nil
	}
	top := node.Content[0]
	// The parser also counts line breaks that are none in a file.
	last := p.line + bytes.Count(p.text, []byte("\n"))
	identify := func(node *yaml.Node) document {
		doc := identify(node, p.line-1)
		doc.line = min(doc.line, last)
		return doc
	}
	doc := identify(top)
	items := field(top, "items")
	if !strings.HasSuffix(doc.kind, "List") || items == nil || items.Kind != yaml.SequenceNode {
		if doc.kind == "" {
			return nil
		}
		return []document{doc}
	}
	var found []document
	for _, item := range items.Content {
		if doc := identify(item); doc.kind != "" {
			found = append(found, doc)
		}
	}
	return found
}

// identify reads the identity of an object at a node. Lines are counted from
// the line offset.
func identify(node *yaml.Node, offset int) document {
	metadata := field(node, "metadata")
	return document{
		line:       offset + node.Line,
		apiVersion: scalar(field(node, "apiVersion")),
		kind:       scalar(field(node, "kind")),
		namespace:  scalar(field(metadata, "namespace")),
		name:       scalar(field(metadata, "name")),
	}
}

// field is the value at a key of a mapping; nil where there is none. An alias
// is followed once.
func field(node *yaml.Node, key string) *yaml.Node {
	if node != nil && node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	if node == nil || node.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		if node.Content[i].Value == key {
			return node.Content[i+1]
		}
	}
	return nil
}

func scalar(node *yaml.Node) string {
	if node != nil && node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	if node == nil || node.Kind != yaml.ScalarNode {
		return ""
	}
	return node.Value
}
