package generate

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"

	"github.com/plumb-gitops/plumb/internal/source"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// merge merges a YAML file over the one that is at a path of the artifact.
func (r *rule) merge(to string, there, n *node) error {
	if there.dir {
		return fmt.Errorf("%q is a directory in the artifact already, and cannot be merged with a file", to)
	}
	base, err := load(there)
	if err != nil {
		return fmt.Errorf("merge into %q: %w", to, err)
	}
	over, err := load(n)
	if err != nil {
		return fmt.Errorf("merge %q: %w", n.at, err)
	}
	content, err := yaml.Marshal(mergeMaps(base, over))
	if err != nil {
		return fmt.Errorf("merge %q: %w", n.at, err)
	}
	if r.merged -= len(content); r.merged < 0 {
		return fmt.Errorf("what is merged for the artifacts of one generator has more than %d bytes", mostMerged)
	}
	executable := there.executable
	if there.at != "" {
		info, err := there.info()
		if err != nil {
			return err
		}
		executable = info.Mode()&0o100 != 0
	}
	return r.put(to, &node{content: content, executable: executable})
}

// load reads a file of YAML, whose documents are merged in order.
func load(n *node) (map[string]any, error) {
	size, err := n.size()
	if err != nil {
		return nil, err
	}
	if size > mostMergedFile {
		return nil, fmt.Errorf("it has %d bytes, at most %d are merged", size, mostMergedFile)
	}
	data, err := n.read()
	if err != nil {
		return nil, err
	}
	return parse(data)
}

// parse reads YAML as Flux does: each document is one map, and the number of all of them
// is one.
func parse(data []byte) (map[string]any, error) {
	merged := map[string]any{}
	if _, err := source.WrittenOut(data, mostMergedFile); err != nil {
		return nil, err
	}
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for {
		document, err := documents.Read()
		switch {
		case errors.Is(err, io.EOF):
			return merged, nil
		case err != nil:
			return nil, fmt.Errorf("it is no YAML: %w", err)
		}
		var next map[string]any
		if err := yaml.Unmarshal(document, &next); err != nil {
			return nil, fmt.Errorf("it is no YAML with a map in it: %w", err)
		}
		merged = mergeMaps(merged, next)
	}
}

// mergeMaps puts one map over another: maps are merged, all else is replaced. The result
// shares what was not changed.
func mergeMaps(base, over map[string]any) map[string]any {
	merged := maps.Clone(base)
	for key, value := range over {
		below, isMap := value.(map[string]any)
		there, wasMap := merged[key].(map[string]any)
		if isMap && wasMap {
			value = mergeMaps(there, below)
		}
		merged[key] = value
	}
	return merged
}
