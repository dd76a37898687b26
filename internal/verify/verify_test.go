package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

func image(t testing.TB) name.Digest {
	t.Helper()
	digest, err := name.NewDigest("registry.example.com/org/app@sha256:" + strings.Repeat("a", 64))
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

func TestGuard(t *testing.T) {
	t.Parallel()
	by, err := Guard(image(t), func() (string, error) { return "key", nil })
	if by != "key" || err != nil {
		t.Errorf("%q, %v", by, err)
	}
	var none []int
	for name, verify := range map[string]func() (string, error){
		"an index":  func() (string, error) { return fmt.Sprint(none[len(by)]), nil },
		"a value":   func() (string, error) { panic("\x1b[2J" + strings.Repeat("x", 5000)) },
		"an error":  func() (string, error) { panic(errors.New("x")) },
		"after all": func() (by string, err error) { defer func() { panic("late") }(); return "key", nil },
	} {
		by, err := Guard(image(t), verify)
		if by != "" || gitops.KindOf(err) != gitops.Internal || strings.Contains(err.Error(), "\x1b") || len(err.Error()) > 700 || !strings.Contains(err.Error(), "not verified") {
			t.Errorf("a panic with %s: verified by %q, %v", name, by, err)
		}
	}
}

func TestAttempts(t *testing.T) {
	t.Parallel()
	many := func(n int) func(*Attempts) {
		return func(a *Attempts) {
			for i := range n {
				if a.Next() {
					a.Skip(fmt.Sprintf("reason %03d", n-i))
				}
			}
		}
	}
	for name, row := range map[string]struct {
		what func(*Attempts)
		kind gitops.ErrorKind
		text string
	}{
		"nothing":              {func(*Attempts) {}, gitops.Denied, "has no cosign signature; do this"},
		"one":                  {many(1), gitops.Denied, "is not verified: its cosign signature is not accepted: reason 001; do this"},
		"two":                  {many(2), gitops.Denied, "is not verified: none of its 2 cosign signatures is accepted: reason 001; reason 002; do this"},
		"the same reason":      {func(a *Attempts) { a.Next(); a.Skip("x"); a.Next(); a.Skip("x") }, gitops.Denied, "none of its 2 cosign signatures is accepted: x; do this"},
		"many reasons":         {many(9), gitops.Denied, "reason 004; and 5 reasons more; do this"},
		"more than are read":   {many(MostSignatures + 5), gitops.Denied, "none of the first 100 of its cosign signatures is accepted"},
		"nothing to be read":   {func(a *Attempts) { a.Skip("x") }, gitops.Denied, "what should be its cosign signature is not accepted: x"},
		"a failure to read":    {func(a *Attempts) { many(3)(a); a.Unread(context.Background(), io.EOF) }, gitops.Transient, "read the signatures of registry.example.com/org/app@sha256:"},
		"a refusal to be read": {func(a *Attempts) { a.Unread(context.Background(), &transport.Error{StatusCode: http.StatusForbidden}) }, gitops.Denied, "403 Forbidden; the credential"},
		"what is not sure":     {func(a *Attempts) { many(1)(a); a.Unsure(errors.New("perhaps")) }, gitops.Transient, "is not verified: perhaps"},
	} {
		attempts := NewAttempts(image(t), "cosign")
		row.what(attempts)
		err := attempts.Error("do this")
		if gitops.KindOf(err) != row.kind || !strings.Contains(err.Error(), row.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// served answers every request with the same bytes.
type served []byte

func (s served) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/vnd.oci.image.index.v1+json"}}, Body: io.NopCloser(bytes.NewReader(s)), ContentLength: int64(len(s)), Request: r}, nil
}

// Whatever a registry answers, it is a manifest or an error.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"layers":[{"mediaType":"x","size":2,"digest":"sha256:` + strings.Repeat("a", 64) + `","annotations":{"a":"b"}}],"manifests":[{"artifactType":"x"}]}`))
	f.Add([]byte(`{"layers":[null],"manifests":[null],"subject":{"digest":"sha512:a"}}`))
	f.Add([]byte(`null`))
	f.Add([]byte(`[`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := Open(image(t), remote.WithTransport(served(raw)))
		if err != nil {
			t.Fatal(err)
		}
		manifest, err := r.Manifest(t.Context(), r.Tag("x"))
		if (manifest == nil) == (err == nil) {
			t.Errorf("%v, %v", manifest, err)
		}
		if manifest != nil {
			for _, layer := range manifest.Layers {
				if got, err := r.Blob(t.Context(), layer, LargestBlob); err == nil && !bytes.Equal(got, raw) {
					t.Errorf("%q is read as %q", raw, got)
				}
			}
		}
		if _, err := r.Referrers(t.Context()); err == nil && bytes.HasPrefix(raw, []byte("[")) {
			t.Errorf("%q is an index", raw)
		}
	})
}
