package install

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	appsv1 "k8s.io/api/apps/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/plumb-gitops/plumb/internal/config"
	"github.com/plumb-gitops/plumb/internal/frontend/flux/crds"
)

func options(change ...func(*Options)) Options {
	o := Options{Namespace: "flux-system", Profile: Single, Image: "registry.example.org/plumb:v1", Version: "v1.2.3"}
	for _, f := range change {
		f(&o)
	}
	return o
}

func objects(t *testing.T, change ...func(*Options)) []*unstructured.Unstructured {
	t.Helper()
	all, err := Objects(options(change...))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// one gives the object of a name as its type.
func one[T any](t *testing.T, all []*unstructured.Unstructured, name string) T {
	t.Helper()
	var typed T
	for _, object := range all {
		if nameOf(object) == name {
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &typed); err != nil {
				t.Fatal(err)
			}
			return typed
		}
	}
	t.Fatalf("there is no %s", name)
	return typed
}

func TestObjectsInTheirOrder(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change func(*Options)
		want   []string // without the definitions
	}{
		"one team": {func(*Options) {}, []string{
			"Namespace/flux-system",
			"ServiceAccount/flux-system/plumb",
			"ClusterRole/plumb-edit-flux-system", "ClusterRole/plumb-view-flux-system",
			"ClusterRoleBinding/plumb-admin-flux-system",
			"ResourceQuota/flux-system/plumb-critical-pods",
			"NetworkPolicy/flux-system/plumb-allow-egress", "NetworkPolicy/flux-system/plumb-allow-scraping",
			"Service/flux-system/source-controller",
			"Deployment/flux-system/plumb",
		}},
		"tenants, in another namespace, beside Flux": {func(o *Options) { o.Namespace, o.Profile, o.BesideFlux = "gitops", Tenants, true }, []string{
			"Namespace/gitops",
			"ServiceAccount/gitops/plumb",
			"ClusterRole/plumb-edit-gitops", "ClusterRole/plumb-operator-gitops", "ClusterRole/plumb-view-gitops",
			"ClusterRoleBinding/plumb-operator-gitops",
			"Role/gitops/plumb-lease",
			"RoleBinding/gitops/plumb-lease",
			"ResourceQuota/gitops/plumb-critical-pods",
			"NetworkPolicy/gitops/plumb-allow-egress", "NetworkPolicy/gitops/plumb-allow-scraping",
			"Service/gitops/plumb",
			"Deployment/gitops/plumb",
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			definitions := 0
			for n, object := range objects(t, tt.change) {
				if object.GetKind() != definitionKind {
					got = append(got, nameOf(object))
					continue
				}
				if definitions++; n != definitions {
					t.Errorf("%s is not behind the namespace and before all others", nameOf(object))
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("objects differ (-want +got):\n%s", diff)
			}
			if definitions != 15 {
				t.Errorf("%d definitions, want 15", definitions)
			}
		})
	}
}

func TestManifestsAreTheSameEachTime(t *testing.T) {
	t.Parallel()
	var first, second bytes.Buffer
	if err := Write(&first, objects(t)); err != nil {
		t.Fatal(err)
	}
	if err := Write(&second, objects(t)); err != nil {
		t.Fatal(err)
	}
	if first.Len() == 0 || first.String() != second.String() {
		t.Error("the manifests differ from one time to the next")
	}
}

func TestWordsOfTheManifests(t *testing.T) {
	t.Parallel()
	var text bytes.Buffer
	all := objects(t, func(o *Options) {
		o.Namespace, o.Version = "gitops", "v1.0.0+more/than that"
		o.Arguments = []string{"--watch-label-selector=team=flux-system"}
	})
	if err := Write(&text, all); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(text.String()) {
		for _, written := range []string{writtenNamespace, writtenVersion} {
			if strings.Contains(line, written) && !strings.Contains(line, "--watch-label-selector=team=flux-system") {
				t.Errorf("%q stands in the manifests of another namespace: %s", written, line)
			}
		}
	}
	for _, object := range all {
		labels := object.GetLabels()
		want := map[string]string{instanceLabel: "gitops", partOfLabel: "flux", managedByLabel: "plumb", versionLabel: "v1.0.0_more_than_that", componentLabel: "plumb"}
		if object.GetKind() == definitionKind {
			want[versionLabel], want[componentLabel] = crds.FluxVersion, labels[componentLabel]
		}
		for key, value := range want {
			if labels[key] != value {
				t.Errorf("%s: label %s is %q, want %q", nameOf(object), key, labels[key], value)
			}
		}
	}
}

// What patches, dashboards and Flux's command line rely on.
func TestDeployment(t *testing.T) {
	t.Parallel()
	d := one[appsv1.Deployment](t, objects(t), "Deployment/flux-system/plumb")
	pod := d.Spec.Template
	manager := pod.Spec.Containers[0]
	got := map[string]any{
		"container":            manager.Name,
		"image":                manager.Image,
		"command":              strings.Join(manager.Command, " "),
		"replicas":             *d.Spec.Replicas,
		"strategy":             string(d.Spec.Strategy.Type),
		"seconds to end":       *pod.Spec.TerminationGracePeriodSeconds,
		"account":              pod.Spec.ServiceAccountName,
		"priority":             pod.Spec.PriorityClassName,
		"scraping":             pod.Annotations["prometheus.io/scrape"] + " " + pod.Annotations["prometheus.io/port"],
		"live":                 manager.LivenessProbe.HTTPGet.Path + " " + manager.LivenessProbe.HTTPGet.Port.String(),
		"ready":                manager.ReadinessProbe.HTTPGet.Path + " " + manager.ReadinessProbe.HTTPGet.Port.String(),
		"seccomp":              string(manager.SecurityContext.SeccompProfile.Type),
		"not root":             *manager.SecurityContext.RunAsNonRoot,
		"read-only":            *manager.SecurityContext.ReadOnlyRootFilesystem,
		"escalation":           *manager.SecurityContext.AllowPrivilegeEscalation,
		"dropped capabilities": fmt.Sprint(manager.SecurityContext.Capabilities.Drop),
		"memory":               manager.Resources.Limits.Memory().String(),
	}
	want := map[string]any{
		"container": "manager", "image": "registry.example.org/plumb:v1", "command": "/plumb operator",
		"replicas": int32(1), "strategy": "Recreate", "seconds to end": int64(60),
		"account": "plumb", "priority": "system-cluster-critical", "scraping": "true 8080",
		"live": "/healthz healthz", "ready": "/readyz healthz",
		"seccomp": "RuntimeDefault", "not root": true, "read-only": true, "escalation": false, "dropped capabilities": "[ALL]",
		"memory": "1Gi",
	}
	for _, p := range manager.Ports {
		got["port "+p.Name] = p.ContainerPort
	}
	want["port http"], want["port http-prom"], want["port healthz"] = int32(9090), int32(8080), int32(9440)
	for _, e := range manager.Env {
		switch {
		case e.ValueFrom.FieldRef != nil:
			got["env "+e.Name] = e.ValueFrom.FieldRef.FieldPath
		case e.ValueFrom.ResourceFieldRef != nil:
			got["env "+e.Name] = e.ValueFrom.ResourceFieldRef.Resource
		}
	}
	want["env RUNTIME_NAMESPACE"], want["env GOMEMLIMIT"] = "metadata.namespace", "limits.memory"
	for n, v := range pod.Spec.Volumes {
		got["volume "+v.Name] = fmt.Sprint(v.EmptyDir != nil, " ", manager.VolumeMounts[n].MountPath)
	}
	want["volume data"], want["volume tmp"] = "true /data", "true /tmp"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the Deployment differs (-want +got):\n%s", diff)
	}
	for key, value := range d.Spec.Selector.MatchLabels {
		if pod.Labels[key] != value {
			t.Errorf("the Deployment selects %s=%s, which its pods do not have", key, value)
		}
	}
	if pod.Labels["app"] != "source-controller" || pod.Labels["control-plane"] != "controller" {
		t.Errorf("labels of the pod are %v", pod.Labels)
	}
}

func TestArguments(t *testing.T) {
	t.Parallel()
	// Patches name arguments by number: these seven are where Flux has them.
	first := []string{
		"--events-addr=", "--watch-all-namespaces=true", "--log-level=info", "--log-encoding=json", "--enable-leader-election",
		"--storage-path=/data", "--storage-adv-addr=source-controller.$(RUNTIME_NAMESPACE).svc.cluster.local.",
	}
	tests := map[string]struct {
		change func(*Options)
		more   []string
	}{
		"one team":       {func(*Options) {}, nil},
		"more arguments": {func(o *Options) { o.Arguments = []string{"--concurrent=9"} }, []string{"--concurrent=9"}},
		"tenants": {func(o *Options) { o.Profile, o.Arguments = Tenants, []string{"--log-level=debug"} },
			[]string{"--no-cross-namespace-refs=true", "--default-service-account=default", "--log-level=debug"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := one[appsv1.Deployment](t, objects(t, tt.change), "Deployment/flux-system/plumb")
			args := d.Spec.Template.Spec.Containers[0].Args
			if diff := cmp.Diff(slices.Concat(first, tt.more), args); diff != "" {
				t.Fatalf("arguments differ (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTheOperatorTakesItsArguments(t *testing.T) {
	t.Parallel()
	for _, profile := range Profiles() {
		d := one[appsv1.Deployment](t, objects(t, func(o *Options) { o.Profile = profile }), "Deployment/flux-system/plumb")
		args := d.Spec.Template.Spec.Containers[0].Args
		for n, arg := range args {
			args[n] = strings.ReplaceAll(arg, "$(RUNTIME_NAMESPACE)", "flux-system")
		}
		set := pflag.NewFlagSet("operator", pflag.ContinueOnError)
		flags := config.Bind(set, func(string) string { return "" })
		if err := set.Parse(args); err != nil {
			t.Fatalf("profile %s: %v", profile, err)
		}
		if _, err := flags.Operator(); err != nil {
			t.Errorf("profile %s: %v", profile, err)
		}
	}
}

// The rights of the operator's own, in the profile in which they count.
func TestRightsBetweenTenants(t *testing.T) {
	t.Parallel()
	want := []string{
		"*/* list,watch",
		"/configmaps get,list,watch", "/events create,patch,update", "/namespaces get", "/secrets get,list,watch",
		"/serviceaccounts get,list,watch", "/serviceaccounts impersonate", "/serviceaccounts/token create",
		"coordination.k8s.io/leases create,get,list,patch,update,watch in flux-system",
		"events.k8s.io/events create,patch,update",
		// Generated artifacts are made and deleted, by their generators.
		"source.toolkit.fluxcd.io/externalartifacts create,delete,get,list,patch,update,watch", "source.toolkit.fluxcd.io/externalartifacts/status patch,update",
	}
	definitions, err := crds.All()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range definitions {
		if !d.Served && d.Kind.Group != "source.toolkit.fluxcd.io" || d.Kind.Kind == "ExternalArtifact" {
			continue
		}
		want = append(want, d.Kind.Group+"/"+d.Plural+" get,list,patch,update,watch",
			d.Kind.Group+"/"+d.Plural+"/finalizers patch,update", d.Kind.Group+"/"+d.Plural+"/status patch,update")
	}
	slices.Sort(want)
	all := objects(t, func(o *Options) { o.Profile = Tenants })
	rules := func(role rbacv1.ClusterRole, where string) (lines []string) {
		for _, r := range role.Rules {
			slices.Sort(r.Verbs)
			for _, group := range r.APIGroups {
				for _, resource := range r.Resources {
					lines = append(lines, group+"/"+resource+" "+strings.Join(r.Verbs, ",")+where)
				}
			}
		}
		return lines
	}
	got := slices.Concat(
		rules(one[rbacv1.ClusterRole](t, all, "ClusterRole/plumb-operator-flux-system"), ""),
		rules(one[rbacv1.ClusterRole](t, all, "Role/flux-system/plumb-lease"), " in flux-system"))
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rights differ (-want +got):\n%s", diff)
	}
	for _, object := range all {
		if strings.HasSuffix(object.GetKind(), "Binding") {
			binding := one[rbacv1.ClusterRoleBinding](t, all, nameOf(object))
			if !strings.HasPrefix(binding.RoleRef.Name, "plumb-") || len(binding.Subjects) != 1 || binding.Subjects[0].Name != "plumb" || binding.Subjects[0].Namespace != "flux-system" {
				t.Errorf("%s binds %v to %v", nameOf(object), binding.RoleRef, binding.Subjects)
			}
		}
	}
}

func TestOneTeamIsAdministrator(t *testing.T) {
	t.Parallel()
	binding := one[rbacv1.ClusterRoleBinding](t, objects(t, func(o *Options) { o.Namespace = "gitops" }), "ClusterRoleBinding/plumb-admin-gitops")
	if binding.RoleRef.Name != "cluster-admin" || binding.Subjects[0].Name != "plumb" || binding.Subjects[0].Namespace != "gitops" {
		t.Errorf("the binding is %v for %v", binding.RoleRef, binding.Subjects)
	}
}

func TestRefusedOptions(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change func(*Options)
		want   string
	}{
		"no namespace":           {func(o *Options) { o.Namespace = "Flux System" }, `"Flux System" is no name of a namespace`},
		"no profile":             {func(o *Options) { o.Profile = "many" }, `no profile "many"; there are single and tenants`},
		"no image":               {func(o *Options) { o.Image = "" }, `"" is no name of an image`},
		"an unknown argument":    {func(o *Options) { o.Arguments = []string{"--frobnicate"} }, "the operator would refuse its arguments: unknown flag: --frobnicate"},
		"an argument's value":    {func(o *Options) { o.Arguments = []string{"--concurrent=0"} }, `--concurrent "0" must be 1 or more`},
		"a word that is no flag": {func(o *Options) { o.Arguments = []string{"concurrent=1"} }, `"concurrent=1" is no flag`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := Objects(options(tt.change)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error is %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestDefaultImage(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]string{
		"v1.2.3": "ghcr.io/plumb-gitops/plumb:v1.2.3", "v1.2.3-rc.1": "ghcr.io/plumb-gitops/plumb:v1.2.3-rc.1",
		"v1.2.3-4-gabcdef": "", "v1.2.3-dirty": "", "unknown": "", "": "",
	} {
		if got := DefaultImage(version); got != want {
			t.Errorf("image of %q is %q, want %q", version, got, want)
		}
	}
}
