package apply_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plumb-gitops/plumb/internal/apply"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

func (w *world) diff(docs string) []apply.Difference {
	w.t.Helper()
	out, err := w.applier.Diff(w.t.Context(), w.request(w.compute(w.manifests(docs))))
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// signed are the lines of a unified diff that begin with a sign.
func signed(text string) []string {
	var out []string
	for line := range strings.SplitSeq(text, "\n") {
		if header := strings.HasPrefix(line, "+++") || strings.HasPrefix(line, "---"); !header && strings.Trim(line[:min(1, len(line))], "+-") != line[:min(1, len(line))] {
			out = append(out, line[:1]+" "+line[1:])
		}
	}
	return out
}

func TestDiff(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mustApply(app)
	version := w.must(w.ref("", "Service", "app")).GetResourceVersion()
	docs := strings.Replace(app, "port: 80", "port: 81", 1)
	docs = strings.Replace(docs, "name: app, namespace: $NS}\n---", "name: web, namespace: $NS}\n---", 1) // the ServiceAccount
	got := w.diff(docs)
	type difference struct {
		Ref    string
		Action gitops.Action
		Lines  []string
	}
	var short []difference
	for _, d := range got {
		short = append(short, difference{d.Ref.String(), d.Action, signed(d.Text)})
	}
	ns := w.namespace
	if diff := cmp.Diff([]difference{
		{"ServiceAccount/" + ns + "/web", gitops.ActionCreate, []string{
			"+ apiVersion: v1", "+ kind: ServiceAccount", "+ metadata:", "+   labels:",
			"+     owners.example.test/name: apps", "+     owners.example.test/namespace: " + ns, "+   name: web", "+   namespace: " + ns,
		}},
		{"Service/" + ns + "/app", gitops.ActionConfigure, []string{"-     port: 80", "+     port: 81", "-     targetPort: 80", "+     targetPort: 81"}},
		{"ServiceAccount/" + ns + "/app", gitops.ActionDelete, nil},
	}, short); diff != "" {
		t.Error(diff)
	}
	text := got[1].Text
	if !strings.Contains(text, "--- live Service/"+ns+"/app") || !strings.Contains(text, "+++ apps/all.yaml:") || strings.Contains(text, "managedFields") {
		t.Errorf("got\n%s", text)
	}
	if w.must(w.ref("", "Service", "app")).GetResourceVersion() != version || w.find(w.ref("", "ServiceAccount", "web")) != nil {
		t.Error("the diff changed something")
	}
	if got := w.diff(app); len(got) != 0 {
		t.Errorf("nothing differs, but %v", got)
	}
}

func TestDiffOfASecretShowsNoValue(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const secret = `
apiVersion: v1
kind: Secret
metadata: {name: a, namespace: $NS, annotations: {note: b2xkLW5vdGU}}
data: {password: b2xkLXZhbHVl, same: c2FtZS12YWx1ZQ==}
`
	w.mustApply(secret)
	got := w.diff(strings.NewReplacer("b2xkLXZhbHVl", "bmV3LXZhbHVl", "b2xkLW5vdGU", "bmV3LW5vdGU").Replace(secret) + `
---
apiVersion: v1
kind: Secret
metadata: {name: b, namespace: $NS-missing}
stringData: {password: bmV3LXZhbHVl}
---
apiVersion: v1
kind: Namespace
metadata: {name: $NS-missing}
`)
	if len(got) != 3 {
		t.Fatalf("got %v", got)
	}
	all := ""
	for _, d := range got {
		all += d.Text
	}
	for _, value := range []string{"b2xkLXZhbHVl", "bmV3LXZhbHVl", "c2FtZS12YWx1ZQ", "b2xkLW5vdGU", "bmV3LW5vdGU", "old-value"} {
		if strings.Contains(all, value) {
			t.Errorf("the diff shows %q:\n%s", value, all)
		}
	}
	for _, want := range []string{"-  password: '*** (before)'", "+  password: '*** (after)'", "   same: '***'", "name: b"} {
		if !strings.Contains(all, want) {
			t.Errorf("the diff lacks %q:\n%s", want, all)
		}
	}
}

func TestDiffOfWhatKubectlAdded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mustApply(app)
	w.env.Kubectl(t, "-n", w.namespace, "label", "serviceaccount/app", "x=y")
	got := w.diff(app)
	if len(got) != 1 || !cmp.Equal(got[0].TakesOver, []string{"kubectl-label"}) {
		t.Errorf("got %v", got)
	}
}
