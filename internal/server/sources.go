package server

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"

	"github.com/plumb-gitops/plumb/internal/auth"
	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/frontend/flux"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/bucket"
	"github.com/plumb-gitops/plumb/internal/source/git"
	"github.com/plumb-gitops/plumb/internal/source/helmrepo"
	"github.com/plumb-gitops/plumb/internal/source/oci"
	"github.com/plumb-gitops/plumb/internal/verify/cosign"
	"github.com/plumb-gitops/plumb/internal/verify/notation"
)

// stores keep what was fetched of all kinds of sources.
type stores struct {
	git     *git.Store
	gitNews gitNews
	oci     *oci.Store
	buckets *bucket.Store
	charts  *helmrepo.Store
}

// openStores opens the stores below the data folder.
func (s *server) openStores() (err error) {
	at := func(folder string) string { return filepath.Join(s.config.Storage.Path, folder) }
	if s.git, err = git.Open(at("git"), git.Options{
		Policy: s.policy(), SSH: git.SSH(s.config.SSH), News: s.gitNews.tell, Now: s.clock.Now,
	}); err != nil {
		return err
	}
	if s.oci, err = oci.Open(s.cache, at("oci"), oci.Options{UserAgent: "plumb/" + s.options.Version, Now: s.clock.Now}); err != nil {
		return err
	}
	if s.buckets, err = bucket.Open(at("buckets"), bucket.Options{Now: s.clock.Now}); err != nil {
		return err
	}
	helm := s.config.Helm
	s.charts, err = helmrepo.Open(at("charts"), s.cache, helmrepo.Options{IndexBytes: helm.IndexBytes, ChartBytes: helm.ChartBytes, FileBytes: helm.ChartFileBytes})
	return err
}

// closeStores closes those that are open.
func (s *server) closeStores() {
	closers := map[string]func() error{}
	if s.git != nil {
		closers["Git"] = s.git.Close
	}
	if s.oci != nil {
		closers["OCI"] = s.oci.Close
	}
	if s.buckets != nil {
		closers["bucket"] = s.buckets.Close
	}
	if s.charts != nil {
		closers["chart"] = s.charts.Close
	}
	for name, shut := range closers {
		if err := shut(); err != nil {
			s.options.Log.Error(err, "Closing a store failed", "store", name)
		}
	}
}

// policy is what the operator's flags refuse, and its own servers.
func (s *server) policy() egress.Policy {
	return egress.Policy{NoPrivate: s.config.NoPrivateSources, NoPlainCredentials: s.config.NoPlainCredentials, Own: s.own}
}

// publishers is how artifacts of other controllers are got: whoever may write the status of a
// source says where its artifact is.
func (s *server) publishers() (*http.Client, error) {
	return egress.Artifacts(s.policy(), s.config.ArtifactServers)
}

// loginRequest is a login as the package of logins wants it.
func loginRequest(l flux.Login, proxy egress.Proxy) auth.Request {
	r := auth.Request{Provider: l.Provider, Proxy: proxy, Client: l.Client}
	if l.ServiceAccount != "" {
		r.Identity = auth.Identity{Namespace: l.Namespace, ServiceAccount: l.ServiceAccount}
	}
	return r
}

// loginKey names whom a login logs in; empty for none.
func loginKey(l flux.Login) string {
	if l.Provider == "" {
		return ""
	}
	return keyOf(l)
}

// keyOf stands for plain data.
func keyOf(values ...any) string {
	data, err := json.Marshal(values)
	if err != nil {
		return "" // never: the values are plain data
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// verifierOf makes the verifier that an object asks for; nil for none. The error is that
// of settings that cannot be used.
func (s *server) verifierOf(v *flux.Verification) (oci.Verifier, error) {
	switch {
	case v == nil:
		return nil, nil
	case v.Provider == "notation":
		n, err := notation.New(notation.Options{TrustPolicy: v.TrustPolicy, Certificates: v.Certificates, Transport: s.trust})
		if err != nil {
			return nil, err
		}
		return n.Verify, nil
	case v.Provider != "cosign":
		return nil, &gitops.Error{Stage: gitops.StageFetch, Kind: gitops.Stalled, Reason: "VerificationError",
			Cause: fmt.Errorf("provider %s of spec.verify is not known; use cosign or notation", egress.Quote(v.Provider))}
	}
	options := cosign.Options{Keys: v.Keys, Keyless: v.Keys == nil, TrustedRoot: v.TrustedRoot, PublicRoot: s.sigstore}
	for _, identity := range v.Identities {
		options.Identities = append(options.Identities, cosign.Identity(identity))
	}
	c, err := cosign.New(options)
	if err != nil {
		return nil, err
	}
	return c.Verify, nil
}

// prepareVerification makes what is asked about trust: the root of the public Sigstore, and
// which certificates are revoked. Nobody is asked before a verification needs it.
func (s *server) prepareVerification() (err error) {
	if s.trust, err = egress.NewTransport(egress.Options{Policy: s.policy()}); err != nil {
		return err
	}
	s.sigstore = cosign.NewPublicRoot(cosign.PublicRootOptions{Folder: filepath.Join(s.config.Storage.Path, "sigstore"), Transport: s.trust, Now: s.clock.Now})
	return nil
}
