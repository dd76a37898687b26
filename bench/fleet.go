package main

import (
	"bytes"
	"fmt"
	"text/template"

	"sigs.k8s.io/yaml"
)

const (
	// controlNamespace holds the custom resources.
	controlNamespace = "flux-system"
	// sourceName is the name of the one GitRepository.
	sourceName = "fleet"
	// applyManager is the field manager that the operator applies with; the bare
	// client uses it too, so that both write the same bytes.
	applyManager = "kustomize-controller"
	// foreignManager is who the driver's own changes are made as: neither the
	// operator nor one that is taken over by name.
	foreignManager = "plumb-bench"
	// ownerName and ownerNamespace are the labels that tell whose an object is.
	ownerName      = "kustomize.toolkit.fluxcd.io/name"
	ownerNamespace = "kustomize.toolkit.fluxcd.io/namespace"
	// versionLabel changes with each version of an app.
	versionLabel = "app.kubernetes.io/version"
	// partOf selects all objects of all apps.
	partOf = "app.kubernetes.io/part-of=bench-fleet"
	// requestedAt asks for a reconciliation now.
	requestedAt = "reconcile.fluxcd.io/requestedAt"
)

// resource is a kind as URLs have it.
type resource struct{ kind, group, version, plural string }

// path is the collection of the kind in a namespace, or in all of them.
func (r resource) path(namespace string) string {
	path := "/apis/" + r.group + "/" + r.version
	if r.group == "" {
		path = "/api/" + r.version
	}
	if namespace != "" {
		path += "/namespaces/" + namespace
	}
	return path + "/" + r.plural
}

// The kinds of the custom resources and of the namespaces.
func namespaces() resource { return resource{"Namespace", "", "v1", "namespaces"} }
func gitRepositories() resource {
	return resource{"GitRepository", "source.toolkit.fluxcd.io", "v1", "gitrepositories"}
}
func kustomizations() resource {
	return resource{"Kustomization", "kustomize.toolkit.fluxcd.io", "v1", "kustomizations"}
}

// deployments is the kind that shows the version of an app.
func deployments() resource { return resource{"Deployment", "apps", "v1", "deployments"} }

// appKinds are the kinds of an app's objects, in the order in which Flux applies
// them.
func appKinds() []resource {
	return []resource{
		{"ServiceAccount", "", "v1", "serviceaccounts"},
		{"Service", "", "v1", "services"},
		deployments(),
		{"Ingress", "networking.k8s.io", "v1", "ingresses"},
	}
}

// fleet is what is deployed: apps of four objects each, spread over namespaces.
type fleet struct {
	apps, namespaces int
	manifest         *template.Template
	// tenancy is set for a fleet with tenants.
	tenancy *tenancy
}

func newFleet(apps, namespaces int) (*fleet, error) {
	manifest, err := template.New("app").Parse(appTemplate)
	if err != nil {
		return nil, fmt.Errorf("template of an app: %w", err)
	}
	return &fleet{apps: apps, namespaces: min(apps, namespaces), manifest: manifest}, nil
}

// name of an app; they count from 0, their names from 1.
func (f *fleet) name(app int) string { return fmt.Sprintf("app-%04d", app+1) }

// namespace that an app's objects live in.
func (f *fleet) namespace(app int) string { return fmt.Sprintf("bench-%02d", app%f.namespaces+1) }

// version as the label has it.
func version(n int) string { return fmt.Sprintf("1.0.%d", n) }

// file is the manifest of an app as it stands in the repository.
func (f *fleet) file(app, versionNumber int) ([]byte, error) {
	var out bytes.Buffer
	values := f.variables()
	values["Name"], values["Namespace"], values["Version"] = f.name(app), f.namespace(app), version(versionNumber)
	err := f.manifest.Execute(&out, values)
	return out.Bytes(), err
}

// objects are an app's objects as the operator renders them: with the labels of
// the owner. They stand in the order of appKinds.
func (f *fleet) objects(app, versionNumber int) ([]item, error) {
	file, err := f.file(app, versionNumber)
	if err != nil {
		return nil, err
	}
	byKind := map[string]map[string]any{}
	for _, document := range bytes.Split(file, []byte("\n---\n")) {
		object := map[string]any{}
		if err := yaml.Unmarshal(document, &object); err != nil {
			return nil, fmt.Errorf("manifest of %s: %w", f.name(app), err)
		}
		labels := object["metadata"].(map[string]any)["labels"].(map[string]any)
		labels[ownerName], labels[ownerNamespace] = f.name(app), controlNamespace
		byKind[object["kind"].(string)] = object
	}
	var items []item
	for _, kind := range appKinds() {
		object, ok := byKind[kind.kind]
		if !ok {
			return nil, fmt.Errorf("manifest of %s has no %s", f.name(app), kind.kind)
		}
		it, err := newItem(kind, f.namespace(app), f.name(app), object)
		if err != nil {
			return nil, err
		}
		items = append(items, it)
	}
	return items, nil
}

// allObjects are the objects of all apps, kind after kind.
func (f *fleet) allObjects(versionNumber int) ([]item, error) {
	kinds := make([][]item, len(appKinds()))
	for app := range f.apps {
		items, err := f.objects(app, versionNumber)
		if err != nil {
			return nil, err
		}
		for i, it := range items {
			kinds[i] = append(kinds[i], it)
		}
	}
	var all []item
	for _, items := range kinds {
		all = append(all, items...)
	}
	return all, nil
}

// allNamespaces are the namespaces that exist before anything is measured.
func (f *fleet) allNamespaces() ([]item, error) {
	names := []string{controlNamespace}
	for app := range f.namespaces {
		names = append(names, f.namespace(app))
	}
	var items []item
	for _, name := range names {
		it, err := newItem(namespaces(), "", name, map[string]any{
			"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": name},
		})
		if err != nil {
			return nil, err
		}
		items = append(items, it)
	}
	return items, nil
}

// customResources are the GitRepository and the Kustomizations.
func (f *fleet) customResources(url, interval string) ([]item, error) {
	source, err := newItem(gitRepositories(), controlNamespace, sourceName, map[string]any{
		"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository",
		"metadata": map[string]any{"name": sourceName, "namespace": controlNamespace},
		"spec":     map[string]any{"url": url, "interval": interval, "ref": map[string]any{"branch": "main"}},
	})
	if err != nil {
		return nil, err
	}
	items := []item{source}
	for app := range f.apps {
		spec := map[string]any{
			"interval": interval, "timeout": "5m", "wait": true, "prune": true,
			"path":      "./apps/" + f.name(app),
			"sourceRef": map[string]any{"kind": "GitRepository", "name": sourceName},
		}
		f.tenantSpec(app, spec)
		it, err := newItem(kustomizations(), controlNamespace, f.name(app), map[string]any{
			"apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
			"metadata": map[string]any{"name": f.name(app), "namespace": controlNamespace},
			"spec":     spec,
		})
		if err != nil {
			return nil, err
		}
		items = append(items, it)
	}
	return items, nil
}

// spread gives the app of the i-th of n samples, evenly over the whole fleet.
func (f *fleet) spread(i, n int) int { return i * f.apps / n % f.apps }
