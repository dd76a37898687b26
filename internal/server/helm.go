package server

import (
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/plumb-gitops/plumb/internal/frontend/flux"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source"
	"github.com/plumb-gitops/plumb/internal/source/helmrepo"
)

// followedHelm is what is followed of Helm: the store of charts is told all at once, and
// the front end tells the two kinds one by one.
type followedHelm struct {
	mu           sync.Mutex // guards the lists
	repositories []helmrepo.Repository
	charts       []helmrepo.ChartRequest
	packages     []helmrepo.PackageRequest
	// told are the kinds that have told what they follow: nothing is removed before both.
	told struct{ repositories, charts bool }
}

func (f *followedHelm) retain(store *helmrepo.Store) error {
	if !f.told.repositories || !f.told.charts {
		return nil
	}
	return store.Retain(helmrepo.Followed{Repositories: f.repositories, Charts: f.charts, Packages: f.packages})
}

// helmRepositories lets the front end follow indexes of Helm repositories.
type helmRepositories struct{ *server }

// Fetch brings an index up to date.
func (h helmRepositories) Fetch(ctx context.Context, request flux.HelmRepositoryRequest, known string) (source.Result, error) {
	return indexResult(h.charts.Index(ctx, h.repository(request, nil), known))
}

// Last gives the index that an earlier Fetch brought.
func (h helmRepositories) Last(ctx context.Context, request flux.HelmRepositoryRequest) (source.Result, error) {
	return indexResult(h.charts.LastIndex(ctx, h.repository(request, nil)))
}

// Retain removes what none of the requests needs.
func (h helmRepositories) Retain(requests []flux.HelmRepositoryRequest) error {
	f := &h.followed
	f.mu.Lock()
	defer f.mu.Unlock()
	f.repositories, f.told.repositories = nil, true
	for _, request := range requests {
		f.repositories = append(f.repositories, h.repository(request, nil))
	}
	return f.retain(h.charts)
}

func indexResult(index helmrepo.Index, err error) (source.Result, error) {
	if err != nil {
		return source.Result{}, err
	}
	return source.Result{
		Revision: index.Revision, Unchanged: index.Unchanged, Packed: index.Open, Release: index.Release,
		Metadata: map[string]string{"warning": index.Warning},
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
	var chart helmrepo.Chart
	var err error
	if request.Repository != nil {
		chart, err = h.charts.Chart(ctx, h.chartRequest(request), known)
	} else {
		chart, err = h.charts.Package(ctx, request.Source.Files, h.packageRequest(request), known)
	}
	return chartResult(request, chart, err)
}

// Last gives the chart that an earlier Fetch brought.
func (h helmCharts) Last(ctx context.Context, request flux.HelmChartRequest) (source.Result, error) {
	var chart helmrepo.Chart
	var err error
	if request.Repository != nil {
		chart, err = h.charts.LastChart(ctx, h.chartRequest(request))
	} else {
		chart, err = h.charts.LastPackage(ctx, h.packageRequest(request))
	}
	return chartResult(request, chart, err)
}

// Retain removes what none of the requests needs.
func (h helmCharts) Retain(requests []flux.HelmChartRequest) error {
	f := &h.followed
	f.mu.Lock()
	defer f.mu.Unlock()
	f.charts, f.packages, f.told.charts = nil, nil, true
	for _, request := range requests {
		if request.Repository != nil {
			f.charts = append(f.charts, h.chartRequest(request))
		} else {
			f.packages = append(f.packages, h.packageRequest(request))
		}
	}
	return f.retain(h.charts)
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
				found, err = flux.HelmRepositoryRequest{URL: strings.TrimSuffix(url, "/")}, nil
				return s.repository(found, nil), false, err
			}
			return s.repository(found, nil), !isOCI(found.URL), err
		}
	}
	return request
}

func chartResult(request flux.HelmChartRequest, chart helmrepo.Chart, err error) (source.Result, error) {
	if err != nil {
		return source.Result{}, chartError(err)
	}
	result := chart.Result
	result.Metadata = map[string]string{flux.ChartName: chart.Name, flux.ChartValues: strings.Join(chart.ValuesFiles, "\n")}
	if chart.Packaged {
		result.Metadata[flux.ChartPackaged] = "yes"
	}
	if request.Verification != nil {
		result.Verified = "verified signature of version " + chart.Version
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
