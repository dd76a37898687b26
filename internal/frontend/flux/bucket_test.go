package flux

import (
	"strings"
	"testing"
)

func TestBucketSecrets(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		provider string
		keys     string
		// needs is in the text of what is missing, managed the managed identity.
		needs, managed string
	}{
		"S3":                                   {provider: "generic", keys: "accesskey secretkey"},
		"AWS":                                  {provider: "aws", keys: "accesskey secretkey"},
		"a key of S3 without its secret":       {provider: "generic", keys: "accesskey", needs: "'secretkey'"},
		"a secret of AWS without its key":      {provider: "aws", keys: "secretkey", needs: "'accesskey'"},
		"nothing for S3":                       {provider: "generic", needs: "'accesskey' and 'secretkey'"},
		"Google":                               {provider: "gcp", keys: "serviceaccount"},
		"keys of S3 for Google":                {provider: "gcp", keys: "accesskey secretkey", needs: "'serviceaccount'"},
		"an application at Azure":              {provider: "azure", keys: "tenantId clientId clientSecret"},
		"an application with a certificate":    {provider: "azure", keys: "tenantId clientId clientCertificate"},
		"an account key":                       {provider: "azure", keys: "accountKey"},
		"a shared access signature":            {provider: "azure", keys: "sasKey"},
		"a managed identity":                   {provider: "azure", keys: "clientId", managed: "clientId of the test"},
		"an application that cannot log in":    {provider: "azure", keys: "tenantId clientId", managed: "clientId of the test"},
		"a managed identity before other keys": {provider: "azure", keys: "clientId accountKey sasKey", managed: "clientId of the test"},
		"an authority alone":                   {provider: "azure", keys: "authorityHost", needs: "'accountKey'"},
		"a client of no use to S3":             {provider: "generic", keys: "clientId accesskey secretkey"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			secret := map[string][]byte{"empty": nil}
			for _, key := range strings.Fields(test.keys) {
				secret[key] = []byte(key + " of the test")
			}
			if got := bucketKeys(test.provider, secret); (got == "") != (test.needs == "") || !strings.Contains(got, test.needs) {
				t.Errorf("it is said %q, want %q", got, test.needs)
			}
			if got := managedIdentity(test.provider, secret); got != test.managed {
				t.Errorf("managed identity %q, want %q", got, test.managed)
			}
			for key := range secret {
				empty := map[string][]byte{key: {}}
				if bucketKeys(test.provider, empty) == "" {
					t.Errorf("an empty %s is enough", key)
				}
			}
		})
	}
}
