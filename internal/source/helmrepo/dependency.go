package helmrepo

import (
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
func (s *Store) addDependencies(b *budget, tree gitops.Tree, at string, fetched *dependencyFiles, c *chart.Chart) (int, error) {
	absent, err := missing(c)
	if err != nil {
		return 0, err
	}
	for _, d := range absent {
		added, err := s.dependency(b, tree, at, fetched, d)
		if err != nil {
			return 0, dependencyFault(d, err)
		}
		if d.Alias != "" {
			added.Metadata.Name = d.Alias
		}
		c.AddDependency(added)
	}
	return len(absent), settle(c)
}

// dependencyFault says which dependency it is that an error is about.
func dependencyFault(d *chart.Dependency, cause error) error {
	err := because(gitops.Invalid, ReasonDependency, cause)
	if err.Kind == gitops.Stalled {
		err.Kind = gitops.Invalid // it is the source that has to change
	}
	return within(fmt.Sprintf("dependency %q", clipped(d.Name)), err)
}

func (s *Store) dependency(b *budget, tree gitops.Tree, at string, fetched *dependencyFiles, d *chart.Dependency) (*chart.Chart, error) {
	if isLocal(d) {
		return s.localDependency(b, tree, at, d)
	}
	return fetched.load(b, d)
}

// isLocal tells whether a dependency is a chart of the same source.
func isLocal(d *chart.Dependency) bool {
	return d.Repository == "" || strings.HasPrefix(d.Repository, "file://")
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
