// Package lab runs the whole operator as a process of its own against a real API
// server and a real Git server, so that tests can kill it, start it again, and
// put faults between it and the API server.
//
// The process is the test's own binary, which [Main] turns into the operator
// where the environment says so. It serves one namespace only: tests of one
// binary share a control plane and do not see each other's operators.
package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"github.com/go-logr/logr"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/plumb-gitops/plumb/internal/cluster"
	"github.com/plumb-gitops/plumb/internal/config"
	"github.com/plumb-gitops/plumb/internal/install"
	"github.com/plumb-gitops/plumb/internal/server"
	"github.com/plumb-gitops/plumb/internal/telemetry"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// Patience is how long anything may take that should happen at once: many tests
// share the machine.
const Patience = time.Minute

// childVariable holds what the operator is started with; a process that has it
// in its environment is the operator.
const childVariable = "PLUMB_TEST_OPERATOR"

// child is what an operator is started with.
type child struct {
	Kubeconfig, Namespace, Storage, Address, Agent string
}

// Main runs the tests of a binary, or the operator where this process was
// started as one. It returns the exit code.
func Main(m *testing.M) int {
	text := os.Getenv(childVariable)
	if text == "" {
		log.SetLogger(logr.Discard()) // that of the tests' own clients
		return testenv.Main(m)
	}
	var c child
	err := json.Unmarshal([]byte(text), &c)
	if err == nil {
		err = c.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// run is the operator's process.
func (c child) run() error {
	cfg, err := config.Default()
	if err != nil {
		return err
	}
	cfg.RuntimeNamespace, cfg.WatchAllNamespaces = c.Namespace, false
	cfg.Storage.Path, cfg.Storage.Address = c.Storage, c.Address
	cfg.MetricsAddress, cfg.HealthAddress = "", ""
	cfg.MaxRetryDelay = 3 * time.Second
	rc, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	if err != nil {
		return err
	}
	logger, err := telemetry.NewLogger(os.Stderr, telemetry.LogOptions{Level: "info"})
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	telemetry.SetLibraries(logger)
	return server.Run(ctx, rc, cfg, server.Options{Version: c.Agent, Log: logger})
}

// Lab is what one test has to itself: a namespace, a Git server with one
// repository, an operator and a proxy in front of it, and a client of its own.
type Lab struct {
	*testing.T
	Cluster   *testenv.Cluster
	Proxy     *testenv.Proxy
	Namespace string
	Client    client.WithWatch
	Server    *testenv.GitServer
	Repo      *testenv.GitRepository

	agent string
	data  string
	// kubeconfig leads through the proxy, as the account of an installation.
	kubeconfig string
	address    string
	requests   *atomic.Int64
	process    *process
}

// process is the operator.
type process struct {
	mu   sync.Mutex // guards cmd and gone
	cmd  *exec.Cmd
	gone chan struct{}
	// log may be read once the operator is gone.
	log bytes.Buffer
}

// On is the same lab for a subtest.
func (l *Lab) On(t *testing.T) *Lab {
	copied := *l
	copied.T = t
	return &copied
}

// New prepares a lab; the operator does not run yet. When the test fails, what
// the operator logged is printed.
func New(t *testing.T) *Lab {
	t.Helper()
	l := &Lab{T: t, Cluster: testenv.Get(t), requests: &atomic.Int64{}, process: &process{}}
	l.Namespace = l.Cluster.Namespace(t)
	l.Proxy = testenv.NewProxy(t, l.Cluster)
	l.agent = l.Namespace
	l.data, l.address = t.TempDir(), FreeAddress(t)
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, kustomizev1.AddToScheme, sourcev1.AddToScheme, apiextensionsv1.AddToScheme,
	} {
		l.Check(add(scheme))
	}
	l.Check(prepare(l.Cluster))
	var err error
	l.kubeconfig, err = WithToken(l.Proxy.Kubeconfig, prepared.account.BearerToken, t.TempDir())
	l.Check(err)
	l.Client, err = client.NewWithWatch(l.Cluster.REST, client.Options{Scheme: scheme})
	l.Check(err)
	l.Server = testenv.NewGitServer(t, testenv.GitServerOptions{})
	l.Repo = l.Server.Repository(t, "repo")
	t.Cleanup(func() {
		l.Kill()
		if t.Failed() {
			t.Logf("the operator's log:\n%s", l.process.log.Bytes())
		}
	})
	return l
}

// prepared is done once for the control plane that the tests of a binary share.
var prepared struct {
	sync.Once
	account *rest.Config
	err     error
}

// prepare installs the definitions of the operator's kinds, and the account that it runs as.
func prepare(c *testenv.Cluster) error {
	prepared.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), Patience)
		defer cancel()
		var connection *cluster.Connection
		connection, prepared.err = cluster.Connect(c.REST, cluster.Options{Version: "test", Part: "install", QPS: -1, Clock: clock.RealClock{}})
		if prepared.err == nil {
			prepared.err = server.InstallCRDs(ctx, connection.Own())
		}
		if prepared.err == nil {
			prepared.account, prepared.err = Account(ctx, c.REST, install.Single, "flux-system")
		}
	})
	return prepared.err
}

// WithToken gives the path of a kubeconfig, in a folder, that is another one but for the
// token, which takes the place of every credential in it.
func WithToken(kubeconfig, token, folder string) (string, error) {
	config, err := clientcmd.LoadFromFile(kubeconfig)
	if err != nil {
		return "", err
	}
	for name := range config.AuthInfos {
		config.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: token}
	}
	path := filepath.Join(folder, "kubeconfig")
	return path, clientcmd.WriteToFile(*config, path)
}

// FreeAddress is an address of this machine that nobody listens on. An operator
// that is started again has to be found where it was.
func FreeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// Check ends the test where err is not nil.
func (l *Lab) Check(err error) {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
}

// Start starts the operator.
func (l *Lab) Start() {
	l.Helper()
	text, err := json.Marshal(child{
		Kubeconfig: l.kubeconfig, Namespace: l.Namespace, Storage: l.data, Address: l.address, Agent: l.agent,
	})
	l.Check(err)
	program, err := os.Executable()
	l.Check(err)
	p := l.process
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd, p.gone = exec.Command(program), make(chan struct{})
	p.cmd.Env = append(os.Environ(), childVariable+"="+string(text))
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	// The operator does not outlive a test binary that is killed.
	p.cmd.SysProcAttr = dieWithParent()
	l.Check(p.cmd.Start())
	go func(cmd *exec.Cmd, gone chan struct{}) {
		_ = cmd.Wait() // it was killed
		close(gone)
	}(p.cmd, p.gone)
}

// Kill ends the operator by SIGKILL and returns once it is gone. It may be
// called from anywhere, and more than once.
func (l *Lab) Kill() {
	p := l.process
	p.mu.Lock()
	cmd, gone := p.cmd, p.gone
	p.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Kill() // it may be gone already
	<-gone
}

// LoseData removes the operator's data folder.
func (l *Lab) LoseData() {
	l.Helper()
	entries, err := os.ReadDir(l.data)
	l.Check(err)
	for _, e := range entries {
		l.Check(os.RemoveAll(filepath.Join(l.data, e.Name())))
	}
}

// Writes are the writes of this lab's operator so far, without its leases,
// events and dry-runs.
func (l *Lab) Writes() []testenv.Request {
	l.Helper()
	var writes []testenv.Request
	for _, r := range l.Requests() {
		switch r.Verb {
		case "create", "update", "patch", "delete", "deletecollection":
			if r.ObjectRef.Resource != "events" && !strings.Contains(r.RequestURI, "dryRun=") {
				writes = append(writes, r)
			}
		}
	}
	return writes
}

// Requests are the requests of this lab's operator so far, without watches and
// leases.
func (l *Lab) Requests() []testenv.Request {
	l.Helper()
	var requests []testenv.Request
	for _, r := range l.Cluster.Requests(l, "plumb/"+l.agent+" ") {
		if r.Verb != "watch" && r.ObjectRef.Resource != "leases" {
			requests = append(requests, r)
		}
	}
	return requests
}
