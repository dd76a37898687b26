// Package install tests an installed operator: the manifests are applied to a real
// API server, and the operator runs as a process with the arguments of its Deployment
// and the token of its ServiceAccount, so with exactly the rights that were installed.
package install

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/plumb-gitops/plumb/internal/cli"
	"github.com/plumb-gitops/plumb/internal/testenv"
	"github.com/plumb-gitops/plumb/test/lab"
)

// patience is how long anything may take that should happen at once.
const patience = time.Minute

// childVariable holds a command line; a process that has it in its environment is
// that command.
const childVariable = "PLUMB_TEST_COMMAND"

// version is that of the program under test, in its user agent.
const version = "test"

func TestMain(m *testing.M) {
	text := os.Getenv(childVariable)
	if text == "" {
		log.SetLogger(logr.Discard())
		os.Exit(testenv.Main(m))
	}
	var args []string
	if err := json.Unmarshal([]byte(text), &args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	os.Exit(cli.Run(ctx, version, args, cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}

// world is a control plane with the operator installed, and a Git server.
type world struct {
	*testing.T
	cluster *testenv.Cluster
	client  kubernetes.Interface
	dynamic client.Client
	server  *testenv.GitServer
	repo    *testenv.GitRepository
}

// newWorld installs the operator by plumb install.
func newWorld(t *testing.T, install ...string) *world {
	t.Helper()
	w := emptyWorld(t)
	w.install(install...)
	return w
}

func (w *world) install(flags ...string) {
	w.Helper()
	w.plumb(append([]string{"install", "--image", "example.org/plumb:test"}, flags...)...)
}

// emptyWorld has no operator yet.
func emptyWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, cluster: testenv.Start(t)}
	var err error
	w.client, err = kubernetes.NewForConfig(w.cluster.REST)
	w.check(err)
	w.dynamic, err = client.New(w.cluster.REST, client.Options{})
	w.check(err)
	w.server = testenv.NewGitServer(t, testenv.GitServerOptions{})
	w.repo = w.server.Repository(t, "repo")
	return w
}

func (w *world) check(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// plumb runs a command as the cluster's administrator and gives what it says.
func (w *world) plumb(args ...string) (progress string) {
	w.Helper()
	_, progress = w.run(append(args, "--kubeconfig", w.cluster.Kubeconfig)...)
	return progress
}

// run runs a command and gives what it prints and what it says.
func (w *world) run(args ...string) (data, progress string) {
	w.Helper()
	var out, told bytes.Buffer
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	if code := cli.Run(ctx, version, args, cli.Streams{In: strings.NewReader(""), Out: &out, Err: &told}); code != cli.ExitDone {
		w.Fatalf("plumb %s gives %d: %s", strings.Join(args, " "), code, told.String())
	}
	return out.String(), told.String()
}

// installedKubeconfig is that of the operator's ServiceAccount.
func (w *world) installedKubeconfig() string {
	w.Helper()
	token, err := w.client.CoreV1().ServiceAccounts("flux-system").CreateToken(w.Context(), "plumb", &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To(int64(3600))},
	}, metav1.CreateOptions{})
	w.check(err)
	file, err := lab.WithToken(w.cluster.Kubeconfig, token.Status.Token, w.TempDir())
	w.check(err)
	return file
}

// installedCommand is the command line of the Deployment's container, as the kubelet
// would start it, but for where on this machine it keeps and serves things.
func (w *world) installedCommand() []string {
	w.Helper()
	d, err := w.client.AppsV1().Deployments("flux-system").Get(w.Context(), "plumb", metav1.GetOptions{})
	w.check(err)
	return commandOf(d)
}

func commandOf(d *appsv1.Deployment) []string {
	container := d.Spec.Template.Spec.Containers[0]
	command := append(container.Command[1:], container.Args...) // without the program
	for n := range command {
		command[n] = strings.ReplaceAll(command[n], "$(RUNTIME_NAMESPACE)", d.Namespace)
	}
	return command
}

// start runs the operator until the test ends, or stop is called, and returns once
// its probes say that it is ready.
func (w *world) start(kubeconfig string, command []string) (stop func()) {
	w.Helper()
	health := lab.FreeAddress(w.T)
	args, err := json.Marshal(append(command, "--kubeconfig="+kubeconfig, "--storage-path="+w.TempDir(),
		"--storage-addr=127.0.0.1:0", "--metrics-addr=127.0.0.1:0", "--health-addr="+health))
	w.check(err)
	program, err := os.Executable()
	w.check(err)
	var log bytes.Buffer
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), childVariable+"="+string(args), "RUNTIME_NAMESPACE=flux-system")
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = lab.DieWithParent()
	w.check(cmd.Start())
	gone := make(chan struct{})
	go func() {
		_ = cmd.Wait() // the test ends it
		close(gone)
	}()
	stop = func() {
		_ = cmd.Process.Kill() // it may be gone already
		<-gone
	}
	w.Cleanup(func() {
		stop()
		if w.Failed() {
			w.Logf("the operator's log:\n%s", log.Bytes())
		}
	})
	deadline := time.Now().Add(patience)
	for _, path := range []string{"/readyz", "/healthz"} {
		for !answers("http://" + health + path) {
			select {
			case <-gone:
				w.Fatal("the operator has ended")
			case <-time.After(50 * time.Millisecond):
			}
			if time.Now().After(deadline) {
				w.Fatalf("%s is not OK", path)
			}
		}
	}
	return stop
}

func answers(url string) bool {
	response, err := http.Get(url)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// await waits, by kubectl, until an object is as it should be.
func (w *world) await(what, condition string) {
	w.Helper()
	w.cluster.Kubectl(w, append([]string{"wait", "--for=" + condition, fmt.Sprintf("--timeout=%s", patience)}, strings.Fields(what)...)...)
}

// manifests are what the tests apply from Git, with "%s" for the namespace.
const manifests = `apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: %[1]s}
data: {colour: green}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: %[1]s}
rules: [{apiGroups: [""], resources: [configmaps], verbs: [get]}]
`

// appsFrom declares the source in a namespace, and a Kustomization of one of its
// folders.
func (w *world) appsFrom(namespace, path string) {
	w.Helper()
	w.cluster.Apply(w, fmt.Sprintf(`
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: repo, namespace: %[1]s}
spec: {url: %[2]q, interval: 1h, ref: {branch: main}}
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: apps, namespace: %[1]s}
spec: {interval: 1h, retryInterval: 2s, prune: true, wait: true, timeout: 1m, path: %[3]q, sourceRef: {kind: GitRepository, name: repo}}
`, namespace, w.server.URL("repo"), path))
}

// refused are the requests of the operator that the API server did not allow.
func (w *world) refused() (lines []string) {
	w.Helper()
	for _, r := range w.requests() {
		if r.ResponseStatus.Code == http.StatusForbidden || r.ResponseStatus.Code == http.StatusUnauthorized {
			lines = append(lines, fmt.Sprintf("%s %s: %d", r.Verb, r.RequestURI, r.ResponseStatus.Code))
		}
	}
	return lines
}

// requests are those of the operator's process.
func (w *world) requests() []testenv.Request {
	w.Helper()
	return w.cluster.Requests(w, "plumb/"+version+" (")
}
