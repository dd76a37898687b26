package helmrepo

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/plumb-gitops/plumb/internal/testenv"
)

// weighedBuffer calls for the heap that is in use, again and again, while it is written.
type weighedBuffer struct {
	buffer
	every, left int
	most        uint64
}

// Write takes bytes.
func (w *weighedBuffer) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left <= 0 {
		w.left = w.every
		w.most = max(w.most, heap())
	}
	return w.buffer.Write(p)
}

// yamlIndexOf is an index of some length with one chart, or one chart for each version.
func yamlIndexOf(length int, each bool, version func(i int, chart string) string) []byte {
	var b bytes.Buffer
	b.WriteString("apiVersion: v1\nentries:\n")
	for i := 0; b.Len() < length; i++ {
		chart := "a"
		if each {
			chart = fmt.Sprintf("%06d%s", i, strings.Repeat("<", 200))
		}
		if i == 0 || each {
			fmt.Fprintf(&b, "  \"%s\":\n", chart)
		}
		b.WriteString(version(i, chart))
	}
	return b.Bytes()
}

// TestIndexesTakeLittleMemory: no index takes much memory while it is converted, nor when a
// chart is looked for in it. Those that take long have less than the 50 MiB that are taken.
func TestIndexesTakeLittleMemory(t *testing.T) { //nolint:paralleltest // others would be weighed too
	const mib = 1 << 20
	described := func(sign string) func(int, string) string {
		return func(i int, chart string) string {
			return fmt.Sprintf("  - name: \"%s\"\n    version: 1.0.%d\n    description: \"%s\"\n", chart, i, strings.Repeat(sign, (mib-200)/len(sign)))
		}
	}
	many := func(rest string) func(int, string) string {
		return func(i int, chart string) string {
			return fmt.Sprintf("  - name: \"%s\"\n    version: 1.0.%d\n%s", chart, i, rest)
		}
	}
	for name, test := range map[string]struct {
		index func() []byte
		most  int64
		// adds is how many versions the chart a has in the end; -1 for an index that is refused.
		adds int
		want string // of the error or warning
	}{
		"long descriptions of one chart": {
			func() []byte { return yamlIndexOf(24*mib, false, described("a")) }, 16 * mib, 24, "",
		},
		"long descriptions that are escaped in HTML": {
			func() []byte { return yamlIndexOf(24*mib, false, described("<")) }, 16 * mib, 24, "",
		},
		"long descriptions that are escaped in JSON": {
			func() []byte {
				return yamlIndexOf(8*mib, false, many("    annotations: {x: \""+strings.Repeat(`\0`, mib/2-200)+"\"}\n"))
			}, 24 * mib, 0, "has more than 2097152 bytes as JSON",
		},
		"many dependencies": {
			func() []byte {
				return yamlIndexOf(49*mib, false, many("    dependencies: ["+strings.Repeat("{},", 300_000)+"{}]\n"))
			}, 24 * mib, 0, "has more than about 50000 nodes",
		},
		"many dependencies by an alias": {
			func() []byte {
				return yamlIndexOf(2*mib, false, many("    x: &x ["+strings.Repeat("{},", 10_000)+"{}]\n    y: [*x, *x, *x, *x, *x, *x]\n"))
			}, 24 * mib, 0, "has more than about 50000 nodes",
		},
		"some dependencies of all versions": {
			func() []byte {
				return yamlIndexOf(12*mib, false, many("    dependencies: ["+strings.Repeat("{},", 15_000)+"{}]\n"))
			}, 24 * mib, -1, "take too many bytes as JSON",
		},
		"all versions of one chart": {
			func() []byte {
				return yamlIndexOf(24*mib, false, many("    description: "+strings.Repeat("text ", 200)+"\n    appVersion: 1.0.0\n    urls:\n    - https://example.com/a.tgz\n"))
			}, 20 * mib, 20_000, "",
		},
		"charts with long names": {
			func() []byte { return yamlIndexOf(20*mib, true, many("")) }, 32 * mib, 0, "",
		},
		"a single value in JSON": {
			func() []byte {
				return []byte(`{"apiVersion":"v1","entries":{"a":[{"name":"a","version":"1.0.0","description":"` + strings.Repeat("a", 49*mib) + `"}]}}`)
			}, 24 * mib, -1, "a value of more than 4194304 bytes",
		},
		"many fields in JSON": {
			func() []byte {
				var b strings.Builder
				b.WriteString(`{"apiVersion":"v1"`)
				for i := range 49 {
					fmt.Fprintf(&b, `,"x%d":"%s"`, i, strings.Repeat("a", mib-100))
				}
				return []byte(b.String() + "}")
			}, 24 * mib, -1, "more than 1048576 bytes beside its entries",
		},
		"a version of many keys in JSON": {
			func() []byte {
				return []byte(`{"apiVersion":"v1","entries":{"a":[{"name":"a","version":"1.0.0","dependencies":[` + strings.Repeat("{},", 300_000) + `{}]}]}}`)
			}, 24 * mib, 0, "has more than about 50000 nodes",
		},
		"an index in a way of its own": {
			func() []byte {
				return []byte(`{apiVersion: v1, entries: {a: [{name: a, version: 1.0.0, dependencies: [` + strings.Repeat("{},", 1_300_000) + `{}]}]}}`)
			}, 24 * mib, -1, "has more than about 500000 nodes",
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir() + "/index"
			if err := os.WriteFile(path, test.index(), 0o600); err != nil {
				t.Fatal(err)
			}
			raw, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer raw.Close()
			size, _ := raw.Seek(0, io.SeekEnd)
			in := &weighed{ReadSeeker: raw, every: 4 * mib, left: 4 * mib}
			out := &weighedBuffer{every: 4 * mib, left: 64 << 10}
			before := int64(heap()) //nolint:gosec // it is no exabyte
			warning, err := convert(t.Context(), in, size, out, aside(t))
			grew := int64(max(in.most, out.most)) - before //nolint:gosec // as above
			t.Logf("index of %d bytes: %d in use while it is converted, %d on the disk", size, grew, out.Len())
			if grew > test.most {
				t.Errorf("%d bytes are in use while an index of %d is converted, at most %d were expected", grew, size, test.most)
			}
			if text := fmt.Sprint(warning, err); test.want == "" && text != "<nil>" || !strings.Contains(text, test.want) || test.adds < 0 == (err == nil) {
				t.Fatalf("%s", text)
			}
			if err != nil {
				return
			}
			found := 0
			if _, err := candidates(file{bytes.NewReader(out.Bytes())}, "a", func(candidate) {
				if found++; found == 10 {
					grew = int64(heap()) - before //nolint:gosec // as above
				}
			}); err != nil || found < test.adds {
				t.Errorf("%d versions are found, want %d: %v", found, test.adds, err)
			}
			if grew > test.most {
				t.Errorf("%d bytes are in use while a chart is looked for, at most %d were expected", grew, test.most)
			}
			runtime.KeepAlive(out)
		})
	}
}

// TestChartsTakeTheMemoryOfOne: a small packed chart has many files once it is read. Of those
// that are packaged at the same moment one is read after the other.
func TestChartsTakeTheMemoryOfOne(t *testing.T) { //nolint:paralleltest // others would be weighed too
	const charts, each = 8, 40 << 20
	files := map[string]string{}
	for i := range each / (4 << 20) {
		files[fmt.Sprintf("f%d", i)] = strings.Repeat("x", 4<<20)
	}
	packed := string(testenv.HelmChart(t, "a", "1.0.0", files))
	clear(files)
	s := emptyStore(t)
	before := int64(heap()) //nolint:gosec // it is no exabyte
	ends := make(chan error, charts)
	for i := range charts {
		go func() {
			tree := memoryTree(map[string]string{"a.tgz": packed, "v.yaml": "a: 1"})
			c, err := s.Package(t.Context(), tree, PackageRequest{Source: fmt.Sprint(i), Path: "a.tgz", ValuesFiles: []string{"v.yaml"}}, "")
			if err == nil {
				c.Release()
			}
			ends <- err
		}()
	}
	most := int64(0)
	for done := 0; done < charts; {
		most = max(most, int64(heap())-before) //nolint:gosec // as above
		select {
		case err := <-ends:
			if done++; err != nil {
				t.Error(err)
			}
		default:
		}
	}
	t.Logf("%d charts of %d bytes, packed %d: %d in use", charts, each, len(packed), most)
	if most > 3*each { // with what was garbage only since it was counted
		t.Errorf("%d bytes are in use while charts of %d are packaged", most, each)
	}
}
