package bucket_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source"
	"github.com/plumb-gitops/plumb/internal/source/bucket"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openStore(t testing.TB, o bucket.Options) *bucket.Store {
	t.Helper()
	s := openAt(t, t.TempDir(), o)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

func openAt(t testing.TB, folder string, o bucket.Options) *bucket.Store {
	t.Helper()
	s, err := bucket.Open(folder, o)
	must(t, err)
	return s
}

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func fetch(t testing.TB, s *bucket.Store, r bucket.Request, known string) source.Result {
	t.Helper()
	result, err := s.Fetch(within(t), r, known)
	must(t, err)
	t.Cleanup(result.Release)
	return result
}

// refuse fetches and expects an error of a kind.
func refuse(t testing.TB, s *bucket.Store, r bucket.Request, want gitops.ErrorKind) *gitops.Error {
	t.Helper()
	result, err := s.Fetch(within(t), r, "")
	if err == nil {
		result.Release()
		t.Fatal("no error")
	}
	var e *gitops.Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v has no kind", err)
	}
	if e.Kind != want {
		t.Errorf("kind %q of %q, want %q", e.Kind, e, want)
	}
	return e
}

// signed makes a certificate for a key, signed by itself.
func signed(t testing.TB, key *rsa.PrivateKey) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	made, err := x509.ParseCertificate(raw)
	must(t, err)
	return made
}
