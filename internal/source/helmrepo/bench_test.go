package helmrepo

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// syntheticIndex is an index as Helm writes it, with entries of some length.
func syntheticIndex(charts, versions, length int) []byte {
	var b bytes.Buffer
	b.WriteString("apiVersion: v1\nentries:\n")
	words := strings.Repeat("A chart that installs something useful into a cluster. ", length/55+1)
	for c := range charts {
		fmt.Fprintf(&b, "  chart-%05d:\n", c)
		for v := range versions {
			fmt.Fprintf(&b, `  - apiVersion: v2
    appVersion: 1.%[2]d.0
    created: "2026-01-%02[3]dT10:20:30.123456789Z"
    description: %[4]s
    digest: %064[5]x
    home: https://example.com/chart-%05[1]d
    keywords:
    - one
    - two
    maintainers:
    - email: ann@example.com
      name: Ann
    name: chart-%05[1]d
    sources:
    - https://example.com/src/chart-%05[1]d
    urls:
    - https://example.com/charts/chart-%05[1]d-1.%[2]d.0.tgz
    version: 1.%[2]d.0
`, c, versions-v-1, v%28+1, words[:length], c*1000+v)
		}
	}
	b.WriteString("generated: \"2026-01-02T03:04:05Z\"\n")
	return b.Bytes()
}

// weighed calls for the heap that is in use, again and again, while it is read.
type weighed struct {
	io.ReadSeeker
	every, left int
	most        uint64
}

// Read gives bytes.
func (w *weighed) Read(p []byte) (int, error) {
	n, err := w.ReadSeeker.Read(p)
	if w.left -= n; w.left <= 0 {
		w.left = w.every
		w.most = max(w.most, heap())
	}
	return n, err
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// buffer is a file in memory.
type buffer struct{ bytes.Buffer }

func (b *buffer) Truncate(int64) error           { b.Reset(); return nil }
func (b *buffer) Seek(int64, int) (int64, error) { return 0, nil }

// aside is a file for what a conversion does not hold.
func aside(t *testing.T) *os.File {
	t.Helper()
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	return file
}

// TestIndexIsNotHeld: what is in use while an index is read does not grow with it.
func TestIndexIsNotHeld(t *testing.T) { //nolint:paralleltest // others would be weighed too
	index := syntheticIndex(500, 20, 100)
	in := &weighed{ReadSeeker: bytes.NewReader(index), every: 1 << 20, left: 1 << 20}
	var out buffer
	out.Grow(len(index))
	before := heap()
	warning, err := convert(t.Context(), in, int64(len(index)), &out, aside(t))
	if err != nil || warning != "" {
		t.Fatalf("%q, %v", warning, err)
	}
	grew := int64(in.most) - int64(before) //nolint:gosec // far less
	t.Logf("index of %d bytes: %d bytes in use while it is read, %d on the disk", len(index), grew, out.Len())
	if limit := int64(3 << 20); grew > limit {
		t.Errorf("%d bytes are in use while an index of %d is read, at most %d were expected", grew, len(index), limit)
	}
	runtime.KeepAlive(index)
	if charts, versions := held(t, &out); charts != 500 || versions != 10_000 {
		t.Errorf("%d charts with %d versions were read, want 500 with 10000", charts, versions)
	}
}

// held counts the charts and versions in what was made of an index.
func held(t *testing.T, out *buffer) (charts, versions int) {
	t.Helper()
	in := file{bytes.NewReader(out.Bytes())}
	d, err := readDirectory(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range d.Charts {
		if _, err := candidates(in, at.Name, func(candidate) { versions++ }); err != nil {
			t.Fatal(err)
		}
	}
	return len(d.Charts), versions
}

// BenchmarkIndex takes in an index of 50 MB, finds a chart in it, and asks whether it has
// changed. The peaks are of the heap, with what is garbage.
func BenchmarkIndex(b *testing.B) {
	// The index is not held, so that the collector has little to hold on to.
	file, length := filepath.Join(b.TempDir(), "served"), 0
	if index := syntheticIndex(5000, 20, 40); os.WriteFile(file, index, 0o600) == nil {
		length = len(index)
	}
	server := testenv.NewHelmRepository(b, testenv.HelmRepositoryOptions{})
	server.Around(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Etag", `"x"`)
			http.ServeFile(w, r, file)
		})
	})
	cache, err := artifact.OpenCache(filepath.Join(b.TempDir(), "unpacked"))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s, err := Open(b.TempDir(), cache, Options{})
		if err != nil {
			b.Fatal(err)
		}
		repository := Repository{URL: server.URL()}
		step(b, "fetch", func() error {
			i, err := s.Index(b.Context(), repository, "")
			if err == nil {
				i.Release()
			}
			return err
		})
		for _, name := range []string{"find", "again"} {
			step(b, name, func() error {
				r, err := s.remote(b.Context(), repository)
				if err != nil {
					return err
				}
				want, err := parseWanted("~1.7")
				if err != nil {
					return err
				}
				found, err := r.find(b.Context(), "chart-02500", want, true)
				if err == nil && found.Version != "1.7.0" {
					err = errors.New(found.Version)
				}
				return err
			})
		}
		step(b, "poll", func() error {
			i, err := s.Index(b.Context(), repository, "")
			if err == nil {
				i.Release()
			}
			return err
		})
		step(b, "serve", func() error {
			i, err := s.LastIndex(b.Context(), repository)
			if err != nil {
				return err
			}
			defer i.Release()
			in, err := i.Open()
			if err != nil {
				return err
			}
			n, err := io.Copy(io.Discard, in)
			b.ReportMetric(float64(n), "served-B")
			return errors.Join(err, in.Close())
		})
		r, err := s.remote(b.Context(), repository)
		if err != nil {
			b.Fatal(err)
		}
		info, err := r.dir.Stat(r.state.Index.file())
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(info.Size()), "disk-B")
		_ = s.Close()
	}
	b.ReportMetric(float64(length), "index-B")
}

// step measures what something takes: its time and the highest heap above that before.
func step(b *testing.B, name string, do func() error) {
	b.Helper()
	before := heap()
	stop, done := make(chan struct{}), sync.WaitGroup{}
	var peak uint64
	done.Go(func() {
		var m runtime.MemStats
		for {
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapAlloc)
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	})
	began := time.Now()
	err := do()
	took := time.Since(began)
	close(stop)
	done.Wait()
	if err != nil {
		b.Fatalf("%s: %v", name, err)
	}
	b.ReportMetric(float64(took.Microseconds())/1000, name+"-ms")
	b.ReportMetric(float64(max(peak, before)-before)/(1<<20), name+"-MiB")
}
