package egress

import (
	"context"
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
			at := At(t.Context(), Place{Folder: "bucket/apps/web"})
			request, err := http.NewRequestWithContext(at, http.MethodGet, strings.TrimSuffix(test.target, "/")+"/bucket/apps/web/x", nil)
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

// Whoever writes a status names an artifact of its own object only, where a server has those
// of many.
func TestArtifactsAreOfTheirObject(t *testing.T) {
	t.Parallel()
	server := newSeen(t, httptest.NewServer, fine)
	detour := newSeen(t, httptest.NewServer, redirectTo(server.URL+"/bucket/victim/web/x.tar.gz"))
	place := Place{Folder: "bucket/apps/web", Tops: []string{"bucket", "gitrepository"}}
	for name, test := range map[string]struct {
		path                 string
		nobody               bool // the request is for no object
		declared, undeclared bool // taken from a server that is
	}{
		"its own":                            {path: "/bucket/apps/web/x.tar.gz", declared: true, undeclared: true},
		"its own, deeper":                    {path: "/bucket/apps/web/a/x.tar.gz", declared: true, undeclared: true},
		"another namespace's":                {path: "/bucket/victim/web/x.tar.gz"},
		"another kind's":                     {path: "/gitrepository/apps/web/x.tar.gz"},
		"another object's":                   {path: "/bucket/apps/web2/x.tar.gz"},
		"its folder itself":                  {path: "/bucket/apps/web", undeclared: true},
		"another one's by a detour":          {path: "/bucket/apps/web/../../victim/web/x.tar.gz"},
		"another one's by a written detour":  {path: "/bucket/apps/web/%2e%2e/%2e%2e/victim/web/x.tar.gz"},
		"another one's, written twice":       {path: "/bucket/apps/web/%252e%252e/%252e%252e/victim/web/x.tar.gz"},
		"another one's by a written slash":   {path: "/bucket/apps/web/..%2f..%2fvictim/web/x.tar.gz"},
		"another one's by slashes":           {path: "//bucket//victim/web/x.tar.gz"},
		"another one's in capitals":          {path: "/Bucket/victim/web/x.tar.gz"},
		"another one's from another folder":  {path: "/x/../bucket/victim/web/x.tar.gz"},
		"a path that the server has chosen":  {path: "/store/x.tar.gz", undeclared: true},
		"a longer one that it has chosen":    {path: "/store/bucket/victim/web/x.tar.gz", undeclared: true},
		"one like its own, that nobody asks": {path: "/bucket/apps/web/x.tar.gz", nobody: true, undeclared: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, declared := range []bool{true, false} {
				var servers []string
				want := test.undeclared
				if declared {
					servers, want = []string{"127.0.0.1"}, test.declared
				}
				client, err := Artifacts(Policy{}, servers)
				if err != nil {
					t.Fatal(err)
				}
				ctx := At(t.Context(), place)
				if test.nobody {
					ctx = t.Context()
				}
				if err := ask(t, ctx, client, server.URL+test.path); isRefused(err) == want || want && err != nil {
					t.Errorf("declared %t: %v", declared, err)
				}
			}
		})
	}
	client, err := Artifacts(Policy{}, []string{strings.TrimPrefix(server.URL, "http://")})
	if err != nil {
		t.Fatal(err)
	}
	err = ask(t, At(t.Context(), place), client, detour.URL+"/bucket/apps/web/x.tar.gz")
	if want := "the path is refused; the artifacts of this object are in bucket/apps/web/ there"; !isRefused(err) || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("redirected to another one's: %v", err)
	}
}

// ask sends a request and gives its error.
func ask(t *testing.T, ctx context.Context, client *http.Client, target string) error {
	t.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err == nil {
		_ = response.Body.Close()
	}
	return err
}
