package operator_test

import (
	"encoding/base64"
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plumb-gitops/plumb/internal/build/sops/sopstest"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// canary is a value that nobody may read but the object that it is meant for.
const canary = "canary-7f3a"

// locked are manifests with the canary, to be encrypted.
const (
	lockedSecret = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: locked\nstringData:\n  password: " + canary + "\n"
	lockedConfig = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: locked\ndata:\n  password: " + canary + "\n"
	// onlyData encrypts what is in data and leaves readable what kustomize has to see.
	onlyData = "^(data|stringData|spec)$"
)

// keys creates the Secret "keys" of the test's namespace, or changes all that is in it.
func (w *world) keys(data map[string]string) {
	w.t.Helper()
	w.secretIn(w.namespace, "keys", data)
}

func (w *world) secretIn(namespace, name string, data map[string]string) {
	w.t.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, StringData: data}
	err := w.client.Create(w.context(), secret)
	if apierrors.IsAlreadyExists(err) {
		err = w.client.Update(w.context(), secret)
	}
	w.check(err)
}

// password waits until a Secret or ConfigMap has the canary.
func (w *world) password(kind string) {
	w.t.Helper()
	if kind == "Secret" {
		waitFor(w, w.namedSecret("locked"), "with the canary", func(s *corev1.Secret) bool { return strings.Contains(string(s.Data["password"]), canary) })
		return
	}
	waitFor(w, w.namedConfig("locked"), "with the canary", func(c *corev1.ConfigMap) bool { return strings.Contains(c.Data["password"], canary) })
}

// hidden fails where the canary can be read in a place that is not for it.
func (w *world) hidden(name string) {
	w.t.Helper()
	for _, form := range []string{canary, base64.StdEncoding.EncodeToString([]byte(canary))} {
		k := w.named(name)
		w.check(w.client.Get(w.context(), w.key(name), k))
		for _, c := range k.Status.Conditions {
			if strings.Contains(c.Message, form) {
				w.t.Errorf("condition %s shows the canary: %s", c.Type, c.Message)
			}
		}
		if shown := w.events("Kustomization", name, form); len(shown) > 0 {
			w.t.Errorf("an event shows the canary: %s", shown[0].Message)
		}
		if shown := operator.log.lines(form); len(shown) > 0 {
			w.t.Errorf("the log shows the canary: %s", shown[0])
		}
	}
}

// decrypting asks for decryption with a Secret, or with the operator's where no name
// is given.
func decrypting(secret string) func(*kustomizev1.Kustomization) {
	return func(k *kustomizev1.Kustomization) {
		k.Spec.Decryption = &kustomizev1.Decryption{Provider: "sops"}
		if secret != "" {
			k.Spec.Decryption.SecretRef = &meta.LocalObjectReference{Name: secret}
		}
	}
}

func TestDecrypt(t *testing.T) {
	t.Parallel()
	identity, age := sopstest.Age(t)
	_, other := sopstest.Age(t)
	private, pgp := sopstest.PGP(t, "")
	everything := sopstest.Encryption{For: []sopstest.Recipient{age}}
	data := sopstest.Encryption{For: []sopstest.Recipient{age}, Only: onlyData}
	byPGP := sopstest.Encryption{For: []sopstest.Recipient{pgp}, Only: onlyData}
	forBoth := sopstest.Encryption{For: []sopstest.Recipient{other, age}, Only: onlyData}
	generate := func(generator, source string) string {
		return "generatorOptions: {disableNameSuffixHash: true}\n" + generator + ":\n- name: locked\n  " + source + "\n"
	}
	tests := map[string]struct {
		kind  string
		files testenv.Files
	}{
		"a Secret, for an age key": {"Secret", testenv.Files{"app/s.yaml": data.Encrypt(t, "s.yaml", lockedSecret)}},
		"a Secret, for an OpenPGP key": {"Secret", testenv.Files{
			"app/s.yaml": byPGP.Encrypt(t, "s.yaml", lockedSecret)}},
		"a Secret, for several keys of which one is there": {"Secret", testenv.Files{
			"app/s.yaml": forBoth.Encrypt(t, "s.yaml", lockedSecret)}},
		"a ConfigMap": {"ConfigMap", testenv.Files{"app/c.yaml": data.Encrypt(t, "c.yaml", lockedConfig)}},
		"a value of a Secret that is a file": {"Secret", testenv.Files{
			"app/s.yaml": "apiVersion: v1\nkind: Secret\nmetadata:\n  name: locked\ndata:\n  password: " +
				base64.StdEncoding.EncodeToString([]byte(everything.Encrypt(t, "password", canary))) + "\n"}},
		"an environment of a generator": {"Secret", testenv.Files{
			"app/kustomization.yaml": generate("secretGenerator", "envs: [a.env]"),
			"app/a.env":              everything.Encrypt(t, "a.env", "password="+canary+"\n")}},
		"a binary file of a generator": {"Secret", testenv.Files{
			"app/kustomization.yaml": generate("secretGenerator", "files: [password]"),
			"app/password":           everything.Encrypt(t, "password", canary)}},
		"a file of a generator for ConfigMaps": {"ConfigMap", testenv.Files{
			"app/kustomization.yaml": generate("configMapGenerator", "files: [password=a.json]"),
			"app/a.json":             everything.Encrypt(t, "a.json", `{"password": "`+canary+`"}`)}},
		"a generator of a component": {"Secret", testenv.Files{
			"app/kustomization.yaml":  "components: [../part]\n",
			"part/kustomization.yaml": "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n" + generate("secretGenerator", "envs: [a.env]"),
			"part/a.env":              everything.Encrypt(t, "a.env", "password="+canary+"\n")}},
		"a file of a patch": {"ConfigMap", testenv.Files{
			"app/kustomization.yaml": "resources: [c.yaml]\npatches: [{path: patch.yaml}]\n",
			"app/c.yaml":             strings.Replace(lockedConfig, canary, "open", 1),
			"app/patch.yaml":         data.Encrypt(t, "patch.yaml", lockedConfig)}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.keys(map[string]string{"a.agekey": identity, "b.asc": private, "ignored": "x"})
			first := w.push(tt.files)
			w.source()
			w.kustomization("app", decrypting("keys"))
			w.ready("app", first)
			w.password(tt.kind)
			w.hidden("app")
		})
	}
}

func TestDecryptWithTheOperatorsKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	identity, age := sopstest.Age(t)
	data := sopstest.Encryption{For: []sopstest.Recipient{age}, Only: onlyData}
	// Until the Secret is there, what needs it says so.
	first := w.push(testenv.Files{"app/s.yaml": data.Encrypt(t, "s.yaml", lockedSecret)})
	w.source()
	w.kustomization("app", decrypting(""))
	w.notReady("app", "BuildFailed", "Secret '"+sharedNamespace+"/"+sharedKeys+"'|--sops-age-secret|not found|create it")
	err := w.client.Create(w.context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: sharedNamespace}})
	if !apierrors.IsAlreadyExists(err) {
		w.check(err)
	}
	w.secretIn(sharedNamespace, sharedKeys, map[string]string{"a.agekey": identity, "broken.asc": "is not looked at"})
	w.ready("app", first)
	w.password("Secret")
	w.hidden("app")
}

// TestDecryptWithChangedKeys changes nothing but the Secret with the keys.
func TestDecryptWithChangedKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	identity, age := sopstest.Age(t)
	wrong, _ := sopstest.Age(t)
	data := sopstest.Encryption{For: []sopstest.Recipient{age}, Only: onlyData}
	w.keys(map[string]string{"a.agekey": identity})
	first := w.push(testenv.Files{"app/s.yaml": data.Encrypt(t, "s.yaml", lockedSecret)})
	w.source()
	w.kustomization("app", decrypting("keys"))
	w.ready("app", first)
	before := w.namedSecret("locked")
	w.check(w.client.Get(w.context(), w.key("locked"), before))

	w.keys(map[string]string{"a.agekey": wrong})
	w.notReady("app", "BuildFailed", "Secret/"+w.namespace+"/locked (app/s.yaml:1)|cannot be decrypted|Secret '"+w.namespace+"/keys'|no age identity fits")
	// It stays as it was, and is kept so.
	w.same(before)
	w.patch(w.namedSecret("locked"), `{"data":{"password":"ZHJpZnQ="}}`)
	w.password("Secret")

	w.keys(map[string]string{"a.agekey": wrong, "b.agekey": identity})
	w.ready("app", first)
	w.same(before)
	w.hidden("app")
}

// TestDecryptWithoutKeys takes the keys away from what was applied with them, and gives
// them back.
func TestDecryptWithoutKeys(t *testing.T) {
	t.Parallel()
	identity, age := sopstest.Age(t)
	locked, _ := sopstest.PGP(t, "passphrase")
	data := sopstest.Encryption{For: []sopstest.Recipient{age}, Only: onlyData}
	tests := map[string]struct {
		take, give func(*world)
		words      string
	}{
		"a Secret that does not exist": {
			take:  func(w *world) { w.patch(w.named("app"), `{"spec":{"decryption":{"secretRef":{"name":"nobody"}}}}`) },
			give:  func(w *world) { w.patch(w.named("app"), `{"spec":{"decryption":{"secretRef":{"name":"keys"}}}}`) },
			words: "Secret 'NAMESPACE/nobody'|not found|create it, or correct spec.decryption.secretRef",
		},
		"a Secret that is deleted": {
			take:  func(w *world) { w.check(w.client.Delete(w.context(), w.namedSecret("keys"))) },
			give:  func(w *world) { w.keys(map[string]string{"a.agekey": identity}) },
			words: "Secret 'NAMESPACE/keys'|not found|create it",
		},
		"an entry that is no key": {
			take:  func(w *world) { w.keys(map[string]string{"a.agekey": "AGE-SECRET-KEY-" + canary}) },
			give:  func(w *world) { w.keys(map[string]string{"a.agekey": identity}) },
			words: `entry "a.agekey" of Secret 'NAMESPACE/keys'|no age identities`,
		},
		"an OpenPGP key with a passphrase": {
			take:  func(w *world) { w.keys(map[string]string{"a.agekey": identity, "b.asc": locked}) },
			give:  func(w *world) { w.patch(w.namedSecret("keys"), `{"data":{"b.asc":null}}`) },
			words: `entry "b.asc" of Secret 'NAMESPACE/keys'|passphrase|export it without one`,
		},
		"no key at all": {
			take:  func(w *world) { w.patch(w.namedSecret("keys"), `{"data":null}`) },
			give:  func(w *world) { w.keys(map[string]string{"a.agekey": identity}) },
			words: "Secret/NAMESPACE/locked (app/s.yaml:1)|cannot be decrypted|there is no entry *.agekey",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.keys(map[string]string{"a.agekey": identity})
			first := w.push(testenv.Files{"app/s.yaml": data.Encrypt(t, "s.yaml", lockedSecret), "app/a.yaml": configMap("a", "1")})
			w.source()
			w.kustomization("app", decrypting("keys"))
			w.ready("app", first)
			before := w.namedSecret("locked")
			w.check(w.client.Get(w.context(), w.key("locked"), before))

			tt.take(w)
			w.notReady("app", "BuildFailed", strings.ReplaceAll(tt.words, "NAMESPACE", w.namespace))
			// A commit is not applied, what was applied is kept.
			second := w.push(testenv.Files{"app/a.yaml": testenv.Delete})
			w.sourceReady(second)
			w.patch(w.namedSecret("locked"), `{"data":{"password":"ZHJpZnQ="}}`)
			w.password("Secret")
			w.data("a", "1")
			w.same(before)

			tt.give(w)
			w.ready("app", second)
			w.gone(w.namedConfig("a"))
			w.same(before)
			w.hidden("app")
		})
	}
}

func TestDecryptionRefused(t *testing.T) {
	identity, age := sopstest.Age(t)
	_, stranger := sopstest.Age(t)
	ours := sopstest.Encryption{For: []sopstest.Recipient{age}, Only: onlyData}
	theirs := sopstest.Encryption{For: []sopstest.Recipient{stranger}, Only: onlyData}
	whole := sopstest.Encryption{For: []sopstest.Recipient{age}}
	secret := strings.Replace(lockedSecret, "metadata:\n", "metadata:\n  namespace: NAMESPACE\n", 1)
	keep := strings.Replace(secret, "  name: locked\n", "  name: locked\n  annotations: {kustomize.toolkit.fluxcd.io/decrypt: disabled}\n", 1)
	service := "apiVersion: v1\nkind: Service\nmetadata:\n  name: locked\n  namespace: NAMESPACE\nspec:\n  type: " + canary + "\n  ports: [{port: 80}]\n"
	patch := whole.Encrypt(t, "patch.yaml", keptMap("kept", canary))
	tests := map[string]badInput{
		"a key that does not fit": {
			files:  testenv.Files{"bad/s.yaml": theirs.Encrypt(t, "s.yaml", secret)},
			mend:   testenv.Files{"bad/s.yaml": ours.Encrypt(t, "s.yaml", secret)},
			reason: "BuildFailed", words: "Secret/NAMESPACE/locked (bad/s.yaml:1)|cannot be decrypted|Secret 'NAMESPACE/keys'|age age1|no age identity fits|add the key",
		},
		"a kind of key that is not there": {
			files: testenv.Files{"bad/s.yaml": func() string {
				_, pgp := sopstest.PGP(t, "")
				return sopstest.Encryption{For: []sopstest.Recipient{pgp}, Only: onlyData}.Encrypt(t, "s.yaml", secret)
			}()},
			mend:   testenv.Files{"bad/s.yaml": testenv.Delete},
			reason: "BuildFailed", words: "Secret/NAMESPACE/locked|OpenPGP key|there is no entry *.asc|Secret 'NAMESPACE/keys'",
		},
		"a file that was changed after it was encrypted": {
			files: testenv.Files{
				"bad/kustomization.yaml": "resources: [kept.yaml]\nsecretGenerator:\n- name: locked\n  files: [a.yaml]\n",
				"bad/a.yaml":             strings.Replace(ours.Encrypt(t, "a.yaml", "open: one\ndata: "+canary+"\n"), "open: one", "open: two", 1),
			},
			mend:   testenv.Files{"bad/kustomization.yaml": testenv.Delete, "bad/a.yaml": testenv.Delete},
			reason: "BuildFailed", words: "bad/a.yaml|cannot be decrypted|checksum|sops edit",
		},
		"an encrypted patch that patches nothing": {
			files: testenv.Files{
				"bad/kustomization.yaml": "resources: [kept.yaml]\npatches: [{path: patch.yaml, target: {kind: ConfigMap}}]\n",
				"bad/patch.yaml":         whole.Encrypt(t, "patch.yaml", "op: "+canary+"\n"),
			},
			mend:   testenv.Files{"bad/kustomization.yaml": testenv.Delete, "bad/patch.yaml": testenv.Delete},
			reason: "BuildFailed", words: "bad/",
		},
		"a Secret without spec.decryption": {
			spec:   func(*kustomizev1.Kustomization) {},
			files:  testenv.Files{"bad/s.yaml": ours.Encrypt(t, "s.yaml", secret)},
			mend:   testenv.Files{"bad/s.yaml": testenv.Delete},
			reason: "ReconciliationFailed", words: "Secret/NAMESPACE/locked (bad/s.yaml:1)|encrypted with SOPS|spec.decryption",
		},
		"a Secret that is not to be decrypted": {
			files:  testenv.Files{"bad/s.yaml": ours.Encrypt(t, "s.yaml", keep)},
			mend:   testenv.Files{"bad/s.yaml": ours.Encrypt(t, "s.yaml", secret)},
			reason: "ReconciliationFailed", words: "Secret/NAMESPACE/locked|encrypted with SOPS|annotation",
		},
		"a value that the API server refuses": {
			files:  testenv.Files{"bad/service.yaml": ours.Encrypt(t, "service.yaml", service)},
			mend:   testenv.Files{"bad/service.yaml": testenv.Delete},
			reason: "ReconciliationFailed", words: "Service/NAMESPACE/locked|spec.type|not shown",
		},
		"a patch with a key that is none": {
			files: testenv.Files{
				"bad/kustomization.yaml": "resources: [kept.yaml]\npatches: [{path: patch.yaml}]\n",
				"bad/patch.yaml":         strings.Replace(patch, "AGE ENCRYPTED", "AGE CHANGED", 1),
			},
			mend:   testenv.Files{"bad/kustomization.yaml": testenv.Delete, "bad/patch.yaml": testenv.Delete},
			reason: "BuildFailed", words: "bad/patch.yaml|cannot be decrypted|no age identity fits",
		},
	}
	for name, row := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.keys(map[string]string{"a.agekey": identity})
			if row.spec == nil {
				row.spec = decrypting("keys")
			}
			row.hides = canary
			row.run(w)
			w.hidden("bad")
			// Cipher text never got into the cluster.
			for _, request := range w.writes("secrets", w.namespace, "locked") {
				if request.ResponseStatus.Code < 300 && row.mend["bad/s.yaml"] == testenv.Delete {
					t.Errorf("it was applied: %+v", request)
				}
			}
		})
	}
}
