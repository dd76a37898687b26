package cosign

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/verify/verifytest"
)

// clock is a time that a test moves.
type clock struct{ passed atomic.Int64 }

func (c *clock) now() time.Time           { return time.Now().Add(time.Duration(c.passed.Load())) }
func (c *clock) advance(by time.Duration) { c.passed.Add(int64(by)) }

func publicRoot(t *testing.T, repository *verifytest.TUF, folder string, c *clock) *PublicRoot {
	t.Helper()
	transport, err := egress.NewTransport(egress.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(transport.CloseIdleConnections)
	return NewPublicRoot(PublicRootOptions{Folder: folder, Transport: transport, URL: repository.URL, Anchor: repository.Anchor, Now: c.now})
}

func tomorrow() time.Time { return time.Now().Add(24 * time.Hour) }

func TestPublicRoot(t *testing.T) {
	t.Parallel()
	store, next := verifytest.NewSigstore(t), verifytest.NewSigstore(t)
	repository := verifytest.NewTUF(t, store.TrustedRoot(t), tomorrow())
	folder, c := t.TempDir()+"/sigstore", &clock{}
	public := publicRoot(t, repository, folder, c)
	v := newVerifier(t, Options{Keyless: true, PublicRoot: public})
	if repository.Asked() != 0 {
		t.Error("a verifier that nobody uses asks for the root")
	}
	old, young := verifytest.NewRegistry(t, true), verifytest.NewRegistry(t, true)
	for r, s := range map[*verifytest.Registry]*verifytest.Sigstore{old: store, young: next} {
		signer := s.Identity(t, issuer, subject)
		r.PushBundles(t, verifytest.JSON(t, signer.Bundle(t, verifytest.Statement(r.Image.DigestStr()))))
	}
	check(t, v, old, subject, "", "")
	asked := repository.Asked()
	check(t, v, old, subject, "", "")
	check(t, v, young, "", gitops.Denied, "trusted root")
	if repository.Asked() != asked {
		t.Errorf("%d requests, then %d", asked, repository.Asked())
	}

	// A new process within the day asks nobody.
	repository.Instead(status(http.StatusInternalServerError))
	check(t, newVerifier(t, Options{Keyless: true, PublicRoot: publicRoot(t, repository, folder, c)}), old, subject, "", "")
	if repository.Asked() != asked {
		t.Error("what is in the folder is fetched again")
	}

	// The next day the repository is asked; while it does not answer, what is kept counts.
	c.advance(freshFor)
	check(t, v, old, subject, "", "")
	if repository.Asked() == asked {
		t.Error("the root is not refreshed")
	}
	repository.Instead(nil)
	repository.Publish(t, next.TrustedRoot(t), tomorrow())
	check(t, v, old, subject, "", "")
	c.advance(pause)
	check(t, v, young, subject, "", "")
	check(t, v, old, "", gitops.Denied, "trusted root")
}

func TestPublicRootThatCannotBeHad(t *testing.T) {
	t.Parallel()
	store := verifytest.NewSigstore(t)
	r := verifytest.NewRegistry(t, true)
	signer := store.Identity(t, issuer, subject)
	r.PushSimples(t, signer.Simple(t, verifytest.Payload(r.Image.DigestStr())))
	another := verifytest.NewTUF(t, store.TrustedRoot(t), tomorrow())
	for name, row := range map[string]struct {
		spoil func(*verifytest.TUF, *PublicRoot)
		text  string
	}{
		"a server that refuses": {func(r *verifytest.TUF, _ *PublicRoot) { r.Instead(status(http.StatusForbidden)) }, "403"},
		"a server that is gone": {func(r *verifytest.TUF, _ *PublicRoot) { r.Close() }, "connection refused"},
		"files without end":     {func(r *verifytest.TUF, _ *PublicRoot) { r.Instead(endless("application/json")) }, "more than 512000 bytes"},
		"files of garbage": {func(r *verifytest.TUF, _ *PublicRoot) {
			r.Instead(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{")) })
		}, "trustedRootSecretRef"},
		"metadata that nobody trusted made": {func(_ *verifytest.TUF, p *PublicRoot) { p.o.Anchor = another.Anchor }, "trustedRootSecretRef"},
		"metadata that have expired":        {func(r *verifytest.TUF, _ *PublicRoot) { r.Publish(t, store.TrustedRoot(t), time.Now().Add(-time.Hour)) }, "expired"},
		"a root that was swapped":           {func(r *verifytest.TUF, _ *PublicRoot) { r.Spoil(verifytest.NewSigstore(t).TrustedRoot(t)) }, "trustedRootSecretRef"},
		"a root of garbage":                 {func(r *verifytest.TUF, _ *PublicRoot) { r.Publish(t, []byte("{"), tomorrow()) }, "trustedRootSecretRef"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			repository, c := verifytest.NewTUF(t, store.TrustedRoot(t), tomorrow()), &clock{}
			public := publicRoot(t, repository, t.TempDir(), c)
			row.spoil(repository, public)
			v := newVerifier(t, Options{Keyless: true, PublicRoot: public})
			check(t, v, r, "", gitops.Transient, row.text)
			asked := repository.Asked()
			check(t, v, r, "", gitops.Transient, "trustedRootSecretRef")
			if repository.Asked() != asked {
				t.Error("a failure is not remembered")
			}
			c.advance(pause)
			check(t, v, r, "", gitops.Transient, row.text)
			if name != "a server that is gone" && repository.Asked() == asked {
				t.Error("it is not tried again")
			}
		})
	}
	t.Run("and is there later", func(t *testing.T) {
		t.Parallel()
		repository, c := verifytest.NewTUF(t, store.TrustedRoot(t), tomorrow()), &clock{}
		v := newVerifier(t, Options{Keyless: true, PublicRoot: publicRoot(t, repository, t.TempDir(), c)})
		repository.Instead(status(http.StatusBadGateway))
		check(t, v, r, "", gitops.Transient, "502")
		repository.Instead(nil)
		c.advance(pause)
		check(t, v, r, subject, "", "")
	})
}

// Who waits for the root while somebody else fetches it can give up, and who gave up
// while fetching it leaves no failure behind.
func TestPublicRootIsAskedOnce(t *testing.T) {
	t.Parallel()
	store := verifytest.NewSigstore(t)
	repository := verifytest.NewTUF(t, store.TrustedRoot(t), tomorrow())
	public := publicRoot(t, repository, t.TempDir(), &clock{})
	asked, hang := make(chan struct{}), make(chan struct{})
	repository.Instead(func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := public.material(ctx)
		done <- err
	}()
	<-asked
	impatient, stop := context.WithCancel(t.Context())
	stop()
	if _, err := public.material(impatient); gitops.KindOf(err) != gitops.Transient || !strings.Contains(err.Error(), "canceled") {
		t.Errorf("waiting: %v", err)
	}
	cancel()
	if err := <-done; gitops.KindOf(err) != gitops.Transient {
		t.Errorf("fetching: %v", err)
	}
	close(hang)
	repository.Instead(nil)
	if _, err := public.material(t.Context()); err != nil {
		t.Errorf("what one canceled fails for the next: %v", err)
	}
}
