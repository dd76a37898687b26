package flux

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// helmCharts is the kind HelmChart.
type helmCharts struct {
	client       client.Client
	secrets      sourceSecrets
	sources      *sources
	repositories helmRepositories
	clock        clock.PassiveClock
	options      SourceOptions
}

func (helmCharts) name() string               { return sourcev1.HelmChartKind }
func (helmCharts) empty() *sourcev1.HelmChart { return &sourcev1.HelmChart{} }
func (helmCharts) latest() string             { return artifact.LatestArchive }

func (helmCharts) status(obj *sourcev1.HelmChart) sourceStatus {
	s := &obj.Status
	return sourceStatus{artifact: &s.Artifact, conditions: &s.Conditions, generation: &s.ObservedGeneration, request: &s.ReconcileRequestStatus, url: &s.URL}
}

func (helmCharts) settings(obj *sourcev1.HelmChart) sourceSettings {
	ref := obj.Spec.SourceRef
	return sourceSettings{suspended: obj.Spec.Suspend, address: fmt.Sprintf("chart '%s' of %s '%s'", obj.Spec.Chart, ref.Kind, ref.Name)}
}

// refuse names a kind of source that no chart can be in.
func (helmCharts) refuse(obj *sourcev1.HelmChart) *blocked {
	kinds := []string{sourcev1.HelmRepositoryKind, sourcev1.GitRepositoryKind, sourcev1.BucketKind}
	if !slices.Contains(kinds, obj.Spec.SourceRef.Kind) {
		return &blocked{reason: unsupportedSourceKind, stalled: true,
			cause: fmt.Errorf("failed to get source: unsupported source kind '%s', must be one of: %v", obj.Spec.SourceRef.Kind, kinds)}
	}
	return nil
}

// follow translates which chart is wanted.
func (h helmCharts) follow(obj *sourcev1.HelmChart) (pursuit[HelmChartRequest], error) {
	spec := &obj.Spec
	p := pursuit[HelmChartRequest]{request: HelmChartRequest{
		Chart: spec.Chart, Version: spec.Version, ValuesFiles: spec.ValuesFiles, IgnoreMissingValuesFiles: spec.IgnoreMissingValuesFiles,
		ByRevision: spec.ReconcileStrategy == sourcev1.ReconcileStrategyRevision, Generation: obj.Generation,
	}}
	var err error
	if spec.SourceRef.Kind == sourcev1.HelmRepositoryKind {
		err = h.fromRepository(obj, &p)
	} else {
		err = h.fromSource(obj, &p)
	}
	if err != nil {
		p.parts.release()
		return pursuit[HelmChartRequest]{}, err
	}
	if terms := p.request; len(p.parts) > 0 {
		if terms.Source != nil {
			terms.Source = &ChartSource{Owner: terms.Source.Owner}
		}
		p.terms = contentOf(terms)
	}
	// A new revision of the source is none of the chart: its version decides.
	p.content = contentOf(spec.Chart, spec.Version, spec.SourceRef, spec.ValuesFiles, spec.IgnoreMissingValuesFiles, spec.ReconcileStrategy, p.request.Verification)
	return p, nil
}

// settled holds for a chart of the index that it was chosen from, and for one of a registry
// with an exact version: Flux asks no server about either, so a password that has become wrong
// is a failure of the HelmRepository alone. What has to be verified is, each time.
func (h helmCharts) settled(obj *sourcev1.HelmChart, following pursuit[HelmChartRequest]) bool {
	switch {
	case obj.Spec.SourceRef.Kind != sourcev1.HelmRepositoryKind || obj.Spec.Verify != nil:
		return false
	case len(following.parts) > 0:
		return obj.Status.ObservedSourceArtifactRevision == following.parts[0].Artifact.Revision
	}
	_, err := semver.StrictNewVersion(strings.TrimPrefix(obj.Spec.Version, "v"))
	return err == nil
}

// fromRepository says how the chart's repository is reached. One with an index must have
// been fetched, so that the chart is as old as the index that others see.
func (h helmCharts) fromRepository(obj *sourcev1.HelmChart, p *pursuit[HelmChartRequest]) error {
	spec := &obj.Spec
	repository := &sourcev1.HelmRepository{}
	if err := h.get(obj, spec.SourceRef.Name, spec.SourceRef.Kind, repository); err != nil {
		return err
	}
	if b := mistyped(repository, h.options.Rewrites); b != nil {
		return b
	}
	wanted := []*meta.LocalObjectReference{repository.Spec.SecretRef, repository.Spec.CertSecretRef}
	if spec.Verify != nil {
		wanted = append(wanted, spec.Verify.SecretRef)
	}
	owner := sourceOwner(obj, h.name())
	if err := h.secrets.want(owner, wanted...); err != nil {
		return err
	}
	request, err := h.repositories.request(repository)
	if err != nil {
		return err
	}
	p.request.Repository = &request
	if spec.Verify != nil {
		if repository.Spec.Type != sourcev1.HelmRepositoryTypeOCI {
			return &blocked{reason: sourcev1.VerificationError, stalled: true,
				cause: fmt.Errorf("spec.verify is for charts of a HelmRepository of type oci; '%s' is of type default", repository.Name)}
		}
		if p.request.Verification, err = h.secrets.verification(owner, spec.Verify.Provider, spec.Verify.SecretRef, nil, spec.Verify.MatchOIDCIdentity); err != nil {
			return err
		}
	}
	p.timeout = repository.GetTimeout()
	if repository.Spec.Type == sourcev1.HelmRepositoryTypeOCI {
		return nil
	}
	return h.take(obj, repository, p)
}

// mistyped refuses a repository of one type with the URL of the other: what holds for a type,
// such as that its charts are verified, would not be done.
func mistyped(repository *sourcev1.HelmRepository, rewrites []Rewrite) *blocked {
	oci := repository.Spec.Type == sourcev1.HelmRepositoryTypeOCI
	if oci == strings.HasPrefix(rewritten(rewrites, repository.Spec.URL), "oci://") {
		return nil
	}
	text := "invalid OCI registry URL: '%s' of HelmRepository '%s', which is of type oci, does not begin with oci://"
	if !oci {
		text = "invalid Helm repository URL: '%s' of HelmRepository '%s' needs spec.type: oci"
	}
	return &blocked{reason: meta.FailedReason, stalled: true, cause: fmt.Errorf("failed to construct Helm client: "+text, redactedURL(repository.Spec.URL), repository.Name)}
}

// fromSource takes the snapshot that the chart is in.
func (h helmCharts) fromSource(obj *sourcev1.HelmChart, p *pursuit[HelmChartRequest]) error {
	if obj.Spec.Verify != nil {
		return &blocked{reason: sourcev1.VerificationError, stalled: true,
			cause: fmt.Errorf("spec.verify is for charts of a HelmRepository of type oci; verify the %s itself", obj.Spec.SourceRef.Kind)}
	}
	owner := sourceObject(&sourcev1.GitRepository{})
	if obj.Spec.SourceRef.Kind == sourcev1.BucketKind {
		owner = &sourcev1.Bucket{}
	}
	if err := h.get(obj, obj.Spec.SourceRef.Name, obj.Spec.SourceRef.Kind, owner); err != nil {
		return err
	}
	if err := h.take(obj, owner, p); err != nil {
		return err
	}
	wanted, repositories := h.dependencyRepositories(obj)
	if err := h.secrets.want(sourceOwner(obj, h.name()), wanted...); err != nil {
		return err
	}
	snapshot := p.parts[0]
	p.request.Source = &ChartSource{Owner: snapshot.Artifact.Source, Revision: snapshot.Artifact.Revision, Files: snapshot.Files}
	p.request.RepositoryFor = func(url string) (HelmRepositoryRequest, error) {
		for _, repository := range repositories {
			if strings.TrimSuffix(repository.Spec.URL, "/") == strings.TrimSuffix(url, "/") {
				return h.repositories.request(repository)
			}
		}
		return HelmRepositoryRequest{URL: rewritten(h.options.Rewrites, strings.TrimSuffix(url, "/"))}, ErrNoRepository
	}
	return nil
}

// dependencyRepositories are the repositories in which a chart's dependencies are looked
// for, with the Secrets that they need.
func (h helmCharts) dependencyRepositories(obj *sourcev1.HelmChart) (wanted []*meta.LocalObjectReference, repositories []*sourcev1.HelmRepository) {
	var list sourcev1.HelmRepositoryList
	if err := h.client.List(context.Background(), &list, client.InNamespace(obj.Namespace)); err != nil {
		return nil, nil // the cache is stopping
	}
	for i := range list.Items {
		repositories = append(repositories, &list.Items[i])
		wanted = append(wanted, list.Items[i].Spec.SecretRef, list.Items[i].Spec.CertSecretRef)
	}
	return wanted, repositories
}

// get reads the object that the chart comes from.
func (h helmCharts) get(obj *sourcev1.HelmChart, name, kind string, into client.Object) error {
	err := h.client.Get(context.Background(), client.ObjectKey{Namespace: obj.Namespace, Name: name}, into)
	if err == nil {
		return nil
	}
	cause := fmt.Errorf("failed to get source: %w", err)
	if apierrors.IsNotFound(err) {
		cause = fmt.Errorf("failed to get source: %s '%s/%s' not found", kind, obj.Namespace, name)
	}
	return &blocked{reason: sourceUnavailable, waiting: true, retry: h.options.RequeueDependency, cause: cause}
}

// take takes the newest snapshot of the chart's source.
func (h helmCharts) take(obj *sourcev1.HelmChart, of sourceObject, p *pursuit[HelmChartRequest]) error {
	ref := obj.Spec.SourceRef
	owner := gitops.OwnerRef{Group: sourceGroup, Kind: ref.Kind, Namespace: obj.Namespace, Name: ref.Name}
	snapshot, ok := h.sources.acquire(owner)
	if !ok {
		b := &blocked{reason: noSourceArtifact, waiting: true, retry: h.options.RequeueDependency,
			cause: fmt.Errorf("no artifact available for %s source '%s'", ref.Kind, ref.Name)}
		if of.GetArtifact() != nil {
			b.hush(h.sources.missing(owner, h.clock.Now()))
		}
		return b
	}
	p.parts = append(p.parts, snapshot)
	return nil
}

func (helmCharts) observe(after, started *sourcev1.HelmChart, f fetched) {
	status := &after.Status
	status.ObservedChartName = f.metadata[ChartName]
	status.ObservedSourceArtifactRevision = ""
	if len(f.parts) > 0 {
		status.ObservedSourceArtifactRevision = f.parts[0].Revision
	}
	status.ObservedValuesFiles = nil
	if started.Spec.IgnoreMissingValuesFiles {
		status.ObservedValuesFiles = valuesFiles(f)
	}
}

// ErrNoRepository is the error for a URL of which the namespace has no HelmRepository.
var ErrNoRepository = errors.New("there is no HelmRepository with this URL")

// Keys of a chart's metadata: its name, the values files that it was made with, a line for
// each, and whether it was packaged by us.
const (
	ChartName     = "name"
	ChartValues   = "valuesFiles"
	ChartPackaged = "packaged"
)

func valuesFiles(f fetched) []string {
	if f.metadata[ChartValues] == "" {
		return nil
	}
	return strings.Split(f.metadata[ChartValues], "\n")
}

func (helmCharts) words(_ *sourcev1.HelmChart, f fetched) (condition, news string) {
	action := "pulled"
	if f.metadata[ChartPackaged] != "" {
		action = "packaged"
	}
	text := fmt.Sprintf("%s '%s' chart with version '%s'", action, f.metadata[ChartName], f.revision)
	if files := valuesFiles(f); len(files) > 0 {
		text += fmt.Sprintf(" and merged values files %v", files)
	}
	return text, text
}

func (helmCharts) reasons(f fetched) (success, failure string) {
	if f.metadata[ChartPackaged] != "" {
		return sourcev1.ChartPackageSucceededReason, "ChartPullError"
	}
	return sourcev1.ChartPullSucceededReason, "ChartPullError"
}

func (helmCharts) annotations(map[string]string) map[string]string { return nil }

func (helmCharts) file(revision string, metadata map[string]string) string {
	return metadata[ChartName] + "-" + revision + ".tgz"
}

// dependents are the charts of a source.
func (h helmCharts) dependents(of gitops.OwnerRef) []client.ObjectKey {
	var list sourcev1.HelmChartList
	err := h.client.List(context.Background(), &list,
		client.MatchingFields{indexChartSource: of.Kind + "/" + of.Namespace + "/" + of.Name}, client.UnsafeDisableDeepCopy)
	if err != nil {
		return nil // the cache is stopping
	}
	keys := make([]client.ObjectKey, 0, len(list.Items))
	for i := range list.Items {
		keys = append(keys, client.ObjectKeyFromObject(&list.Items[i]))
	}
	return keys
}
