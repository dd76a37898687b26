package auth_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/plumb-gitops/plumb/internal/auth"
	"github.com/plumb-gitops/plumb/internal/auth/authtest"
	"github.com/plumb-gitops/plumb/internal/auth/aws"
	"github.com/plumb-gitops/plumb/internal/auth/azure"
	"github.com/plumb-gitops/plumb/internal/auth/gcp"
	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// world is the clouds, an API server with service accounts, and logins.
type world struct {
	*auth.Logins
	clouds *authtest.Clouds
	clock  *clocktesting.FakePassiveClock

	mu sync.Mutex
	// accounts are annotations by namespace/name.
	accounts map[string]map[string]string
	// issued are tokens that were asked for: namespace/name audiences.
	issued []string
	// refuse is what the API server answers.
	refuse error
}

func newWorld(t *testing.T, change ...func(*auth.Options)) *world {
	t.Helper()
	w := &world{clouds: authtest.New(t), clock: clocktesting.NewFakePassiveClock(time.Now()), accounts: map[string]map[string]string{}}
	options := auth.Options{
		Clouds:          map[string]auth.Cloud{aws.Name: aws.New("fluxcd.io"), azure.Name: azure.New(), gcp.Name: gcp.New("gcp.auth.fluxcd.io/workload-identity-provider")},
		Tokens:          w.tokens,
		Annotations:     w.annotations,
		ServiceAccounts: true, MaxTokens: 100, Clock: w.clock, Transport: w.clouds.Transport(),
	}
	for _, f := range change {
		f(&options)
	}
	w.Logins = auth.New(options)
	t.Cleanup(w.Close)
	w.accounts["apps/all"] = map[string]string{
		"eks.amazonaws.com/role-arn":        authtest.AWSRole,
		"azure.workload.identity/tenant-id": authtest.AzureTenant, "azure.workload.identity/client-id": authtest.AzureClient,
		"gcp.auth.fluxcd.io/workload-identity-provider": authtest.GooglePool,
	}
	w.accounts["apps/none"] = nil
	return w
}

func (w *world) tokens(_ context.Context, namespace, name string, audiences []string) (string, time.Time, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.issued = append(w.issued, fmt.Sprintf("%s/%s %s", namespace, name, strings.Join(audiences, ",")))
	return authtest.Token(namespace, name, audiences), w.clock.Now().Add(time.Hour), w.refuse
}

func (w *world) annotations(_ context.Context, namespace, name string) (map[string]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	found, ok := w.accounts[namespace+"/"+name]
	if !ok {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "serviceaccounts"}, name)
	}
	return found, nil
}

// annotate changes an annotation of a service account, and lets the time pass after which
// that is seen.
func (w *world) annotate(account, key, value string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	changed := map[string]string{}
	for k, v := range w.accounts[account] {
		changed[k] = v
	}
	changed[key] = value
	w.accounts[account] = changed
	w.clock.SetTime(w.clock.Now().Add(31 * time.Second))
}

func (w *world) tokensIssued() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.issued...)
}

// as is a request of a service account.
func as(provider, account string) auth.Request {
	namespace, name, _ := strings.Cut(account, "/")
	return auth.Request{Provider: provider, Identity: auth.Identity{Namespace: namespace, ServiceAccount: name}}
}

const (
	awsRegistry    = "oci://123456789012.dkr.ecr.eu-central-1.amazonaws.com/apps/web"
	azureRegistry  = "oci://acme.azurecr.io/apps/web"
	googleRegistry = "oci://europe-docker.pkg.dev/project/apps/web"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// expect checks the kind and the reason of an error, that it has words in it and no secret,
// and that it is the same when it happens again, after the pause.
func (w *world) expect(t *testing.T, kind gitops.ErrorKind, reason string, words string, do func() error) {
	t.Helper()
	err := do()
	var e *gitops.Error
	if !errors.As(err, &e) {
		t.Fatalf("got error %v, want one of a stage", err)
	}
	if e.Kind != kind || e.Reason != reason || e.Stage != gitops.StageFetch {
		t.Errorf("got %s %s at %s, want %s %s: %v", e.Kind, e.Reason, e.Stage, kind, reason, err)
	}
	for word := range strings.SplitSeq(words, "|") {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("error %q does not say %q", err, word)
		}
	}
	if strings.Contains(err.Error(), authtest.Canary) {
		t.Errorf("error %q shows what it must not", err)
	}
	w.clock.SetTime(w.clock.Now().Add(11 * time.Second))
	if again := do(); again == nil || again.Error() != err.Error() {
		t.Errorf("the same failure has other words:\n%v\n%v", err, again)
	}
}

// TestGate has service accounts log in where the operator does not let them.
func TestGate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *auth.Options) { o.ServiceAccounts = false })
	const words = "feature gate ObjectLevelWorkloadIdentity is off|--feature-gates="
	w.expect(t, gitops.Stalled, "FeatureGateDisabled", words, func() error {
		_, err := w.Registry(t.Context(), as("aws", "apps/all"), awsRegistry)
		return err
	})
	w.expect(t, gitops.Stalled, "FeatureGateDisabled", words, func() error {
		_, err := w.Token(t.Context(), auth.Identity{Namespace: "apps", ServiceAccount: "all"}, []string{"x"}, false)
		return err
	})
	if n := len(w.tokensIssued()); n > 0 {
		t.Errorf("%d tokens were asked for", n)
	}
}

// TestShared counts what many callers cost, and what keeps them apart.
func TestShared(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, release := w.clouds.Hold()
	var group sync.WaitGroup
	logins := make([]auth.Login, 50)
	for i := range logins {
		group.Go(func() {
			var err error
			if logins[i], err = w.Registry(t.Context(), as("azure", "apps/all"), azureRegistry); err != nil {
				t.Error(err)
			}
		})
	}
	// One caller that leaves takes nothing from the others.
	left, leave := context.WithCancel(t.Context())
	leave()
	if _, err := w.Registry(left, as("azure", "apps/all"), azureRegistry); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that left got %v", err)
	}
	release()
	group.Wait()
	for _, login := range logins {
		if login != logins[0] || login.Password == "" {
			t.Fatalf("callers got different logins: %+v", login)
		}
	}
	if n := len(w.clouds.Asked("POST acme.azurecr.io")); n != 1 {
		t.Errorf("%d logins for fifty callers, want 1", n)
	}
	if n := len(w.tokensIssued()); n != 1 {
		t.Errorf("%d tokens of the service account, want 1", n)
	}
	// Another registry takes another login there, with the same access.
	_, err := w.Registry(t.Context(), as("azure", "apps/all"), "other.azurecr.io/x")
	must(t, err)
	if n := len(w.tokensIssued()); n != 1 {
		t.Errorf("%d tokens of the service account for two registries, want 1", n)
	}
	// The same name in another namespace is somebody else.
	w.annotate("team/all", "azure.workload.identity/tenant-id", authtest.AzureTenant)
	w.annotate("team/all", "azure.workload.identity/client-id", authtest.AzureClient)
	login, err := w.Registry(t.Context(), as("azure", "team/all"), azureRegistry)
	must(t, err)
	if login.Password == logins[0].Password {
		t.Error("a service account got the login of another")
	}
	// So is the same one with other audiences.
	r := as("azure", "apps/all")
	r.Audiences = []string{"other"}
	if _, err := w.Registry(t.Context(), r, azureRegistry); err == nil {
		t.Error("another audience got a kept login")
	}
	// And the same one behind a proxy.
	before := len(w.tokensIssued())
	r = as("azure", "apps/all")
	r.Proxy = egress.Proxy{Address: "http://proxy.example.com"}
	_, err = w.Registry(t.Context(), r, azureRegistry)
	must(t, err)
	if len(w.tokensIssued()) == before {
		t.Error("a login by another way was kept")
	}
	// An annotation that changes counts.
	w.annotate("apps/all", "azure.workload.identity/client-id", "other")
	if _, err := w.Registry(t.Context(), as("azure", "apps/all"), azureRegistry); err == nil {
		t.Error("a service account kept the login of the client that it had before")
	}
}

// TestRenewal goes through the life of a login.
func TestRenewal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	get := func() (auth.Login, error) { return w.Registry(t.Context(), as("azure", "apps/all"), azureRegistry) }
	count := func() int { return len(w.clouds.Asked("POST acme.azurecr.io")) }
	pass := func(d time.Duration) { w.clock.SetTime(w.clock.Now().Add(d)) }
	_, err := get()
	must(t, err)
	pass(40 * time.Minute)
	_, err = get()
	must(t, err)
	if n := count(); n != 1 {
		t.Errorf("%d logins in the first forty minutes, want 1", n)
	}
	// Four fifths of the hour are over: it is renewed before it ends. Where that fails the
	// one before is used as long as it can be, and nobody is asked all the time.
	pass(10 * time.Minute)
	w.clouds.Fail("acme.azurecr.io", 500, "")
	for range 5 {
		_, err = get()
		must(t, err)
	}
	if n := count(); n != 2 {
		t.Errorf("%d logins, want one more", n)
	}
	pass(9*time.Minute + 30*time.Second)
	if _, err := get(); err == nil {
		t.Error("a login was used that is about to end")
	}
	for range 5 {
		_, _ = get()
	}
	if n := count(); n != 3 {
		t.Errorf("%d logins, want one more: a failure is remembered for a while", n)
	}
	w.clouds.Mend("acme.azurecr.io")
	pass(11 * time.Second)
	_, err = get()
	must(t, err)
	if n := count(); n != 4 {
		t.Errorf("%d logins, want one more", n)
	}
}

// TestBounded keeps fewer logins than there are, or none.
func TestBounded(t *testing.T) {
	t.Parallel()
	for most, want := range map[int]int{0: 4, 2: 3, 100: 2} {
		w := newWorld(t, func(o *auth.Options) { o.MaxTokens = most })
		for _, registry := range []string{"a", "b", "b", "a"} {
			_, err := w.Registry(t.Context(), as("azure", "apps/all"), registry+".azurecr.io/x")
			must(t, err)
		}
		if n := len(w.clouds.Asked("POST ")) - len(w.clouds.Asked("POST login.")); n != want {
			t.Errorf("%d logins where %d are kept, want %d", n, most, want)
		}
	}
}

// TestServiceAccountTokens asks for tokens of the cluster itself.
func TestServiceAccountTokens(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	who := auth.Identity{Namespace: "apps", ServiceAccount: "all"}
	one, err := w.Token(t.Context(), who, []string{"a", "b"}, false)
	must(t, err)
	same, err := w.Token(t.Context(), who, []string{"a", "b"}, false)
	must(t, err)
	other, err := w.Token(t.Context(), who, []string{"ab"}, false)
	must(t, err)
	if one != same || one.Bearer == other.Bearer || len(w.tokensIssued()) != 2 {
		t.Errorf("tokens %v", w.tokensIssued())
	}
}

// TestClose ends a login that is under way.
func TestClose(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	waiting, release := w.clouds.Hold()
	defer release()
	got := make(chan error, 1)
	go func() { _, err := w.Registry(t.Context(), as("azure", "apps/all"), azureRegistry); got <- err }()
	select {
	case <-waiting:
	case err := <-got: // a login that asks nobody ends by itself
		t.Fatalf("the login ended before it asked: %v", err)
	}
	w.Close()
	if err := <-got; err == nil {
		t.Error("a login went on after the end")
	}
	if _, err := w.Registry(t.Context(), as("azure", "apps/all"), azureRegistry); !errors.Is(err, context.Canceled) {
		t.Errorf("a login after the end: %v", err)
	}
}

// TestRealNetwork uses the transports that the operator uses: a service account reaches no
// metadata address, whatever it names as a proxy.
func TestRealNetwork(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *auth.Options) { o.Transport = nil; o.Clock = clock.RealClock{} })
	for name, test := range map[string]struct{ proxy, want string }{
		"a metadata address as proxy": {"http://169.254.169.254", "169.254.169.254 are refused"},
		"a proxy that is none":        {"gopher://x", `scheme "gopher" of the proxy is not supported`},
	} {
		t.Run(name, func(t *testing.T) {
			r := as("aws", "apps/all")
			r.Proxy = egress.Proxy{Address: test.proxy}
			_, err := w.Registry(t.Context(), r, awsRegistry)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// TestPrivateAddress has an API of GitHub at an address that the policy refuses.
func TestPrivateAddress(t *testing.T) {
	t.Parallel()
	for refused, want := range map[bool]string{true: "127.0.0.1 are refused", false: "it answers 400"} {
		w := newWorld(t, func(o *auth.Options) {
			o.Transport, o.Clock, o.Policy = nil, clock.RealClock{}, egress.Policy{NoPrivate: refused}
		})
		a := app(t, w)
		a.BaseURL = w.clouds.URL
		if _, err := w.GitHubApp(t.Context(), a); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("with the policy %t got %v, want %q", refused, err, want)
		}
	}
}

// TestMain takes from all tests what the machine says of its identity.
func TestMain(m *testing.M) {
	for _, pair := range os.Environ() {
		name, _, _ := strings.Cut(pair, "=")
		for _, prefix := range []string{"AWS_", "AZURE_", "GOOGLE_", "GCE_", "IDENTITY_", "MSI_", "GITHUB_"} {
			if strings.HasPrefix(name, prefix) {
				_ = os.Unsetenv(name)
			}
		}
	}
	os.Exit(m.Run())
}

// noEnvironment takes from a test what the machine says of its identity in files.
func noEnvironment(t *testing.T) {
	t.Helper()
	none := filepath.Join(t.TempDir(), "none")
	must(t, os.WriteFile(none, nil, 0o600))
	t.Setenv("AWS_CONFIG_FILE", none)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", none)
	t.Setenv("HOME", none)
}
