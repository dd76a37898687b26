package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// line is an entry as the API server writes it.
func line(stage, agent, verb, uri, ref string, code int) string {
	return fmt.Sprintf(`{"kind":"Event","stage":%q,"requestURI":%q,"verb":%q,"userAgent":%q,%s"responseStatus":{"code":%d}}`+"\n",
		stage, uri, verb, agent, ref, code)
}

func TestTallyPutsARequestIntoItsClass(t *testing.T) {
	t.Parallel()
	const agent, done = "plumb/v1 (engine)", "ResponseComplete"
	ref := func(resource, subresource string) string {
		return fmt.Sprintf(`"objectRef":{"resource":%q,"subresource":%q},`, resource, subresource)
	}
	const object = "/apis/apps/v1/namespaces/a/deployments/b"
	status := "/apis/kustomize.toolkit.fluxcd.io/v1/namespaces/a/kustomizations/b/status?fieldManager=x"
	for name, row := range map[string]struct {
		lines []string
		want  tally
	}{
		"a watch counts when it starts": {
			[]string{line("ResponseStarted", agent, "watch", object, ref("deployments", ""), 200)}, tally{Watches: 1},
		},
		"a watch does not count again when it ends": {
			[]string{line(done, agent, "watch", object, ref("deployments", ""), 200)}, tally{},
		},
		"a refused watch counts": {
			[]string{line(done, agent, "watch", object, ref("deployments", ""), 403)}, tally{Watches: 1},
		},
		"the lease is nobody's work": {
			[]string{line(done, agent, "update", "/apis/coordination.k8s.io/v1/leases/x", ref("leases", ""), 200)}, tally{Lease: 1},
		},
		"an apply": {
			[]string{line(done, agent, "patch", object+"?fieldManager=kustomize-controller&force=true", ref("deployments", ""), 200)},
			tally{Applies: 1, FirstWrites: []string{"patch " + object}},
		},
		"a dry-run is no write": {
			[]string{line(done, agent, "patch", object+"?dryRun=All&fieldManager=kustomize-controller", ref("deployments", ""), 200)},
			tally{DryRuns: 1},
		},
		"a status write": {
			[]string{line(done, agent, "patch", status, ref("kustomizations", "status"), 200)},
			tally{StatusWrites: 1, FirstWrites: []string{"patch " + strings.TrimSuffix(status, "?fieldManager=x")}},
		},
		"an event": {
			[]string{line(done, agent, "create", "/api/v1/namespaces/a/events", ref("events", ""), 201)},
			tally{Events: 1, FirstWrites: []string{"create /api/v1/namespaces/a/events"}},
		},
		"a finalizer is another write, and a refused one counts": {
			[]string{line(done, agent, "patch", "/k", ref("kustomizations", ""), 409)},
			tally{OtherWrites: 1, Refused: 1, FirstWrites: []string{"patch /k"}},
		},
		"reads and discovery": {
			[]string{
				line(done, agent, "get", object, ref("deployments", ""), 404),
				line(done, agent, "list", object, ref("deployments", ""), 200),
				line(done, agent, "get", "/apis/apps/v1", "", 200),
			},
			tally{Gets: 1, Lists: 1, Discovery: 1, Refused: 1},
		},
		"other clients are none of the operator's": {
			[]string{
				line(done, userAgent, "patch", object, ref("deployments", ""), 200),
				line(done, "kube-controller-manager/v1", "update", object, ref("deployments", "status"), 200),
			},
			tally{},
		},
		"a line that is still being written waits": {
			[]string{strings.TrimSuffix(line(done, agent, "get", object, ref("deployments", ""), 200), "\n")}, tally{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := &auditLog{path: filepath.Join(t.TempDir(), "audit.log")}
			earlier := line(done, agent, "get", "/earlier", "", 200)
			if err := os.WriteFile(log.path, []byte(earlier+strings.Join(row.lines, "")), 0o600); err != nil {
				t.Fatal(err)
			}
			got, _, err := log.since(mark(len(earlier)))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("tally (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAuditLogIsReadOnFromWhereItEnded(t *testing.T) {
	t.Parallel()
	log := &auditLog{path: filepath.Join(t.TempDir(), "audit.log")}
	first := line("ResponseComplete", "plumb/v1", "get", "/apis", "", 200)
	if err := os.WriteFile(log.path, []byte(first+first[:10]), 0o600); err != nil {
		t.Fatal(err)
	}
	_, place, err := log.since(0)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(log.path, []byte(first+first), 0o600); err != nil {
		t.Fatal(err)
	}
	got, _, err := log.since(place)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(tally{Discovery: 1}, got); diff != "" {
		t.Errorf("second reading (-want +got):\n%s", diff)
	}
}

func TestMarkIsTheEndOfAWholeLine(t *testing.T) {
	t.Parallel()
	whole := line("ResponseComplete", "plumb/v1", "get", "/apis", "", 200)
	long := strings.Repeat("x", 200<<10)
	for name, row := range map[string]struct {
		content string
		want    int
	}{
		"nothing yet":                    {"", 0},
		"whole lines":                    {whole + whole, 2 * len(whole)},
		"a line in part":                 {whole + whole[:10], len(whole)},
		"the first line in part":         {whole[:10], 0},
		"a long line in part":            {whole + long, len(whole)},
		"a long line, and one in part":   {long + "\n" + whole[:10], len(long) + 1},
		"a long first line, in part too": {long, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := &auditLog{path: filepath.Join(t.TempDir(), "audit.log")}
			if err := os.WriteFile(log.path, []byte(row.content), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := log.now()
			if err != nil {
				t.Fatal(err)
			}
			if got != mark(row.want) {
				t.Errorf("mark %d, want %d", got, row.want)
			}
		})
	}
}

func TestTallySums(t *testing.T) {
	t.Parallel()
	a := tally{Watches: 1, Lease: 2, Discovery: 3, Gets: 4, Lists: 5, DryRuns: 6, Applies: 7, StatusWrites: 8, Events: 9, Deletes: 10, OtherWrites: 11}
	got := map[string]int{"beside": a.beside(), "requests": a.requests(), "writes": a.writes(), "twice": a.add(a).requests()}
	want := map[string]int{"beside": 46, "requests": 63, "writes": 45, "twice": 126}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("sums (-want +got):\n%s", diff)
	}
}
