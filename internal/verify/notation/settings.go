package notation

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/notaryproject/notation-go/verifier/trustpolicy"
	"github.com/notaryproject/notation-go/verifier/truststore"
	kjson "sigs.k8s.io/json"

	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/verify"
)

// parsePolicy reads trustpolicy.json. A key that occurs twice is an error: it would be
// left to chance which of two policies counts.
func parsePolicy(raw []byte) (*trustpolicy.Document, error) {
	if len(raw) == 0 {
		return nil, verify.Unusable("the Secret of spec.verify.secretRef holds no trustpolicy.json, which notation needs")
	}
	policy := &trustpolicy.Document{}
	ambiguous, err := kjson.UnmarshalStrict(raw, policy, kjson.DisallowDuplicateFields)
	if err == nil && len(ambiguous) > 0 {
		err = ambiguous[0]
	}
	if err != nil {
		return nil, verify.Unusable("trustpolicy.json cannot be read: %s", egress.Printable(err.Error()))
	}
	for i := range policy.TrustPolicies {
		statement := &policy.TrustPolicies[i]
		if statement.SignatureVerification.VerificationLevel == trustpolicy.LevelSkip.Name {
			// It trusts nobody, so whom it names matters to nobody; Flux lets it.
			statement.TrustStores, statement.TrustedIdentities = nil, nil
		}
	}
	return policy, nil
}

// store has the same certificates in each of the trust stores that a policy names, as
// Flux has.
type store []*x509.Certificate

// GetCertificates are all certificates.
func (s store) GetCertificates(context.Context, truststore.Type, string) ([]*x509.Certificate, error) {
	return slices.Clone(s), nil
}

// parseCertificates reads the files *.crt and *.pem in the order of their names. A file
// that is no certificate is an error, even where others are fine.
func parseCertificates(files map[string][]byte) (store, error) {
	var all store
	for _, file := range slices.Sorted(maps.Keys(files)) {
		if !strings.HasSuffix(file, ".crt") && !strings.HasSuffix(file, ".pem") {
			continue
		}
		found, err := parseCertificate(files[file])
		if err != nil {
			return nil, verify.Unusable("file %q of the Secret of spec.verify.secretRef is not a certificate: %s", file, egress.Printable(err.Error()))
		}
		all = append(all, found...)
	}
	if len(all) == 0 {
		return nil, verify.Unusable("the Secret of spec.verify.secretRef holds no certificate; notation's are its files that are named *.crt or *.pem")
	}
	return all, nil
}

// parseCertificate reads certificates in PEM, or in DER where there is no PEM.
func parseCertificate(raw []byte) ([]*x509.Certificate, error) {
	block, rest := pem.Decode(raw)
	if block == nil {
		found, err := x509.ParseCertificates(raw)
		if err == nil && len(found) == 0 {
			err = errors.New("it is empty")
		}
		return found, err
	}
	var all []*x509.Certificate
	for ; block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, errors.New("it holds PEM of another type than CERTIFICATE")
		}
		found, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		all = append(all, found)
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("it holds more than PEM")
	}
	return all, nil
}
