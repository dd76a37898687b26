package oci

import (
	"bytes"
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// FuzzManifest reads manifests: what is taken has one meaning, and layers that can be
// asked for.
func FuzzManifest(f *testing.F) {
	for _, seed := range []string{
		`{"schemaVersion":2,"layers":[{"mediaType":"x","digest":"sha256:` + strings.Repeat("0", 64) + `","size":3}],"annotations":{"a":"b"}}`,
		`{"manifests":[{"platform":{"os":"linux","architecture":"amd64"}}]}`, `{"layers":[null]}`, `{"a":{"a":[{"a":1},"a"]},"b":"a"}`, `{"a":1,"a":2}`, `[`, `"`, `{"layers":1}`, ``, `nul`,
	} {
		f.Add([]byte(seed), "")
	}
	f.Fuzz(func(t *testing.T, content []byte, mediaType string) {
		d, err := parseManifest(manifest{content: content, mediaType: mediaType})
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\x00") || len(err.Error()) > 500 {
				t.Errorf("error %q", err)
			}
			return
		}
		for _, which := range []string{"", "x"} {
			layer, err := d.selectLayer(which, 1<<20)
			if err == nil && (layer.Digest.Hex == "" || layer.Size < 0 || layer.Size > 1<<20 || strings.ContainsAny(layer.Digest.String(), "/.")) {
				t.Errorf("layer %+v", layer)
			}
		}
	})
}

// FuzzUnambiguous compares with a decoder that does not look for what is there twice.
func FuzzUnambiguous(f *testing.F) {
	for _, seed := range []string{`{"a":{"b":[1,{"c":null}]},"d":"e"}`, `{"a":1,"a":1}`, `{"layers":1,"LAYERS":1}`, `[1,"a","a"]`, `{} {}`, `1`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		if unambiguous(content) == nil && json.Valid(content) {
			var decoded any
			if err := json.Unmarshal(content, &decoded); err != nil {
				t.Error(err)
			}
			again, err := json.Marshal(decoded)
			if err != nil {
				t.Fatal(err)
			}
			if err := unambiguous(again); err != nil {
				t.Errorf("%s is not ambiguous, %s is: %v", content, again, err)
			}
		}
	})
}

func FuzzTags(f *testing.F) {
	f.Add([]byte(`{"tags":["1.0.0","v2.0.0","x"]}`), `</v2/app/tags/list?last=x>; rel="next"`, "*", "^v")
	f.Add([]byte(`{"tags":[null]}`), `<http://other/x>`, ">=1 <2", "")
	f.Add([]byte(`{}`), `<>;rel=prev`, "", "")
	f.Fuzz(func(t *testing.T, content []byte, link, rangeOf, filter string) {
		from := &url.URL{Scheme: "https", Host: "registry.example.com", Path: "/v2/app/tags/list"}
		if next, err := nextPage(link, from); err == nil && next != nil && (next.Scheme != "https" || next.Host == "") {
			t.Errorf("next page %q", next)
		}
		tags, err := parseTags(content)
		if err != nil {
			return
		}
		tag, err := newest(Ref{SemVer: rangeOf, SemVerFilter: filter}, chartLayer, tags)
		found := false
		for _, one := range tags {
			found = found || one == tag
		}
		if err == nil && !found {
			t.Errorf("tag %q is none of %q", tag, tags)
		}
	})
}

func FuzzDockerConfig(f *testing.F) {
	for _, seed := range []string{
		`{"auths":{"registry.example.com":{"auth":"YTpi"}}}`, `{"https://registry.example.com/v1/":{"username":"a","password":"b"}}`,
		`{"auths":{"*.example.com/team":{"identitytoken":"x"}}}`, `{"auths":null}`, `{"auths":{"[":{}}}`, `[]`, `null`, `{"a":1}`,
	} {
		f.Add([]byte(seed), "registry.example.com/team/app")
	}
	f.Fuzz(func(t *testing.T, data []byte, repository string) {
		first, err := readDockerConfig(data, repository)
		if err != nil && len(err.Error()) > 100 {
			t.Errorf("error %q", err)
		}
		second, _ := readDockerConfig(data, repository)
		if diff := cmp.Diff(first, second, cmp.AllowUnexported(configEntry{})); diff != "" {
			t.Errorf("the order is not the same each time:\n%s", diff)
		}
		for _, entry := range first {
			if host, _, _ := strings.Cut(repository, "/"); strings.Count(entry.place, ".") < strings.Count(host, ".") {
				t.Errorf("place %q for %q", entry.place, repository)
			}
		}
	})
}

func FuzzState(f *testing.F) {
	layer := `"layer":{"mediaType":"x","size":1,"digest":"sha256:` + strings.Repeat("0", 64) + `"}`
	f.Add([]byte(`{"request":"x","version":1,"revision":"a@sha256:1","digest":"sha256:1",` + layer + `,"annotations":{"a":"b"},"verified":true,"verifyKey":"k"}`))
	f.Add([]byte(`{"request":"x","version":2}`))
	f.Add([]byte(`{"request":"x","version":1,"layer":{"digest":"sha256:../../x"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		request, s, ok := parseLine(data)
		if !ok {
			return
		}
		text, err := line{request, s}.text()
		if err != nil {
			t.Fatal(err)
		}
		again, same, ok := parseLine(text)
		if diff := cmp.Diff(s, same, cmpopts.EquateEmpty()); !ok || again != request || diff != "" || bytes.Count(text, []byte("\n")) != 1 {
			t.Errorf("%s is written as %s:\n%s", data, text, diff)
		}
	})
}

func FuzzURL(f *testing.F) {
	for _, seed := range []string{"oci://registry.example.com/app", "oci://a:b@host/app", "oci://host/app:tag", "oci://host/../x", "oci://[::1]:5000/app", "oci:///x", "oci://x", "oci://host/a?b#c"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		request := Request{URL: text}
		if shown := request.redacted(); strings.Contains(shown, "@") || strings.Contains(shown, "\n") {
			t.Errorf("%q is shown as %q", text, shown)
		}
		repository, err := request.repository()
		if err != nil {
			return
		}
		if strings.Contains("/"+repository.RepositoryStr()+"/", "/../") || repository.RegistryStr() == "" {
			t.Errorf("%q is %q at %q", text, repository.RepositoryStr(), repository.RegistryStr())
		}
	})
}
