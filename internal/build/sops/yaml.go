package sops

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/getsops/sops/v3"
	"go.yaml.in/yaml/v3"
)

// yamlIndent is what SOPS prints YAML with.
const yamlIndent = 4

// readYAML reads documents of YAML, each of which is a mapping.
func readYAML(content []byte) (sops.TreeBranches, error) {
	var nodes []*yaml.Node
	for decoder := yaml.NewDecoder(bytes.NewReader(content)); ; {
		document := new(yaml.Node)
		err := decoder.Decode(document)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, errUnreadable
		}
		if err := checkNode(document); err != nil {
			return nil, err
		}
		nodes = append(nodes, document)
	}
	// A mapping of this type refuses a key that is there twice; nodes do not. It is safe
	// now that nothing expands.
	if err := yaml.NewDecoder(bytes.NewReader(content)).Decode(map[string]any{}); err != nil && len(content) > 0 {
		return nil, errUnreadable
	}
	var documents sops.TreeBranches
	for _, document := range nodes {
		branch := comments(sops.TreeBranch{}, false, document.HeadComment, document.LineComment)
		for _, root := range document.Content {
			var err error
			switch {
			case root.Kind == yaml.MappingNode:
				branch, err = readMapping(branch, root, true)
			case root.Kind == yaml.ScalarNode && root.ShortTag() == "!!null":
				branch = comments(branch, false, root.HeadComment, root.LineComment)
			case root.Kind == yaml.AliasNode:
				err = aliasError(root)
			default:
				err = errUnreadable
			}
			if err != nil {
				return nil, err
			}
		}
		documents = append(documents, comments(branch, false, document.FootComment))
	}
	return documents, nil
}

// checkNode refuses what could expand to any size: an alias, which SOPS writes out when it
// encrypts, and a key that is no scalar, which it cannot write.
func checkNode(node *yaml.Node) error {
	if node.Kind == yaml.AliasNode {
		return aliasError(node)
	}
	for i, child := range node.Content {
		if err := checkNode(child); err != nil {
			return err
		}
		if node.Kind == yaml.MappingNode && i%2 == 0 && child.Kind != yaml.ScalarNode {
			return fmt.Errorf("line %d has a key that is no scalar, which an encrypted document cannot have", child.Line)
		}
	}
	return nil
}

// readMapping adds the entries of a mapping to a branch; with its comments, unless
// those are the parent's to read. A comment on the line of a scalar stands before its
// entry, and is marked.
func readMapping(branch sops.TreeBranch, node *yaml.Node, withComments bool) (sops.TreeBranch, error) {
	if withComments {
		branch = comments(branch, false, node.HeadComment, node.LineComment)
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		scalar := value.Kind == yaml.ScalarNode
		branch = comments(branch, false, key.HeadComment, key.LineComment)
		if scalar {
			branch = comments(branch, false, value.HeadComment)
			branch = comments(branch, true, value.LineComment)
		}
		var name any
		if key.Decode(&name) != nil {
			return nil, errUnreadable
		}
		read, err := readValue(value, !scalar)
		if err != nil {
			return nil, err
		}
		branch = append(branch, sops.TreeItem{Key: name, Value: read})
		if scalar {
			branch = comments(branch, false, value.FootComment)
		}
		branch = comments(branch, false, key.FootComment)
	}
	if withComments {
		branch = comments(branch, false, node.FootComment)
	}
	return branch, nil
}

// readValue reads what is below a key or in a list.
func readValue(node *yaml.Node, withComments bool) (any, error) {
	switch node.Kind {
	case yaml.MappingNode:
		return readMapping(sops.TreeBranch{}, node, withComments)
	case yaml.SequenceNode:
		var list []any
		if withComments {
			list = listComments(list, false, node.HeadComment, node.LineComment)
		}
		for _, item := range node.Content {
			list = listComments(list, false, item.HeadComment)
			list = listComments(list, true, item.LineComment)
			read, err := readValue(item, false)
			if err != nil {
				return nil, err
			}
			list = listComments(append(list, read), false, item.FootComment)
		}
		if withComments {
			list = listComments(list, false, node.FootComment)
		}
		return list, nil
	case yaml.AliasNode:
		return nil, aliasError(node)
	default:
		var value any
		if node.Decode(&value) != nil {
			return nil, errUnreadable
		}
		return value, nil
	}
}

// aliasError refuses an alias, which SOPS writes out when it encrypts: one document
// could expand to any size.
func aliasError(node *yaml.Node) error {
	return fmt.Errorf("line %d has an alias, which an encrypted document cannot have", node.Line)
}

// comments adds a comment for each line of texts to a branch.
func comments(branch sops.TreeBranch, inline bool, texts ...string) sops.TreeBranch {
	for _, comment := range listComments(nil, inline, texts...) {
		branch = append(branch, sops.TreeItem{Key: comment})
	}
	return branch
}

// listComments adds a comment for each line of texts to a list.
func listComments(list []any, inline bool, texts ...string) []any {
	for _, text := range texts {
		for line := range strings.SplitSeq(text, "\n") {
			if line != "" {
				list = append(list, sops.Comment{Value: line[1:], Inline: inline})
			}
		}
	}
	return list
}

// printYAML prints documents as SOPS does.
func printYAML(documents sops.TreeBranches) ([]byte, error) {
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(yamlIndent)
	for _, branch := range documents {
		root, err := mappingNode(branch)
		if err != nil {
			return nil, err
		}
		if err := encoder.Encode(&yaml.Node{Kind: yaml.DocumentNode, Content: []*yaml.Node{root}}); err != nil {
			return nil, err
		}
	}
	if len(documents) == 0 {
		return nil, nil // The encoder cannot close what it never began.
	}
	err := encoder.Close()
	return out.Bytes(), err
}

// waiting are comments that the next entry takes.
type waiting struct {
	above, inline []string
}

// take adds a comment.
func (w *waiting) take(comment sops.Comment) {
	if comment.Inline {
		w.inline = append(w.inline, comment.Value)
	} else {
		w.above = append(w.above, comment.Value)
	}
}

// putAbove sets the comments above a node.
func (w *waiting) putAbove(node *yaml.Node) {
	node.HeadComment = joined(commentText(w.above), node.HeadComment)
	w.above = nil
}

// putBeside sets the comments on the line of a node.
func (w *waiting) putBeside(node *yaml.Node) {
	node.LineComment = joined(commentText(w.inline), node.LineComment)
	w.inline = nil
}

// putLast sets what is left over: below the last entry, or above a node without one.
func (w *waiting) putLast(node, last *yaml.Node) {
	rest := commentText(append(w.above, w.inline...))
	if last == nil {
		node.HeadComment = joined(rest, node.HeadComment)
	} else {
		last.FootComment = joined(last.FootComment, rest)
	}
}

// commentText is comments as they stand in YAML.
func commentText(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return "#" + strings.Join(lines, "\n#")
}

func joined(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "\n" + b
}

// mappingNode makes the node of a branch. Comments before the first entry are those of
// the mapping.
func mappingNode(branch sops.TreeBranch) (*yaml.Node, error) {
	node := &yaml.Node{Kind: yaml.MappingNode}
	var comments waiting
	var last *yaml.Node
	for _, item := range branch {
		if comment, ok := item.Key.(sops.Comment); ok {
			comments.take(comment)
			continue
		}
		if last == nil {
			comments.putAbove(node)
		}
		key := new(yaml.Node)
		if err := key.Encode(item.Key); err != nil {
			return nil, err
		}
		comments.putAbove(key)
		value, err := valueNode(item.Value)
		if err != nil {
			return nil, err
		}
		comments.putBeside(value)
		node.Content = append(node.Content, key, value)
		last = key
	}
	comments.putLast(node, last)
	return node, nil
}

// valueNode makes the node of a value.
func valueNode(value any) (*yaml.Node, error) {
	switch value := value.(type) {
	case sops.TreeBranch:
		return mappingNode(value)
	case []any:
		return sequenceNode(value)
	default:
		node := new(yaml.Node)
		return node, node.Encode(value)
	}
}

// sequenceNode makes the node of a list.
func sequenceNode(list []any) (*yaml.Node, error) {
	node := &yaml.Node{Kind: yaml.SequenceNode}
	var comments waiting
	var last *yaml.Node
	for _, item := range list {
		if comment, ok := item.(sops.Comment); ok {
			comments.take(comment)
			continue
		}
		if last == nil {
			comments.putAbove(node)
		}
		value, err := valueNode(item)
		if err != nil {
			return nil, err
		}
		comments.putAbove(value)
		comments.putBeside(value)
		node.Content = append(node.Content, value)
		last = value
	}
	comments.putLast(node, last)
	return node, nil
}
