package egress

import (
	"crypto/x509"
	"testing"
)

// TestAuthorities: a CA stands alone, or beside those of the system.
func TestAuthorities(t *testing.T) {
	t.Parallel()
	ca, _ := clientCertificate(t)
	system, err := x509.SystemCertPool()
	if err != nil {
		t.Skip("this machine has no authorities of its own: ", err)
	}
	alone, both := x509.NewCertPool(), system
	alone.AppendCertsFromPEM(ca)
	both.AppendCertsFromPEM(ca)
	for name, test := range map[string]struct {
		tls  TLS
		want *x509.CertPool
	}{
		"a CA stands alone":                 {TLS{CA: ca}, alone},
		"a CA stands beside the system's":   {TLS{CA: ca, WithSystem: true}, both},
		"without a CA the system's are all": {TLS{WithSystem: true}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config, err := test.tls.Config()
			if err != nil {
				t.Fatal(err)
			}
			if (config.RootCAs == nil) != (test.want == nil) || test.want != nil && !config.RootCAs.Equal(test.want) {
				t.Error("other authorities are trusted")
			}
		})
	}
}
