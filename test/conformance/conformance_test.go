package conformance

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rogpeppe/go-internal/txtar"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/plumb-gitops/plumb/internal/build/sops/sopstest"
	"github.com/plumb-gitops/plumb/internal/config"
	"github.com/plumb-gitops/plumb/internal/install"
	"github.com/plumb-gitops/plumb/internal/server"
	"github.com/plumb-gitops/plumb/internal/telemetry"
	"github.com/plumb-gitops/plumb/internal/testenv"
	"github.com/plumb-gitops/plumb/test/lab"
)

func TestMain(m *testing.M) {
	telemetry.SetLibraries(logr.Discard())
	code := testenv.Main(m)
	if operator.stop != nil {
		operator.stop()
	}
	os.Exit(code)
}

// patience is how long anything may take that should happen at once.
const patience = time.Minute

// operator is the one that all scripts share: TestMain and tests have no other way to
// hand something over.
var operator struct {
	sync.Once
	stop func()
	err  error
}

// start runs the operator for the first script that asks.
func start(t *testing.T, cluster *testenv.Cluster) {
	t.Helper()
	operator.Do(func() {
		cfg, err := config.Default()
		if err != nil {
			operator.err = err
			return
		}
		dir, err := os.MkdirTemp("", "plumb-conformance-")
		if err != nil {
			operator.err = err
			return
		}
		cfg.InstallCRDs, cfg.Storage.Path, cfg.Storage.Address = true, dir, "127.0.0.1:0"
		cfg.MetricsAddress, cfg.HealthAddress, cfg.Concurrent = "", "", 8
		ctx, cancel := context.WithCancel(context.Background())
		account, err := lab.Account(ctx, cluster.REST, install.Single, "flux-system")
		if err != nil {
			cancel()
			operator.err = err
			return
		}
		ended := make(chan error, 1)
		go func() {
			ended <- server.Run(ctx, account, cfg, server.Options{Version: "test", Log: logr.Discard(), Registry: prometheus.NewRegistry()})
		}()
		operator.stop = func() {
			cancel()
			if err := <-ended; err != nil {
				fmt.Fprintln(os.Stderr, "the operator ended with:", err)
			}
			_ = os.RemoveAll(dir)
		}
	})
	if operator.err != nil {
		t.Fatal(operator.err)
	}
}

// script is one that runs.
type script struct {
	*testing.T
	cluster   *testenv.Cluster
	client    client.Client
	repo      *testenv.GitRepository
	namespace string
	revision  string
	// kubeconfig is that of the cluster, in base64.
	kubeconfig string
	// seal encrypts files whose names end in .sops.yaml.
	seal func(plain string) string
	// kustomizations are those that were created. The uids are those of wants, and seen
	// those of the step that is under way.
	kustomizations map[client.ObjectKey]bool
	uids, seen     map[string]types.UID
	requests       int
}

func TestScripts(t *testing.T) {
	t.Parallel()
	for name, archive := range scripts(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			newScript(t).run(archive)
		})
	}
}

func newScript(t *testing.T) *script {
	t.Helper()
	cluster := testenv.Get(t)
	start(t, cluster)
	s := &script{T: t, cluster: cluster, namespace: cluster.Namespace(t), kustomizations: map[client.ObjectKey]bool{}, uids: map[string]types.UID{}, seen: map[string]types.UID{}}
	kubeconfig, err := os.ReadFile(cluster.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	s.kubeconfig = base64.StdEncoding.EncodeToString(kubeconfig)
	if s.client, err = client.New(cluster.REST, client.Options{}); err != nil {
		t.Fatal(err)
	}
	git := testenv.NewGitServer(t, testenv.GitServerOptions{})
	s.repo = git.Repository(t, "repo")
	identity, recipient := sopstest.Age(t)
	s.seal = func(plain string) string {
		return sopstest.Encryption{For: []sopstest.Recipient{recipient}, Only: "^(data|stringData)$"}.Encrypt(t, "a.yaml", plain)
	}
	s.eventually("the definitions", func() string {
		err := s.apply("test", object("v1", "Secret", s.namespace, "age", map[string]any{"stringData": map[string]any{"a.agekey": identity}}))
		if err == nil {
			err = s.apply("test", object("source.toolkit.fluxcd.io/v1", "GitRepository", s.namespace, "repo", map[string]any{
				"spec": map[string]any{"url": git.URL("repo"), "interval": "1h", "ref": map[string]any{"branch": "main"}}}))
		}
		if err != nil {
			return err.Error()
		}
		return ""
	})
	return s
}

func object(apiVersion, kind, namespace, name string, rest map[string]any) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: maps.Clone(rest)}
	o.SetAPIVersion(apiVersion)
	o.SetKind(kind)
	o.SetNamespace(namespace)
	o.SetName(name)
	return o
}

// run does the steps in order.
func (s *script) run(archive *txtar.Archive) {
	steps := stepsOf(s.T, archive)
	for n := 1; n <= len(steps); n++ {
		if steps[n] == nil {
			s.Fatalf("there is no step %d", n)
		}
		s.step(n, steps[n])
	}
	s.reconcile(slices.Collect(maps.Keys(s.kustomizations)))
	s.wants(len(steps), steps[len(steps)])
}

// step is the files of a step by their names.
type step map[string]string

func stepsOf(t *testing.T, archive *txtar.Archive) map[int]step {
	t.Helper()
	steps := map[int]step{}
	for _, f := range archive.Files {
		var n int
		var name string
		if _, err := fmt.Sscanf(strings.Replace(f.Name, "/", " ", 1), "%d %s", &n, &name); err != nil {
			t.Fatalf("file %q belongs to no step: it has to begin with 1/, 2/ and so on", f.Name)
		}
		known := strings.HasPrefix(name, "repo/") ||
			slices.Contains([]string{"objects.yaml", "kubectl.yaml", "delete.yaml", "kustomization.yaml", "want.yaml", "same.yaml", "absent.yaml", "reconcile"}, name)
		if !known {
			t.Fatalf("file %q is none that a step has", f.Name)
		}
		if steps[n] == nil {
			steps[n] = step{}
		}
		steps[n][name] = string(f.Data)
	}
	return steps
}

func (s *script) step(n int, files step) {
	s.Helper()
	for _, o := range s.objects(n, files["objects.yaml"]) {
		s.check(s.apply("test", o))
	}
	for _, o := range s.objects(n, files["kubectl.yaml"]) {
		s.check(s.apply("kubectl", o))
	}
	s.commit(n, files)
	for _, o := range s.objects(n, files["delete.yaml"]) {
		s.check(s.client.Delete(s.Context(), o))
	}
	for _, o := range s.objects(n, files["kustomization.yaml"]) {
		s.kustomization(o)
	}
	if _, given := files["kustomization.yaml"]; n == 1 && !given {
		s.kustomization(&unstructured.Unstructured{Object: map[string]any{}})
	}
	var asked []client.ObjectKey
	for _, name := range strings.Fields(files["reconcile"]) {
		asked = append(asked, client.ObjectKey{Namespace: s.namespace, Name: name})
	}
	s.reconcile(asked)
	s.wants(n, files)
}

// commit makes the commit of a step, and has it fetched.
func (s *script) commit(n int, files step) {
	s.Helper()
	change := testenv.Files{}
	for name, content := range files {
		path, ok := strings.CutPrefix(name, "repo/")
		switch {
		case !ok:
		case content == "":
			change[path] = testenv.Delete
		case strings.HasSuffix(path, ".sops.yaml"):
			change[strings.TrimSuffix(path, ".sops.yaml")+".yaml"] = s.seal(s.filled(content))
		default:
			change[path] = s.filled(content)
		}
	}
	if len(change) == 0 {
		if n == 1 {
			s.Fatal("the first step has no file of the repository")
		}
		return
	}
	s.revision = "main@sha1:" + s.repo.Commit(s, "main", change)
	s.requests++
	s.patch(object("source.toolkit.fluxcd.io/v1", "GitRepository", s.namespace, "repo", nil),
		map[string]any{"metadata": map[string]any{"annotations": map[string]any{meta.ReconcileRequestAnnotation: fmt.Sprint(s.requests)}}})
}

// kustomization creates one with what every one has, or changes the one that is there.
func (s *script) kustomization(o *unstructured.Unstructured) {
	s.Helper()
	key := client.ObjectKey{Namespace: cmp.Or(o.GetNamespace(), s.namespace), Name: cmp.Or(o.GetName(), "app")}
	if s.kustomizations[key] {
		s.patch(object("kustomize.toolkit.fluxcd.io/v1", "Kustomization", key.Namespace, key.Name, nil), o.Object)
		return
	}
	s.kustomizations[key] = true
	whole := map[string]any{"spec": map[string]any{
		"interval": "1h", "retryInterval": "1s", "path": "./app", "prune": true, "targetNamespace": s.namespace,
		"sourceRef": map[string]any{"kind": "GitRepository", "name": "repo"},
	}}
	merge(whole, o.Object)
	made := &unstructured.Unstructured{Object: whole}
	made.SetAPIVersion("kustomize.toolkit.fluxcd.io/v1")
	made.SetKind("Kustomization")
	made.SetNamespace(key.Namespace)
	made.SetName(key.Name)
	s.check(s.client.Create(s.Context(), made))
}

// merge is a JSON merge patch.
func merge(into, from map[string]any) {
	for key, value := range from {
		below, isMap := value.(map[string]any)
		there, wasMap := into[key].(map[string]any)
		switch {
		case value == nil:
			delete(into, key)
		case isMap && wasMap:
			merge(there, below)
		default:
			into[key] = value
		}
	}
}

// reconcile asks Kustomizations to reconcile, and waits until they have.
func (s *script) reconcile(keys []client.ObjectKey) {
	s.Helper()
	for _, key := range keys {
		ks := object("kustomize.toolkit.fluxcd.io/v1", "Kustomization", key.Namespace, key.Name, nil)
		if err := s.client.Get(s.Context(), key, ks); apierrors.IsNotFound(err) {
			continue
		} else if suspended, _, _ := unstructured.NestedBool(ks.Object, "spec", "suspend"); suspended || ks.GetDeletionTimestamp() != nil {
			continue
		}
		s.requests++
		value := fmt.Sprint("request ", s.requests)
		s.patch(ks, map[string]any{"metadata": map[string]any{"annotations": map[string]any{meta.ReconcileRequestAnnotation: value}}})
		s.eventually("Kustomization "+key.String()+" to reconcile", func() string {
			if err := s.client.Get(s.Context(), key, ks); err != nil {
				return err.Error()
			}
			got, _, _ := unstructured.NestedString(ks.Object, "status", "lastHandledReconcileAt")
			if got != value {
				return fmt.Sprintf("it has handled %q, and is\n%s", got, text(ks.Object))
			}
			return ""
		})
	}
}

// wants waits for what a step wants.
func (s *script) wants(n int, files step) {
	s.Helper()
	for _, want := range s.objects(n, files["want.yaml"]) {
		s.eventually("step "+fmt.Sprint(n)+" wants "+nameOf(want), func() string {
			if want.GetName() == "" {
				return s.noneIs(want)
			}
			got, err := s.get(want)
			if err != nil {
				return err.Error()
			}
			if why := lacks(want.Object, got.Object, ""); why != "" {
				return why + "\nit is\n" + text(got.Object)
			}
			s.seen[nameOf(want)] = got.GetUID()
			return ""
		})
	}
	for _, want := range s.objects(n, files["same.yaml"]) {
		got, err := s.get(want)
		s.check(err)
		if got.GetUID() != s.uids[nameOf(want)] || got.GetDeletionTimestamp() != nil {
			s.Errorf("step %d: %s is another one, or is being deleted", n, nameOf(want))
		}
	}
	for _, gone := range s.objects(n, files["absent.yaml"]) {
		s.eventually("step "+fmt.Sprint(n)+" wants the end of "+nameOf(gone), func() string {
			got, err := s.get(gone)
			switch {
			case apierrors.IsNotFound(err):
				return ""
			case err != nil:
				return err.Error()
			}
			return "it is\n" + text(got.Object)
		})
	}
	maps.Copy(s.uids, s.seen)
}

// noneIs says that no object is as a want without a name; "" where one is.
func (s *script) noneIs(want *unstructured.Unstructured) string {
	list := &unstructured.UnstructuredList{}
	list.SetAPIVersion(want.GetAPIVersion())
	list.SetKind(want.GetKind() + "List")
	if err := s.client.List(s.Context(), list, client.InNamespace(want.GetNamespace())); err != nil {
		return err.Error()
	}
	var all strings.Builder
	for _, got := range list.Items {
		why := lacks(want.Object, got.Object, "")
		if why == "" {
			return ""
		}
		fmt.Fprintf(&all, "%s: %s\n", nameOf(&got), why)
	}
	return "none is as it should be\n" + all.String()
}

func (s *script) get(o *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	got := object(o.GetAPIVersion(), o.GetKind(), "", "", nil)
	return got, s.client.Get(s.Context(), client.ObjectKeyFromObject(o), got)
}

func (s *script) apply(manager string, o *unstructured.Unstructured) error {
	return s.client.Apply(s.Context(), client.ApplyConfigurationFromUnstructured(o), client.FieldOwner(manager), client.ForceOwnership)
}

func (s *script) patch(o *unstructured.Unstructured, change map[string]any) {
	s.Helper()
	body, err := yaml.Marshal(change)
	s.check(err)
	body, err = yaml.YAMLToJSON(body)
	s.check(err)
	s.check(s.client.Patch(s.Context(), o, client.RawPatch(types.MergePatchType, body), client.FieldOwner("test")))
}

// separator stands between documents.
var separator = regexp.MustCompile(`(?m)^---\s*$`)

// objects reads documents. One without namespace is in that of the script, unless its
// kind has none.
func (s *script) objects(n int, content string) []*unstructured.Unstructured {
	s.Helper()
	var out []*unstructured.Unstructured
	for _, document := range separator.Split(s.filled(content), -1) {
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(document), &o.Object); err != nil {
			s.Fatalf("step %d: %v in\n%s", n, err, document)
		}
		if len(o.Object) == 0 {
			continue
		}
		if o.GetNamespace() == "" && !slices.Contains([]string{"Namespace", "CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding", ""}, o.GetKind()) {
			o.SetNamespace(s.namespace)
		}
		out = append(out, o)
	}
	return out
}

func (s *script) filled(content string) string {
	return strings.NewReplacer("@NS@", s.namespace, "@HEAD@", s.revision, "@KUBECONFIG@", s.kubeconfig,
		"@SERVER@", s.cluster.REST.Host, "@CA@", strings.ReplaceAll(string(s.cluster.REST.CAData), "\n", `\n`)).Replace(content)
}

func (s *script) check(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// eventually asks until there is nothing wrong.
func (s *script) eventually(what string, wrong func() string) {
	s.Helper()
	deadline := time.Now().Add(patience)
	for {
		why := wrong()
		if why == "" {
			return
		}
		if time.Now().After(deadline) {
			s.Fatalf("%s: %s", what, why)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func nameOf(o *unstructured.Unstructured) string {
	return o.GetKind() + " " + o.GetNamespace() + "/" + o.GetName()
}

// text shows an object without the fields that nobody reads.
func text(o map[string]any) string {
	o = runtime.DeepCopyJSON(o)
	unstructured.RemoveNestedField(o, "metadata", "managedFields")
	out, err := yaml.Marshal(o)
	if err != nil {
		return err.Error()
	}
	return string(out)
}

// lacks says what of a want is not so; "" for nothing.
func lacks(want, got any, path string) string {
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			return fmt.Sprintf("%s is %v, and no map", path, got)
		}
		for _, key := range slices.Sorted(maps.Keys(w)) {
			below, there := g[key]
			if w[key] == nil {
				if there {
					return fmt.Sprintf("%s.%s is there: %v", path, key, below)
				}
				continue
			}
			if why := lacks(w[key], below, path+"."+key); why != "" {
				return why
			}
		}
		return ""
	case []any:
		return listLacks(w, got, path)
	case string:
		if part, ok := strings.CutPrefix(w, "~"); ok {
			if g, _ := got.(string); !strings.Contains(g, part) {
				return fmt.Sprintf("%s is %q, without %q", path, g, part)
			}
			return ""
		}
	}
	if fmt.Sprint(want) != fmt.Sprint(got) {
		return fmt.Sprintf("%s is %v, want %v", path, got, want)
	}
	return ""
}

func listLacks(want []any, got any, path string) string {
	g, _ := got.([]any)
	for _, key := range []string{"type", "name"} {
		if !allHave(want, key) {
			continue
		}
		for _, item := range want {
			name := item.(map[string]any)[key]
			at := slices.IndexFunc(g, func(other any) bool { m, _ := other.(map[string]any); return m[key] == name })
			if at < 0 {
				return fmt.Sprintf("%s has no item with %s %v", path, key, name)
			}
			if why := lacks(item, g[at], fmt.Sprintf("%s[%s=%v]", path, key, name)); why != "" {
				return why
			}
		}
		return ""
	}
	if len(want) != len(g) {
		return fmt.Sprintf("%s has %d items, want %d", path, len(g), len(want))
	}
	for i := range want {
		if why := lacks(want[i], g[i], fmt.Sprintf("%s[%d]", path, i)); why != "" {
			return why
		}
	}
	return ""
}

func allHave(items []any, key string) bool {
	for _, item := range items {
		if m, ok := item.(map[string]any); !ok || m[key] == nil {
			return false
		}
	}
	return len(items) > 0
}
