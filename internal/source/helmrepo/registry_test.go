package helmrepo_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/helmrepo"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// registry speaks what the composition root makes of a registry.
type registry struct {
	mu       sync.Mutex                   // guards all below
	charts   map[string][]byte            // by digest
	tags     map[string]map[string]string // digests by repository and tag
	asked    []string
	resolved func(tag string) error // judges a tag before its digest is told
	verified string                 // says by what a digest is verified
}

func newRegistry() *registry {
	return &registry{charts: map[string][]byte{}, tags: map[string]map[string]string{}}
}

// put pushes a chart.
func (r *registry) put(repository, tag string, packed []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	sum := sha256.Sum256(append([]byte("manifest"), packed...))
	digest := "sha256:" + hex.EncodeToString(sum[:])
	r.charts[digest] = packed
	if r.tags[repository] == nil {
		r.tags[repository] = map[string]string{}
	}
	r.tags[repository][tag] = digest
}

// asks are the requests since the last call.
func (r *registry) asks() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	asked := strings.Join(r.asked, ", ")
	r.asked = nil
	return asked
}

func (r *registry) repository(identity string) helmrepo.Repository {
	return helmrepo.Repository{URL: "oci://registry.example.com/charts/", Registry: &helmrepo.Registry{
		Identity: identity,
		Tags: func(_ context.Context, repository string) ([]string, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.asked = append(r.asked, "tags of "+repository)
			if r.tags[repository] == nil {
				return nil, &gitops.Error{Stage: gitops.StageFetch, Kind: gitops.Denied, Reason: helmrepo.ReasonAuthentication, Cause: errors.New("the registry says denied")}
			}
			var tags []string
			for tag := range r.tags[repository] {
				tags = append(tags, tag)
			}
			return tags, nil
		},
		Resolve: func(_ context.Context, repository, tag string) (digest, verified string, err error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.asked = append(r.asked, "resolve "+tag)
			if r.resolved != nil {
				if err := r.resolved(tag); err != nil {
					return "", "", err
				}
			}
			digest, ok := r.tags[repository][tag]
			if !ok {
				return "", "", fmt.Errorf("the registry has no tag %q", tag)
			}
			return digest, r.verified, nil
		},
		Pull: func(_ context.Context, _, digest string) (io.ReadCloser, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.asked = append(r.asked, "pull")
			return io.NopCloser(bytes.NewReader(r.charts[digest])), nil
		},
	}}
}

func TestRegistryCharts(t *testing.T) {
	t.Parallel()
	r := newRegistry()
	for _, version := range []string{"1.0.0", "1.1.0+build.1", "2.0.0-rc.1", "latest"} {
		r.put("registry.example.com/charts/team/app", strings.ReplaceAll(version, "+", "_"), testenv.HelmChart(t, "app", version, nil))
	}
	for name, test := range map[string]struct{ version, want, asked string }{
		"the newest stable one": {"", "1.1.0+build.1", "tags of registry.example.com/charts/team/app, resolve 1.1.0_build.1, pull"},
		"a range":               {"~1.0", "1.0.0", "tags of registry.example.com/charts/team/app, resolve 1.0.0, pull"},
		"a name needs no list":  {"2.0.0-rc.1", "2.0.0-rc.1", "resolve 2.0.0-rc.1, pull"},
		"a name with metadata":  {"1.1.0+build.1", "1.1.0+build.1", "resolve 1.1.0_build.1, pull"},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, helmrepo.Options{})
			request := helmrepo.ChartRequest{Repository: r.repository(""), Name: "team/app", Version: test.version}
			r.asks()
			chart := getChart(t, s, request, "")
			if asked := r.asks(); chart.Version != test.want || chart.Name != "app" || asked != test.asked {
				t.Errorf("got %q with version %q, asked for %s", chart.Name, chart.Version, asked)
			}
			for _, known := range []string{chart.Version, ""} {
				again := getChart(t, s, request, known)
				if asked := r.asks(); again.Unchanged != (known != "") || asked != strings.TrimSuffix(test.asked, ", pull") {
					t.Errorf("known %q: unchanged %v, asked for %s", known, again.Unchanged, asked)
				}
			}
		})
	}
}

// TestRegistryVerifies: what is not verified is not stored, and what was verified is what is
// pulled.
func TestRegistryVerifies(t *testing.T) {
	t.Parallel()
	r := newRegistry()
	at := "registry.example.com/charts/app"
	r.put(at, "1.0.0", testenv.HelmChart(t, "app", "1.0.0", map[string]string{"x": "signed"}))
	s := openStore(t, helmrepo.Options{})
	request := helmrepo.ChartRequest{Repository: r.repository("verified"), Name: "app", Version: "1.0.0"}
	r.resolved = func(string) error {
		return &gitops.Error{Stage: gitops.StageFetch, Kind: gitops.Denied, Reason: "ChartVerificationError", Cause: errors.New("no signature")}
	}
	e := refuseChart(t, s, request)
	if e.Kind != gitops.Denied || !strings.Contains(e.Error(), "no signature") || r.asks() != "resolve 1.0.0" {
		t.Errorf("got %s, %s: %s", e.Kind, e.Reason, e)
	}
	if _, err := s.LastChart(t.Context(), request); err == nil {
		t.Error("a chart that was not verified is kept")
	}
	// The tag moves between the verification and the pull.
	r.resolved = nil
	pull := request.Repository.Registry.Pull
	request.Repository.Registry.Pull = func(ctx context.Context, repository, digest string) (io.ReadCloser, error) {
		r.put(at, "1.0.0", testenv.HelmChart(t, "app", "1.0.0", map[string]string{"x": "other"}))
		return pull(ctx, repository, digest)
	}
	chart := getChart(t, s, request, "")
	if files := sourcetest.Contents(t, chart.Files); files["app/x"] != "signed" {
		t.Errorf("got %q", files)
	}
	// A rule that lets everything pass verifies nothing.
	if chart.Verified != "" {
		t.Errorf("a chart that nobody has verified is said to be: %q", chart.Verified)
	}
	r.put(at, "1.0.0", testenv.HelmChart(t, "app", "1.0.0", map[string]string{"x": "signed"}))
	for verified, want := range map[string]string{"": "", "key": "verified signature of version 1.0.0"} {
		r.verified = verified
		if again := getChart(t, s, request, "1.0.0"); !again.Unchanged || again.Verified != want {
			t.Errorf("by %q: unchanged %v, verified %q", verified, again.Unchanged, again.Verified)
		}
	}
	// One who verifies does not get what another one has not verified.
	stranger := request
	stranger.Repository = r.repository("unverified")
	if _, err := s.LastChart(t.Context(), stranger); err == nil {
		t.Error("the chart of another identity is shown")
	}
}

func TestRegistryRefuses(t *testing.T) {
	t.Parallel()
	r := newRegistry()
	r.put("registry.example.com/charts/app", "1.0.0", testenv.HelmChart(t, "other", "1.0.0", nil))
	r.put("registry.example.com/charts/app", "2.0.0", testenv.HelmChart(t, "app", "2.0.1", nil))
	for name, test := range map[string]struct {
		change func(*helmrepo.ChartRequest)
		kind   gitops.ErrorKind
		reason string
		want   string
	}{
		"no such repository":  {func(c *helmrepo.ChartRequest) { c.Name = "none" }, gitops.Denied, helmrepo.ReasonAuthentication, "the registry says denied"},
		"no such tag":         {func(c *helmrepo.ChartRequest) { c.Version = "3.0.0" }, gitops.Transient, helmrepo.ReasonPull, `the registry has no tag "3.0.0"`},
		"no tag in the range": {func(c *helmrepo.ChartRequest) { c.Version = ">= 3" }, gitops.Invalid, helmrepo.ReasonPull, `has no tag in the range ">= 3"`},
		"another chart":       {func(c *helmrepo.ChartRequest) { c.Version = "1.0.0" }, gitops.Invalid, helmrepo.ReasonPull, `says that it is chart "other"`},
		"another version":     {func(c *helmrepo.ChartRequest) { c.Version = "2.0.0" }, gitops.Invalid, helmrepo.ReasonPull, `says that it has version "2.0.1" instead of "2.0.0"`},
		"another scheme":      {func(c *helmrepo.ChartRequest) { c.Repository.URL = "https://example.com" }, gitops.Stalled, helmrepo.ReasonURL, "use oci"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			request := helmrepo.ChartRequest{Repository: r.repository(""), Name: "app"}
			test.change(&request)
			s := openStore(t, helmrepo.Options{})
			e := refuseChart(t, s, request)
			if e.Kind != test.kind || e.Reason != test.reason || !strings.Contains(e.Error(), test.want) {
				t.Errorf("got %s, %s: %s", e.Kind, e.Reason, e)
			}
			if again := refuseChart(t, s, request); again.Error() != e.Error() {
				t.Errorf("two texts: %s, %s", e, again)
			}
		})
	}
}

// TestRegistryDependencies: charts of sources may depend on charts of registries.
func TestRegistryDependencies(t *testing.T) {
	t.Parallel()
	r := newRegistry()
	r.put("registry.example.com/charts/lib", "1.0.0", testenv.HelmChart(t, "lib", "1.0.0", nil))
	files := map[string]string{"c/Chart.yaml": appChart + "dependencies:\n- name: lib\n  version: 1.x\n  repository: oci://registry.example.com/charts/\n"}
	asked := ""
	chart, err := packageOf(t, openStore(t, helmrepo.Options{}), files, helmrepo.PackageRequest{
		Path: "c",
		RepositoryFor: func(_ context.Context, url string) (helmrepo.Repository, bool, error) {
			asked = url
			return r.repository(""), false, nil
		},
	}, "")
	if err != nil {
		t.Fatal(err)
	}
	if got := loaded(t, chart); len(got) != 1 || got[0] != "lib@1.0.0" || asked != "oci://registry.example.com/charts" {
		t.Errorf("got %v, asked for %q", got, asked)
	}
}
