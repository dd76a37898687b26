package oci_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/oci"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// refuse fetches and expects an error with a reason, a kind, and words in it.
func refuse(t testing.TB, s *oci.Store, request oci.Request, kind gitops.ErrorKind, reason string, words ...string) string {
	t.Helper()
	var texts [2]string
	for i := range texts {
		result, err := s.Fetch(t.Context(), request, "")
		if err == nil {
			result.Release()
			t.Fatal("no error")
		}
		var e *gitops.Error
		if !errors.As(err, &e) || e.Stage != gitops.StageFetch || e.Kind != kind || e.Reason != reason {
			t.Errorf("kind %q and reason %q of %q, want %q and %q", e.Kind, e.Reason, err, kind, reason)
		}
		for _, word := range words {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%q does not say %q", err, word)
			}
		}
		texts[i] = err.Error()
	}
	if texts[0] != texts[1] {
		t.Errorf("the same failure has two texts:\n%s\n%s", texts[0], texts[1])
	}
	return texts[0]
}

func TestReferences(t *testing.T) {
	t.Parallel()
	registry := testenv.NewRegistry(t, testenv.RegistryOptions{})
	digests := map[string]string{}
	for _, tag := range []string{"latest", "1.0.0", "1.2.0", "1.10.0", "v1.11.0-rc.1", "2.0.0", "2.1.0-dev", "2.2.0-prod", "2.3", "main", "v3.0.0", "2025.02.03"} {
		digests[tag] = registry.Push(t, "app", tag, testenv.Files{"tag": tag})
	}
	chart := registry.PushChart(t, "chart", "1.0.0_build.7", testenv.TarGzip(t, testenv.Files{"app/Chart.yaml": "name: app"}), nil)
	registry.PushChart(t, "chart", "1.0.0_build.5", testenv.TarGzip(t, testenv.Files{"app/Chart.yaml": "name: older"}), nil)
	s := openStore(t, oci.Options{})
	for name, test := range map[string]struct {
		repository string
		ref        oci.Ref
		layer      oci.Layer
		want       string
	}{
		"without a reference it is the tag latest": {"app", oci.Ref{}, oci.Layer{}, "latest@" + digests["latest"]},
		"a tag":                               {"app", oci.Ref{Tag: "main"}, oci.Layer{}, "main@" + digests["main"]},
		"a digest has no tag in its revision": {"app", oci.Ref{Digest: digests["1.2.0"]}, oci.Layer{}, digests["1.2.0"]},
		"a digest comes before a range and a tag":            {"app", oci.Ref{Digest: digests["1.0.0"], SemVer: "*", Tag: "main"}, oci.Layer{}, digests["1.0.0"]},
		"a range comes before a tag":                         {"app", oci.Ref{SemVer: "1.x", Tag: "main"}, oci.Layer{}, "1.10.0@" + digests["1.10.0"]},
		"a range takes what comes before a release":          {"app", oci.Ref{SemVer: ">=1.11.0-0 <2"}, oci.Layer{}, "v1.11.0-rc.1@" + digests["v1.11.0-rc.1"]},
		"a range leaves tags without three numbers out":      {"app", oci.Ref{SemVer: "2.x"}, oci.Layer{}, "2.0.0@" + digests["2.0.0"]},
		"numbers may begin with zero":                        {"app", oci.Ref{SemVer: ">=1000"}, oci.Layer{}, "2025.02.03@" + digests["2025.02.03"]},
		"a filter comes before the range":                    {"app", oci.Ref{SemVer: ">=2.0.0-0 <4", SemVerFilter: ".*-(dev|prod)$"}, oci.Layer{}, "2.2.0-prod@" + digests["2.2.0-prod"]},
		"an underscore of a chart's tag is a plus of semver": {"chart", oci.Ref{SemVer: "*"}, oci.Layer{MediaType: testenv.MediaTypeChartContent}, "1.0.0_build.7@" + chart},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			request := oci.Request{URL: registry.URL(test.repository), Ref: test.ref, Layer: test.layer}
			result := fetch(t, s, request, "")
			if result.Revision != test.want || result.Unchanged {
				t.Errorf("revision %q, want %q; unchanged %v", result.Revision, test.want, result.Unchanged)
			}
			if again := fetch(t, s, request, result.Revision); !again.Unchanged || again.Revision != test.want {
				t.Errorf("again: %q, unchanged %v", again.Revision, again.Unchanged)
			}
		})
	}
}

func TestReferencesThatAreRefused(t *testing.T) {
	t.Parallel()
	registry := testenv.NewRegistry(t, testenv.RegistryOptions{})
	registry.Push(t, "app", "1.0.0", testenv.Files{"a": "1"})
	s := openStore(t, oci.Options{})
	url := registry.URL("app")
	missing := "sha256:" + strings.Repeat("0", 64)
	for name, test := range map[string]struct {
		request oci.Request
		kind    gitops.ErrorKind
		reason  string
		words   []string
	}{
		"a tag that is not there":          {oci.Request{URL: url, Ref: oci.Ref{Tag: "nope"}}, gitops.Invalid, "OCIArtifactPullFailed", []string{`tag "nope"`, url, "404", "MANIFEST_UNKNOWN"}},
		"a digest that is not there":       {oci.Request{URL: url, Ref: oci.Ref{Digest: missing}}, gitops.Invalid, "OCIArtifactPullFailed", []string{missing}},
		"a repository that is not there":   {oci.Request{URL: registry.URL("other")}, gitops.Transient, "OCIArtifactPullFailed", []string{"NAME_UNKNOWN", "check the URL"}},
		"tags of no repository":            {oci.Request{URL: registry.URL("other"), Ref: oci.Ref{SemVer: "*"}}, gitops.Transient, "ReadOperationFailed", []string{"NAME_UNKNOWN"}},
		"a range without a tag":            {oci.Request{URL: url, Ref: oci.Ref{SemVer: ">=9"}}, gitops.Invalid, "ReadOperationFailed", []string{`range ">=9"`, "none of the 1 tags"}},
		"a filter without a tag":           {oci.Request{URL: url, Ref: oci.Ref{SemVer: "*", SemVerFilter: "^x"}}, gitops.Invalid, "ReadOperationFailed", []string{"matches the filter"}},
		"a range that is none":             {oci.Request{URL: url, Ref: oci.Ref{SemVer: "<<1"}}, gitops.Stalled, "ReadOperationFailed", []string{"range of versions"}},
		"a filter that is none":            {oci.Request{URL: url, Ref: oci.Ref{SemVer: "*", SemVerFilter: "["}}, gitops.Stalled, "ReadOperationFailed", []string{"regular expression"}},
		"a tag that leaves the repository": {oci.Request{URL: url, Ref: oci.Ref{Tag: "../../x"}}, gitops.Stalled, "OCIArtifactPullFailed", []string{"not a tag"}},
		"a digest that is none":            {oci.Request{URL: url, Ref: oci.Ref{Digest: "sha256:12"}}, gitops.Stalled, "OCIArtifactPullFailed", []string{"not a digest"}},
		"another scheme":                   {oci.Request{URL: "https://host/app"}, gitops.Stalled, "URLInvalid", []string{"oci://"}},
		"a URL with a tag":                 {oci.Request{URL: url + ":1.0.0"}, gitops.Stalled, "URLInvalid", []string{"put it under"}},
		"a URL that leaves the repository": {oci.Request{URL: registry.URL("a/../../b")}, gitops.Stalled, "URLInvalid", []string{"path"}},
		"a URL without a path":             {oci.Request{URL: "oci://" + registry.Host()}, gitops.Stalled, "URLInvalid", nil},
		"a repository in upper case":       {oci.Request{URL: registry.URL("App")}, gitops.Stalled, "URLInvalid", []string{"lower case"}},
		"an operation that is none":        {oci.Request{URL: url, Layer: oci.Layer{Operation: "x"}}, gitops.Stalled, "OCIArtifactLayerOperationFailed", []string{`"extract"`}},
		"a link-local address":             {oci.Request{URL: "oci://169.254.169.254/app", Insecure: true}, gitops.Invalid, "OCIArtifactPullFailed", []string{"metadata"}},
		"a CA that is none":                {oci.Request{URL: url, TLS: tlsOf([]byte("x"))}, gitops.Stalled, "AuthenticationFailed", []string{"PEM"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			refuse(t, s, test.request, test.kind, test.reason, test.words...)
		})
	}
	text := refuse(t, s, oci.Request{URL: "oci://ann:s3cret@host/app"}, gitops.Stalled, "URLInvalid")
	if strings.Contains(text, "s3cret") {
		t.Errorf("%q names the credential", text)
	}
}

func TestAnUnchangedArtifactCostsOneRequest(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]testenv.RegistryOptions{
		"nobody is asked": {},
		"basic":           {Username: "ann", Password: "word"},
		"a token":         {Username: "ann", Password: "word", Bearer: true},
	} {
		registry := testenv.NewRegistry(t, o)
		digest := registry.Push(t, "app", "main", testenv.Files{"a": "1"})
		s := openStore(t, oci.Options{})
		request := oci.Request{URL: registry.URL("app"), Ref: oci.Ref{Tag: "main"}, Auth: oci.Auth{Username: o.Username, Password: o.Password}}
		known := fetch(t, s, request, "").Revision
		first := registry.Requests()
		if want := map[bool]int64{false: 3, true: 4}[o.Bearer]; first > want {
			t.Errorf("%s: the first fetch cost %d requests, want %d", name, first, want)
		}
		for range 3 {
			if result := fetch(t, s, request, known); !result.Unchanged {
				t.Errorf("%s: %q after %q", name, result.Revision, known)
			}
		}
		if got := registry.Requests() - first; got != 3 {
			t.Errorf("%s: three unchanged fetches cost %d requests", name, got)
		}
		request.Ref = oci.Ref{Digest: digest}
		known = fetch(t, s, request, "").Revision
		first = registry.Requests()
		fetch(t, s, request, known)
		if got := registry.Requests() - first; got != 0 {
			t.Errorf("%s: a digest that is there already cost %d requests", name, got)
		}
	}
}

func TestLayers(t *testing.T) {
	t.Parallel()
	registry := testenv.NewRegistry(t, testenv.RegistryOptions{})
	content := testenv.TarGzip(t, testenv.Files{"a": "1", "bin/run": testenv.Executable("x"), "link": testenv.Symlink("a")})
	other := testenv.TarGzip(t, testenv.Files{"b": "2"})
	annotations := testenv.OCIAnnotations("https://git.example.com/x", "main@sha1:12")
	registry.PushLayers(t, "app", "latest", testenv.MediaTypeFluxConfig, annotations,
		testenv.OCILayer{MediaType: "application/one", Content: content},
		testenv.OCILayer{MediaType: "application/two", Content: other},
		testenv.OCILayer{MediaType: "application/text", Content: []byte("no archive")})
	s := openStore(t, oci.Options{})
	of := func(layer oci.Layer) oci.Request { return oci.Request{URL: registry.URL("app"), Layer: layer} }

	first := fetch(t, s, of(oci.Layer{}), "")
	sourcetest.CheckTree(t, first.Files, map[string]string{"a": "1", "bin/run": "x"})
	if info, err := first.Files.Stat("bin/run"); err != nil || info.Mode()&0o100 == 0 {
		t.Errorf("an executable file: %v, %v", info, err)
	}
	if diff := cmp.Diff(annotations, first.Metadata); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
	if first.Packed != nil {
		t.Error("an extracted layer is handed on as it is")
	}
	second := fetch(t, s, of(oci.Layer{MediaType: "application/two", Operation: oci.Extract}), "")
	sourcetest.CheckTree(t, second.Files, map[string]string{"b": "2"})
	if first.Revision != second.Revision {
		t.Errorf("revisions %q and %q", first.Revision, second.Revision)
	}
	copied := fetch(t, s, of(oci.Layer{MediaType: "application/two", Operation: oci.Copy}), "")
	sourcetest.CheckTree(t, copied.Files, map[string]string{"b": "2"})
	if got := packed(t, copied.Packed); !bytes.Equal(got, other) {
		t.Errorf("%d bytes of a copied layer, want %d", len(got), len(other))
	}
	text := fetch(t, s, of(oci.Layer{MediaType: "application/text", Operation: oci.Copy}), "")
	if got := packed(t, text.Packed); string(got) != "no archive" {
		t.Errorf("a copied layer that is no archive: %q", got)
	}
	if _, err := text.Files.ReadDir("."); err == nil || !strings.Contains(err.Error(), "no gzipped tar") {
		t.Errorf("its files: %v", err)
	}
	refuse(t, s, of(oci.Layer{MediaType: "application/text"}), gitops.Invalid, "OCIArtifactLayerOperationFailed", "no gzipped tar")
	refuse(t, s, of(oci.Layer{MediaType: "application/none"}), gitops.Invalid, "OCIArtifactLayerOperationFailed",
		`"application/none"`, `its layers are "application/one", "application/two", "application/text"`)
}

func packed(t *testing.T, open func() (io.ReadCloser, error)) []byte {
	t.Helper()
	if open == nil {
		t.Fatal("there is no packed file")
	}
	in, err := open()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	content, err := io.ReadAll(in)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestIndexes(t *testing.T) {
	t.Parallel()
	registry := testenv.NewRegistry(t, testenv.RegistryOptions{})
	push := func(content string) testenv.OCIDescriptor {
		digest := registry.Push(t, "app", "", testenv.Files{"for": content})
		return testenv.OCIDescriptor{MediaType: testenv.MediaTypeManifest, Digest: digest, Size: 1}
	}
	arm, amd := push("arm"), push("amd")
	arm.Platform = &testenv.OCIPlatform{OS: "linux", Architecture: "arm64"}
	amd.Platform = &testenv.OCIPlatform{OS: "linux", Architecture: "amd64"}
	index := testenv.OCIIndex{SchemaVersion: 2, MediaType: testenv.MediaTypeIndex, Manifests: []testenv.OCIDescriptor{arm, amd}}
	digest := registry.PushManifest(t, "app", "latest", index)
	s := openStore(t, oci.Options{})
	result := fetch(t, s, oci.Request{URL: registry.URL("app")}, "")
	sourcetest.CheckTree(t, result.Files, map[string]string{"for": "amd"})
	if want := "latest@" + digest; result.Revision != want {
		t.Errorf("revision %q, want %q", result.Revision, want)
	}
	index.Manifests = []testenv.OCIDescriptor{arm}
	registry.PushManifest(t, "app", "arm", index)
	refuse(t, s, oci.Request{URL: registry.URL("app"), Ref: oci.Ref{Tag: "arm"}}, gitops.Invalid, "OCIArtifactLayerOperationFailed", "linux/amd64")

	above := amd
	for range 5 {
		above = testenv.OCIDescriptor{MediaType: testenv.MediaTypeIndex, Size: 1, Digest: registry.PushManifest(t, "app", "deep",
			testenv.OCIIndex{SchemaVersion: 2, MediaType: testenv.MediaTypeIndex, Manifests: []testenv.OCIDescriptor{above}})}
	}
	refuse(t, s, oci.Request{URL: registry.URL("app"), Ref: oci.Ref{Tag: "deep"}}, gitops.Invalid, "OCIArtifactLayerOperationFailed", "more than 4 indexes")
}

func TestLast(t *testing.T) {
	t.Parallel()
	registry := testenv.NewRegistry(t, testenv.RegistryOptions{Username: "ann", Password: "word"})
	registry.Push(t, "app", "latest", testenv.Files{"a": "1"})
	folder := t.TempDir()
	s := openIn(t, folder, oci.Options{})
	request := oci.Request{URL: registry.URL("app"), Auth: oci.Auth{Username: "ann", Password: "word"}}
	if _, err := s.Last(t.Context(), request); err == nil {
		t.Error("something is there before anything was fetched")
	}
	first := fetch(t, s, request, "")
	registry.Around(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	})
	asked := registry.Requests()
	again := openIn(t, folder, oci.Options{})
	for name, store := range map[string]*oci.Store{"the same process": s, "another process": again} {
		last, err := store.Last(t.Context(), request)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		sourcetest.CheckTree(t, last.Files, map[string]string{"a": "1"})
		if diff := cmp.Diff(first.Metadata, last.Metadata); diff != "" || last.Revision != first.Revision {
			t.Errorf("%s: revision %q, metadata %s", name, last.Revision, diff)
		}
		last.Release()
	}
	stranger := request
	stranger.Auth.Password = "other"
	if _, err := again.Last(t.Context(), stranger); err == nil {
		t.Error("somebody else's credential shows what was fetched with ours")
	}
	if got := registry.Requests() - asked; got != 0 {
		t.Errorf("the registry was asked %d times", got)
	}
	damage(t, folder+"/oci")
	if _, err := openIn(t, folder, oci.Options{}).Last(t.Context(), request); err == nil {
		t.Error("a damaged state is taken")
	}
}

// damage cuts the states in a folder.
func damage(t *testing.T, folder string) {
	t.Helper()
	if err := os.Truncate(filepath.Join(folder, "states"), 20); err != nil {
		t.Fatal(err)
	}
}

func TestRetain(t *testing.T) {
	t.Parallel()
	registry := testenv.NewRegistry(t, testenv.RegistryOptions{})
	s := openStore(t, oci.Options{})
	var requests []oci.Request
	for i := range 3 {
		repository := fmt.Sprintf("app-%d", i)
		registry.Push(t, repository, "latest", testenv.Files{"a": repository})
		request := oci.Request{URL: registry.URL(repository)}
		fetch(t, s, request, "")
		requests = append(requests, request)
	}
	if err := s.Retain(append([]oci.Request{{URL: "nonsense"}}, requests[1])); err != nil {
		t.Fatal(err)
	}
	for i, request := range requests {
		last, err := s.Last(t.Context(), request)
		if (err == nil) != (i == 1) {
			t.Errorf("%d: %v", i, err)
		}
		if err == nil {
			last.Release()
		}
	}
	if result := fetch(t, s, requests[0], ""); result.Revision == "" {
		t.Error("what was dropped cannot be fetched again")
	}
}
