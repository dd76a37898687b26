package oci_test

import (
	"fmt"
	"testing"

	"github.com/plumb-gitops/plumb/internal/source/oci"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// TestRequestsShareConnections fetches from many repositories, one after the other: one
// connection is enough for all with the same credential, and those with another one get
// one of their own.
func TestRequestsShareConnections(t *testing.T) {
	t.Parallel()
	registry := testenv.NewRegistry(t, testenv.RegistryOptions{TLS: true, Username: "ann", Password: "word", Bearer: true})
	s := openStore(t, oci.Options{})
	config := []byte(fmt.Sprintf(`{"auths":{%q:{"username":"ann","password":"word"}}}`, registry.Host()))
	pull := func(auth oci.Auth) (connections, requests int64) {
		t.Helper()
		before, asked := registry.Connections(), registry.Requests()
		for i := range 10 {
			repository := fmt.Sprintf("app-%d", i)
			registry.Push(t, repository, "latest", testenv.Files{"a": repository})
			fetch(t, s, oci.Request{URL: registry.URL(repository), TLS: tlsOf(registry.CA), Auth: auth}, "")
		}
		return registry.Connections() - before, registry.Requests() - asked
	}
	for name, auth := range map[string]oci.Auth{
		"a password":      {Username: "ann", Password: "word"},
		"a docker config": {DockerConfigs: [][]byte{config, []byte(`{"auths":{"example.com":{"auth":"eDp5"}}}`)}},
	} {
		connections, requests := pull(auth)
		// A token, a manifest and a layer each; the registry is asked once how it lets in. The
		// same password from another place is the same credential.
		if connections > 1 || requests > 31 {
			t.Errorf("%s: %d connections and %d requests for 10 repositories", name, connections, requests)
		}
	}
	before := registry.Connections()
	stranger := oci.Request{URL: registry.URL("app-0"), TLS: tlsOf(registry.CA), Auth: oci.Auth{Username: "ann", Password: "old"}}
	if _, err := s.Fetch(t.Context(), stranger, ""); err == nil || registry.Connections() == before {
		t.Errorf("somebody else shares a connection: %v", err)
	}
}
