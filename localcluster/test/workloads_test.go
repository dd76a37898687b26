package test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// workloads has one of each kind that a simulated node must carry.
const workloads = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      initContainers:
      - {name: prepare, image: example.invalid/prepare}
      - {name: sidecar, image: example.invalid/sidecar, restartPolicy: Always}
      containers:
      - name: web
        image: example.invalid/web
        readinessProbe: {httpGet: {path: /, port: 80}}
      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
          - {labelSelector: {matchLabels: {app: web}}, topologyKey: kubernetes.io/hostname}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 2
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: db, image: example.invalid/db}]}
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec: {hostNetwork: true, containers: [{name: agent, image: example.invalid/agent}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec:
  completions: 2
  template:
    spec: {restartPolicy: Never, containers: [{name: once, image: example.invalid/once}]}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: now}
spec: {storageClassName: immediate, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
`

// TestControlPlane looks at one control plane from all sides that do not end it.
func TestControlPlane(t *testing.T) {
	t.Parallel()
	p := start(t, t.TempDir())
	t.Logf("%s", p.line[0])
	t.Run("workloads become ready at once after the start", p.testWorkloads)
	t.Run("the parallel rest", func(t *testing.T) {
		for name, test := range map[string]func(*testing.T){
			"kubectl understands the version":                   p.testVersion,
			"the kubeconfig is readable by its owner only":      p.testKubeconfig,
			"a service account may do what RBAC says":           p.testRBAC,
			"every audit entry is of level Metadata":            p.testAudit,
			"it listens on the loopback interface only":         p.testListeners,
			"nobody else can reach its secrets or its store":    p.testPermissions,
			"a second one in the same folder is refused":        p.testLock,
			"a deleted namespace goes, with what was in it":     p.testNamespace,
			"a pod without resources for it is left unassigned": p.testUnschedulable,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t)
			})
		}
	})
}

func (p *program) testWorkloads(t *testing.T) {
	p.kubectl(t, workloads, "apply", "-f", "-")
	for _, name := range []string{"deployment/web", "statefulset/db", "daemonset/agent"} {
		p.kubectl(t, "", "rollout", "status", name, "--timeout=60s")
	}
	p.kubectl(t, "", "wait", "--for=condition=Available", "deployment/web", "--timeout=60s")
	p.kubectl(t, "", "wait", "--for=condition=Complete", "job/once", "--timeout=60s")
	p.kubectl(t, "", "wait", "--for=jsonpath={.status.phase}=Bound", "pvc/now", "pvc/data-db-0", "pvc/data-db-1", "--timeout=60s")
	p.kubectl(t, "", "wait", "--for=jsonpath={.endpoints[2].conditions.ready}=true", "endpointslice",
		"--selector=kubernetes.io/service-name=web", "--timeout=60s")
	p.kubectl(t, "", "delete", "pod", "--selector=app=web", "--wait", "--timeout=60s")
	p.kubectl(t, "", "rollout", "status", "deployment/web", "--timeout=60s")
	p.kubectl(t, "", "scale", "deployment/web", "--replicas=0")
	p.kubectl(t, "", "wait", "--for=delete", "pod", "--selector=app=web", "--timeout=60s")
}

func (p *program) testVersion(t *testing.T) {
	var v struct {
		ServerVersion struct{ Major, Minor, GitVersion string }
	}
	if err := json.Unmarshal([]byte(p.kubectl(t, "", "version", "-o", "json")), &v); err != nil {
		t.Fatal(err)
	}
	s := v.ServerVersion
	if s.GitVersion != p.line[2] || !strings.HasPrefix(s.GitVersion, "v"+s.Major+"."+s.Minor+".") {
		t.Errorf("kubectl says %+v, localcluster said %s", s, p.line[2])
	}
	if !strings.HasPrefix(s.GitVersion, "v1.") {
		t.Errorf("the server's version is %q", s.GitVersion)
	}
}

func (p *program) testKubeconfig(t *testing.T) {
	info, err := os.Stat(p.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %v", info.Mode())
	}
	cfg := p.rest(t)
	if cfg.BearerToken == "" || len(cfg.CAData) == 0 || cfg.Insecure {
		t.Error("the kubeconfig lacks a bearer token or the authority")
	}
}

func (p *program) testRBAC(t *testing.T) {
	admin, err := kubernetes.NewForConfig(p.rest(t))
	if err != nil {
		t.Fatal(err)
	}
	const namespace, account = "default", "reader"
	p.kubectl(t, "", "create", "serviceaccount", account, "-n", namespace)
	token, err := admin.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), account,
		&authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cfg := rest.AnonymousClientConfig(p.rest(t))
	anonymous, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	cfg.BearerToken = token.Status.Token
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	list := func(client kubernetes.Interface, namespace string) error {
		_, err := client.CoreV1().Secrets(namespace).List(t.Context(), metav1.ListOptions{})
		return err
	}
	if err := list(anonymous, namespace); !apierrors.IsForbidden(err) {
		t.Errorf("list without a token: %v, want forbidden", err)
	}
	if err := list(client, namespace); !apierrors.IsForbidden(err) {
		t.Errorf("list before the binding: %v, want forbidden", err)
	}
	p.kubectl(t, "", "create", "role", account, "--verb=list", "--resource=secrets", "-n", namespace)
	p.kubectl(t, "", "create", "rolebinding", account, "--role="+account, "--serviceaccount="+namespace+":"+account, "-n", namespace)
	eventually(t, func() error { return list(client, namespace) })
	if err := list(client, "kube-system"); !apierrors.IsForbidden(err) {
		t.Errorf("list in another namespace: %v, want forbidden", err)
	}
	cfg.BearerToken = "wrong"
	if client, err = kubernetes.NewForConfig(cfg); err != nil {
		t.Fatal(err)
	}
	if err := list(client, namespace); !apierrors.IsUnauthorized(err) {
		t.Errorf("list with a wrong token: %v, want unauthorized", err)
	}
}

func (p *program) testAudit(t *testing.T) {
	p.kubectl(t, "", "create", "configmap", "audited", "--from-literal=secret=value")
	file, err := os.Open(p.auditLog)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	found := 0
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e struct {
			Level, Stage, Verb, UserAgent string
			RequestObject, ResponseObject any
			User                          struct{ Username string }
			ObjectRef                     struct{ Resource, Name string }
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			break // the last line, still being written
		}
		if e.Level != "Metadata" || e.Stage == "RequestReceived" || e.RequestObject != nil || e.ResponseObject != nil {
			t.Fatalf("unexpected entry: %s", lines.Text())
		}
		if e.Verb == "create" && e.ObjectRef.Resource == "configmaps" && e.ObjectRef.Name == "audited" &&
			e.User.Username == "admin" && strings.HasPrefix(e.UserAgent, "kubectl/") {
			found++
		}
	}
	if found != 1 {
		t.Errorf("%d entries of the creation of a ConfigMap, want 1", found)
	}
}

func (p *program) testPermissions(t *testing.T) {
	for _, folder := range []string{"credentials", "etcd", "sockets"} {
		info, err := os.Stat(filepath.Join(p.dir, "data", folder))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o700 {
			t.Errorf("%s is open to others: %v", folder, info.Mode())
		}
	}
}

// testListeners reads which sockets the process listens on.
func (p *program) testListeners(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("reads /proc, which is Linux's")
	}
	pid := p.cmd.Process.Pid
	own := map[string]bool{}
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil {
			own[target] = true
		}
	}
	listening := 0
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			f := strings.Fields(line)
			listens := len(f) > 9 && (f[3] == "0A" || strings.HasPrefix(table, "udp") && f[3] == "07")
			if !listens || !own["socket:["+f[9]+"]"] {
				continue
			}
			listening++
			if !strings.HasPrefix(f[1], "0100007F:") {
				t.Errorf("listens on %s %s", table, f[1])
			}
		}
	}
	if listening != 1 {
		t.Errorf("listens on %d ports, want the API server's only", listening)
	}
	if _, err := net.Dial("tcp", strings.TrimPrefix(p.line[3], "https://")); err != nil {
		t.Error(err)
	}
}

func (p *program) testNamespace(t *testing.T) {
	p.kubectl(t, "", "create", "namespace", "short")
	p.kubectl(t, "", "create", "deployment", "web", "--image=example.invalid/web", "-n", "short")
	p.kubectl(t, "", "delete", "namespace", "short", "--timeout=60s")
}

func (p *program) testUnschedulable(t *testing.T) {
	p.kubectl(t, `{apiVersion: v1, kind: Pod, metadata: {name: huge}, spec: {containers:
		[{name: c, image: example.invalid/c, resources: {requests: {memory: 100Ti}}}]}}`, "apply", "-f", "-")
	p.kubectl(t, "", "wait", "--for=condition=PodScheduled=false", "pod/huge", "--timeout=60s")
}

// eventually calls f until it succeeds.
func eventually(t *testing.T, f func() error) {
	t.Helper()
	deadline := time.After(patience)
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatal(err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
