package lab

import (
	"context"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/install"
)

// Account applies, as an administrator, what an installation has of namespace, account and
// rights, and gives the configuration of a client with a token of that account: an operator
// that runs with it may do exactly what an installed one may. Its definitions, and its
// Deployment, are left out.
func Account(ctx context.Context, admin *rest.Config, profile install.Profile, namespace string) (*rest.Config, error) {
	objects, err := install.Objects(install.Options{Namespace: namespace, Profile: profile, Image: "example.org/plumb:test", Version: "test"})
	if err != nil {
		return nil, err
	}
	c, err := client.New(admin, client.Options{})
	if err != nil {
		return nil, err
	}
	for _, object := range objects {
		switch object.GetKind() {
		case "Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding":
			if err := c.Apply(ctx, client.ApplyConfigurationFromUnstructured(object), client.FieldOwner("lab"), client.ForceOwnership); err != nil {
				return nil, fmt.Errorf("apply %s %s: %w", object.GetKind(), object.GetName(), err)
			}
		}
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "plumb"}}
	token := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To(int64(12 * 60 * 60))}}
	if err := c.SubResource("token").Create(ctx, account, token); err != nil {
		return nil, fmt.Errorf("make a token of %s: %w", client.ObjectKeyFromObject(account), err)
	}
	config := rest.AnonymousClientConfig(admin)
	config.BearerToken = token.Status.Token
	return config, nil
}
