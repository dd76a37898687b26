package helmrepo

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/plumb-gitops/plumb/internal/gitops"
	chart "helm.sh/helm/v4/pkg/chart/v2"
)

// dependencyFiles are the packed charts of repositories that one chart depends on, on the
// disk until it is packed.
type dependencyFiles struct {
	store   *Store
	shelf   *shelf
	request PackageRequest
	// files are their names, by what they are.
	files map[string]string
	give  []func()
}

// mostFetched is how many bytes they may have together: as much as a chart may unpack to,
// with the headers.
const mostFetched = mostUnpacked + mostHeaders

func dependencyKey(d *chart.Dependency) string { return digestOf(d.Repository, d.Name, d.Version) }

// lacking are the dependencies of a chart that are to be fetched.
func (f *dependencyFiles) lacking(c *chart.Chart) ([]*chart.Dependency, error) {
	absent, err := missing(c)
	if err != nil {
		return nil, err
	}
	var lacking []*chart.Dependency
	for _, d := range absent {
		if !isLocal(d) && f.files[dependencyKey(d)] == "" {
			lacking = append(lacking, d)
		}
	}
	return lacking, nil
}

// get fetches dependencies. They are checked as one chart, as which they will be loaded.
func (f *dependencyFiles) get(ctx context.Context, dependencies []*chart.Dependency) error {
	budget, left := f.store.budget(ctx), int64(mostFetched)
	for _, d := range dependencies {
		if f.files[dependencyKey(d)] != "" {
			continue
		}
		size, err := f.fetch(ctx, budget, d)
		if left -= size; err == nil && left < 0 {
			err = errTooLarge
		}
		if err != nil {
			return dependencyFault(d, err)
		}
	}
	return nil
}

// fetch gets a chart from a repository.
func (f *dependencyFiles) fetch(ctx context.Context, b *budget, d *chart.Dependency) (size int64, err error) {
	at, err := dependencyURL(d.Repository)
	if err != nil {
		return 0, err
	}
	if f.request.RepositoryFor == nil {
		return 0, fmt.Errorf("there is no repository %q", redacted(at))
	}
	repository, followed, err := f.request.RepositoryFor(ctx, at)
	if err != nil {
		return 0, fmt.Errorf("repository %q: %w", redacted(at), err)
	}
	got := ChartRequest{Repository: repository, Name: d.Name, Version: d.Version, Cached: followed}
	want, err := parseWanted(d.Version)
	if err != nil {
		return 0, err
	}
	r, err := f.store.remote(ctx, repository)
	if err != nil {
		return 0, err
	}
	file, name, done, err := f.shelf.create()
	if err != nil {
		return 0, err
	}
	f.give = append(f.give, done)
	defer file.Close()
	if err := f.packed(ctx, b, r, got, want, file); err != nil {
		return 0, within(fmt.Sprintf("%s of %q", got, shown(r.base)), r.failure(ctx, ReasonDependency, err))
	}
	f.files[dependencyKey(d)] = name
	return file.Seek(0, io.SeekEnd)
}

// packed gets the packed chart and checks it.
func (f *dependencyFiles) packed(ctx context.Context, b *budget, r *remote, request ChartRequest, want wanted, to io.ReadWriteSeeker) error {
	found, err := r.choose(ctx, request, want)
	if err != nil {
		return err
	}
	sum := sha256.New()
	if err := r.receive(ctx, request, found, io.MultiWriter(to, sum)); err != nil {
		return err
	}
	if digest := indexDigest(found.digest); request.Repository.Registry == nil && digest != "" && hex.EncodeToString(sum.Sum(nil)) != digest {
		return fault(gitops.Transient, ReasonDependency, errors.New("what the server has does not have the digest that the index says"))
	}
	if err := f.store.checkChart(b, to, path.Base(request.Name), found.version); err != nil {
		return f.store.unusable(ctx, ReasonDependency, err)
	}
	return nil
}

// load loads a chart that was fetched.
func (f *dependencyFiles) load(b *budget, d *chart.Dependency) (*chart.Chart, error) {
	file, err := f.shelf.openFile(f.files[dependencyKey(d)])
	if err != nil {
		return nil, err
	}
	defer file.Close()
	files, err := readArchive(file, b)
	if err != nil {
		return nil, err
	}
	return loadFiles(b, files)
}

// close gives up the files.
func (f *dependencyFiles) close() {
	for _, done := range f.give {
		done()
	}
}
