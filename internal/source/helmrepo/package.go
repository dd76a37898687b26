package helmrepo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/gitops"
	chart "helm.sh/helm/v4/pkg/chart/v2"
)

// Strategy says when a chart from a source is packaged anew.
type Strategy string

const (
	// ChartVersion packages a chart when its version changes. It is the default.
	ChartVersion Strategy = "ChartVersion"
	// EachRevision packages a chart at each revision of its source, of which the version
	// has the beginning as build metadata.
	EachRevision Strategy = "Revision"
)

// PackageRequest says which chart of a source is packaged, and how.
type PackageRequest struct {
	// Source names the source, such as GitRepository/apps/podinfo.
	Source string
	// Path is the folder of the chart in the source, or a packed chart.
	Path string
	// ValuesFiles are files of the source, with paths from its root, that are merged in this
	// order into what replaces the chart's values.yaml. Empty, or only values.yaml, leaves
	// the values as they are.
	ValuesFiles []string
	// IgnoreMissingValuesFiles leaves out files that the source does not have.
	IgnoreMissingValuesFiles bool
	Strategy                 Strategy
	// Revision is that of the source.
	Revision string
	// Generation is that of the owner's specification. It is part of the build metadata of
	// the version where there are ValuesFiles.
	Generation int64
	// RepositoryFor gives the repository of a dependency, whose URL it is told with a slash
	// at the end, or without one for oci. Followed is set where somebody keeps its index up
	// to date, which is taken as it is then. Nil has no repositories.
	RepositoryFor func(ctx context.Context, url string) (repository Repository, followed bool, err error)
}

// book names what a request follows.
func (p PackageRequest) book() string {
	return "package " + digestOf(p.Path, string(p.Strategy), strconv.FormatBool(p.IgnoreMissingValuesFiles), digestOf(mergedFiles(p.ValuesFiles)...))
}

// String says what is packaged, for messages.
func (p PackageRequest) String() string {
	return fmt.Sprintf("chart at %q of %s", clipped(p.Path), p.Source)
}

// folder is the path of the chart in the source.
func (p PackageRequest) folder() (string, error) {
	at := path.Clean(strings.TrimLeft(p.Path, "/"))
	if p.Path == "" || !fs.ValidPath(at) || strings.ContainsAny(p.Path, "\\\x00") {
		return "", fault(gitops.Stalled, ReasonReference, fmt.Errorf("%q is not a path inside of the source", clipped(p.Path)))
	}
	return at, nil
}

// mostRevision is how much of a source's revision is put into a version. With more of it a
// label could not hold the version.
const mostRevision = 12

// metadata is the build metadata for the version of the chart, as in Flux: the revision's
// hash where each revision counts, and the generation where other values are merged.
func (p PackageRequest) metadata() string {
	var parts []string
	if p.Strategy == EachRevision {
		revision := p.Revision[strings.LastIndexAny(p.Revision, ":/@")+1:]
		parts = append(parts, revision[:min(len(revision), mostRevision)])
	}
	if len(mergedFiles(p.ValuesFiles)) > 0 {
		parts = append(parts, strconv.FormatInt(p.Generation, 10))
	}
	return strings.Join(parts, ".")
}

// Package makes a packed chart of what a source has, and gets the dependencies that are
// missing. Known is the revision that the caller has: as in Flux, a chart whose version is
// that one is not packaged again.
func (s *Store) Package(ctx context.Context, tree gitops.Tree, request PackageRequest, known string) (Chart, error) {
	result, err := s.packageTree(ctx, tree, request, known)
	if err != nil {
		return Chart{}, within(request.String(), s.packageFailure(ctx, err))
	}
	return result, nil
}

// packageFailure gives an error without a kind one.
func (s *Store) packageFailure(ctx context.Context, err error) error {
	var done *gitops.Error
	switch {
	case errors.As(err, &done):
		return err
	case ctx.Err() != nil || isDisk(err):
		return fault(gitops.Transient, ReasonPackage, disk(err))
	default:
		return fault(gitops.Invalid, ReasonPackage, err)
	}
}

func (s *Store) packageTree(ctx context.Context, tree gitops.Tree, request PackageRequest, known string) (Chart, error) {
	at, err := request.folder()
	if err != nil {
		return Chart{}, err
	}
	if err := checkValuesFiles(request.ValuesFiles); err != nil {
		return Chart{}, fault(gitops.Stalled, ReasonValues, err)
	}
	sh, err := s.packages(ctx, request.Source)
	if err != nil {
		return Chart{}, err
	}
	// Nobody waits for somebody else here: dependencies may be at a server that hangs.
	if kept, ok, err := s.keepPackage(ctx, sh, tree, at, request, known); err != nil || ok {
		return kept, err
	}
	fetched := &dependencyFiles{store: s, shelf: sh, request: request, files: map[string]string{}}
	defer fetched.close()
	for {
		var made packedChart
		var absent []*chart.Dependency
		err := s.alone(ctx, &sh.turns.line, func(ctx context.Context) (err error) {
			made, absent, err = s.packaged(ctx, sh, tree, at, request, fetched)
			return err
		})
		switch {
		case err != nil:
			return Chart{}, err
		case len(absent) == 0:
			defer made.done()
			return sh.enter(ctx, request.book(), made.file, made.state, known)
		}
		// Servers are asked while nothing of the chart is in memory. It is the same the second
		// time, for the tree does not change.
		if err := fetched.get(ctx, absent); err != nil {
			return Chart{}, s.dependencyFailure(ctx, err)
		}
	}
}

// packaged loads a chart and packs it, or gives the dependencies that have to be fetched before.
func (s *Store) packaged(ctx context.Context, sh *shelf, tree gitops.Tree, at string, request PackageRequest, fetched *dependencyFiles) (packedChart, []*chart.Dependency, error) {
	budget := s.budget(ctx)
	files, packed, err := s.loadTree(budget, tree, at)
	if err != nil {
		return packedChart{}, nil, s.unusable(ctx, ReasonReference, err)
	}
	loaded, err := loadFiles(budget, files)
	if err != nil {
		return packedChart{}, nil, s.unusable(ctx, ReasonReference, err)
	}
	state := chartState{Name: loaded.Name(), Packaged: true}
	if state.Version, err = withMetadata(loaded.Metadata.Version, request.metadata()); err != nil {
		return packedChart{}, nil, fault(gitops.Stalled, ReasonMetadata, err)
	}
	if packed && request.metadata() == "" {
		made, err := s.copyPacked(ctx, sh, tree, at, state)
		return made, nil, err
	}
	if !packed {
		absent, err := fetched.lacking(loaded)
		if err != nil {
			return packedChart{}, nil, s.dependencyFailure(ctx, err)
		}
		if len(absent) > 0 {
			return packedChart{}, absent, nil
		}
	}
	made, err := s.build(budget, sh, tree, at, packed, request, loaded, state, fetched)
	return made, nil, err
}

// keepPackage gives the chart that the caller knows, where the one in the source still has
// its name and version. Of the source it reads Chart.yaml alone.
func (s *Store) keepPackage(ctx context.Context, sh *shelf, tree gitops.Tree, at string, request PackageRequest, known string) (Chart, bool, error) {
	if known == "" {
		return Chart{}, false, nil
	}
	info, err := tree.Stat(path.Join(at, chartFile))
	if err != nil || info.IsDir() || info.Size() > mostMetadata {
		return Chart{}, false, nil //nolint:nilerr // loading the chart says what is wrong
	}
	data, err := tree.ReadFile(path.Join(at, chartFile))
	if err != nil {
		return Chart{}, false, err
	}
	m, err := parseMetadata(data)
	if err != nil {
		return Chart{}, false, nil //nolint:nilerr // loading the chart says what is wrong
	}
	version, err := withMetadata(m.Version, request.metadata())
	if err != nil || version != known {
		return Chart{}, false, nil //nolint:nilerr // as above
	}
	return sh.keep(ctx, request.book(), chartState{Name: m.Name, Version: version}, known)
}

// build puts values, version and dependencies into a chart and packs it.
func (s *Store) build(b *budget, sh *shelf, tree gitops.Tree, at string, packed bool, request PackageRequest, loaded *chart.Chart, state chartState, fetched *dependencyFiles) (packedChart, error) {
	if len(mergedFiles(request.ValuesFiles)) > 0 {
		values, merged, err := mergeValues(treeFiles(b, tree), request.ValuesFiles, request.IgnoreMissingValuesFiles)
		if err == nil {
			err = setValues(loaded, values)
		}
		if err != nil {
			return packedChart{}, s.unusable(b.ctx, ReasonValues, err)
		}
		state.ValuesFiles = merged
	}
	loaded.Metadata.Version = state.Version
	if !packed {
		added, err := s.addDependencies(b, tree, at, fetched, loaded)
		if err != nil {
			return packedChart{}, s.dependencyFailure(b.ctx, err)
		}
		state.Dependencies = added
	}
	return s.pack(b.ctx, sh, loaded, state)
}

// copyPacked takes a packed chart of the source as it is.
func (s *Store) copyPacked(ctx context.Context, sh *shelf, tree gitops.Tree, at string, state chartState) (packedChart, error) {
	data, err := tree.ReadFile(at)
	if err != nil {
		return packedChart{}, err
	}
	file, name, done, err := sh.create()
	if err != nil {
		return packedChart{}, err
	}
	if _, err := artifact.CountedWriter(ctx, file).Write(data); err != nil {
		done()
		return packedChart{}, err
	}
	state.Packaged, state.Size, state.Digest = false, int64(len(data)), sha256Digest(data)
	return packedChart{name, state, done}, nil
}

// LastPackage gives what a request made last, from the disk and without asking anybody. It
// is an error where there is nothing.
func (s *Store) LastPackage(ctx context.Context, request PackageRequest) (Chart, error) {
	sh, err := s.packages(ctx, request.Source)
	if err != nil {
		return Chart{}, err
	}
	return sh.last(ctx, request.book(), request)
}
