package cluster

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/client-go/rest"
)

// TestForeign has a server that is no API server answer for one: what it points at is not
// asked, what does not end is not read, and another object than that which was asked for
// is not taken.
func TestForeign(t *testing.T) {
	t.Parallel()
	asked := false
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked = true
		_, _ = fmt.Fprint(w, `{"metadata":{"name":"a","namespace":"ns"},"secret":"of the network"}`)
	}))
	defer other.Close()
	config := Resource{Kind: "ConfigMap", Namespaced: true}
	config.GVR.Version, config.GVR.Resource = "v1", "configmaps"
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"a redirect": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, http.StatusFound) }, "it redirects"},
		"another object": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprint(w, `{"kind":"ConfigMap","metadata":{"name":"b","namespace":"ns"}}`)
		}, `the API server's answer is not ConfigMap "a"`},
		"no end": {func(w http.ResponseWriter, r *http.Request) {
			part := []byte(strings.Repeat(" ", 1<<20))
			for r.Context().Err() == nil {
				if _, err := w.Write(part); err != nil {
					return
				}
			}
		}, "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(test.answer)
			defer server.Close()
			connection, err := Connect(Foreign(&rest.Config{Host: server.URL}, true), Options{Remote: server.URL})
			if err != nil {
				t.Fatal(err)
			}
			_, err = connection.Own().Get(t.Context(), config, "ns", "a")
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
	if asked {
		t.Error("what the redirect points at was asked")
	}
}

func TestDialled(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]bool{
		"10.0.0.1:6443": true, "203.0.113.7:443": true, "[2001:db8::1]:443": true,
		"169.254.169.254:80": false, "[fe80::1]:80": false, "[::ffff:169.254.169.254]:80": false, "0.0.0.0:1": false, "[::]:1": false, "224.0.0.1:1": false,
		"127.0.0.1:6443": false, "[::1]:6443": false,
	} {
		if err := checkDialled(address, false); (err == nil) != want {
			t.Errorf("%s: %v", address, err)
		}
	}
	if err := checkDialled("127.0.0.1:6443", true); err != nil {
		t.Errorf("loopback where it is allowed: %v", err)
	}
	if err := checkDialled("169.254.169.254:80", true); err == nil {
		t.Error("link-local is dialled")
	}
}
