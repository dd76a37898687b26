// Package operator_test runs the whole operator against a real API server and
// real Git servers: what people write into their repositories and custom
// resources, right and wrong, and what they then see in conditions, events and
// the cluster.
//
// One operator serves all tests of the binary; they keep apart by namespace and
// by Git server. A test that needs another configuration, or a restart, runs one of
// its own for what bears the label ownOperator. Intervals are an hour long, so that whatever happens in a test
// happens because something was noticed, not because a timer ran out.
package operator_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime/metrics"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/config"
	"github.com/plumb-gitops/plumb/internal/install"
	"github.com/plumb-gitops/plumb/internal/server"
	"github.com/plumb-gitops/plumb/internal/telemetry"
	"github.com/plumb-gitops/plumb/internal/testenv"
	"github.com/plumb-gitops/plumb/test/lab"
)

func TestMain(m *testing.M) {
	telemetry.SetLibraries(logr.Discard())
	os.Exit(testenv.Main(checked{m}))
}

// userAgent is how the operator's requests begin in the audit log.
const userAgent = "plumb/"

// operator is the one that all tests share: TestMain and tests have no other
// way to hand something over.
var operator struct {
	sync.Once
	err error
	// account is that of an installation for one team, with which operators run.
	account *rest.Config
	dir     string
	log     logBuffer
	cancel  context.CancelFunc
	ended   chan struct{}
	// runErr is what server.Run returned; it may be read once ended is closed.
	runErr error
}

// checked runs the tests and then looks whether the operator ran through them.
type checked struct{ m *testing.M }

// Run gives the exit code of the tests, 1 where the operator ended or panicked.
func (c checked) Run() int {
	code := c.m.Run()
	if operator.ended == nil {
		return code
	}
	select {
	case <-operator.ended:
		fmt.Fprintln(os.Stderr, "the operator ended during the tests:", operator.runErr)
		code = max(code, 1)
	default:
	}
	operator.cancel()
	<-operator.ended
	if operator.runErr != nil {
		fmt.Fprintln(os.Stderr, "the operator ended with:", operator.runErr)
		code = max(code, 1)
	}
	if panics := operator.log.lines("panic"); len(panics) > 0 {
		fmt.Fprintln(os.Stderr, "the operator panicked:", strings.Join(panics, "\n"))
		code = max(code, 1)
	}
	if err := os.RemoveAll(operator.dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	return code
}

// startOperator starts the operator for the first test that asks.
func startOperator(t *testing.T, cluster *testenv.Cluster) {
	t.Helper()
	operator.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if operator.account, operator.err = lab.Account(ctx, cluster.REST, install.Single, sharedNamespace); operator.err == nil {
			operator.err = launch(operator.account)
		}
	})
	if operator.err != nil {
		t.Fatal(operator.err)
	}
}

// sharedNamespace and sharedKeys are where the operator has the age identities for
// what names no Secret itself.
const (
	sharedNamespace = "flux-system"
	sharedKeys      = "sops-age"
)

func launch(rc *rest.Config) error {
	var err error
	if operator.dir, err = os.MkdirTemp("", "plumb-operator-"); err != nil {
		return err
	}
	cfg, err := configured(operator.dir, "!"+ownOperator)
	if err != nil {
		return err
	}
	cfg.InstallCRDs = true
	cfg.RuntimeNamespace, cfg.AgeSecret = sharedNamespace, sharedKeys
	log, err := telemetry.NewLogger(&operator.log, telemetry.LogOptions{Level: "info"})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	operator.cancel, operator.ended = cancel, make(chan struct{})
	go func() {
		defer close(operator.ended)
		operator.runErr = server.Run(ctx, rc, cfg, server.Options{Version: "test", Log: log, Registry: prometheus.NewRegistry()})
	}()
	// It sets the logger of client-go, which tests must not use before.
	select {
	case <-operator.log.begun():
		return nil
	case <-operator.ended:
		return fmt.Errorf("the operator ended: %w", operator.runErr)
	}
}

// configured is the configuration of an operator that serves what a selector selects.
func configured(dir, selector string) (config.Operator, error) {
	cfg, err := config.Default()
	if err != nil {
		return cfg, err
	}
	cfg.Storage.Path = dir
	cfg.Storage.Address = "127.0.0.1:0"
	cfg.MetricsAddress, cfg.HealthAddress = "", ""
	cfg.Concurrent = 8
	// An hour: whoever waits for something has to notice it.
	cfg.RequeueDependency = time.Hour
	cfg.MaxRetryDelay = 3 * time.Second
	cfg.WatchSelector, err = labels.Parse(selector)
	return cfg, err
}

// ownOperator is the label of what the operator that all tests share does not serve.
// Its value is the namespace of the test whose operator does.
const ownOperator = "own-operator"

// runOwn runs an operator for what bears the label ownOperator with the namespace of
// the test, until the returned function is called or the test ends.
func (w *world) runOwn(dir string, change func(*config.Operator)) (stop func()) {
	w.t.Helper()
	cfg, err := configured(dir, ownOperator+"="+w.namespace)
	w.check(err)
	change(&cfg)
	log, err := telemetry.NewLogger(&operator.log, telemetry.LogOptions{Level: "info"})
	w.check(err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- server.Run(ctx, w.account(), cfg, server.Options{Version: "test", Log: log, Registry: prometheus.NewRegistry(), Clouds: w.clouds})
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("the test's own operator ended with: %v", err)
		}
	})
	w.t.Cleanup(stop)
	return stop
}

// account is that with which the test's own operator runs: an installed one's.
func (w *world) account() *rest.Config {
	w.t.Helper()
	profile, namespace := install.Single, sharedNamespace
	switch {
	case w.through != nil:
		account, err := clientcmd.BuildConfigFromFlags("", w.through.Kubeconfig)
		w.check(err)
		return account
	case w.tenants:
		profile, namespace = install.Tenants, "plumb-tenants"
	case w.cluster.REST.Host == operator.account.Host:
		return operator.account
	}
	account, err := lab.Account(w.context(), w.cluster.REST, profile, namespace)
	w.check(err)
	return account
}

// owned gives an object to the test's own operator.
func (w *world) owned(obj client.Object) { obj.SetLabels(map[string]string{ownOperator: w.namespace}) }

// logBuffer keeps what the operator logs.
type logBuffer struct {
	mu    sync.Mutex
	data  bytes.Buffer
	first chan struct{}
}

// begun is closed when something was logged. It is called once.
func (b *logBuffer) begun() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.first = make(chan struct{})
	if b.data.Len() > 0 {
		close(b.first)
	}
	return b.first
}

// Write adds lines.
func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.first != nil && b.data.Len() == 0 {
		close(b.first)
	}
	return b.data.Write(p)
}

// lines are those that hold a text.
func (b *logBuffer) lines(text string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []string
	for line := range strings.Lines(b.data.String()) {
		if strings.Contains(line, text) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// heap samples the memory that the process holds in objects until the test
// ends. The returned function gives the most that was seen, in bytes.
func heap(t *testing.T) func() uint64 {
	t.Helper()
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	var mu sync.Mutex
	var most uint64
	look := func() uint64 {
		mu.Lock()
		defer mu.Unlock()
		metrics.Read(sample)
		most = max(most, sample[0].Value.Uint64())
		return most
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		ticker := time.NewTicker(5 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				look()
			}
		}
	})
	t.Cleanup(func() { cancel(); done.Wait() })
	return look
}
