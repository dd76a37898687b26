package bucket_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/bucket"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
)

// loginWorlds are those in which Plumb logs in by itself.
func loginWorlds() []string {
	return []string{"S3 with LDAP", "Google with a service account", "Azure with a principal's secret", "Azure with a principal's certificate"}
}

func TestSessionsThatEndInTheMiddleAreRenewed(t *testing.T) {
	t.Parallel()
	titles := append(loginWorlds(), "S3 with a session", "Google with a login of the operator", "Azure with a login of the operator")
	for _, title := range titles {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			w := worlds()[title](t)
			files := map[string]string{}
			for i := range 30 {
				files[fmt.Sprintf("f%02d", i)] = fmt.Sprint(i)
			}
			w.server.Fill(name, files)
			var ended atomic.Bool
			w.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
				if strings.HasSuffix(r.URL.Path, "/f15") && ended.CompareAndSwap(false, true) {
					w.server.EndSessions()
				}
				return false
			})
			s := openStore(t, bucket.Options{})
			first := fetch(t, s, w.request, "")
			sourcetest.CheckTree(t, first.Files, files)
			if !ended.Load() {
				t.Fatal("the session did not end")
			}
			if w.logins != nil {
				if n := w.logins.Requests("login"); n != 2 {
					t.Errorf("%d logins, want one and another", n)
				}
				fetch(t, s, w.request, first.Revision)
				if n := w.logins.Requests("login"); n != 0 {
					t.Errorf("%d logins of a session that goes on", n)
				}
			}
		})
	}
}

func TestSessionsAreRenewedBeforeTheyEnd(t *testing.T) {
	t.Parallel()
	w := awsWorld(t)
	w.server.Fill(name, map[string]string{"a": "1"})
	var hours, logins atomic.Int64
	began := time.Now()
	now := func() time.Time { return began.Add(time.Duration(hours.Load()) * time.Hour) }
	w.request.Login = func(context.Context) (bucket.Credential, error) {
		logins.Add(1)
		key, secret, token := w.server.Session()
		return bucket.Credential{AccessKey: key, SecretKey: secret, SessionToken: token, Expires: now().Add(90 * time.Minute)}, nil
	}
	s := openStore(t, bucket.Options{Now: now})
	if logins.Load() != 0 {
		t.Error("a login before anything is fetched")
	}
	for hour, want := range []int64{1, 1, 2, 2, 3} {
		hours.Store(int64(hour))
		fetch(t, s, w.request, "")
		if got := logins.Load(); got != want {
			t.Errorf("%d logins after %d hours, want %d", got, hour, want)
		}
	}
	// A credential that has ended when it comes is not asked for with each request.
	w.request.Identity = "late"
	w.request.Login = func(context.Context) (bucket.Credential, error) {
		logins.Add(1)
		key, secret, token := w.server.Session()
		return bucket.Credential{AccessKey: key, SecretKey: secret, SessionToken: token, Expires: now().Add(-time.Hour)}, nil
	}
	logins.Store(0)
	for i := range 20 {
		w.server.Put(name, fmt.Sprint("f", i), "x")
	}
	fetch(t, s, w.request, "")
	if got := logins.Load(); got != 1 {
		t.Errorf("%d logins of one fetch, want 1", got)
	}
}

func TestALaterRequestLogsInByItsOwnFunction(t *testing.T) {
	t.Parallel()
	w := awsWorld(t)
	w.server.Fill(name, map[string]string{"a": "1"})
	s := openStore(t, bucket.Options{})
	first := fetch(t, s, w.request, "")
	w.server.EndSessions()
	called := false
	login := w.request.Login
	w.request.Login = func(ctx context.Context) (bucket.Credential, error) { called = true; return login(ctx) }
	if again := fetch(t, s, w.request, first.Revision); !again.Unchanged || !called {
		t.Errorf("unchanged %v, the later function was called %v", again.Unchanged, called)
	}
	w.request.Identity = "somebody else"
	w.server.Requests("get")
	fetch(t, s, w.request, "")
	if w.server.Requests("get") != 1 {
		t.Error("another identity is shown what the first one fetched")
	}
}

func TestLoginsThatFail(t *testing.T) {
	t.Parallel()
	for _, title := range loginWorlds() {
		for what, tt := range map[string]struct {
			handler http.HandlerFunc
			kind    gitops.ErrorKind
			want    string
		}{
			"a server error": {func(rw http.ResponseWriter, _ *http.Request) {
				http.Error(rw, fmt.Sprint("out of order since ", time.Now()), http.StatusServiceUnavailable)
			}, gitops.Transient, "the server answers 503"},
			"a refusal": {func(rw http.ResponseWriter, r *http.Request) {
				_ = r.ParseForm()
				rw.Header().Set("Content-Type", "application/json")
				rw.WriteHeader(http.StatusBadRequest)
				_, _ = fmt.Fprintf(rw, `{"error":"invalid_grant","error_description":%q}`, fmt.Sprint(r.Form, time.Now()))
			}, gitops.Denied, "the server answers 400"},
			"an answer that is none":  {func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "<html>") }, gitops.Transient, "cannot be used"},
			"an answer without a key": {func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "{}") }, gitops.Transient, "log in at"},
			"an endless answer": {func(rw http.ResponseWriter, r *http.Request) {
				for blank := []byte(strings.Repeat(" ", 1<<16)); r.Context().Err() == nil; {
					if _, err := rw.Write(blank); err != nil {
						return
					}
				}
			}, "", ""},
			"a connection that ends": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, gitops.Transient, "the server hung up"},
		} {
			t.Run(title+", "+what, func(t *testing.T) {
				t.Parallel()
				w := worlds()[title](t)
				w.server.Fill(name, map[string]string{"a": "1"})
				w.logins.Around(func(http.Handler) http.Handler { return tt.handler })
				s := openStore(t, bucket.Options{})
				var texts []string
				for range 2 {
					_, err := s.Fetch(within(t), w.request, "")
					var e *gitops.Error
					if !errors.As(err, &e) {
						t.Fatalf("%v", err)
					}
					if tt.kind != "" && e.Kind != tt.kind || !strings.Contains(err.Error(), tt.want) || tt.want != "" && e.Reason != bucket.ReasonAuthentication {
						t.Errorf("kind %q and reason %q of %q, want %q with %q", e.Kind, e.Reason, err, tt.kind, tt.want)
					}
					for _, secret := range w.secrets {
						if strings.Contains(err.Error(), secret) {
							t.Errorf("%q names the credential", err)
						}
					}
					texts = append(texts, err.Error())
				}
				if texts[0] != texts[1] {
					t.Errorf("the same failure has two texts:\n%s\n%s", texts[0], texts[1])
				}
				w.logins.Around(nil)
				fetch(t, s, w.request, "")
			})
		}
	}
}

func TestLoginsEndWithTheDeadline(t *testing.T) {
	t.Parallel()
	for _, title := range loginWorlds() {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			w := worlds()[title](t)
			w.server.Fill(name, map[string]string{"a": "1"})
			w.logins.Around(func(http.Handler) http.Handler {
				return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					<-r.Context().Done()
				})
			})
			s := openStore(t, bucket.Options{})
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			_, err := s.Fetch(ctx, w.request, "")
			if gitops.KindOf(err) != gitops.Transient || !strings.Contains(err.Error(), "no answer within the timeout") {
				t.Errorf("%v", err)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
}

// TestLoginsFollowNoRedirect looks for the body of a login at another server.
func TestLoginsFollowNoRedirect(t *testing.T) {
	t.Parallel()
	for _, title := range loginWorlds() {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			w := worlds()[title](t)
			w.server.Fill(name, map[string]string{"a": "1"})
			var asked atomic.Int64
			elsewhere := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				http.NotFound(rw, r)
			}))
			defer elsewhere.Close()
			w.logins.Around(func(http.Handler) http.Handler {
				return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					http.Redirect(rw, r, elsewhere.URL+r.URL.RequestURI(), http.StatusPermanentRedirect)
				})
			})
			err := refuse(t, openStore(t, bucket.Options{}), w.request, gitops.Denied)
			if !strings.Contains(err.Error(), "the server that logs in redirects, which is refused") || asked.Load() != 0 {
				t.Errorf("%q; another server was asked %d times", err, asked.Load())
			}
		})
	}
}

func TestLoginFunctionsThatFail(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		err    error
		kind   gitops.ErrorKind
		reason string
		want   string
	}{
		"an error of its own kind": {
			&gitops.Error{Stage: gitops.StageFetch, Kind: gitops.Stalled, Reason: "FeatureGateDisabled", Cause: errors.New("the gate is off")},
			gitops.Stalled, "FeatureGateDisabled", "the gate is off",
		},
		"any error": {errors.New("no role\x1b[2J"), gitops.Transient, bucket.ReasonAuthentication, "log in: no role[2J"},
	}
	for title, tt := range tests {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			w := awsWorld(t)
			w.request.Login = func(context.Context) (bucket.Credential, error) { return bucket.Credential{}, tt.err }
			err := refuse(t, openStore(t, bucket.Options{}), w.request, tt.kind)
			if err.Reason != tt.reason || !strings.Contains(err.Error(), `fetch bucket "the-bucket" at`) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%q of %q, want %q of %q", err, err.Reason, tt.want, tt.reason)
			}
		})
	}
}

func TestRequestsThatCannotWork(t *testing.T) {
	t.Parallel()
	const secret = "s3cret-word"
	azure := func(a bucket.AzureAuth) bucket.Request {
		return bucket.Request{Provider: bucket.Azure, Bucket: name, Endpoint: "https://acct.blob.example.com", Auth: bucket.Auth{Azure: a}}
	}
	google := func(key string) bucket.Request {
		return bucket.Request{Provider: bucket.GCP, Bucket: name, Auth: bucket.Auth{ServiceAccountJSON: []byte(key)}}
	}
	tests := map[string]struct {
		request bucket.Request
		reason  string
		want    string
	}{
		"an unknown provider":     {bucket.Request{Provider: "floppy", Bucket: name, Endpoint: "h"}, bucket.ReasonProvider, `provider "floppy" is not supported`},
		"no bucket":               {bucket.Request{Endpoint: "h"}, bucket.ReasonURL, "the name of the bucket"},
		"a bucket in a path":      {bucket.Request{Bucket: "../x", Endpoint: "h"}, bucket.ReasonURL, "the name of the bucket"},
		"a bucket that S3 has no": {bucket.Request{Bucket: "B_", Endpoint: "127.0.0.1:1"}, bucket.ReasonURL, "the name of the bucket"},
		"no endpoint":             {bucket.Request{Bucket: name}, bucket.ReasonURL, "the endpoint is no host"},
		"a scheme for S3":         {bucket.Request{Bucket: name, Endpoint: "https://h"}, bucket.ReasonURL, "without https://"},
		"a path for S3":           {bucket.Request{Bucket: name, Endpoint: "h/x"}, bucket.ReasonURL, "must not have a path"},
		"a user in the endpoint":  {bucket.Request{Bucket: name, Endpoint: "ann:" + secret + "@h"}, bucket.ReasonURL, "the endpoint is no host"},
		"no scheme for Azure":     {bucket.Request{Provider: bucket.Azure, Bucket: name, Endpoint: "h"}, bucket.ReasonURL, "the endpoint is no host"},
		"another scheme":          {bucket.Request{Provider: bucket.Azure, Bucket: name, Endpoint: "ftp://h"}, bucket.ReasonURL, `scheme "ftp" of the endpoint`},
		"half a key": {
			bucket.Request{Bucket: name, Endpoint: "h", Auth: bucket.Auth{SecretKey: secret}},
			bucket.ReasonAuthentication, `both "accesskey" and "secretkey"`,
		},
		"LDAP for Amazon": {
			bucket.Request{Provider: bucket.AWS, Bucket: name, Endpoint: "h", STS: bucket.STS{Provider: "ldap", Endpoint: "https://x"}},
			bucket.ReasonSTS, `cannot be used with the provider "aws"`,
		},
		"Amazon's for others": {
			bucket.Request{Bucket: name, Endpoint: "h", STS: bucket.STS{Provider: "aws", Endpoint: "https://x"}},
			bucket.ReasonSTS, `cannot be used with the provider "generic"`,
		},
		"tokens for Google": {
			bucket.Request{Provider: bucket.GCP, Bucket: name, STS: bucket.STS{Provider: "ldap", Endpoint: "https://x"}},
			bucket.ReasonSTS, "cannot be used with a security token service",
		},
		"a secret for Amazon's": {
			bucket.Request{Provider: bucket.AWS, Bucket: name, Endpoint: "h", STS: bucket.STS{Provider: "aws", Endpoint: "https://x", Password: secret}},
			bucket.ReasonSTS, "need no secret",
		},
		"an endpoint of tokens": {
			bucket.Request{Bucket: name, Endpoint: "h", STS: bucket.STS{Provider: "ldap", Endpoint: "file:///" + secret}},
			bucket.ReasonURL, "the endpoint of the security token service",
		},
		"no JSON":              {google(secret), bucket.ReasonAuthentication, "is no JSON"},
		"a key of another":     {google(`{"type":"external_account","credential_source":{"file":"/s3cret-word"}}`), bucket.ReasonAuthentication, `is of type "external_account"; use`},
		"a program":            {google(`{"type":"external_account","credential_source":{"executable":{"command":"s3cret-word"}}}`), bucket.ReasonAuthentication, "use service_account"},
		"a key that is none":   {google(`{"type":"service_account","private_key":"s3cret-word","client_email":"a","token_uri":"https://127.0.0.1:1"}`), bucket.ReasonAuthentication, "private key or a token_uri that cannot be used"},
		"no base64":            {azure(bucket.AzureAuth{AccountKey: "!s3cret-word"}), bucket.ReasonAuthentication, `"accountKey" in the secret is no key in base64`},
		"no query":             {azure(bucket.AzureAuth{SASKey: "sig=%s3cret-word"}), bucket.ReasonAuthentication, `"sasKey" in the secret`},
		"a client alone":       {azure(bucket.AzureAuth{ClientID: "x"}), bucket.ReasonAuthentication, "managed identity"},
		"no certificate":       {azure(bucket.AzureAuth{TenantID: "t", ClientID: "x", ClientCertificate: []byte(secret)}), bucket.ReasonAuthentication, `"clientCertificate" in the secret`},
		"a tenant that is no":  {azure(bucket.AzureAuth{TenantID: "t/../s3cret-word", ClientID: "x", ClientSecret: secret}), bucket.ReasonAuthentication, `"tenantId"`},
		"an authority on http": {azure(bucket.AzureAuth{TenantID: "t", ClientID: "x", ClientSecret: secret, AuthorityHost: "http://s3cret-word"}), bucket.ReasonAuthentication, `"authorityHost"`},
		"an account without a name": {
			bucket.Request{Provider: bucket.Azure, Bucket: name, Endpoint: "https://example.com", Auth: bucket.Auth{Azure: bucket.AzureAuth{AccountKey: "eA=="}}},
			bucket.ReasonAuthentication, "begins with the name of the storage account",
		},
	}
	for title, tt := range tests {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			s := openStore(t, bucket.Options{})
			_, err := s.Fetch(within(t), tt.request, "")
			var e *gitops.Error
			if !errors.As(err, &e) || e.Reason != tt.reason || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("%v, want %q of %q", err, tt.want, tt.reason)
			}
			if e.Kind != gitops.Stalled && e.Kind != gitops.Denied {
				t.Errorf("kind %q", e.Kind)
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%q holds the credential", err)
			}
		})
	}
}
