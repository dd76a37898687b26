package auth_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode"

	"k8s.io/utils/clock"

	"github.com/plumb-gitops/plumb/internal/auth"
	"github.com/plumb-gitops/plumb/internal/auth/authtest"
	"github.com/plumb-gitops/plumb/internal/auth/gcp"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// canned answers every request alike.
type canned struct {
	status int
	body   string
}

// RoundTrip answers.
func (c canned) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.Body != nil {
		_, _ = io.Copy(io.Discard, request.Body)
		_ = request.Body.Close()
	}
	return &http.Response{
		StatusCode: c.status, Status: http.StatusText(c.status), ProtoMajor: 1, ProtoMinor: 1, Request: request,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(c.body)), ContentLength: int64(len(c.body)),
	}, nil
}

// answered makes logins for which everybody answers alike. One of them is made for each
// answer, since what a login gave is kept.
func answered(t *testing.T, status uint16, body string, account map[string]string) *auth.Logins {
	t.Helper()
	l := auth.New(auth.Options{
		Clouds: map[string]auth.Cloud{gcp.Name: gcp.New("gcp.auth.fluxcd.io/workload-identity-provider")},
		Tokens: func(_ context.Context, namespace, name string, audiences []string) (string, time.Time, error) {
			return authtest.Token(namespace, name, audiences), time.Now().Add(time.Hour), nil
		},
		Annotations:     func(context.Context, string, string) (map[string]string, error) { return account, nil },
		ServiceAccounts: true, MaxTokens: 10, Clock: clock.RealClock{}, Transport: canned{200 + int(status)%400, body},
	})
	t.Cleanup(l.Close)
	return l
}

// canary is in answers. It is no code, in which there are no spaces.
const canary = "can ary"

// checkAnswered checks that a login either gives something, or is an error that can be
// shown, and that says no more of an answer than a code.
func checkAnswered(t *testing.T, what string, given bool, err error) {
	t.Helper()
	if err == nil {
		if !given {
			t.Errorf("%s: neither a login nor an error", what)
		}
		return
	}
	var e *gitops.Error
	if !errors.As(err, &e) || e.Kind == "" || e.Reason == "" {
		t.Fatalf("%s: error %v has no kind or no reason", what, err)
	}
	text := err.Error()
	if len(text) > 700 || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("%s: an error that cannot be shown: %q", what, text)
	}
	if strings.Contains(text, canary) {
		t.Errorf("%s: an error with what was answered: %q", what, text)
	}
}

// FuzzAnswersOfGoogle reads what somebody may answer in the name of Google Cloud.
func FuzzAnswersOfGoogle(f *testing.F) {
	for _, seed := range []string{
		`{"access_token":"t","token_type":"Bearer","issued_token_type":"urn:ietf:params:oauth:token-type:access_token","expires_in":3600,"accessToken":"u","expireTime":"2036-01-01T00:00:00Z"}`,
		`{"access_token":"t","token_type":"Bearer","expires_in":-1}`, `{"access_token":"","expires_in":1e300}`, `{"accessToken":7}`, `[]`, `null`, "", `{"expires_in":1}`, "<html> can ary",
		`{"error":"invalid_grant","error_description":"the token can ary is none"}`, `{"error":{"status":"PERMISSION_DENIED","message":"can ary"}}`, `{"error":{"status":"a b\n"}}`,
		`{"access_token":"a\nb\u0000","token_type":"x","expires_in":9,"accessToken":"\r","expireTime":"9999-12-31T23:59:59Z"}`,
		`{"endpoint":"203.0.113.7","masterAuth":{"clusterCaCertificate":"YQ=="},"access_token":"t","expires_in":60}`,
		`{"endpoint":"a/b?c","masterAuth":{"clusterCaCertificate":"!"},"access_token":"t","expires_in":60,"controlPlaneEndpointsConfig":{"dnsEndpointConfig":{"endpoint":"x"}}}`,
	} {
		for _, status := range []uint16{0, 1, 200, 201, 203, 303} {
			f.Add(status, seed)
		}
	}
	const pool = "gcp.auth.fluxcd.io/workload-identity-provider"
	f.Fuzz(func(t *testing.T, status uint16, body string) {
		for what, account := range map[string]map[string]string{
			"a service account":        {pool: authtest.GooglePool},
			"a Google service account": {pool: authtest.GooglePool, "iam.gke.io/gcp-service-account": authtest.GoogleEmail},
			"one of GKE":               {},
		} {
			if len(account) == 0 && 200+status%400 >= 400 {
				continue // the library asks a metadata service that is out of order again, after pauses
			}
			l := answered(t, status, body, account)
			login, err := l.Registry(t.Context(), as(gcp.Name, "apps/all"), googleRegistry)
			checkAnswered(t, what+" at a registry", login.Password != "", err)
			_, in, err := l.Cluster(t.Context(), as(gcp.Name, "apps/all"), auth.Cluster{Name: authtest.GoogleFar})
			checkAnswered(t, what+" at a cluster", in.Bearer != "", err)
		}
	})
}

// FuzzAnswersOfGitHub reads what somebody may answer in the name of GitHub.
func FuzzAnswersOfGitHub(f *testing.F) {
	for _, seed := range []string{
		`{"token":"t","expires_at":"2036-01-01T00:00:00Z","id":7}`, `{"token":"t","expires_at":"0000-01-01T00:00:00Z","id":-1}`, `{"token":"","id":9223372036854775807}`,
		`{"id":1e30}`, `{"token":7}`, `[]`, `null`, "", "<html> can ary", `{"message":"can ary","documentation_url":"x"}`, `{"token":"a\nb\u0000","expires_at":"2036-01-01T00:00:00Z","id":7}`,
	} {
		for _, status := range []uint16{0, 1, 101, 201, 203, 204, 229, 302} {
			f.Add(status, seed)
		}
	}
	key, err := rsa.GenerateKey(rand.Reader, 1024) //nolint:gosec // many signatures, none of which counts
	if err != nil {
		f.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	f.Fuzz(func(t *testing.T, status uint16, body string) {
		l := answered(t, status, body, nil)
		for what, app := range map[string]auth.App{
			"an installation by its number": {ID: "1", InstallationID: "7", PrivateKey: text},
			"one by its owner":              {ID: "1", InstallationOwner: "acme", PrivateKey: text},
		} {
			login, err := l.GitHubApp(t.Context(), app)
			checkAnswered(t, what, login.Username != "" && login.Password != "", err)
		}
	})
}
