package operator_test

import (
	"context"
	"strings"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/testenv"
)

const (
	fixed = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: fixed\nimmutable: true\ndata:\n  key: %q\n"
	away  = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: away\n  namespace: NAMESPACE-away\n"
)

// inPlace leaves namespaces as the manifests say, and tries often.
func inPlace(k *kustomizev1.Kustomization) {
	k.Spec.TargetNamespace = ""
	k.Spec.RetryInterval = &metav1.Duration{Duration: time.Second}
}

func badApplies() map[string]badInput {
	return map[string]badInput{
		"a kind that nobody serves": {
			files:  testenv.Files{"bad/unknown.yaml": "---\napiVersion: example.com/v1\nkind: Nothing\nmetadata:\n  name: x\n"},
			mend:   testenv.Files{"bad/unknown.yaml": testenv.Delete},
			reason: "ReconciliationFailed", words: "Nothing/NAMESPACE/x (bad/unknown.yaml:2)|kind Nothing.example.com|in version v1|install its CustomResourceDefinition, or declare it",
		},
		// The Namespace is written before the object in it can be judged.
		"an object that is refused after others were written": {
			spec: inPlace,
			files: testenv.Files{
				"bad/namespace.yaml": "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: NAMESPACE-away\n",
				"bad/away.yaml":      away + "dta: {}\n",
			},
			after: func(w *world) {
				waitFor(w, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace + "-away"}}, "to stay", func(n *corev1.Namespace) bool { return n.DeletionTimestamp.IsZero() })
			},
			mend:   testenv.Files{"bad/away.yaml": away},
			reason: "ReconciliationFailed", words: "ConfigMap/NAMESPACE-away/away (bad/away.yaml:1)|.dta: field not declared in schema",
		},
		"a field that does not exist": {
			files:  testenv.Files{"bad/field.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: field\ndta:\n  key: a\n"},
			mend:   testenv.Files{"bad/field.yaml": configMap("field", "1")},
			reason: "ReconciliationFailed", words: "ConfigMap/NAMESPACE/field (bad/field.yaml:1)|.dta: field not declared in schema",
		},
		"a value of the wrong type": {
			files:  testenv.Files{"bad/type.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: type\ndata:\n  key: 12\n"},
			mend:   testenv.Files{"bad/type.yaml": configMap("type", "12")},
			reason: "ReconciliationFailed", words: "ConfigMap/NAMESPACE/type (bad/type.yaml:1)|.data.key: expected string, got another type",
		},
		"a value that is not allowed": {
			files:  testenv.Files{"bad/value.yaml": "apiVersion: v1\nkind: Service\nmetadata:\n  name: value\nspec:\n  ports:\n  - port: 99999\n"},
			mend:   testenv.Files{"bad/value.yaml": "apiVersion: v1\nkind: Service\nmetadata:\n  name: value\nspec:\n  ports:\n  - port: 80\n"},
			reason: "ReconciliationFailed", words: "Service/NAMESPACE/value (bad/value.yaml:1)|spec.ports[0].port|99999",
		},
		"a Secret that is not valid": {
			files:  testenv.Files{"bad/secret.yaml": "apiVersion: v1\nkind: Secret\nmetadata:\n  name: secret\ndata:\n  key: this is hush-hush\n"},
			mend:   testenv.Files{"bad/secret.yaml": "apiVersion: v1\nkind: Secret\nmetadata:\n  name: secret\nstringData:\n  key: this is hush-hush\n"},
			reason: "ReconciliationFailed", words: "Secret/NAMESPACE/secret (bad/secret.yaml:1)|data.key is not base64|stringData", hides: "hush-hush",
		},
		"an immutable field without force": {
			given:  testenv.Files{"bad/fixed.yaml": strings.Replace(fixed, "%q", `"1"`, 1)},
			files:  testenv.Files{"bad/fixed.yaml": strings.Replace(fixed, "%q", `"2"`, 1)},
			mend:   testenv.Files{"bad/fixed.yaml": strings.Replace(fixed, "%q", `"1"`, 1)},
			reason: "ReconciliationFailed", words: "ConfigMap/NAMESPACE/fixed (bad/fixed.yaml:1)|immutable|set spec.force|kustomize.toolkit.fluxcd.io/force: enabled",
		},
		"no namespace": {
			spec:   inPlace,
			files:  testenv.Files{"bad/nowhere.yaml": configMap("nowhere", "1")},
			mend:   testenv.Files{"bad/nowhere.yaml": keptMap("nowhere", "1")},
			reason: "ReconciliationFailed", words: "ConfigMap/nowhere (bad/nowhere.yaml:1)|set metadata.namespace",
		},
		"a namespace that does not exist": {
			spec:   inPlace,
			files:  testenv.Files{"bad/away.yaml": away},
			mend:   testenv.Files{},
			after:  func(w *world) { w.makeNamespace("away") },
			reason: "ReconciliationFailed", words: `ConfigMap/NAMESPACE-away/away (bad/away.yaml:1)|namespace "NAMESPACE-away" does not exist|create it, or declare it`,
		},
		"a namespace that is being deleted": {
			spec: inPlace,
			before: func(w *world) {
				namespace := w.makeNamespace("away")
				holds := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace.Name, Name: "holds", Finalizers: []string{"example.com/hold"}}}
				w.check(w.client.Create(w.context(), holds))
				w.check(w.client.Delete(w.context(), namespace))
			},
			files: testenv.Files{"bad/away.yaml": away},
			mend:  testenv.Files{},
			after: func(w *world) {
				w.patch(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace + "-away", Name: "holds"}}, `{"metadata":{"finalizers":null}}`)
				w.gone(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace + "-away"}})
				w.makeNamespace("away")
			},
			reason: "ReconciliationFailed", words: `ConfigMap/NAMESPACE-away/away (bad/away.yaml:1)|namespace "NAMESPACE-away" is being deleted`,
		},
		"admission refuses one object": {
			before: func(w *world) { w.forbid("refused") },
			files:  testenv.Files{"bad/refused.yaml": configMap("refused", "1"), "bad/welcome.yaml": configMap("welcome", "1")},
			mend:   testenv.Files{"bad/refused.yaml": testenv.Delete},
			reason: "ReconciliationFailed", words: "ConfigMap/NAMESPACE/refused (bad/refused.yaml:1)|nothing of that name, please",
		},
	}
}

func TestBadApply(t *testing.T) {
	for name, row := range badApplies() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			row.run(newWorld(t))
		})
	}
}

// makeNamespace makes a namespace beside that of the test.
func (w *world) makeNamespace(suffix string) *corev1.Namespace {
	w.t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace + "-" + suffix}}
	w.check(w.client.Create(w.context(), namespace))
	return namespace
}

// forbid has admission refuse ConfigMaps of a name in the test's namespace, and
// waits until it does.
func (w *world) forbid(name string) {
	w.t.Helper()
	fail := admissionv1.Fail
	all := admissionv1.NamespacedScope
	policy := &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: w.namespace},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			FailurePolicy: &fail,
			MatchConstraints: &admissionv1.MatchResources{
				NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: w.namespace}},
				ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
					Operations: []admissionv1.OperationType{admissionv1.Create, admissionv1.Update},
					Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}, Scope: &all},
				}}},
			},
			Validations: []admissionv1.Validation{{Expression: "object.metadata.name != '" + name + "'", Message: "nothing of that name, please"}},
		},
	}
	w.check(w.client.Create(w.context(), policy))
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: w.namespace},
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: policy.Name, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
		},
	}
	w.check(w.client.Create(w.context(), binding))
	w.t.Cleanup(func() {
		ctx := context.WithoutCancel(w.t.Context())
		for _, obj := range []client.Object{binding, policy} {
			if err := w.client.Delete(ctx, obj); err != nil {
				w.t.Error(err)
			}
		}
	})
	// The API server tells nobody when it begins to ask a policy: ask it.
	ctx, ticker := w.context(), time.NewTicker(20*time.Millisecond)
	defer ticker.Stop()
	for {
		err := w.client.Create(ctx, w.namedConfig(name), client.DryRunAll)
		if err != nil && strings.Contains(err.Error(), "nothing of that name") {
			return
		}
		select {
		case <-ctx.Done():
			w.t.Fatalf("the policy does not work: %v", err)
		case <-ticker.C:
		}
	}
}
