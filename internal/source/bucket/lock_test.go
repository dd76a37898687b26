package bucket

import (
	"context"
	"errors"
	"testing"

	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
)

// TestKeysAreReadBesideOthers: while the keys of one request are read, which may take
// long, others are served.
func TestKeysAreReadBesideOthers(t *testing.T) {
	t.Parallel()
	s, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	dial := s.dial
	sourcetest.CheckBeside(t, func(wait func()) {
		s.dial = func(ctx context.Context, r Request) (*connection, error) {
			if r.Bucket == "slow" {
				wait()
			}
			return dial(ctx, r)
		}
	}, func(slow bool) error {
		bucket := map[bool]string{true: "slow", false: "quick"}[slow]
		_, _, err := s.remote(t.Context(), Request{Bucket: bucket, Endpoint: "host", Insecure: true}.withDefaults())
		return err
	})
}

// TestOneCertificateIsReadAtATime: others wait, as long as somebody waits for them.
func TestOneCertificateIsReadAtATime(t *testing.T) {
	t.Parallel()
	s, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	request := Request{
		Provider: Azure, Bucket: "b", Endpoint: "https://host",
		Auth: Auth{Azure: AzureAuth{TenantID: "t", ClientID: "c", ClientCertificate: []byte("x")}},
	}.withDefaults()
	s.reading <- struct{}{}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := s.remote(gone, request); !errors.Is(err, context.Canceled) {
		t.Errorf("beside another one: %v", err)
	}
	<-s.reading
	if _, _, err := s.remote(t.Context(), request); codeOf(err) != codeCredential {
		t.Errorf("alone: %v", err)
	}
}
