package helmrepo

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"helm.sh/helm/v4/pkg/chart/loader/archive"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/ignore"
)

// Names of files in a chart that mean something.
const (
	chartFile  = "Chart.yaml"
	lockFile   = "Chart.lock"
	valuesFile = "values.yaml"
	schemaFile = "values.schema.json"
	ignoreFile = ignore.HelmIgnore
)

// Limits of the files that are parsed.
const (
	// mostMetadata is the longest Chart.yaml or Chart.lock, in bytes, its aliases written out
	// or not.
	mostMetadata = 1 << 20
	// mostMetadataNodes is how many nodes a Chart.yaml may have where it is read alone.
	mostMetadataNodes = 50_000
	// mostIgnore and mostRules bound .helmignore, in bytes and lines: each file is compared
	// with each line.
	mostIgnore, mostRules = 64 << 10, 1000
)

// checkChart reads a packed chart once, and refuses one that passes the limits or is not
// the chart that was looked for.
func (s *Store) checkChart(b *budget, packed io.ReadSeeker, name, version string) error {
	if _, err := packed.Seek(0, io.SeekStart); err != nil {
		return err
	}
	var metadata []byte
	err := walkArchive(packed, b, func(file string, _ int64, content io.Reader) (err error) {
		if file != chartFile {
			return nil
		}
		metadata, err = readMost(content, mostMetadata)
		return err
	})
	if err != nil {
		return err
	}
	m, err := parseMetadata(metadata)
	switch {
	case err != nil:
		return err
	case m.Name != name:
		return fmt.Errorf("its %s says that it is chart %q", chartFile, clipped(m.Name))
	case !sameVersion(m.Version, version):
		return fmt.Errorf("its %s says that it has version %q instead of %q", chartFile, clipped(m.Version), version)
	}
	return nil
}

func readMost(in io.Reader, most int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(in, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("%s has more than %d bytes", chartFile, most)
	}
	return data, err
}

// parseMetadata reads Chart.yaml.
func parseMetadata(data []byte) (*chart.Metadata, error) {
	if data == nil {
		return nil, fmt.Errorf("it has no %s", chartFile)
	}
	m := &chart.Metadata{}
	if err := decode(withoutMark(data), m, mostMetadata, mostMetadataNodes); err != nil {
		return nil, fmt.Errorf("its %s cannot be read: %w", chartFile, plain(err))
	}
	if m.APIVersion == "" {
		m.APIVersion = chart.APIVersionV1
	}
	if err := m.Validate(); err != nil {
		return nil, plain(err)
	}
	return m, checkNames(m.Name, m.Version)
}

// loadFiles loads a chart of files. The charts in it are in the order of their names, as
// Helm's loader gives them in another order each time.
func loadFiles(b *budget, files []*archive.BufferedFile) (*chart.Chart, error) {
	if err := b.yaml.takeFiles(files); err != nil {
		return nil, err
	}
	return loadChecked(files)
}

func loadChecked(files []*archive.BufferedFile) (*chart.Chart, error) {
	c, err := loader.LoadFiles(files)
	if err != nil {
		return nil, firstFault(files, err)
	}
	if err := settle(c); err != nil {
		return nil, err
	}
	return c, nil
}

// firstFault is the error of the first chart inside of a chart that cannot be loaded, in the
// order of their names; where there is none it is that of the chart itself. Helm's loader
// names another one each time.
func firstFault(files []*archive.BufferedFile, err error) error {
	inside := map[string][]*archive.BufferedFile{}
	for _, f := range files {
		rest, ok := strings.CutPrefix(f.Name, "charts/")
		folder, name, deeper := strings.Cut(rest, "/")
		if ok && deeper && folder[0] != '.' && folder[0] != '_' {
			inside[folder] = append(inside[folder], &archive.BufferedFile{Name: name, Data: f.Data})
		}
	}
	for _, folder := range slices.Sorted(maps.Keys(inside)) {
		if _, below := loadChecked(inside[folder]); below != nil {
			return fmt.Errorf("%q: %w", "charts/"+clipped(strings.TrimSuffix(folder, "\x00")), below)
		}
	}
	return plain(err)
}

// settle orders the charts inside of a chart, and checks the names of all.
func settle(c *chart.Chart) error {
	if err := checkNames(c.Name(), c.Metadata.Version); err != nil {
		return err
	}
	inside := slices.Clone(c.Dependencies())
	for _, d := range inside {
		if err := settle(d); err != nil {
			return fmt.Errorf("chart %q: %w", clipped(c.Name()), err)
		}
	}
	slices.SortStableFunc(inside, func(a, b *chart.Chart) int {
		if order := strings.Compare(a.Name(), b.Name()); order != 0 {
			return order
		}
		return strings.Compare(a.Metadata.Version, b.Metadata.Version)
	})
	c.SetDependencies(inside...)
	return nil
}

// loadTree reads the files of a chart in a tree: a folder, or a packed chart, which packed
// tells. What it reads is taken from the budget.
func (s *Store) loadTree(b *budget, tree gitops.Tree, at string) (files []*archive.BufferedFile, packed bool, err error) {
	info, err := tree.Stat(at)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, fmt.Errorf("the source has no chart at %q", at)
	}
	if err != nil {
		return nil, false, err
	}
	if info.IsDir() {
		files, err = b.folder(tree, at)
		return files, false, err
	}
	if info.Size() > s.options.ChartBytes {
		return nil, true, fmt.Errorf("%q has %d bytes, at most %d are read of a packed chart", at, info.Size(), s.options.ChartBytes)
	}
	data, err := readFile(tree, at)
	if err != nil {
		return nil, true, err
	}
	files, err = readArchive(bytes.NewReader(data), b)
	return files, true, err
}

// readFile reads a file that a tree has, and whose length has been looked at. What fails
// then is the reading and not what was pushed: it is tried again.
func readFile(tree gitops.Tree, name string) ([]byte, error) {
	data, err := tree.ReadFile(name)
	var done *gitops.Error
	if err == nil || errors.As(err, &done) {
		return data, err
	}
	return nil, fault(gitops.Transient, ReasonPackage, fmt.Errorf("%q cannot be read: %s", name, disk(err)))
}

// folder reads a folder of a tree as Helm reads one from the disk.
func (b *budget) folder(tree gitops.Tree, at string) ([]*archive.BufferedFile, error) {
	rules, err := ignoreRules(tree, at)
	if err != nil {
		return nil, err
	}
	var files []*archive.BufferedFile
	err = fs.WalkDir(tree, at, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || name == at {
			return err
		}
		if err := b.ctx.Err(); err != nil {
			return err
		}
		if at != "." {
			name = strings.TrimPrefix(name, at+"/")
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if rules.Ignore(name, info) {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if entry.IsDir() {
			return nil
		}
		if err := checkName(name); err != nil {
			return err
		}
		if err := b.take(name, info.Size()); err != nil {
			return err
		}
		more, err := b.member(tree, at, name)
		files = append(files, more...)
		return err
	})
	return files, err
}

// member reads a file of a folder, or the files of a packed chart in it.
func (b *budget) member(tree gitops.Tree, at, name string) ([]*archive.BufferedFile, error) {
	whole := name
	if at != "." {
		whole = at + "/" + name
	}
	data, err := readFile(tree, whole)
	if err != nil {
		return nil, err
	}
	if !isPacked(name) {
		return []*archive.BufferedFile{bufferedFile(name, data)}, nil
	}
	var files []*archive.BufferedFile
	err = b.open(bytes.NewReader(data), int64(len(data)), name, "", 0, func(name string, size int64, content io.Reader) error {
		data := make([]byte, size)
		_, err := io.ReadFull(content, data)
		files = append(files, bufferedFile(name, data))
		return err
	})
	return files, err
}

// ignoreRules reads .helmignore.
func ignoreRules(tree gitops.Tree, at string) (*ignore.Rules, error) {
	name := ignoreFile
	if at != "." {
		name = at + "/" + name
	}
	rules := ignore.Empty()
	info, err := tree.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case info.IsDir() || info.Size() > mostIgnore:
		return nil, fmt.Errorf("%q is a folder or has more than %d bytes", name, mostIgnore)
	default:
		data, err := tree.ReadFile(name)
		if err != nil {
			return nil, err
		}
		if bytes.Count(data, []byte("\n")) > mostRules {
			return nil, fmt.Errorf("%q has more than %d lines", name, mostRules)
		}
		if rules, err = ignore.Parse(bytes.NewReader(data)); err != nil {
			return nil, fmt.Errorf("%q: %w", name, plain(err))
		}
	}
	rules.AddDefaults()
	return rules, nil
}
