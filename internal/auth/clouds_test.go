package auth_test

import (
	"cmp"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/auth"
	"github.com/plumb-gitops/plumb/internal/auth/authtest"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// TestRegistries logs in at the registries of all clouds as a service account.
func TestRegistries(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		provider, url string
		set           func(*world)
		user, want    string
		audience      string
	}{
		"Amazon's private registries": {provider: "aws", url: awsRegistry, user: "AWS", want: "canary for system:serviceaccount:apps:all as all.apps.eu-central-1.fluxcd.io", audience: "sts.amazonaws.com"},
		"Amazon's public registry":    {provider: "aws", url: "public.ecr.aws/acme/web", user: "AWS", want: "canary for system:serviceaccount:apps:all as all.apps.us-east-1.fluxcd.io", audience: "sts.amazonaws.com"},
		"Azure's registries":          {provider: "azure", url: azureRegistry, user: "00000000-0000-0000-0000-000000000000", want: "c3lzdGVtOnNlcnZpY2VhY2NvdW50OmFwcHM6YWxsIGF0IGFjbWUuYXp1cmVjci5pbw.", audience: "api://AzureADTokenExchange"},
		"Google's registries":         {provider: "gcp", url: googleRegistry, user: "oauth2accesstoken", want: "system:serviceaccount:apps:all for exchange", audience: "//iam.googleapis.com/" + authtest.GooglePool},
		"Google's old registries":     {provider: "gcp", url: "eu.gcr.io/project/web", user: "oauth2accesstoken", want: "system:serviceaccount:apps:all for exchange", audience: "//iam.googleapis.com/" + authtest.GooglePool},
		"as a Google service account": {provider: "gcp", url: googleRegistry, set: func(w *world) { w.annotate("apps/all", "iam.gke.io/gcp-service-account", authtest.GoogleEmail) },
			user: "oauth2accesstoken", want: authtest.GoogleEmail + " for system:serviceaccount:apps:all", audience: "//iam.googleapis.com/" + authtest.GooglePool},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			if test.set != nil {
				test.set(w)
			}
			login, err := w.Registry(t.Context(), as(test.provider, "apps/all"), test.url)
			must(t, err)
			is := login.Password
			if holder := authtest.Holder(is); test.provider == "gcp" {
				is = holder
			}
			if login.Username != test.user || !strings.Contains(is, test.want) || login.Bearer != "" {
				t.Errorf("got %q %q, want %q %q", login.Username, is, test.user, test.want)
			}
			if until := time.Until(login.Expires); until < 50*time.Minute || until > time.Hour+time.Minute {
				t.Errorf("it ends in %s", until)
			}
			if issued := w.tokensIssued(); len(issued) != 1 || issued[0] != "apps/all "+test.audience {
				t.Errorf("tokens were asked for: %v, want audience %s", issued, test.audience)
			}
		})
	}
}

// TestLongNames has a service account whose session would have too long a name.
func TestLongNames(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	name := strings.Repeat("a", 63)
	w.annotate("apps/"+name, "eks.amazonaws.com/role-arn", authtest.AWSRole)
	_, err := w.Registry(t.Context(), as("aws", "apps/"+name), awsRegistry)
	must(t, err)
}

func TestGit(t *testing.T) {
	t.Parallel()
	t.Run("Azure DevOps takes a bearer token", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		for _, repository := range []string{"https://dev.azure.com/acme/apps/_git/web", "https://Acme.visualstudio.com/apps/_git/web"} {
			login, err := w.Git(t.Context(), as("azure", "apps/all"), repository)
			must(t, err)
			if got, want := authtest.Holder(login.Bearer), "system:serviceaccount:apps:all for 499b84ac-1321-427f-aa17-267ca6975798/.default"; got != want || login.Password != "" {
				t.Errorf("%s: got %q, want %q", repository, got, want)
			}
		}
	})
	t.Run("CodeCommit takes a signature as AWS's helper makes it", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.clock.SetTime(time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC))
		login, err := w.Git(t.Context(), as("aws", "apps/all"), "https://git-codecommit.eu-central-1.amazonaws.com/v1/repos/apps")
		must(t, err)
		if login.Username != "ASIA0001%canary-session-1" || login.Password != "20260304T050607Zca42843fd6a1daef8354c2ba46da0c9f07939a2c2e18762a653c9c8dd9477813" {
			t.Errorf("got %q %q", login.Username, login.Password)
		}
		if want := w.clock.Now().Add(15 * time.Minute); !login.Expires.Equal(want) {
			t.Errorf("it ends at %s, want %s", login.Expires, want)
		}
	})
}

// TestClusters logs in at clusters, with and without knowing where they are.
func TestClusters(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		provider string
		cluster  auth.Cluster
		holder   string
		want     auth.Cluster
		// silent is a host that must not be asked.
		silent string
	}{
		"EKS":                    {provider: "aws", cluster: auth.Cluster{Name: authtest.AWSCluster}, want: auth.Cluster{Address: "https://far.eks.example.com", CA: []byte("the authority of AWS")}},
		"EKS by a known address": {provider: "aws", cluster: auth.Cluster{Name: authtest.AWSCluster, Address: "https://a", CA: []byte("b")}, want: auth.Cluster{Address: "https://a", CA: []byte("b")}, silent: "eks."},
		"AKS":                    {provider: "azure", cluster: auth.Cluster{Name: authtest.AzureCluster}, want: auth.Cluster{Address: "https://far.azmk8s.io:443", CA: []byte("the authority of far.azmk8s.io")}},
		"AKS by the second of its addresses": {provider: "azure", cluster: auth.Cluster{Name: authtest.AzureCluster, Address: "https://SECOND.azmk8s.io"},
			want: auth.Cluster{Address: "https://SECOND.azmk8s.io", CA: []byte("the authority of second.azmk8s.io")}},
		"AKS by a known address": {provider: "azure", cluster: auth.Cluster{Address: "https://a", CA: []byte("b")}, want: auth.Cluster{Address: "https://a", CA: []byte("b")}, silent: "management."},
		"GKE":                    {provider: "gcp", cluster: auth.Cluster{Name: authtest.GoogleFar}, want: auth.Cluster{Address: "https://203.0.113.7", CA: []byte("the authority of Google")}},
		"GKE by a known address": {provider: "gcp", cluster: auth.Cluster{Address: "https://a", CA: []byte("b")}, want: auth.Cluster{Address: "https://a", CA: []byte("b")}, silent: "container."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			got, login, err := w.Cluster(t.Context(), as(test.provider, "apps/all"), test.cluster)
			must(t, err)
			if got.Address != test.want.Address || string(got.CA) != string(test.want.CA) {
				t.Errorf("got %q %q, want %q %q", got.Address, got.CA, test.want.Address, test.want.CA)
			}
			if test.silent != "" && len(w.clouds.Asked(test.silent)) > 0 {
				t.Errorf("asked %v for what was known", w.clouds.Asked(test.silent))
			}
			var holder string
			switch test.provider {
			case "aws":
				holder, err = w.clouds.WhoIs(login.Bearer, "far")
				must(t, err)
				if want := w.clock.Now().Add(15 * time.Minute); !login.Expires.Equal(want) {
					t.Errorf("it ends at %s, want %s", login.Expires, want)
				}
				if _, err := w.clouds.WhoIs(login.Bearer, "near"); err == nil {
					t.Error("the token is good for another cluster")
				}
			default:
				holder = authtest.Holder(login.Bearer)
			}
			want := map[string]string{
				"aws": "system:serviceaccount:apps:all as all.apps.eu-central-1.fluxcd.io", "gcp": "system:serviceaccount:apps:all for exchange",
				"azure": "system:serviceaccount:apps:all for 6dae42f8-4368-4678-94ff-3960e28e3630/.default",
			}[test.provider]
			if holder != want {
				t.Errorf("it is a token of %q, want %q", holder, want)
			}
		})
	}
}

func TestBucketsAndKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	amazon, err := w.Bucket(t.Context(), as("aws", "apps/all"), "eu-central-1", "https://sts.eu-west-1.amazonaws.com")
	must(t, err)
	if amazon.AccessKey == "" || amazon.SecretKey == "" || amazon.SessionToken == "" || amazon.Expires.IsZero() || len(w.clouds.Asked("sts.eu-west-1")) != 1 {
		t.Errorf("got %+v, asked %v", amazon, w.clouds.Asked(""))
	}
	microsoft, err := w.Bucket(t.Context(), as("azure", "apps/all"), "", "")
	must(t, err)
	if got, want := authtest.Holder(microsoft.Bearer), "system:serviceaccount:apps:all for https://storage.azure.com/.default"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	vault, err := w.Keys(t.Context(), as("azure", "apps/all"), auth.Scope{Resource: "https://vault.azure.net/.default"})
	must(t, err)
	if got, want := authtest.Holder(vault.Bearer), "system:serviceaccount:apps:all for https://vault.azure.net/.default"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	google, err := w.Bucket(t.Context(), as("gcp", "apps/all"), "", "")
	must(t, err)
	if got, want := authtest.Holder(google.Bearer), "system:serviceaccount:apps:all for exchange"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestGKE is in a cluster of Google's: the metadata service says which.
func TestGKE(t *testing.T) {
	w := newWorld(t)
	noEnvironment(t)
	t.Setenv("GCE_METADATA_HOST", strings.TrimPrefix(w.clouds.URL, "http://"))
	w.annotate("apps/gke", "iam.gke.io/gcp-service-account", authtest.GoogleEmail)
	login, err := w.Registry(t.Context(), as("gcp", "apps/gke"), googleRegistry)
	must(t, err)
	if got, want := authtest.Holder(login.Password), authtest.GoogleEmail+" for system:serviceaccount:apps:gke"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if issued := w.tokensIssued(); len(issued) != 1 || issued[0] != "apps/gke here.svc.id.goog" {
		t.Errorf("tokens were asked for: %v", issued)
	}
	// The operator itself has what the machine gives it.
	own, err := w.Registry(t.Context(), auth.Request{Provider: "gcp"}, googleRegistry)
	must(t, err)
	if got := authtest.Holder(own.Password); !strings.HasPrefix(got, "the machine for https://www.googleapis.com/auth/cloud-platform") {
		t.Errorf("got %q", got)
	}
}

// TestNotGKE is elsewhere.
func TestNotGKE(t *testing.T) {
	w := newWorld(t)
	t.Setenv("GCE_METADATA_HOST", "metadata.example.com")
	w.clouds.Fail("metadata.example.com", 404, "")
	w.expect(t, gitops.Denied, "AuthenticationFailed", "no annotation gcp.auth.fluxcd.io/workload-identity-provider|outside of GKE", func() error {
		_, err := w.Registry(t.Context(), as("gcp", "apps/none"), googleRegistry)
		return err
	})
}

// TestOwnIdentity logs in as the operator, which is known from the environment or the
// machine.
func TestOwnIdentity(t *testing.T) {
	t.Run("AWS by the machine", func(t *testing.T) {
		noEnvironment(t)
		w := newWorld(t)
		login, err := w.Registry(t.Context(), auth.Request{Provider: "aws"}, awsRegistry)
		must(t, err)
		if login.Password != "canary for the machine" {
			t.Errorf("got %q", login.Password)
		}
	})
	t.Run("AWS by a role for the pod", func(t *testing.T) {
		noEnvironment(t)
		w := newWorld(t)
		t.Setenv("AWS_REGION", "eu-central-1")
		t.Setenv("AWS_ROLE_ARN", authtest.AWSRole)
		t.Setenv("AWS_ROLE_SESSION_NAME", "me")
		t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", tokenFile(t, "sts.amazonaws.com"))
		credential, err := w.Bucket(t.Context(), auth.Request{Provider: "aws"}, "", "")
		must(t, err)
		if credential.AccessKey == "" || len(w.clouds.Asked("sts.eu-central-1")) != 1 {
			t.Errorf("got %+v, asked %v", credential, w.clouds.Asked(""))
		}
	})
	t.Run("AWS without a region", func(t *testing.T) {
		noEnvironment(t)
		w := newWorld(t)
		w.expect(t, gitops.Denied, "AuthenticationFailed", "the operator itself|AWS_REGION", func() error {
			_, err := w.Bucket(t.Context(), auth.Request{Provider: "aws"}, "", "")
			return err
		})
	})
	t.Run("nobody's", func(t *testing.T) {
		noEnvironment(t)
		w := newWorld(t)
		w.clouds.Fail("169.254.169.254", 404, "")
		for provider, registry := range map[string]string{"aws": awsRegistry, "azure": azureRegistry} {
			_, err := w.Registry(t.Context(), auth.Request{Provider: provider}, registry)
			if err == nil || !strings.Contains(err.Error(), "see that the operator has an identity") {
				t.Errorf("%s: %v", provider, err)
			}
		}
	})
	t.Run("Azure by the machine", func(t *testing.T) {
		noEnvironment(t)
		w := newWorld(t)
		login, err := w.Git(t.Context(), auth.Request{Provider: "azure"}, "https://dev.azure.com/acme/apps/_git/web")
		must(t, err)
		if got := authtest.Holder(login.Bearer); got != "the machine for 499b84ac-1321-427f-aa17-267ca6975798" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("Azure by another identity of the machine", func(t *testing.T) {
		noEnvironment(t)
		t.Setenv("AZURE_CLIENT_ID", "the-operators-own")
		w := newWorld(t)
		for _, client := range []string{"one", "two", ""} {
			login, err := w.Bucket(t.Context(), auth.Request{Provider: "azure", Client: client}, "", "")
			must(t, err)
			want := "the machine as " + cmp.Or(client, "the-operators-own") + " for https://storage.azure.com"
			if got := authtest.Holder(login.Bearer); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		_, err := w.Bucket(t.Context(), auth.Request{Provider: "azure", Client: "a&resource=b"}, "", "")
		if err == nil || !strings.Contains(err.Error(), "is no id") {
			t.Errorf("a client that is no id: %v", err)
		}
	})
	t.Run("Azure by workload identity", func(t *testing.T) {
		noEnvironment(t)
		w := newWorld(t)
		t.Setenv("AZURE_TENANT_ID", authtest.AzureTenant)
		t.Setenv("AZURE_CLIENT_ID", authtest.AzureClient)
		t.Setenv("AZURE_FEDERATED_TOKEN_FILE", tokenFile(t, "api://AzureADTokenExchange"))
		login, err := w.Registry(t.Context(), auth.Request{Provider: "azure"}, azureRegistry)
		must(t, err)
		if login.Password == "" || len(w.clouds.Asked("169.254.169.254")) > 0 {
			t.Errorf("asked %v", w.clouds.Asked(""))
		}
	})
}

// TestOwnTokensStayHome has the operator log in at clusters that somebody describes: its
// tokens go nowhere but to addresses that the cloud names.
func TestOwnTokensStayHome(t *testing.T) {
	noEnvironment(t)
	t.Setenv("AWS_REGION", "eu-central-1")
	w := newWorld(t)
	t.Setenv("GCE_METADATA_HOST", strings.TrimPrefix(w.clouds.URL, "http://"))
	for provider, name := range map[string]string{"aws": authtest.AWSCluster, "azure": authtest.AzureCluster, "gcp": authtest.GoogleFar} {
		w.expect(t, gitops.Denied, "AuthenticationFailed", "the cloud knows no such address", func() error {
			_, _, err := w.Cluster(t.Context(), auth.Request{Provider: provider}, auth.Cluster{Name: name, Address: "https://evil.example.com", CA: []byte("evil")})
			return err
		})
	}
	for _, provider := range []string{"azure", "gcp"} {
		if _, _, err := w.Cluster(t.Context(), auth.Request{Provider: provider}, auth.Cluster{Address: "https://evil.example.com", CA: []byte("evil")}); err == nil {
			t.Errorf("%s: a token of the operator goes to a cluster without a name", provider)
		}
	}
	found, login, err := w.Cluster(t.Context(), auth.Request{Provider: "gcp"}, auth.Cluster{Name: authtest.GoogleFar, Address: "203.0.113.7:443"})
	must(t, err)
	if found.Address != "203.0.113.7:443" || len(found.CA) == 0 || login.Bearer == "" {
		t.Errorf("got %+v", found)
	}
}

func tokenFile(t *testing.T, audience string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "token")
	must(t, os.WriteFile(name, []byte(authtest.Token("flux-system", "plumb", []string{audience})), 0o600))
	return name
}

// app is an app whose claims the stand-in verifies.
func app(t *testing.T, w *world) auth.App {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	w.clouds.GitHubKey = &key.PublicKey
	return auth.App{ID: "42", InstallationID: "7", PrivateKey: pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})}
}

func TestGitHubApp(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*auth.App)
		want   string
	}{
		"by the id of an installation":     {func(*auth.App) {}, "canary of 7"},
		"by the name of an organization":   {func(a *auth.App) { a.InstallationID, a.InstallationOwner = "", "acme" }, "canary of 7"},
		"by the name of a user":            {func(a *auth.App) { a.InstallationID, a.InstallationOwner = "", "someone" }, "canary of 8"},
		"of GitHub Enterprise Server":      {func(a *auth.App) { a.BaseURL = "https://github.example.com/api/v3/" }, "canary of 7"},
		"with the address of GitHub's API": {func(a *auth.App) { a.BaseURL = "https://api.github.com" }, "canary of 7"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := app(t, w)
			test.change(&a)
			for range 2 {
				login, err := w.GitHubApp(t.Context(), a)
				must(t, err)
				if login.Username != "x-access-token" || login.Password != test.want || time.Until(login.Expires) < 50*time.Minute {
					t.Errorf("got %+v, want %q", login, test.want)
				}
			}
			if n := len(w.clouds.Asked("access_tokens")); n != 1 {
				t.Errorf("%d tokens were asked for, want 1", n)
			}
			// Another installation of the same app is another login.
			b := a
			b.InstallationID, b.InstallationOwner = "8", ""
			if login, err := w.GitHubApp(t.Context(), b); err != nil || login.Password != "canary of 8" {
				t.Errorf("got %+v, %v for another installation", login, err)
			}
		})
	}
}

func TestGitHubAppErrors(t *testing.T) {
	t.Parallel()
	const reason = "AuthenticationFailed"
	for name, test := range map[string]struct {
		change func(*auth.App)
		set    func(*world)
		kind   gitops.ErrorKind
		want   string
	}{
		"no id":            {change: func(a *auth.App) { a.ID = "" }, want: "id is not a number"},
		"no installation":  {change: func(a *auth.App) { a.InstallationID = "" }, want: "needs the id or the owner"},
		"two of them":      {change: func(a *auth.App) { a.InstallationOwner = "acme" }, want: "both|give one"},
		"an odd id":        {change: func(a *auth.App) { a.InstallationID = "7/../8" }, want: "installation's id is not a number"},
		"a key that is no": {change: func(a *auth.App) { a.PrivateKey = []byte("canary") }, want: "not an RSA key in PEM"},
		"the key of another": {change: func(a *auth.App) {
			key, _ := rsa.GenerateKey(rand.Reader, 2048)
			a.PrivateKey = pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
		}, want: "answers 401|belong together"},
		"another owner":           {change: func(a *auth.App) { a.InstallationID, a.InstallationOwner = "", "nobody" }, want: `not installed for "nobody"`},
		"another installation":    {change: func(a *auth.App) { a.InstallationID = "9" }, want: "answers 404|installed there"},
		"a URL with a password":   {change: func(a *auth.App) { a.BaseURL = "https://x:canary@github.example.com" }, want: "base URL is not one"},
		"a URL of another scheme": {change: func(a *auth.App) { a.BaseURL = "file:///etc/passwd" }, want: "base URL is not one"},
		"GitHub that fails":       {set: func(w *world) { w.clouds.Fail("api.github.com", 502, "canary") }, kind: gitops.Transient, want: "answers 502"},
		"a redirect":              {set: func(w *world) { w.clouds.Fail("api.github.com", 301, "canary") }, want: "answers 301"},
		"no token":                {set: func(w *world) { w.clouds.Fail("api.github.com", 200, "{}") }, kind: gitops.Transient, want: "has no token"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := app(t, w)
			if test.change != nil {
				test.change(&a)
			}
			if test.set != nil {
				test.set(w)
			}
			if test.kind == "" {
				test.kind = gitops.Denied
			}
			w.expect(t, test.kind, reason, "GitHub App|"+test.want, func() error { _, err := w.GitHubApp(t.Context(), a); return err })
		})
	}
}
