package egress

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// TestArtifactsOfDeclaredServers: servers at private addresses have to be declared.
func TestArtifactsOfDeclaredServers(t *testing.T) {
	t.Parallel()
	server := newSeen(t, httptest.NewServer, fine)
	redirecting := newSeen(t, httptest.NewServer, redirectTo(server.URL))
	named := strings.Replace(server.URL, "127.0.0.1", "LOCALHOST", 1)
	for name, test := range map[string]struct {
		target   string
		declared []string
		free     bool // without --no-private-sources
		refused  bool
	}{
		"anybody, where nothing is refused": {target: server.URL, free: true},
		"nobody is declared":                {target: server.URL, refused: true},
		"another one is":                    {target: server.URL, declared: []string{"127.0.0.2", "127.0.0.1:1"}, refused: true},
		"its host is":                       {target: server.URL, declared: []string{"127.0.0.1"}},
		"its host and port are":             {target: server.URL, declared: []string{strings.TrimPrefix(server.URL, "http://")}},
		"its name is, in another way":       {target: named, declared: []string{"localhost"}},
		"a name is, and its address asked":  {target: server.URL, declared: []string{"localhost"}, refused: true},
		"it redirects to one that is not":   {target: redirecting.URL, declared: []string{strings.TrimPrefix(redirecting.URL, "http://")}, refused: true},
		"metadata, even if declared":        {target: "http://169.254.169.254/", declared: []string{"169.254.169.254"}, refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, err := Artifacts(Policy{NoPrivate: !test.free}, test.declared)
			if err != nil {
				t.Fatal(err)
			}
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, test.target, nil)
			if err != nil {
				t.Fatal(err)
			}
			response, err := client.Do(request)
			if err == nil {
				_ = response.Body.Close()
			}
			if isRefused(err) != test.refused || !test.refused && err != nil {
				t.Errorf("got %v", err)
			}
			if test.refused && !strings.Contains(test.target, "169") && !strings.Contains(err.Error(), "--artifact-server") {
				t.Errorf("it does not say what to do: %v", err)
			}
		})
	}
}

func TestDeclaredServersAreWrittenInManyWays(t *testing.T) {
	t.Parallel()
	for declared, target := range map[string]string{
		"source-controller.flux-system.svc.cluster.local": "http://source-controller.flux-system.svc.cluster.local./x",
		"Host.":       "http://host:8080/x",
		"host:80":     "http://HOST./x",
		"host:443":    "https://host/x",
		"[fd00::1]":   "http://[fd00::1]:9090/x",
		"fd00::1":     "http://[FD00::1]/x",
		"[fd00::1]:9": "http://[fd00::1]:9/x",
	} {
		u, err := url.Parse(target)
		if err != nil {
			t.Fatal(err)
		}
		a := &artifacts{declared: map[string]bool{plainServer(declared): true}}
		if !a.isDeclared(u) {
			t.Errorf("%s is not declared by %s", target, declared)
		}
		if u, _ := url.Parse("http://a.host:9/x"); a.isDeclared(u) {
			t.Errorf("%s is declared by %s", u, declared)
		}
	}
}
