package helmrepo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/plumb-gitops/plumb/internal/gitops"
	chart "helm.sh/helm/v4/pkg/chart/v2"
)

// mostDependencies is how many dependencies a chart may have.
const mostDependencies = 200

func sha256Digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// dependencyFailure gives the error of a dependency its reason.
func (s *Store) dependencyFailure(ctx context.Context, err error) error {
	kind := gitops.Invalid
	if ctx.Err() != nil || isDisk(err) {
		kind, err = gitops.Transient, disk(err)
	}
	return because(kind, ReasonDependency, err)
}

// dependencies are those that a chart asks for: those of its lock file, where it has one.
func dependencies(c *chart.Chart) ([]*chart.Dependency, error) {
	asked := c.Metadata.Dependencies
	if c.Lock != nil {
		asked = c.Lock.Dependencies
	}
	if len(asked) > mostDependencies {
		return nil, fmt.Errorf("the chart has more than %d dependencies", mostDependencies)
	}
	for _, d := range asked {
		if err := d.Validate(); err != nil { // of the lock file nobody has looked at them
			return nil, plain(err)
		}
		if err := checkNames(d.Name, ""); err != nil {
			return nil, err
		}
	}
	return asked, nil
}

// missing are the dependencies that a chart asks for and does not have, in order. One that
// it has under its own name, and not under its alias, is there: Helm finds it.
func missing(c *chart.Chart) ([]*chart.Dependency, error) {
	asked, err := dependencies(c)
	if err != nil {
		return nil, err
	}
	var absent []*chart.Dependency
	for _, d := range asked {
		there := slices.ContainsFunc(c.Dependencies(), func(inside *chart.Chart) bool {
			return inside.Name() == d.Name || d.Alias != "" && inside.Name() == d.Alias
		})
		if !there {
			absent = append(absent, d)
		}
	}
	return absent, nil
}

// addDependencies adds the dependencies that a chart does not have, and tells how many.
// The budget is for the chart with all of them: they are in memory together.
func (s *Store) addDependencies(ctx context.Context, b *budget, tree gitops.Tree, at string, request PackageRequest, c *chart.Chart) (int, error) {
	absent, err := missing(c)
	if err != nil {
		return 0, err
	}
	for _, d := range absent {
		added, err := s.dependency(ctx, b, tree, at, request, d)
		if err != nil {
			err := because(gitops.Invalid, ReasonDependency, err)
			if err.Kind == gitops.Stalled {
				err.Kind = gitops.Invalid // it is the source that has to change
			}
			return 0, within(fmt.Sprintf("dependency %q", clipped(d.Name)), err)
		}
		if d.Alias != "" {
			added.Metadata.Name = d.Alias
		}
		c.AddDependency(added)
	}
	return len(absent), settle(c)
}

func (s *Store) dependency(ctx context.Context, b *budget, tree gitops.Tree, at string, request PackageRequest, d *chart.Dependency) (*chart.Chart, error) {
	if d.Repository == "" || strings.HasPrefix(d.Repository, "file://") {
		return s.localDependency(b, tree, at, d)
	}
	return s.remoteDependency(ctx, b, request, d)
}

// localDependency loads a chart of the same source.
func (s *Store) localDependency(b *budget, tree gitops.Tree, at string, d *chart.Dependency) (*chart.Chart, error) {
	below := "charts/" + d.Name
	if d.Repository != "" {
		below = strings.TrimPrefix(d.Repository, "file://")
	}
	// A path that begins with a slash is below the chart too, as in Flux.
	target := path.Clean(at + "/" + below)
	if !fs.ValidPath(target) || strings.ContainsAny(below, "\\\x00") {
		return nil, fmt.Errorf("%q leads out of the source", clipped(d.Repository))
	}
	want, err := parseWanted(d.Version)
	if err != nil {
		return nil, err
	}
	files, _, err := s.loadTree(b, tree, target)
	if err != nil {
		return nil, err
	}
	loaded, err := loadFiles(b, files)
	if err != nil {
		return nil, err
	}
	version, err := parseWholeVersion(loaded.Metadata.Version)
	if err != nil {
		return nil, err
	}
	if !want.constraint.Check(version) {
		return nil, fmt.Errorf("the chart at %q has version %q, which is not in the range %q", target, loaded.Metadata.Version, want)
	}
	return loaded, nil
}

// remoteDependency gets a chart from a repository.
func (s *Store) remoteDependency(ctx context.Context, b *budget, request PackageRequest, d *chart.Dependency) (*chart.Chart, error) {
	at, err := dependencyURL(d.Repository)
	if err != nil {
		return nil, err
	}
	if request.RepositoryFor == nil {
		return nil, fmt.Errorf("there is no repository %q", redacted(at))
	}
	repository, followed, err := request.RepositoryFor(ctx, at)
	if err != nil {
		return nil, fmt.Errorf("repository %q: %w", redacted(at), err)
	}
	got := ChartRequest{Repository: repository, Name: d.Name, Version: d.Version, Cached: followed}
	want, err := parseWanted(d.Version)
	if err != nil {
		return nil, err
	}
	r, err := s.remote(ctx, repository)
	if err != nil {
		return nil, err
	}
	packed, err := s.packedDependency(ctx, r, got, want)
	if err != nil {
		return nil, within(fmt.Sprintf("%s of %q", got, shown(r.base)), r.failure(ctx, ReasonDependency, err))
	}
	files, err := readArchive(bytes.NewReader(packed), b)
	if err != nil {
		return nil, err
	}
	return loadFiles(b, files)
}

// packedDependency gets the packed chart and checks it.
func (s *Store) packedDependency(ctx context.Context, r *remote, request ChartRequest, want wanted) ([]byte, error) {
	found, err := r.choose(ctx, request, want)
	if err != nil {
		return nil, err
	}
	var packed bytes.Buffer
	if err := r.receive(ctx, request, found, &packed); err != nil {
		return nil, err
	}
	if digest := indexDigest(found.digest); request.Repository.Registry == nil && digest != "" && sha256Digest(packed.Bytes()) != "sha256:"+digest {
		return nil, fault(gitops.Transient, ReasonDependency, errors.New("what the server has does not have the digest that the index says"))
	}
	if err := s.checkChart(ctx, bytes.NewReader(packed.Bytes()), path.Base(request.Name), found.version); err != nil {
		return nil, s.unusable(ctx, ReasonDependency, err)
	}
	return packed.Bytes(), nil
}

// dependencyURL is the URL of a dependency's repository in the form in which repositories
// are looked up.
func dependencyURL(text string) (string, error) {
	u, err := url.Parse(text)
	switch {
	case strings.HasPrefix(text, "@") || strings.HasPrefix(text, "alias:"):
		return "", fmt.Errorf("repository %q is an alias, which is known only on the machine where it was made; write its URL", clipped(text))
	case err != nil:
		return "", errors.New("its repository is not a URL")
	case u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "oci" || u.Host == "":
		return "", fmt.Errorf("repository %q is none of http, https, oci and file", redacted(text))
	}
	slash := "/"
	if u.Scheme == "oci" {
		slash = ""
	}
	u.Path = strings.TrimRight(u.Path, "/") + slash
	if u.RawPath != "" {
		u.RawPath = strings.TrimRight(u.RawPath, "/") + slash
	}
	return u.String(), nil
}
