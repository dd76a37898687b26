package oci_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/source/oci"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

const (
	repositories = 200
	workers      = 16
)

// filled is a registry with an artifact in each of its repositories.
func filled(t testing.TB, o testenv.RegistryOptions) *testenv.Registry {
	t.Helper()
	registry := testenv.NewRegistry(t, o)
	for i := range repositories {
		files := testenv.Files{}
		for j := range 20 {
			files[fmt.Sprintf("apps/app-%d/%d.yaml", i, j)] = fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: app-%d-%d\ndata:\n  text: %q\n", i, j, strings.Repeat("some text ", 50))
		}
		registry.Push(t, fmt.Sprintf("team/app-%d", i), "latest", files)
	}
	return registry
}

// each does something for all repositories, with some workers.
func each(do func(repository string)) {
	var wait sync.WaitGroup
	next := make(chan int)
	for range workers {
		wait.Go(func() {
			for i := range next {
				do(fmt.Sprintf("team/app-%d", i))
			}
		})
	}
	for i := range repositories {
		next <- i
	}
	close(next)
	wait.Wait()
}

// bare pulls all repositories as a plain client does: it reads the layer, and does
// nothing with it.
func bare(b *testing.B, registry *testenv.Registry, tls egress.TLS) {
	b.Helper()
	transport := remote.DefaultTransport.(*http.Transport).Clone()
	config, err := tls.Config()
	if err != nil {
		b.Fatal(err)
	}
	transport.TLSClientConfig = config
	defer transport.CloseIdleConnections()
	each(func(repository string) {
		ref, err := name.ParseReference(registry.Host() + "/" + repository)
		if err != nil {
			b.Error(err)
			return
		}
		image, err := remote.Image(ref, remote.WithTransport(transport), remote.WithContext(b.Context()),
			remote.WithAuth(authn.FromConfig(authn.AuthConfig{Username: "ann", Password: "word"})))
		if err != nil {
			b.Error(err)
			return
		}
		layers, err := image.Layers()
		if err != nil {
			b.Error(err)
			return
		}
		content, err := layers[0].Compressed()
		if err != nil {
			b.Error(err)
			return
		}
		defer content.Close()
		if _, err := io.Copy(io.Discard, content); err != nil {
			b.Error(err)
		}
	})
}

// BenchmarkFirstFetch compares the first fetch of 200 repositories with the same pulls by
// a bare client, both with 16 workers. What comes is unpacked and kept on disk.
func BenchmarkFirstFetch(b *testing.B) {
	for _, kind := range []struct {
		name    string
		options testenv.RegistryOptions
	}{
		{"http and basic", testenv.RegistryOptions{Username: "ann", Password: "word"}},
		{"http and tokens", testenv.RegistryOptions{Username: "ann", Password: "word", Bearer: true}},
		{"https and tokens", testenv.RegistryOptions{Username: "ann", Password: "word", Bearer: true, TLS: true}},
	} {
		b.Run(kind.name, func(b *testing.B) {
			registry := filled(b, kind.options)
			tls := tlsOf(registry.CA)
			// The best of several runs says what it costs where the machine has time for it.
			var plain, ours, again time.Duration
			best := func(of *time.Duration, do func()) {
				began := time.Now()
				do()
				if took := time.Since(began); *of == 0 || took < *of {
					*of = took
				}
			}
			for b.Loop() {
				best(&plain, func() { bare(b, registry, tls) })
				s := openStore(b, oci.Options{})
				pull := func() {
					each(func(repository string) {
						result, err := s.Fetch(b.Context(), oci.Request{URL: registry.URL(repository), TLS: tls, Auth: oci.Auth{Username: "ann", Password: "word"}}, "")
						if err != nil {
							b.Error(err)
							return
						}
						b.Cleanup(result.Release) // as long as it is followed
					})
				}
				best(&ours, pull)
				best(&again, pull)
			}
			b.ReportMetric(plain.Seconds()*1000, "ms-bare")
			b.ReportMetric(ours.Seconds()*1000, "ms-first")
			b.ReportMetric(again.Seconds()*1000, "ms-unchanged")
			b.ReportMetric(ours.Seconds()/plain.Seconds(), "times-bare")
		})
	}
}
