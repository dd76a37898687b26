package testenv

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// readyWithin is how long a control plane may take to be ready. Alone on two
// cores it takes two seconds; beside other tests it waits for its turn.
const readyWithin = 2 * time.Minute

// goneWithin is how long a control plane may take to end after a signal.
const goneWithin = time.Minute

// Cluster is a control plane that is ready.
type Cluster struct {
	// Kubeconfig is the path of a kubeconfig of an administrator.
	Kubeconfig string
	// REST is the client configuration in Kubeconfig, without a client-side
	// rate limit. It is shared: copy it (rest.CopyConfig) before changing it.
	REST *rest.Config
	// AuditLog is the path of the API server's audit log, one JSON object a
	// line. A request's entry is there when its answer is.
	AuditLog string

	dir  string
	cmd  *exec.Cmd
	gone chan struct{}
	once sync.Once
}

// shared is the control plane of this test binary. It is a variable of the
// package because TestMain and tests have no other way to hand something over.
var shared struct {
	sync.Mutex
	// main is set while Main runs, which will stop what was started.
	main    bool
	cluster *Cluster
	err     error
}

// Main runs the tests of m, which is a *testing.M or something around one, and
// then ends the control plane that Get gave them, if any. It returns the exit
// code for the process.
func Main(m interface{ Run() int }) int {
	shared.Lock()
	shared.main = true
	shared.Unlock()
	code := m.Run()
	shared.Lock()
	defer shared.Unlock()
	shared.main = false
	if c := shared.cluster; c != nil {
		shared.cluster = nil
		if err := c.stop(); err != nil {
			fmt.Fprintln(os.Stderr, "testenv:", err)
			return max(code, 1)
		}
	}
	return code
}

// Get returns the control plane that the tests of this binary share, and starts
// it for the first that asks. The binary's TestMain must go through Main.
func Get(t testing.TB) *Cluster {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if !shared.main {
		t.Fatal("the shared control plane needs `func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }` in this package")
	}
	if shared.cluster == nil && shared.err == nil {
		shared.cluster, shared.err = start()
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.cluster
}

// Start returns a control plane that t has to itself and that ends with t.
func Start(t testing.TB) *Cluster {
	t.Helper()
	c, err := start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// Stop ends a control plane before the test that has it to itself.
func (c *Cluster) Stop() error {
	var err error
	c.once.Do(func() { err = c.stop() })
	return err
}

// Namespace makes a namespace for t, named after it, and returns its name. It
// ends with the control plane, so that it can be looked at after a failure.
func (c *Cluster) Namespace(t testing.TB) string {
	t.Helper()
	client, err := clientcorev1.NewForConfig(c.REST)
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(t.Name()), "-")
	namespace, err := client.Namespaces().Create(t.Context(), &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: name[:min(len(name), 50)] + "-"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return namespace.Name
}

// Request is one entry of the audit log.
type Request struct {
	Stage      string `json:"stage"`
	Verb       string `json:"verb"`
	RequestURI string `json:"requestURI"`
	UserAgent  string `json:"userAgent"`
	User       struct {
		Username string `json:"username"`
	} `json:"user"`
	// ImpersonatedUser is the user that the request was made as, if it
	// impersonated one.
	ImpersonatedUser *struct {
		Username string `json:"username"`
	} `json:"impersonatedUser"`
	ObjectRef struct {
		APIGroup    string `json:"apiGroup"`
		Resource    string `json:"resource"`
		Subresource string `json:"subresource"`
		Namespace   string `json:"namespace"`
		Name        string `json:"name"`
	} `json:"objectRef"`
	ResponseStatus struct {
		Code int `json:"code"`
	} `json:"responseStatus"`
	Received time.Time `json:"requestReceivedTimestamp"`
}

// Requests returns what the audit log has so far, in its order, of clients whose
// user agent begins with userAgent. A watch has two entries: stage
// ResponseStarted when it begins, ResponseComplete when it ends; every other
// request has the latter only.
func (c *Cluster) Requests(t testing.TB, userAgent string) []Request {
	t.Helper()
	data, err := os.ReadFile(c.AuditLog)
	if err != nil {
		t.Fatal(err)
	}
	var requests []Request
	for line := range bytes.Lines(data) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // still being written
		}
		var r Request
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("audit log %q: %v", c.AuditLog, err)
		}
		if strings.HasPrefix(r.UserAgent, userAgent) {
			requests = append(requests, r)
		}
	}
	return requests
}

// start starts a control plane in a folder of its own and returns when it is
// ready.
func start() (*Cluster, error) {
	program, err := find("PLUMB_LOCALCLUSTER", "localcluster")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "plumb-testenv-")
	if err != nil {
		return nil, err
	}
	c := &Cluster{
		Kubeconfig: filepath.Join(dir, "kubeconfig"),
		AuditLog:   filepath.Join(dir, "audit.log"),
		dir:        dir,
		gone:       make(chan struct{}),
	}
	var stderr bytes.Buffer
	c.cmd = exec.Command(program, "--dir", filepath.Join(dir, "data"), "--kubeconfig", c.Kubeconfig,
		"--audit-log", c.AuditLog, "--parent", strconv.Itoa(os.Getpid()), "--remove", dir)
	c.cmd.Stderr = &stderr
	stdout, err := c.cmd.StdoutPipe()
	if err == nil {
		err = c.cmd.Start()
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	ready := make(chan struct{})
	go func() {
		lines := bufio.NewScanner(stdout)
		if lines.Scan() && strings.HasPrefix(lines.Text(), "ready") {
			close(ready)
		}
		io.Copy(io.Discard, stdout)
		c.cmd.Wait()
		close(c.gone)
	}()
	select {
	case <-ready:
	case <-c.gone:
		err = fmt.Errorf("%s ended before it was ready: %s", program, stderr.Bytes())
	case <-time.After(readyWithin):
		err = fmt.Errorf("%s was not ready after %v", program, readyWithin)
	}
	if err == nil {
		c.REST, err = clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	}
	if err != nil {
		return nil, errors.Join(err, c.stop())
	}
	c.REST.QPS = -1
	return c, nil
}

// stop ends the control plane and removes its folder.
func (c *Cluster) stop() error {
	c.cmd.Process.Signal(syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(context.Background(), goneWithin)
	defer cancel()
	var late error
	select {
	case <-c.gone:
	case <-ctx.Done():
		late = fmt.Errorf("%s was still there %v after SIGTERM", c.cmd.Path, goneWithin)
		c.cmd.Process.Kill()
		<-c.gone
	}
	return errors.Join(late, os.RemoveAll(c.dir))
}

// find returns the path of a program that `make build` makes: what the
// environment variable says, or else bin/name at the module's root.
func find(variable, name string) (string, error) {
	if path := os.Getenv(variable); path != "" {
		return path, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no go.mod above the working directory: set %s to the path of %s", variable, name)
		}
		dir = filepath.Dir(dir)
	}
	path := filepath.Join(dir, "bin", name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%s is missing: build it with `make build`, or set %s to its path", path, variable)
	}
	return path, nil
}
