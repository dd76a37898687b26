package cluster

import (
	"context"
	"errors"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// discoverer asks the API server which kinds it serves.
type discoverer struct {
	client *discovery.DiscoveryClient
}

// everything takes two requests where the server has aggregated discovery.
// Groups that did not answer are in the table's failed part and are no error.
func (d *discoverer) everything(ctx context.Context) (*table, error) {
	groups, lists, err := discovery.ServerGroupsAndResourcesWithContext(ctx, d.client)
	var partial *discovery.ErrGroupDiscoveryFailed
	if err != nil && !errors.As(err, &partial) {
		return nil, err
	}
	t := &table{
		kinds:     map[gitops.GroupKind]map[string]Resource{},
		preferred: map[string]string{},
		failed:    map[schema.GroupVersion]error{},
	}
	if partial != nil {
		t.failed = partial.Groups
	}
	for _, group := range groups {
		t.preferred[group.Name] = group.PreferredVersion.Version
	}
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			continue // a group of an odd name has no kind that a manifest could name
		}
		for _, res := range resources(gv, list) {
			kind := gitops.GroupKind{Group: gv.Group, Kind: res.Kind}
			if t.kinds[kind] == nil {
				t.kinds[kind] = map[string]Resource{}
			}
			t.kinds[kind][gv.Version] = res
		}
	}
	return t, nil
}

// groupVersion takes one request.
func (d *discoverer) groupVersion(ctx context.Context, gv schema.GroupVersion) ([]Resource, error) {
	list, err := d.client.ServerResourcesForGroupVersionWithContext(ctx, gv.String())
	if IsNotFound(err) {
		return nil, &NotServedError{Group: gv.Group, Version: gv.Version}
	}
	if err != nil {
		return nil, err
	}
	return resources(gv, list), nil
}

func resources(gv schema.GroupVersion, list *metav1.APIResourceList) []Resource {
	var out []Resource
	for _, r := range list.APIResources {
		if strings.Contains(r.Name, "/") || r.Kind == "" {
			continue // a subresource
		}
		out = append(out, Resource{GVR: gv.WithResource(r.Name), Kind: r.Kind, Namespaced: r.Namespaced})
	}
	return out
}
