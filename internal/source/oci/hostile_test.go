package oci_test

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/oci"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// instead answers requests whose path has some text in it.
func instead(registry *testenv.Registry, part string, answer http.HandlerFunc) {
	registry.Around(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, part) {
				answer(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
}

// endless writes until nobody reads any more.
func endless(w http.ResponseWriter, text string) {
	block := []byte(strings.Repeat(text, 64<<10/len(text)))
	for {
		if _, err := w.Write(block); err != nil {
			return
		}
	}
}

func TestHostileRegistries(t *testing.T) {
	t.Parallel()
	page := func(w http.ResponseWriter, tags []string) {
		_ = json.NewEncoder(w).Encode(map[string]any{"name": "app", "tags": tags})
	}
	many := make([]string, 1001)
	for i := range many {
		many[i] = fmt.Sprintf("1.0.%d", i)
	}
	ranged := oci.Ref{SemVer: "*"}
	for name, test := range map[string]struct {
		part   string
		answer http.HandlerFunc
		ref    oci.Ref
		kind   gitops.ErrorKind
		reason string
		words  string
	}{
		"a manifest without end": {"/manifests/", func(w http.ResponseWriter, _ *http.Request) {
			endless(w, "{")
		}, oci.Ref{}, gitops.Invalid, "OCIArtifactPullFailed", "the manifest has more than 65536 bytes"},
		"a manifest that says how huge it is": {"/manifests/", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100000000")
			endless(w, "{")
		}, oci.Ref{}, gitops.Invalid, "OCIArtifactPullFailed", "the manifest has more than 65536 bytes"},
		"a manifest with another digest": {"/manifests/", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "{}")
		}, oci.Ref{Digest: "sha256:" + strings.Repeat("1", 64)}, gitops.Transient, "OCIArtifactPullFailed", "does not have the digest"},
		"a layer without end": {"/blobs/", func(w http.ResponseWriter, _ *http.Request) {
			endless(w, "x")
		}, oci.Ref{}, gitops.Invalid, "OCIArtifactPullFailed", "more than"},
		"a layer with another digest": {"/blobs/", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "x")
		}, oci.Ref{}, gitops.Transient, "OCIArtifactPullFailed", "does not have the digest"},
		"a layer that is not there": {"/blobs/", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotFound)
		}, oci.Ref{}, gitops.Transient, "OCIArtifactPullFailed", "404"},
		"a page of tags without end": {"/tags/", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"tags":[`)
			endless(w, `"1.0.0",`)
		}, ranged, gitops.Invalid, "ReadOperationFailed", "the answer has more than 2097152 bytes"},
		"pages of tags without end": {"/tags/", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", fmt.Sprintf(`<%s?n=1000&last=x>; rel="next"`, r.URL.Path))
			page(w, []string{"1.0.0"})
		}, ranged, gitops.Invalid, "ReadOperationFailed", "more than 20 pages of tags"},
		"more tags than are read": {"/tags/", func(w http.ResponseWriter, _ *http.Request) {
			page(w, many)
		}, ranged, gitops.Invalid, "ReadOperationFailed", "more than 1000 tags"},
		"a next page on another host": {"/tags/", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", `<http://example.com/v2/app/tags/list>; rel="next"`)
			page(w, []string{"1.0.0"})
		}, ranged, gitops.Transient, "ReadOperationFailed", "another host"},
		"tags that leave the repository": {"/tags/", func(w http.ResponseWriter, _ *http.Request) {
			page(w, []string{"1.0.0-../../../x", "", strings.Repeat("1", 200)})
		}, ranged, gitops.Invalid, "ReadOperationFailed", "no tags"},
		"tags that are null": {"/tags/", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"tags":[null]}`)
		}, ranged, gitops.Invalid, "ReadOperationFailed", "no tags"},
		"tags that are none": {"/tags/", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"tags":{}}`)
		}, ranged, gitops.Transient, "ReadOperationFailed", "cannot be read"},
		"an error without end": {"/manifests/", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			endless(w, "x")
		}, oci.Ref{}, gitops.Transient, "OCIArtifactPullFailed", ""},
		"an error with control characters and an identifier": {"/manifests/", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = fmt.Fprintf(w, `{"errors":[{"code":"DENIED","message":"\u001b[2Jgo away, request 0a1b2c3d-0000-4000-8000-%012d"}]}`, time.Now().UnixNano()%1_000_000_000_000)
		}, oci.Ref{}, gitops.Transient, "OCIArtifactPullFailed", `DENIED "[2Jgo away, request …"`},
		"redirects in a circle": {"/manifests/", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
		}, oci.Ref{}, gitops.Invalid, "OCIArtifactPullFailed", "more than 10 times"},
		"a redirect to a link-local address": {"/blobs/", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://169.254.169.254/latest", http.StatusFound)
		}, oci.Ref{}, gitops.Invalid, "OCIArtifactPullFailed", "metadata"},
		"a redirect to a file": {"/blobs/", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
		}, oci.Ref{}, gitops.Invalid, "OCIArtifactPullFailed", `scheme "file"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			registry := testenv.NewRegistry(t, testenv.RegistryOptions{})
			files := map[string]string{"a": "1"}
			registry.Push(t, "app", "latest", files)
			s := openStore(t, oci.Options{ManifestBytes: 64 << 10, LayerBytes: 1 << 20, Tags: 1000, TagPages: 20})
			request := oci.Request{URL: registry.URL("app"), Ref: test.ref}
			instead(registry, test.part, test.answer)
			refuse(t, s, request, test.kind, test.reason, test.words)
			registry.Around(nil)
			request.Ref = oci.Ref{}
			sourcetest.CheckTree(t, fetch(t, s, request, "").Files, files)
			// What was fetched stays whatever comes then.
			instead(registry, test.part, test.answer)
			last, err := s.Last(t.Context(), request)
			if err != nil {
				t.Fatal(err)
			}
			defer last.Release()
			sourcetest.CheckTree(t, last.Files, files)
		})
	}
}

func TestHostileManifests(t *testing.T) {
	t.Parallel()
	registry := testenv.NewRegistry(t, testenv.RegistryOptions{})
	layer := registry.PushBlob(t, "app", "application/x", testenv.TarGzip(t, testenv.Files{"a": "1"}))
	text, err := json.Marshal(layer)
	if err != nil {
		t.Fatal(err)
	}
	huge := strings.Replace(string(text), fmt.Sprintf(`"size":%d`, layer.Size), `"size":9999999999`, 1)
	short := strings.Replace(string(text), fmt.Sprintf(`"size":%d`, layer.Size), `"size":10`, 1)
	negative := strings.Replace(string(text), `"size":`, `"size":-`, 1)
	const oneManifest = testenv.MediaTypeManifest
	s := openStore(t, oci.Options{Annotations: 3, AnnotationBytes: 100})
	for name, test := range map[string]struct{ manifest, words string }{
		"no JSON":                       {`{`, "not JSON"},
		"null":                          {`null`, "no layers"},
		"a list":                        {`[]`, "cannot be read"},
		"no layers":                     {`{"layers":[]}`, "no layers"},
		"a layer that is null":          {`{"layers":[null]}`, "no digest"},
		"a layer without a digest":      {`{"layers":[{"size":1}]}`, "no digest"},
		"a digest that is a path":       {`{"layers":[{"digest":"sha256:../../x","size":1}]}`, "cannot be read"},
		"layers twice":                  {fmt.Sprintf(`{"layers":[%s],"layers":[]}`, text), `"layers" twice`},
		"layers in two cases":           {fmt.Sprintf(`{"layers":[%s],"Layers":[]}`, text), `"Layers" twice`},
		"a digest twice":                {`{"layers":[{"digest":"sha256:1","x":[{}],"digest":"sha256:2"}]}`, `"digest" twice`},
		"an annotation twice":           {fmt.Sprintf(`{"layers":[%s],"annotations":{"x":"1","x":"2"}}`, text), `"x" twice`},
		"layers and manifests":          {fmt.Sprintf(`{"layers":[%s],"manifests":[]}`, text), "both layers and manifests"},
		"version 1":                     {`{"schemaVersion":1}`, "version 1"},
		"a huge layer":                  {fmt.Sprintf(`{"layers":[%s]}`, huge), "the layer has more than"},
		"a layer longer than it says":   {fmt.Sprintf(`{"layers":[%s]}`, short), "more than 10 bytes"},
		"a negative size":               {fmt.Sprintf(`{"layers":[%s]}`, negative), "negative"},
		"too many annotations":          {fmt.Sprintf(`{"layers":[%s],"annotations":{"a":"","b":"","c":"","d":""}}`, text), "more than 3 annotations"},
		"annotations that are too long": {fmt.Sprintf(`{"layers":[%s],"annotations":{"a":%q}}`, text, strings.Repeat("x", 200)), "100 bytes"},
		"annotations that are no text":  {fmt.Sprintf(`{"layers":[%s],"annotations":{"a":{}}}`, text), "cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			digest := registry.PushRaw(t, "app", "", oneManifest, []byte(test.manifest))
			request := oci.Request{URL: registry.URL("app"), Ref: oci.Ref{Digest: digest}}
			_, err := s.Fetch(t.Context(), request, "")
			var e *gitops.Error
			if !errors.As(err, &e) || e.Kind != gitops.Invalid || !strings.Contains(err.Error(), test.words) {
				t.Errorf("%v, want an invalid one that says %q", err, test.words)
			}
		})
	}
	text, err = json.Marshal(registry.PushBlob(t, "app", "application/x", testenv.TarGzip(t, testenv.Files{"b": "2"})))
	if err != nil {
		t.Fatal(err)
	}
	good := registry.PushRaw(t, "app", "", oneManifest, []byte(fmt.Sprintf(`{"layers":[%s],"annotations":{"a":"1","A":"2"}}`, text)))
	fetch(t, s, oci.Request{URL: registry.URL("app"), Ref: oci.Ref{Digest: good}}, "")
}

func TestHostileLayers(t *testing.T) {
	t.Parallel()
	file := func(name string) tar.Header {
		return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o4777, Size: 1}
	}
	pax := func(name string, records map[string]string) tar.Header {
		return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: 1, Format: tar.FormatPAX, PAXRecords: records}
	}
	link := func(kind byte, name, to string) tar.Header {
		return tar.Header{Typeflag: kind, Name: name, Linkname: to}
	}
	registry := testenv.NewRegistry(t, testenv.RegistryOptions{})
	s := openStore(t, oci.Options{})
	for name, test := range map[string]struct {
		headers []tar.Header
		want    map[string]string // nil where it is refused
	}{
		"a name that leaves it":                 {[]tar.Header{file("../a")}, nil},
		"a name that leaves it inside":          {[]tar.Header{file("a/../../b")}, nil},
		"a name from the root":                  {[]tar.Header{file("/etc/a")}, nil},
		"a name of another record":              {[]tar.Header{pax("../../x", map[string]string{"comment": "x"})}, nil},
		"a file in a file":                      {[]tar.Header{file("a"), file("a/b")}, nil},
		"a name twice":                          {[]tar.Header{file("a"), file("a")}, nil},
		"a long name":                           {[]tar.Header{pax(strings.Repeat("x", 5000), nil)}, nil},
		"a deep name":                           {[]tar.Header{pax(strings.Repeat("d/", 150)+"x", nil)}, nil},
		"a link, and a file through it":         {[]tar.Header{link(tar.TypeSymlink, "d", "/tmp"), file("d/a")}, map[string]string{"d/a": "x"}},
		"a link to outside":                     {[]tar.Header{link(tar.TypeSymlink, "l", "../../../etc/passwd"), file("a")}, map[string]string{"a": "x"}},
		"a hard link":                           {[]tar.Header{link(tar.TypeLink, "l", "/etc/passwd"), file("a")}, map[string]string{"a": "x"}},
		"a device, a pipe and a block":          {[]tar.Header{{Typeflag: tar.TypeChar, Name: "c"}, {Typeflag: tar.TypeFifo, Name: "f"}, {Typeflag: tar.TypeBlock, Name: "b"}, file("a")}, map[string]string{"a": "x"}},
		"folders that nobody may read":          {[]tar.Header{{Typeflag: tar.TypeDir, Name: "d/", Mode: 0}, file("d/a")}, map[string]string{"d/a": "x"}},
		"a name that begins with its own place": {[]tar.Header{file("./a")}, map[string]string{"a": "x"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			contents := make([]string, len(test.headers))
			for i, h := range test.headers {
				contents[i] = strings.Repeat("x", int(h.Size))
			}
			tag := strings.NewReplacer(" ", "-", ",", "").Replace(name)
			registry.PushLayers(t, "app", tag, testenv.MediaTypeFluxConfig, nil, testenv.OCILayer{MediaType: testenv.MediaTypeFluxContent, Content: testenv.TarGzipOf(t, test.headers, contents)})
			request := oci.Request{URL: registry.URL("app"), Ref: oci.Ref{Tag: tag}}
			if test.want == nil {
				refuse(t, s, request, gitops.Invalid, "OCIArtifactLayerOperationFailed", "cannot be unpacked")
				return
			}
			result := fetch(t, s, request, "")
			sourcetest.CheckTree(t, result.Files, test.want)
			if _, err := s.Fetch(t.Context(), request, result.Revision); err != nil {
				t.Error(err)
			}
		})
	}
	bomb := testenv.TarGzip(t, testenv.Files{"a": strings.Repeat("0", 1<<20)})
	registry.PushLayers(t, "app", "cut", testenv.MediaTypeFluxConfig, nil, testenv.OCILayer{MediaType: testenv.MediaTypeFluxContent, Content: bomb[:len(bomb)/2]})
	refuse(t, s, oci.Request{URL: registry.URL("app"), Ref: oci.Ref{Tag: "cut"}}, gitops.Invalid, "OCIArtifactLayerOperationFailed", "cannot be unpacked")
}

// TestALayerOfSomebodyElse has a registry name the layer of another one, which it does
// not have: who asks for it must not see what somebody else has fetched.
func TestALayerOfSomebodyElse(t *testing.T) {
	t.Parallel()
	victim := testenv.NewRegistry(t, testenv.RegistryOptions{Username: "ann", Password: "word"})
	secret := testenv.TarGzip(t, testenv.Files{"a": "private"})
	victim.PushLayers(t, "app", "latest", testenv.MediaTypeFluxConfig, nil, testenv.OCILayer{MediaType: testenv.MediaTypeFluxContent, Content: secret})
	s := openStore(t, oci.Options{})
	fetch(t, s, oci.Request{URL: victim.URL("app"), Auth: oci.Auth{Username: "ann", Password: "word"}}, "")

	thief := testenv.NewRegistry(t, testenv.RegistryOptions{})
	thief.PushManifest(t, "app", "latest", testenv.OCIManifest{
		SchemaVersion: 2, MediaType: testenv.MediaTypeManifest, Config: thief.PushBlob(t, "app", "x", []byte("{}")),
		Layers: []testenv.OCIDescriptor{{MediaType: testenv.MediaTypeFluxContent, Digest: testenv.DigestOf(secret), Size: int64(len(secret))}},
	})
	refuse(t, s, oci.Request{URL: thief.URL("app")}, gitops.Transient, "OCIArtifactPullFailed", "404")
}

// TestAHangingLayer hangs within a layer that two fetch: each ends at its own deadline, and
// another source is not harmed.
func TestAHangingLayer(t *testing.T) {
	t.Parallel()
	registry := testenv.NewRegistry(t, testenv.RegistryOptions{})
	registry.Push(t, "app", "latest", testenv.Files{"a": "1"})
	registry.Push(t, "app", "same", testenv.Files{"a": "1"})
	registry.Push(t, "other", "latest", testenv.Files{"b": "2"})
	begun := make(chan struct{}, 16)
	instead(registry, "/app/blobs/", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "\x1f")
		_ = http.NewResponseController(w).Flush()
		begun <- struct{}{}
		<-r.Context().Done()
	})
	s := openStore(t, oci.Options{})
	long, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := s.Fetch(long, oci.Request{URL: registry.URL("app")}, "")
		done <- err
	}()
	<-begun
	for _, tag := range []string{"latest", "same"} {
		short, end := context.WithTimeout(t.Context(), 100*time.Millisecond)
		_, err := s.Fetch(short, oci.Request{URL: registry.URL("app"), Ref: oci.Ref{Tag: tag}}, "")
		end()
		if gitops.KindOf(err) != gitops.Transient || !strings.Contains(err.Error(), "no answer within the timeout") {
			t.Errorf("tag %q: %v", tag, err)
		}
	}
	fetch(t, s, oci.Request{URL: registry.URL("other")}, "")
	cancel()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "canceled") {
		t.Errorf("the one that was cancelled: %v", err)
	}
	registry.Around(nil)
	fetch(t, s, oci.Request{URL: registry.URL("app")}, "")
}
