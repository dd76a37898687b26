package server

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/plumb-gitops/plumb/internal/frontend/flux"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source"
	"github.com/plumb-gitops/plumb/internal/source/helmrepo"
)

// followedHelm is what is followed of Helm. The store of charts is told all at once, and the
// front end tells the two kinds one by one: what is asked for in between counts too.
type followedHelm struct {
	mu           sync.Mutex // guards the maps
	repositories map[string]helmrepo.Repository
	charts       map[string]helmrepo.ChartRequest
	packages     map[string]helmrepo.PackageRequest
	// told are the kinds that have told what they follow: nothing is removed before both.
	told struct{ repositories, charts bool }
}

// follow counts what is asked for.
func (f *followedHelm) follow(add func(*followedHelm)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.repositories == nil {
		f.repositories = map[string]helmrepo.Repository{}
	}
	if f.charts == nil {
		f.charts, f.packages = map[string]helmrepo.ChartRequest{}, map[string]helmrepo.PackageRequest{}
	}
	add(f)
}

// retain is called with the lock held.
func (f *followedHelm) retain(store *helmrepo.Store) error {
	if !f.told.repositories || !f.told.charts {
		return nil
	}
	return store.Retain(helmrepo.Followed{
		Repositories: slices.Collect(maps.Values(f.repositories)), Charts: slices.Collect(maps.Values(f.charts)),
		Packages: slices.Collect(maps.Values(f.packages)),
	})
}

// helmRepositories lets the front end follow indexes of Helm repositories.
type helmRepositories struct{ *server }

// Fetch brings an index up to date.
func (h helmRepositories) Fetch(ctx context.Context, request flux.HelmRepositoryRequest, known string) (source.Result, error) {
	h.followed.follow(func(f *followedHelm) { f.repositories[keyOf(request)] = h.repository(request, nil) })
	return indexResult(h.charts.Index(ctx, h.repository(request, nil), known))
}

// Last gives the index that an earlier Fetch brought.
func (h helmRepositories) Last(ctx context.Context, request flux.HelmRepositoryRequest) (source.Result, error) {
	return indexResult(h.charts.LastIndex(ctx, h.repository(request, nil)))
}

// Retain removes what none of the requests needs.
func (h helmRepositories) Retain(requests []flux.HelmRepositoryRequest) (err error) {
	h.followed.follow(func(f *followedHelm) {
		clear(f.repositories)
		for _, request := range requests {
			f.repositories[keyOf(request)] = h.repository(request, nil)
		}
		f.told.repositories = true
		err = f.retain(h.charts)
	})
	return err
}

func indexResult(index helmrepo.Index, err error) (source.Result, error) {
	if err != nil {
		return source.Result{}, err
	}
	return source.Result{
		Revision: index.Revision, Unchanged: index.Unchanged, Packed: index.Open, Release: index.Release,
		Metadata: map[string]string{flux.IndexWarning: index.Warning},
	}, nil
}

func (s *server) repository(r flux.HelmRepositoryRequest, v *flux.Verification) helmrepo.Repository {
	if isOCI(r.URL) {
		return helmrepo.Repository{URL: r.URL, Registry: s.registry(r, v)}
	}
	return helmrepo.Repository{
		URL: r.URL, Auth: helmrepo.Auth{Username: r.Auth.Username, Password: r.Auth.Password},
		TLS: r.TLS, PassCredentials: r.PassCredentials, Policy: s.policy(),
	}
}

// helmCharts lets the front end follow charts.
type helmCharts struct{ *server }

// Fetch finds a chart and gets or makes it.
func (h helmCharts) Fetch(ctx context.Context, request flux.HelmChartRequest, known string) (source.Result, error) {
	if err := verifiable(request); err != nil {
		return source.Result{}, err
	}
	h.followed.follow(func(f *followedHelm) { h.add(f, request) })
	var chart helmrepo.Chart
	var err error
	if request.Repository != nil {
		chart, err = h.charts.Chart(ctx, h.chartRequest(request), known)
	} else {
		chart, err = h.charts.Package(ctx, request.Source.Files, h.packageRequest(request), known)
	}
	return chartResult(chart, err)
}

// Last gives the chart that an earlier Fetch brought.
func (h helmCharts) Last(ctx context.Context, request flux.HelmChartRequest) (source.Result, error) {
	if err := verifiable(request); err != nil {
		return source.Result{}, err
	}
	var chart helmrepo.Chart
	var err error
	if request.Repository != nil {
		chart, err = h.charts.LastChart(ctx, h.chartRequest(request))
	} else {
		chart, err = h.charts.LastPackage(ctx, h.packageRequest(request))
	}
	return chartResult(chart, err)
}

// verifiable refuses a chart that is to be verified where nobody would do it.
func verifiable(request flux.HelmChartRequest) error {
	if request.Verification == nil || request.Repository != nil && isOCI(request.Repository.URL) {
		return nil
	}
	return &gitops.Error{
		Stage: gitops.StageFetch, Kind: gitops.Stalled, Reason: flux.ChartVerificationError,
		Cause: errors.New("only charts of OCI registries can be verified; use a HelmRepository of type oci, or take spec.verify away"),
	}
}

// Retain removes what none of the requests needs.
func (h helmCharts) Retain(requests []flux.HelmChartRequest) (err error) {
	h.followed.follow(func(f *followedHelm) {
		clear(f.charts)
		clear(f.packages)
		for _, request := range requests {
			h.add(f, request)
		}
		f.told.charts = true
		err = f.retain(h.charts)
	})
	return err
}

func (s *server) add(f *followedHelm, request flux.HelmChartRequest) {
	if request.Repository != nil {
		f.charts[keyOf(request)] = s.chartRequest(request)
	} else {
		f.packages[keyOf(request)] = s.packageRequest(request)
	}
}

func (s *server) chartRequest(r flux.HelmChartRequest) helmrepo.ChartRequest {
	return helmrepo.ChartRequest{
		Repository: s.repository(*r.Repository, r.Verification), Name: r.Chart, Version: r.Version,
		ValuesFiles: r.ValuesFiles, IgnoreMissingValuesFiles: r.IgnoreMissingValuesFiles, Generation: r.Generation,
		// The HelmRepository keeps its index up to date.
		Cached: !isOCI(r.Repository.URL),
	}
}

func (s *server) packageRequest(r flux.HelmChartRequest) helmrepo.PackageRequest {
	request := helmrepo.PackageRequest{
		Source: r.Source.Owner.String(), Path: r.Chart, ValuesFiles: r.ValuesFiles, IgnoreMissingValuesFiles: r.IgnoreMissingValuesFiles,
		Revision: r.Source.Revision, Generation: r.Generation,
	}
	if r.ByRevision {
		request.Strategy = helmrepo.EachRevision
	}
	if r.RepositoryFor != nil {
		request.RepositoryFor = func(_ context.Context, url string) (helmrepo.Repository, bool, error) {
			found, err := r.RepositoryFor(url)
			if errors.Is(err, flux.ErrNoRepository) {
				// As in Flux, one that nobody has declared is asked without a credential.
				return s.repository(found, nil), false, nil
			}
			return s.repository(found, nil), !isOCI(found.URL), err
		}
	}
	return request
}

func chartResult(chart helmrepo.Chart, err error) (source.Result, error) {
	if err != nil {
		return source.Result{}, chartError(err)
	}
	result := chart.Result
	result.Metadata = map[string]string{flux.ChartName: chart.Name, flux.ChartValues: strings.Join(chart.ValuesFiles, "\n")}
	if chart.Packaged {
		result.Metadata[flux.ChartPackaged] = "yes"
	}
	return result, nil
}

// chartError gives the refusal of a signature the reason that it has for charts.
func chartError(err error) error {
	for cause := err; cause != nil; cause = errors.Unwrap(cause) {
		//nolint:errorlint // each one of the chain is looked at
		if told, ok := cause.(*gitops.Error); ok && told.Reason == "VerificationError" {
			return &gitops.Error{Stage: told.Stage, Kind: told.Kind, Reason: flux.ChartVerificationError, Cause: err}
		}
	}
	return err
}
