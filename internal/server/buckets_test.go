package server

import (
	"testing"

	"k8s.io/utils/clock"

	"github.com/plumb-gitops/plumb/internal/auth"
	"github.com/plumb-gitops/plumb/internal/auth/authtest"
	"github.com/plumb-gitops/plumb/internal/auth/azure"
	"github.com/plumb-gitops/plumb/internal/frontend/flux"
)

// A managed identity that a Secret names is that as which the operator logs in, and what
// one of them may read is not shown to another.
func TestManagedIdentityOfABucket(t *testing.T) {
	for _, name := range []string{"AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_FEDERATED_TOKEN_FILE", "IDENTITY_ENDPOINT", "MSI_ENDPOINT"} {
		t.Setenv(name, "")
	}
	s := &server{logins: auth.New(auth.Options{
		Clouds: map[string]auth.Cloud{azure.Name: azure.New()}, MaxTokens: 10, Clock: clock.RealClock{}, Transport: authtest.New(t).Transport(),
	})}
	t.Cleanup(s.logins.Close)
	identities := map[string]bool{}
	for client, want := range map[string]string{"": "the machine", "one": "the machine as one", "two": "the machine as two"} {
		request := s.bucketRequest(flux.BucketRequest{
			Provider: "azure", Bucket: "fleet", Login: flux.Login{Provider: "azure", Client: client}, Secret: map[string][]byte{"clientId": []byte(client)},
		})
		identities[request.Identity] = true
		credential, err := request.Login(t.Context())
		if got := authtest.Holder(credential.BearerToken); err != nil || got != want+" for https://storage.azure.com" {
			t.Errorf("client %q: %q, %v", client, got, err)
		}
	}
	if len(identities) != 3 {
		t.Errorf("there are %d identities, want 3: %v", len(identities), identities)
	}
}
