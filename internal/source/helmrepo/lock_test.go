package helmrepo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/loader/archive"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
)

// TestKeysAreReadBesideOthers: while the keys of one request are read, which may take
// long, others are served.
func TestKeysAreReadBesideOthers(t *testing.T) {
	t.Parallel()
	cache, err := artifact.OpenCache(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.TempDir(), cache, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	dial := s.dial
	sourcetest.CheckBeside(t, func(wait func()) {
		s.dial = func(r Repository) (*remote, error) {
			if r.URL == "https://slow" {
				wait()
			}
			return dial(r)
		}
	}, func(slow bool) error {
		_, err := s.remote(t.Context(), Repository{URL: map[bool]string{true: "https://slow", false: "https://quick"}[slow]})
		return err
	})
}

// TestOneChartIsDecodedAtATime: while one is, others wait, as long as somebody waits for them.
func TestOneChartIsDecodedAtATime(t *testing.T) {
	t.Parallel()
	s := &Store{options: Options{}.withDefaults()}
	files := []*archive.BufferedFile{{Name: chartFile, Data: []byte("apiVersion: v2\nname: a\nversion: 1.0.0\n")}}
	for name, decode := range map[string]func(b *budget) error{
		"a chart":       func(b *budget) error { _, err := loadFiles(b, files); return err },
		"a values file": func(b *budget) error { _, err := parseValues([]byte("a: 1"), b); return err },
	} {
		leave, err := s.decoding.Take(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if err := decode(s.budget(gone)); !errors.Is(err, context.Canceled) {
			t.Errorf("%s beside another one: %v", name, err)
		}
		leave()
		if err := decode(s.budget(t.Context())); err != nil {
			t.Errorf("%s alone: %v", name, err)
		}
	}
}

// TestLargeChartsAreDecoded: three of the largest values files together, of 5,000 lines each.
func TestLargeChartsAreDecoded(t *testing.T) {
	t.Parallel()
	var values strings.Builder
	for i := range 500 {
		fmt.Fprintf(&values, "## This is, in short: what the component does - or not\n## ref: https://example.com/x?a=b\n##\nkey%d:\n  enabled: true\n  list: [one, two]\n  labels: {}\n  ports:\n  - name: http\n    port: 80\n", i)
	}
	files := []*archive.BufferedFile{{Name: chartFile, Data: []byte("apiVersion: v2\nname: a\nversion: 1.0.0\n")}}
	for _, folder := range []string{"", "charts/b/", "charts/c/"} {
		if folder != "" {
			files = append(files, &archive.BufferedFile{Name: folder + chartFile, Data: []byte("apiVersion: v2\nname: b\nversion: 1.0.0\n")})
		}
		files = append(files, &archive.BufferedFile{Name: folder + valuesFile, Data: []byte(values.String())})
	}
	b := (&Store{options: Options{}.withDefaults()}).budget(t.Context())
	if _, err := loadFiles(b, files); err != nil || b.yaml.nodes < mostNodes*6/10 {
		t.Errorf("%d nodes are left: %v", b.yaml.nodes, err)
	}
}
