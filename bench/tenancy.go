package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"time"

	"github.com/plumb-gitops/plumb/internal/build/sops/seal"
)

const (
	// deployer is the service account that a fleet with tenants is applied as.
	deployer = "deployer"
	// keysName is the Secret with the age identity.
	keysName = "sops-keys"
	// tierLabel shows the variable of a ConfigMap that the driver changes.
	tierLabel = "bench.plumb.dev/tier"
)

// tenancy makes a fleet as those of many teams are: each app is applied with the rights
// of a service account, has a Secret that is encrypted with SOPS, and five variables of
// a ConfigMap of its own.
type tenancy struct {
	identity string
	to       seal.Encryption
}

func newTenancy() (*tenancy, error) {
	identity, recipient, err := seal.Age()
	if err != nil {
		return nil, fmt.Errorf("make an age identity: %w", err)
	}
	return &tenancy{identity: identity, to: seal.Encryption{For: []seal.Recipient{recipient}, Only: "^(data|stringData)$"}}, nil
}

// literals are what stands in a manifest where a fleet with tenants has variables.
func literals() map[string]string {
	return map[string]string{"color": "#34577c", "registry": "registry.example.com", "domain": "example.com", "level": "info", "tier": "one"}
}

// variables are the places of the manifest by name: a variable each with tenants, a
// literal without.
func (f *fleet) variables() map[string]string {
	values := map[string]string{}
	for name, literal := range literals() {
		values[name] = literal
		if f.tenancy != nil {
			values[name] = "${" + name + "}"
		}
	}
	return values
}

// secretFile is the encrypted Secret of an app, as it stands in the repository.
func (f *fleet) secretFile(app int) (string, error) {
	plain := fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata:\n  name: %s\n  namespace: %s\nstringData:\n  password: %q\n",
		f.name(app), f.namespace(app), "secret of "+f.name(app))
	return f.tenancy.to.Encrypt("secret.yaml", plain)
}

// variablesName is the ConfigMap with the variables of an app.
func (f *fleet) variablesName(app int) string { return "vars-" + f.name(app) }

// configMaps is the kind of the variables.
func configMaps() resource { return resource{"ConfigMap", "", "v1", "configmaps"} }

// tenantObjects are what the custom resources of a fleet with tenants refer to. They
// exist before anything is measured.
func (f *fleet) tenantObjects() ([]item, error) {
	if f.tenancy == nil {
		return nil, nil
	}
	named := func(namespace, name string) map[string]any {
		return map[string]any{"namespace": namespace, "name": name}
	}
	type made struct {
		kind            resource
		namespace, name string
		object          map[string]any
	}
	all := []made{
		{resource{"ServiceAccount", "", "v1", "serviceaccounts"}, controlNamespace, deployer, map[string]any{
			"apiVersion": "v1", "kind": "ServiceAccount", "metadata": named(controlNamespace, deployer)}},
		{resource{"ClusterRoleBinding", "rbac.authorization.k8s.io", "v1", "clusterrolebindings"}, "", deployer, map[string]any{
			"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": map[string]any{"name": deployer},
			"roleRef":  map[string]any{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
			"subjects": []any{map[string]any{"kind": "ServiceAccount", "name": deployer, "namespace": controlNamespace}}}},
		{resource{"Secret", "", "v1", "secrets"}, controlNamespace, keysName, map[string]any{
			"apiVersion": "v1", "kind": "Secret", "metadata": named(controlNamespace, keysName),
			"data": map[string]any{"age.agekey": base64.StdEncoding.EncodeToString([]byte(f.tenancy.identity))}}},
	}
	for app := range f.apps {
		all = append(all, made{configMaps(), controlNamespace, f.variablesName(app), map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap", "metadata": named(controlNamespace, f.variablesName(app)), "data": literals()}})
	}
	items := make([]item, 0, len(all))
	for _, m := range all {
		it, err := newItem(m.kind, m.namespace, m.name, m.object)
		if err != nil {
			return nil, err
		}
		items = append(items, it)
	}
	return items, nil
}

// tenantSpec adds to a Kustomization what makes it that of a tenant.
func (f *fleet) tenantSpec(app int, spec map[string]any) {
	if f.tenancy == nil {
		return
	}
	spec["serviceAccountName"] = deployer
	spec["decryption"] = map[string]any{"provider": "sops", "secretRef": map[string]any{"name": keysName}}
	spec["postBuild"] = map[string]any{"substituteFrom": []any{map[string]any{"kind": "ConfigMap", "name": f.variablesName(app)}}}
}

// variableResult is a series of changes of one app's ConfigMap.
type variableResult struct {
	// Live is from the answer to the change to the changed Deployment as the driver's
	// watch shows it.
	Live     samples `json:"liveSeconds"`
	Requests tally   `json:"requestsOfAll"`
}

// variable changes a variable of one app after the other, spread over the fleet.
func (s *session) variable(ctx context.Context) (*variableResult, error) {
	result := &variableResult{}
	for i := range s.options.samples {
		app, tier := s.fleet.spread(i, s.options.samples), fmt.Sprintf("changed-%d", i)
		from, err := s.plane.audit.now()
		if err != nil {
			return nil, err
		}
		live := s.deployments().expect(one(s.fleet.namespace(app), s.fleet.name(app), func(o object) bool { return o.Metadata.Labels[tierLabel] == tier }), atLeast(1))
		began := time.Now()
		path := configMaps().path(controlNamespace) + "/" + s.fleet.variablesName(app)
		if err := s.plane.patch(ctx, path, map[string]any{"data": map[string]any{"tier": tier}}); err != nil {
			return nil, err
		}
		at, err := live(ctx, liveWithin)
		if err != nil {
			return nil, err
		}
		result.Live = append(result.Live, at.Sub(began))
		requests, err := s.operator.quiet(ctx, from, commitPause)
		if err != nil {
			return nil, err
		}
		result.Requests = result.Requests.add(requests)
	}
	return result, nil
}
