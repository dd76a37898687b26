package helmrepo_test

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/helmrepo"
)

const patience = 3 * time.Minute

// openStore opens a store that is closed with the test.
func openStore(t testing.TB, o helmrepo.Options) *helmrepo.Store {
	t.Helper()
	s := reopenStore(t, t.TempDir(), o)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// reopenStore opens the store below a folder, as a process does that starts.
func reopenStore(t testing.TB, folder string, o helmrepo.Options) *helmrepo.Store {
	t.Helper()
	cache, err := artifact.OpenCache(filepath.Join(folder, "unpacked"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := helmrepo.Open(filepath.Join(folder, "charts"), cache, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// getChart fetches a chart and expects it to work.
func getChart(t testing.TB, s *helmrepo.Store, request helmrepo.ChartRequest, known string) helmrepo.Chart {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	chart, err := s.Chart(ctx, request, known)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(chart.Release)
	return chart
}

// refuseChart fetches a chart and expects an error with a kind and a reason.
func refuseChart(t testing.TB, s *helmrepo.Store, request helmrepo.ChartRequest) *gitops.Error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	chart, err := s.Chart(ctx, request, "")
	if err == nil {
		chart.Release()
	}
	return refused(t, err)
}

// refused expects an error with a kind and a reason.
func refused(t testing.TB, err error) *gitops.Error {
	t.Helper()
	var e *gitops.Error
	if !errors.As(err, &e) || e.Stage != gitops.StageFetch || e.Kind == "" || e.Reason == "" {
		t.Fatalf("got error %v", err)
	}
	return e
}

// getIndex fetches an index and expects it to work.
func getIndex(t testing.TB, s *helmrepo.Store, r helmrepo.Repository, known string) helmrepo.Index {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	index, err := s.Index(ctx, r, known)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(index.Release)
	return index
}

// readAll reads what can be opened.
func readAll(t testing.TB, open func() (io.ReadCloser, error)) []byte {
	t.Helper()
	in, err := open()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	data, err := io.ReadAll(in)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// tlsWithCA trusts a CA besides the system's.
func tlsWithCA(ca string) egress.TLS { return egress.TLS{CA: []byte(ca)} }
