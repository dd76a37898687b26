package oci_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/oci"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// verifier lets some digests pass and counts what it is asked.
type verifier struct {
	good  atomic.Pointer[string]
	asked atomic.Int64
	// by is what it names for what is good; empty where nobody has signed that.
	by string
}

func (v *verifier) allow(digest string) { v.good.Store(&digest) }

func (v *verifier) verify(_ context.Context, image name.Digest, _ ...remote.Option) (string, error) {
	v.asked.Add(1)
	if good := v.good.Load(); good == nil || image.DigestStr() != *good {
		return "", errors.New("no matching signatures")
	}
	return v.by, nil
}

func TestVerification(t *testing.T) {
	t.Parallel()
	registry := testenv.NewRegistry(t, testenv.RegistryOptions{})
	folder := t.TempDir()
	s := openIn(t, folder, oci.Options{})
	v := &verifier{}
	request := oci.Request{URL: registry.URL("app"), Verify: v.verify, VerifyKey: "one"}
	asked := func(what string, want int64) {
		t.Helper()
		if got := v.asked.Swap(0); got != want {
			t.Errorf("%s: verified %d times, want %d", what, got, want)
		}
	}

	bad := registry.Push(t, "app", "latest", testenv.Files{"a": "bad"})
	refuse(t, s, request, gitops.Denied, "VerificationError", "no matching signatures", bad)
	asked("after a failure it is verified again", 2)
	if _, err := s.Last(t.Context(), request); err == nil {
		t.Error("what was not verified is shown")
	}

	v.allow(registry.Push(t, "app", "latest", testenv.Files{"a": "good"}))
	first := fetch(t, s, request, "")
	known := first.Revision
	if first.Verified != "" {
		t.Errorf("an artifact that nobody has signed is said to be verified: %q", first.Verified)
	}
	resolved := func(want string) {
		t.Helper()
		if digest, by, err := s.Resolve(t.Context(), request); err != nil || digest != *v.good.Load() || by != want {
			t.Errorf("resolved %q, verified by %q: %v; want it by %q", digest, by, err, want)
		}
	}
	fetch(t, s, request, known)
	asked("a digest is verified once", 1)
	resolved("")
	v.by = "a key"
	resolved("a key")
	v.by = ""
	asked("what is not kept is verified each time", 2)

	registry.Push(t, "app", "latest", testenv.Files{"a": "bad again"})
	refuse(t, s, request, gitops.Denied, "VerificationError", "no matching signatures")
	asked("a new digest", 2)
	last, err := s.Last(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	sourcetest.CheckTree(t, last.Files, map[string]string{"a": "good"})
	last.Release()
	registry.Tag(t, "app", "latest", strings.TrimPrefix(known, "latest@"))

	request.VerifyKey, v.by = "two", "a key"
	if _, err := s.Last(t.Context(), request); err == nil {
		t.Error("what was verified in another way is shown")
	}
	fetch(t, openIn(t, folder, oci.Options{}), request, known)
	asked("other settings", 1)
	again := fetch(t, openIn(t, folder, oci.Options{}), request, known)
	asked("another process", 0)
	if want := "verified signature of revision " + known; again.Verified != want {
		t.Errorf("verified %q, want %q", again.Verified, want)
	}

	request.Verify = func(context.Context, name.Digest, ...remote.Option) (string, error) {
		return "", &gitops.Error{Stage: gitops.StageFetch, Kind: gitops.Stalled, Cause: errors.New("no keys")}
	}
	request.VerifyKey = "three"
	refuse(t, s, request, gitops.Stalled, "VerificationError", "no keys")
	request.Verify = func(context.Context, name.Digest, ...remote.Option) (string, error) { panic("index out of range") }
	refuse(t, s, request, gitops.Denied, "VerificationError", "broke off")
}

// TestWhatIsNotVerifiedIsNotPulled shows that not even a layer is asked for before.
func TestWhatIsNotVerifiedIsNotPulled(t *testing.T) {
	t.Parallel()
	registry := testenv.NewRegistry(t, testenv.RegistryOptions{})
	registry.Push(t, "app", "latest", testenv.Files{"a": "1"})
	var blobs atomic.Int64
	registry.Around(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/blobs/") {
				blobs.Add(1)
			}
			next.ServeHTTP(w, r)
		})
	})
	var v verifier
	s := openStore(t, oci.Options{})
	request := oci.Request{URL: registry.URL("app"), Verify: v.verify, VerifyKey: "x"}
	refuse(t, s, request, gitops.Denied, "VerificationError")
	if blobs.Load() != 0 {
		t.Errorf("%d layers were asked for", blobs.Load())
	}
	request.Verify = nil
	fetch(t, s, request, "")
	if blobs.Load() != 1 {
		t.Errorf("%d layers were asked for without verification: the test sees none", blobs.Load())
	}
}

// TestATagThatMoves moves the tag after each of the steps of a fetch: what is pulled is
// what was verified.
func TestATagThatMoves(t *testing.T) {
	t.Parallel()
	for step, moves := range map[string]func(r *http.Request) bool{
		"after the tag was resolved":      func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/manifests/latest") },
		"after the signature was fetched": func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, ".sig") },
		"after the manifest was fetched":  func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/manifests/sha256:") },
	} {
		for when, again := range map[string]bool{"at the first fetch": false, "at a later one": true} {
			t.Run(step+" "+when, func(t *testing.T) {
				t.Parallel()
				registry := testenv.NewRegistry(t, testenv.RegistryOptions{Username: "ann", Password: "word", Bearer: true})
				s := openStore(t, oci.Options{})
				var verified string
				request := oci.Request{
					URL: registry.URL("app"), Auth: oci.Auth{Username: "ann", Password: "word"}, VerifyKey: "x",
					// As a verifier does, it looks for a signature with the options that it is given.
					Verify: func(_ context.Context, image name.Digest, o ...remote.Option) (string, error) {
						verified = image.DigestStr()
						_, err := remote.Get(image.Context().Tag(strings.ReplaceAll(verified, ":", "-")+".sig"), o...)
						return "key", err
					},
				}
				push := func(tag, content string) string {
					digest := registry.Push(t, "app", tag, testenv.Files{"a": content})
					registry.Push(t, "app", strings.ReplaceAll(digest, ":", "-")+".sig", testenv.Files{"signature": "of " + content})
					return digest
				}
				evil := registry.Push(t, "app", "", testenv.Files{"a": "evil"})
				if again {
					push("latest", "before")
					fetch(t, s, request, "")
				}
				good := push("latest", "good")
				var moved atomic.Bool
				registry.Around(func(next http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						next.ServeHTTP(w, r)
						if moves(r) && moved.CompareAndSwap(false, true) {
							registry.Tag(t, "app", "latest", evil)
						}
					})
				})
				result := fetch(t, s, request, "")
				sourcetest.CheckTree(t, result.Files, map[string]string{"a": "good"})
				if verified != good || result.Revision != "latest@"+good {
					t.Errorf("verified %s, revision %s, want %s", verified, result.Revision, good)
				}
				if !moved.Load() && !(step == "after the manifest was fetched" && !again) {
					t.Error("the tag did not move")
				}
				registry.Around(nil)
				registry.Tag(t, "app", "latest", evil)
				refuse(t, s, request, gitops.Denied, "VerificationError", "verify "+evil)
			})
		}
	}
}
