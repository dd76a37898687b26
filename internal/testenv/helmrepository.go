package testenv

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// HelmRepository is a Helm repository over HTTP on the loopback interface. It ends with the
// test.
type HelmRepository struct {
	// CA is the certificate of the server's authority in PEM; empty without TLS.
	CA []byte

	server *httptest.Server
	plain  bool

	mu       sync.Mutex // guards all below
	around   func(http.Handler) http.Handler
	charts   map[string][]byte      // by file name
	entries  map[string][]HelmEntry // by chart
	index    []byte                 // instead of one of the entries
	requests map[string]int         // by path
}

// HelmRepositoryOptions say how a HelmRepository behaves.
type HelmRepositoryOptions struct {
	// Username and Password are asked for by basic authentication.
	Username, Password string
	// TLS serves https, with a certificate made by HelmRepository.CA.
	TLS bool
	// ClientCA asks for a client certificate that it signed, in PEM.
	ClientCA []byte
	// NoValidators leaves out what a client needs to ask whether the index has changed.
	NoValidators bool
}

// HelmEntry is a version of a chart in an index.
type HelmEntry struct {
	Name, Version string
	// URL and Digest are those of the packed chart.
	URL, Digest string
}

// NewHelmRepository starts a Helm repository without charts.
func NewHelmRepository(t testing.TB, o HelmRepositoryOptions) *HelmRepository {
	t.Helper()
	r := &HelmRepository{charts: map[string][]byte{}, entries: map[string][]HelmEntry{}, requests: map[string]int{}, plain: o.NoValidators}
	handler := http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		r.mu.Lock()
		r.requests[request.URL.Path]++
		around := r.around
		r.mu.Unlock()
		if user, password, _ := request.BasicAuth(); o.Username != "" && (user != o.Username || password != o.Password) {
			w.Header().Set("WWW-Authenticate", `Basic realm="charts"`)
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		if around != nil {
			around(http.HandlerFunc(r.serve)).ServeHTTP(w, request)
			return
		}
		r.serve(w, request)
	})
	r.server = httptest.NewUnstartedServer(handler)
	r.server.Config.ErrorLog = quietLog(t)
	if o.TLS {
		if len(o.ClientCA) > 0 {
			pool := x509.NewCertPool()
			pool.AppendCertsFromPEM(o.ClientCA)
			r.server.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
		}
		r.server.StartTLS()
		r.CA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.server.Certificate().Raw})
	} else {
		r.server.Start()
	}
	t.Cleanup(func() {
		r.server.CloseClientConnections()
		r.server.Close()
	})
	return r
}

// URL is that of the repository: the folder of index.yaml.
func (r *HelmRepository) URL() string { return r.server.URL + "/charts" }

// Requests is the number of requests for a file of the repository so far.
func (r *HelmRepository) Requests(file string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.requests["/charts/"+file]
}

// Around puts a handler in front of all later requests; nil takes it away.
func (r *HelmRepository) Around(wrap func(http.Handler) http.Handler) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.around = wrap
}

// Put adds a packed chart, and an entry for it to the index, and gives the entry.
func (r *HelmRepository) Put(t testing.TB, name, version string, packed []byte) HelmEntry {
	t.Helper()
	sum := sha256.Sum256(packed)
	entry := HelmEntry{Name: name, Version: version, URL: name + "-" + version + ".tgz", Digest: hex.EncodeToString(sum[:])}
	r.mu.Lock()
	r.charts[entry.URL] = packed
	r.mu.Unlock()
	r.Add(entry)
	return entry
}

// Add adds an entry to the index, or replaces the one of the same version.
func (r *HelmRepository) Add(entry HelmEntry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	others := slices.DeleteFunc(r.entries[entry.Name], func(e HelmEntry) bool { return e.Version == entry.Version })
	r.entries[entry.Name] = append([]HelmEntry{entry}, others...)
}

// Remove takes a chart out of the index.
func (r *HelmRepository) Remove(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.entries, name)
}

// Index serves a text as the index; nil serves one of the entries again.
func (r *HelmRepository) Index(text []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.index = text
}

func (r *HelmRepository) serve(w http.ResponseWriter, request *http.Request) {
	name := strings.TrimPrefix(request.URL.Path, "/charts/")
	content, ok := r.content(name)
	if sum := sha256.Sum256(content); name == "index.yaml" && !r.plain {
		w.Header().Set("Etag", `"`+hex.EncodeToString(sum[:])+`"`)
	}
	if !ok {
		http.NotFound(w, request)
		return
	}
	http.ServeContent(w, request, name, time.Time{}, bytes.NewReader(content))
}

// content is that of a file.
func (r *HelmRepository) content(name string) ([]byte, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case name != "index.yaml":
		content, ok := r.charts[name]
		return content, ok
	case r.index != nil:
		return r.index, true
	default:
		return r.text(), true
	}
}

// text is the index of the entries. The caller holds mu.
func (r *HelmRepository) text() []byte {
	var b bytes.Buffer
	b.WriteString("apiVersion: v1\nentries:\n")
	for _, name := range slices.Sorted(maps.Keys(r.entries)) {
		fmt.Fprintf(&b, "  %s:\n", name)
		for i, e := range r.entries[name] {
			fmt.Fprintf(&b, "  - apiVersion: v2\n    created: %q\n", time.Unix(int64(1_700_000_000-i), 0).UTC().Format(time.RFC3339Nano))
			if e.Digest != "" {
				fmt.Fprintf(&b, "    digest: %s\n", e.Digest)
			}
			fmt.Fprintf(&b, "    name: %s\n    urls:\n    - %q\n    version: %s\n", e.Name, e.URL, e.Version)
		}
	}
	b.WriteString("generated: \"2026-01-01T00:00:00Z\"\n")
	return b.Bytes()
}

// HelmChart packs the files of a chart, below a folder of its name. Chart.yaml is made where
// the files have none.
func HelmChart(t testing.TB, name, version string, files map[string]string) []byte {
	t.Helper()
	all := map[string]string{"Chart.yaml": fmt.Sprintf("apiVersion: v2\nname: %s\nversion: %s\n", name, version)}
	maps.Copy(all, files)
	var members []tar.Header
	contents := map[string]string{}
	for _, file := range slices.Sorted(maps.Keys(all)) {
		members = append(members, tar.Header{Typeflag: tar.TypeReg, Name: name + "/" + file, Mode: 0o644, Size: int64(len(all[file]))})
		contents[name+"/"+file] = all[file]
	}
	return Tarball(t, members, contents)
}

// Tarball packs members as they are, also such as no honest program makes. Contents are by
// the name of the member, of those that have a size.
func Tarball(t testing.TB, members []tar.Header, contents map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	zipped := gzip.NewWriter(&b)
	packed := tar.NewWriter(zipped)
	for i := range members {
		check(t, packed.WriteHeader(&members[i]))
		if members[i].Size > 0 {
			_, err := packed.Write([]byte(contents[members[i].Name]))
			check(t, err)
		}
	}
	check(t, packed.Close())
	check(t, zipped.Close())
	return b.Bytes()
}
