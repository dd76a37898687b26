package bucket_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/source"
	"github.com/plumb-gitops/plumb/internal/source/bucket"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// world is a store of some provider with a bucket, and how it is reached.
type world struct {
	server *testenv.BucketServer
	// logins is where one logs in; nil where nobody does. It is another server than the
	// store, as logins follow no redirect and are not what a Fetcher is tested for.
	logins   *testenv.BucketServer
	request  bucket.Request
	stranger bucket.Request
	secrets  []string
}

const name = "the-bucket"

func accountKey(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

func s3World(t testing.TB) world {
	t.Helper()
	w := world{server: testenv.NewBucketServer(t, testenv.BucketOptions{AccessKey: "ann", SecretKey: "s3cret-word"})}
	w.request = bucket.Request{Bucket: name, Endpoint: w.server.Address(), Insecure: true, Auth: bucket.Auth{AccessKey: "ann", SecretKey: "s3cret-word"}}
	w.stranger = w.request
	w.stranger.Auth.SecretKey = "wr0ng-word"
	w.secrets = []string{"s3cret-word", "wr0ng-word"}
	return w
}

func awsWorld(t testing.TB) world {
	t.Helper()
	w := s3World(t)
	w.request.Provider, w.request.Region, w.request.Auth = bucket.AWS, "us-east-1", bucket.Auth{}
	w.request.STS = bucket.STS{Provider: "aws", Endpoint: "https://sts.amazonaws.com"}
	w.request.Login = func(context.Context) (bucket.Credential, error) {
		key, secret, token := w.server.Session()
		return bucket.Credential{AccessKey: key, SecretKey: secret, SessionToken: token, Expires: time.Now().Add(time.Hour)}, nil
	}
	w.stranger = w.request
	w.stranger.Identity = "stranger"
	w.stranger.Login = func(context.Context) (bucket.Credential, error) {
		return bucket.Credential{AccessKey: "SESSION0", SecretKey: "wr0ng-word", SessionToken: "wr0ng-token"}, nil
	}
	w.secrets = []string{"secret-of-", "token-of-", "wr0ng-word", "wr0ng-token"}
	return w
}

func ldapWorld(t testing.TB) world {
	t.Helper()
	w := world{logins: testenv.NewBucketServer(t, testenv.BucketOptions{Username: "ann", Password: "s3cret-word"})}
	w.server = testenv.NewBucketServer(t, testenv.BucketOptions{Logins: w.logins})
	w.request = bucket.Request{Bucket: name, Endpoint: w.server.Address(), Insecure: true}
	w.request.STS = bucket.STS{Provider: "ldap", Endpoint: w.logins.URL(), Username: "ann", Password: "s3cret-word"}
	w.stranger = w.request
	w.stranger.STS.Password = "wr0ng-word"
	w.secrets = []string{"s3cret-word", "wr0ng-word", "secret-of-", "token-of-"}
	return w
}

func googleWorld(t testing.TB) world {
	t.Helper()
	w := world{logins: testenv.NewBucketServer(t, testenv.BucketOptions{Protocol: testenv.GoogleStorage})}
	w.server = testenv.NewBucketServer(t, testenv.BucketOptions{Protocol: testenv.GoogleStorage, Logins: w.logins})
	w.request = bucket.Request{Provider: bucket.GCP, Bucket: name, Endpoint: w.server.URL(), Insecure: true}
	w.request.Auth.ServiceAccountJSON = w.logins.ServiceAccount(t)
	other := testenv.NewBucketServer(t, testenv.BucketOptions{Protocol: testenv.GoogleStorage})
	w.stranger = w.request
	w.stranger.Auth.ServiceAccountJSON = []byte(strings.ReplaceAll(string(other.ServiceAccount(t)), other.URL(), w.logins.URL()))
	w.secrets = []string{"PRIVATE", "token-of-"}
	return w
}

func azureWorld(t testing.TB) world {
	t.Helper()
	o := testenv.BucketOptions{Protocol: testenv.AzureBlob, AccessKey: "acct", SecretKey: accountKey("s3cret-word")}
	w := world{server: testenv.NewBucketServer(t, o)}
	w.request = bucket.Request{Provider: bucket.Azure, Bucket: name, Endpoint: w.server.URL() + "/acct", Insecure: true}
	w.request.Auth.Azure.AccountKey = accountKey("s3cret-word")
	w.stranger = w.request
	w.stranger.Auth.Azure.AccountKey = accountKey("wr0ng-word")
	w.secrets = []string{accountKey("s3cret-word"), accountKey("wr0ng-word")}
	return w
}

func sharedAccessWorld(t testing.TB) world {
	t.Helper()
	w := azureWorld(t)
	w.request.Auth.Azure = bucket.AzureAuth{SASKey: "?" + w.server.SharedAccess(time.Now().Add(time.Hour))}
	w.stranger.Auth.Azure = bucket.AzureAuth{SASKey: w.server.SharedAccess(time.Now().Add(-time.Hour))}
	for _, r := range []bucket.Request{w.request, w.stranger} {
		_, signature, _ := strings.Cut(r.Auth.Azure.SASKey, "sig=")
		signature, _, _ = strings.Cut(signature, "&")
		w.secrets = append(w.secrets, signature)
	}
	return w
}

// principalWorld logs in with a secret, or with a certificate.
func principalWorld(t testing.TB, withCertificate bool) world {
	t.Helper()
	o := testenv.BucketOptions{Protocol: testenv.AzureBlob, TLS: true, Username: "client-id", Password: "s3cret-word"}
	auth := bucket.AzureAuth{TenantID: "the-tenant", ClientID: "client-id", ClientSecret: "s3cret-word"}
	wrong := auth
	wrong.ClientSecret = "wr0ng-word"
	if withCertificate {
		var text []byte
		o.Certificate, text = certificate(t)
		o.Password = ""
		auth.ClientSecret, auth.ClientCertificate, auth.ClientCertificateSendChain = "", text, true
		_, text = certificate(t)
		wrong.ClientSecret, wrong.ClientCertificate = "", text
	}
	w := world{logins: testenv.NewBucketServer(t, o)}
	w.server = testenv.NewBucketServer(t, testenv.BucketOptions{Protocol: testenv.AzureBlob, AccessKey: "acct", Logins: w.logins})
	auth.AuthorityHost, wrong.AuthorityHost = w.logins.URL(), w.logins.URL()
	w.request = bucket.Request{Provider: bucket.Azure, Bucket: name, Endpoint: w.server.URL() + "/acct", Insecure: true}
	w.request.TLS.CA = w.logins.CA
	w.stranger = w.request
	w.request.Auth.Azure, w.stranger.Auth.Azure = auth, wrong
	w.secrets = []string{"s3cret-word", "wr0ng-word", "token-of-"}
	return w
}

// certificate makes a certificate, and the text that holds it with its key.
func certificate(t testing.TB) (*x509.Certificate, []byte) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	made := signed(t, key)
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: made.Raw})
	return made, append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})...)
}

func worlds() map[string]func(testing.TB) world {
	return map[string]func(testing.TB) world{
		"S3 with keys":                          s3World,
		"S3 with a session":                     awsWorld,
		"S3 with LDAP":                          ldapWorld,
		"Google with a service account":         googleWorld,
		"Azure with an account key":             azureWorld,
		"Azure with a shared access signature":  sharedAccessWorld,
		"Azure with a principal's secret":       func(t testing.TB) world { return principalWorld(t, false) },
		"Azure with a principal's certificate":  func(t testing.TB) world { return principalWorld(t, true) },
		"Google with a login of the operator":   func(t testing.TB) world { return tokenWorld(t, googleWorld(t)) },
		"Azure with a login of the operator":    func(t testing.TB) world { return tokenWorld(t, azureWorld(t)) },
		"S3 with keys, in pages of two objects": func(t testing.TB) world { return pagedWorld(t) },
	}
}

func pagedWorld(t testing.TB) world {
	t.Helper()
	w := s3World(t)
	w.server = testenv.NewBucketServer(t, testenv.BucketOptions{AccessKey: "ann", SecretKey: "s3cret-word", PageSize: 2, Region: "eu-west-1"})
	w.request.Endpoint, w.stranger.Endpoint = w.server.Address(), w.server.Address()
	return w
}

// tokenWorld logs in by a function instead of by what a world has.
func tokenWorld(t testing.TB, w world) world {
	t.Helper()
	w.request.Auth, w.logins = bucket.Auth{}, nil
	w.stranger = w.request
	w.request.Login = func(context.Context) (bucket.Credential, error) {
		_, _, token := w.server.Session()
		return bucket.Credential{BearerToken: token, Expires: time.Now().Add(time.Hour)}, nil
	}
	w.stranger.Login = func(context.Context) (bucket.Credential, error) {
		return bucket.Credential{BearerToken: "wr0ng-token"}, nil
	}
	w.stranger.Identity = "stranger"
	w.secrets = []string{"token-of-", "wr0ng-token"}
	return w
}

// limits are those of a store for each limit that the suite knows.
func limits() map[string]bucket.Options {
	return map[string]bucket.Options{
		"bytes of an object":   {ObjectBytes: 64 << 10},
		"bytes of all objects": {TotalBytes: 64 << 10},
		"objects":              {Objects: 1},
		"objects of a listing": {Listed: 1},
	}
}

// reach makes a fetcher of a store of its own, of an endpoint that a way changes.
func (w world) reach(t testing.TB, way sourcetest.Way) source.Fetcher {
	t.Helper()
	request := w.request
	scheme, rest, url := strings.Cut(request.Endpoint, "://")
	if !url {
		rest = scheme
	}
	if way.Address != "" {
		_, path, _ := strings.Cut(rest, "/")
		rest = strings.TrimSuffix(way.Address+"/"+path, "/")
	}
	if way.TLS {
		request.Insecure = false
	}
	if request.Endpoint = rest; url {
		request.Endpoint = map[bool]string{false: "http://", true: "https://"}[way.TLS] + rest
	}
	request.Proxy = way.Proxy
	request.TLS.CA = slices.Concat(request.TLS.CA, way.CA)
	return openStore(t, limits()[way.Limit]).Fetcher(request)
}

func TestFetcherConforms(t *testing.T) {
	t.Parallel()
	for title, start := range worlds() {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			sourcetest.CheckFetcher(t, nil, func(t *testing.T) sourcetest.Remote {
				w := start(t)
				s := openStore(t, bucket.Options{})
				return sourcetest.Remote{
					Fetcher: s.Fetcher(w.request), Stranger: s.Fetcher(w.stranger), Reach: w.reach,
					Address: w.server.Address(), Secrets: w.secrets,
					Limits: slices.Sorted(maps.Keys(limits())), Retries: true,
					Put:    func(_ testing.TB, files map[string]string) { w.server.Fill(name, files) },
					Gone:   func(testing.TB) { w.server.Drop(name) },
					Around: w.server.Around,
				}
			})
		})
	}
}
