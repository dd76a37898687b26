package kustomize

import "go.yaml.in/yaml/v3"

// expanded counts the nodes of a document with its aliases followed, until max.
func expanded(text []byte, max int) int {
	var node yaml.Node
	if yaml.Unmarshal(text, &node) != nil {
		return 0
	}
	count := 0
	var walk func(n *yaml.Node)
	walk = func(n *yaml.Node) {
		if count++; count > max {
			return
		}
		if n.Kind == yaml.AliasNode {
			walk(n.Alias)
			return
		}
		for _, child := range n.Content {
			walk(child)
		}
	}
	walk(&node)
	return count
}
