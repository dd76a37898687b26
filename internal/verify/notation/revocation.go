package notation

import (
	"context"
	"net/http"
	"time"

	"github.com/notaryproject/notation-core-go/revocation"
	"github.com/notaryproject/notation-core-go/revocation/crl"
	"github.com/notaryproject/notation-core-go/revocation/purpose"
	"github.com/notaryproject/notation-core-go/revocation/result"

	"github.com/plumb-gitops/plumb/internal/egress"
)

// Times within which a server says whether a certificate is revoked, the library's own.
// It bounds the answers too, at 20 kB and 32 MiB.
const (
	ocspPatience = 2 * time.Second
	crlPatience  = 5 * time.Second
)

// revocations make the checks of certificates that sign, and of those that tell the time.
func revocations(transport http.RoundTripper) (signing, stamping revocation.Validator, err error) {
	if transport == nil {
		transport = nobody{}
	}
	lists, err := crl.NewHTTPFetcher(&http.Client{Transport: transport, Timeout: crlPatience})
	if err != nil {
		return nil, nil, err
	}
	made := map[purpose.Purpose]revocation.Validator{}
	for _, of := range []purpose.Purpose{purpose.CodeSigning, purpose.Timestamping} {
		validator, err := revocation.NewWithOptions(revocation.Options{
			OCSPHTTPClient: &http.Client{Transport: transport, Timeout: ocspPatience}, CRLFetcher: lists, CertChainPurpose: of,
		})
		if err != nil {
			return nil, nil, err
		}
		made[of] = watched{validator}
	}
	return made[purpose.CodeSigning], made[purpose.Timestamping], nil
}

// nobody is a transport that reaches nobody.
type nobody struct{}

// RoundTrip refuses.
func (nobody) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, &egress.Refused{Text: "no transport is there for it"}
}

// unknownKey is where a context keeps whether a status was not known.
type unknownKey struct{}

// watch gives a context in which unknown is set once a status is not known. The library's
// errors do not tell that from a certificate that is revoked.
func watch(ctx context.Context, unknown *bool) context.Context {
	return context.WithValue(ctx, unknownKey{}, unknown)
}

// watched is a check that tells of a status that is not known.
type watched struct{ revocation.Validator }

// ValidateContext checks a chain of certificates.
func (w watched) ValidateContext(ctx context.Context, o revocation.ValidateContextOptions) ([]*result.CertRevocationResult, error) {
	results, err := w.Validator.ValidateContext(ctx, o)
	unknown, ok := ctx.Value(unknownKey{}).(*bool)
	if !ok || err != nil {
		return results, err
	}
	revoked := false
	for _, of := range results {
		*unknown = *unknown || of.Result == result.ResultUnknown
		revoked = revoked || of.Result == result.ResultRevoked
	}
	*unknown = *unknown && !revoked
	return results, err
}
