package helmrepo

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"helm.sh/helm/v4/pkg/chart/common"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"sigs.k8s.io/yaml"
)

// mostValuesFiles is how many values files are merged.
const mostValuesFiles = 100

// mergedFiles are the files that are to be merged: none where it is only values.yaml, which
// a chart has anyway.
func mergedFiles(files []string) []string {
	if len(files) == 1 && path.Clean(files[0]) == valuesFile {
		return nil
	}
	return files
}

// checkValuesFiles refuses names that lead out of where they belong.
func checkValuesFiles(files []string) error {
	if len(files) > mostValuesFiles {
		return fmt.Errorf("there are more than %d values files", mostValuesFiles)
	}
	for _, name := range files {
		if _, err := valuesPath(name); err != nil {
			return err
		}
	}
	return nil
}

// valuesPath is the path of a values file. One that begins with a slash begins where the
// others do, as in Flux.
func valuesPath(name string) (string, error) {
	at := path.Clean(strings.TrimLeft(name, "/"))
	if !fs.ValidPath(at) || at == "." || strings.Contains(name, "://") || strings.ContainsAny(name, "\\\x00") {
		return "", fmt.Errorf("values file %q is not the path of a file inside", clipped(name))
	}
	return at, nil
}

// readValues gives the content of a values file; the error wraps fs.ErrNotExist where it is
// missing.
type readValues func(name string) (map[string]any, error)

// mergeValues merges values files, later ones over earlier ones. It also gives those that
// were there.
func mergeValues(read readValues, files []string, ignoreMissing bool) (map[string]any, []string, error) {
	values := map[string]any{}
	merged := make([]string, 0, len(files))
	for _, name := range files {
		at, err := valuesPath(name)
		if err != nil {
			return nil, nil, err
		}
		more, err := read(at)
		if errors.Is(err, fs.ErrNotExist) {
			if ignoreMissing {
				continue
			}
			return nil, nil, fmt.Errorf("there is no values file %q", clipped(name))
		}
		if err != nil {
			return nil, nil, fmt.Errorf("values file %q: %w", clipped(name), err)
		}
		values = loader.MergeMaps(values, more)
		merged = append(merged, name)
	}
	return values, merged, nil
}

// chartFiles reads values files of a chart.
func chartFiles(b *budget, c *chart.Chart) readValues {
	return func(name string) (map[string]any, error) {
		if name == valuesFile {
			return c.Values, nil
		}
		for _, f := range c.Files {
			if f.Name == name {
				return parseValues(f.Data, b)
			}
		}
		return nil, fs.ErrNotExist
	}
}

// treeFiles reads values files of a source.
func treeFiles(b *budget, tree gitops.Tree) readValues {
	return func(name string) (map[string]any, error) {
		info, err := tree.Stat(name)
		switch {
		case err != nil:
			return nil, err
		case info.IsDir():
			return nil, errors.New("it is a folder")
		case info.Size() > b.file:
			return nil, fmt.Errorf("it has %d bytes, at most %d are read", info.Size(), b.file)
		}
		data, err := readFile(tree, name)
		if err != nil {
			return nil, err
		}
		return parseValues(data, b)
	}
}

// parseValues reads a values file, and takes its length off what is left.
func parseValues(data []byte, b *budget) (map[string]any, error) {
	values := map[string]any{}
	err := b.yaml.take(data, mostValues)
	if err == nil {
		err = yaml.Unmarshal(data, &values)
	}
	if err != nil {
		return nil, plain(err)
	}
	return values, nil
}

// setValues replaces the values of a chart.
func setValues(c *chart.Chart, values map[string]any) error {
	var text []byte
	if len(values) > 0 {
		var err error
		if text, err = yaml.Marshal(values); err != nil {
			return err
		}
	}
	c.Values = values
	for _, f := range c.Raw {
		if f.Name == valuesFile {
			f.Data = text
			return nil
		}
	}
	c.Raw = append(c.Raw, &common.File{Name: valuesFile, Data: text})
	return nil
}
