package cosign

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/tuf"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/verify"
)

// PublicRootOptions say where the trusted root of the public Sigstore comes from.
type PublicRootOptions struct {
	// Folder keeps what was fetched; it is made where it is missing.
	Folder string
	// Transport is the way out: one of egress.
	Transport http.RoundTripper
	// URL is that of the TUF repository; where it is empty, that of the public Sigstore.
	URL string
	// Anchor is the first root.json of that repository; where it is empty, that of the
	// public Sigstore, which comes with the program.
	Anchor []byte
	// Now is the clock; where it is nil, that of the system.
	Now func() time.Time
}

// PublicRoot is the trusted root of the public Sigstore. It is fetched by TUF when a
// verification first needs it, and kept in a folder, so that a restart asks nobody. It is
// refreshed once a day; where that fails, what is in the folder counts until its
// metadata expire. It is safe for use by several goroutines.
type PublicRoot struct {
	o PublicRootOptions

	busy chan struct{} // guards what follows; a channel, so that who waits can give up
	// trusted was had at a time, until when it is not asked for again.
	trusted root.TrustedMaterial
	until   time.Time
	// failure is that of the last attempt; the next one is not before a time.
	failure error
	again   time.Time
}

const (
	// freshFor is how long the root is used before it is refreshed.
	freshFor = 24 * time.Hour
	// pause is the time between attempts that fail, Flux's.
	pause = time.Minute
	// patience is the most time that one attempt takes.
	patience = 30 * time.Second
)

// NewPublicRoot makes a root; it connects to nothing yet.
func NewPublicRoot(o PublicRootOptions) *PublicRoot {
	if o.URL == "" {
		o.URL = tuf.DefaultMirror
	}
	if len(o.Anchor) == 0 {
		o.Anchor = tuf.DefaultRoot()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &PublicRoot{o: o, busy: make(chan struct{}, 1)}
}

// material is the trusted root. The error is a *gitops.Error, the same for a minute.
func (p *PublicRoot) material(ctx context.Context) (root.TrustedMaterial, error) {
	select {
	case p.busy <- struct{}{}:
		defer func() { <-p.busy }()
	case <-ctx.Done():
		return nil, p.unread(ctx, ctx.Err())
	}
	now := p.o.Now()
	if p.trusted != nil && now.Before(p.until) {
		return p.trusted, nil
	}
	if p.failure != nil && now.Before(p.again) {
		return nil, p.failure
	}
	trusted, err := p.load(ctx, false)
	if err == nil {
		p.trusted, p.until, p.failure = trusted, now.Add(freshFor), nil
		return trusted, nil
	}
	if ctx.Err() != nil {
		return nil, err
	}
	if trusted, kept := p.load(ctx, true); kept == nil {
		p.trusted, p.until, p.failure = trusted, now.Add(pause), nil
		return trusted, nil
	}
	p.trusted, p.failure, p.again = nil, err, now.Add(pause)
	return nil, err
}

// load gets the root from the repository, or, where kept is set, from the folder if its
// metadata have not expired.
func (p *PublicRoot) load(ctx context.Context, kept bool) (root.TrustedMaterial, error) {
	if err := os.MkdirAll(p.o.Folder, 0o700); err != nil {
		return nil, &gitops.Error{Stage: gitops.StageFetch, Kind: gitops.Transient, Reason: verify.Reason, Cause: fmt.Errorf("folder of the public Sigstore's trusted root: %w", err)}
	}
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	transport := p.o.Transport
	if kept {
		transport = nobody{}
	}
	// A new process takes what an earlier one fetched within a day.
	days := 0
	if p.until.IsZero() && p.failure == nil {
		days = 1
	}
	fetcher := &fetcher{ctx: limited, client: &http.Client{Transport: transport}}
	client, err := tuf.New(&tuf.Options{
		Root: p.o.Anchor, CachePath: p.o.Folder, RepositoryBaseURL: p.o.URL,
		CacheValidity: days, ForceCache: kept, Fetcher: fetcher, Context: limited,
	})
	var trusted *root.TrustedRoot
	if err == nil {
		trusted, err = root.GetTrustedRoot(client)
	}
	switch {
	case err == nil:
		return trusted, nil
	case fetcher.failure != nil:
		return nil, p.unread(limited, fetcher.failure)
	default:
		return nil, p.unread(limited, err)
	}
}

func (p *PublicRoot) unread(ctx context.Context, err error) error {
	_, text, ok := egress.Explain(ctx, err)
	if !ok {
		text = egress.Printable(err.Error())
	}
	return &gitops.Error{Stage: gitops.StageFetch, Kind: gitops.Transient, Reason: verify.Reason, Cause: fmt.Errorf(
		"the trusted root of the public Sigstore cannot be had from %s: %s; let the operator reach it, or give a trusted root with spec.verify.trustedRootSecretRef", p.o.URL, text)}
}

// fetcher fetches the files of a TUF repository.
type fetcher struct {
	ctx    context.Context //nolint:containedctx // the library's interface has none
	client *http.Client
	// failure is the first one that is none of the repository.
	failure error
}

// DownloadFile fetches a file of at most some bytes.
func (f *fetcher) DownloadFile(url string, most int64, _ time.Duration) ([]byte, error) {
	content, err := f.download(url, most)
	if _, answered := err.(*metadata.ErrDownloadHTTP); err != nil && !answered && f.failure == nil { //nolint:errorlint // it is made below
		f.failure = err
	}
	return content, err
}

func (f *fetcher) download(url string, most int64) ([]byte, error) {
	request, err := http.NewRequestWithContext(egress.Bound(f.ctx, most), http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := f.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close() //nolint:errcheck // it is read only
	if response.StatusCode != http.StatusOK {
		return nil, &metadata.ErrDownloadHTTP{StatusCode: response.StatusCode, URL: url}
	}
	content, err := io.ReadAll(io.LimitReader(response.Body, most+1))
	if err == nil && int64(len(content)) > most {
		err = &egress.TooLarge{Bytes: most}
	}
	return content, err
}

// nobody is a transport that reaches nobody.
type nobody struct{}

// RoundTrip refuses.
func (nobody) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, &egress.Refused{Text: "only what is kept is asked for"}
}
