package server

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/plumb-gitops/plumb/internal/cluster"
	"github.com/plumb-gitops/plumb/internal/frontend/flux/crds"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// definitionManager is the field manager of the definitions that the operator
// installs itself: not that of managed objects, so that a Kustomization that
// declares them takes them over.
const definitionManager = "plumb"

// installCRDs applies the definitions of all Flux kinds and waits until they
// are served, where that is asked for.
func (s *server) installCRDs(ctx context.Context) error {
	if !s.config.InstallCRDs {
		return nil
	}
	return InstallCRDs(ctx, s.connection.Own())
}

// InstallCRDs applies the definitions of all Flux kinds and waits, for a minute
// at most, until they are served.
func InstallCRDs(ctx context.Context, c *cluster.Client) error {
	definitions, err := crds.All()
	if err != nil {
		return err
	}
	kind := gitops.GroupKind{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition"}
	resource, err := c.Resource(ctx, kind, "v1")
	if err != nil {
		return err
	}
	for _, d := range definitions {
		data, err := json.Marshal(d.Object)
		if err != nil {
			return fmt.Errorf("encode %q: %w", d.Name(), err)
		}
		if _, _, err := c.Apply(ctx, resource, "", d.Name(), data, cluster.ApplyOptions{FieldManager: definitionManager}); err != nil {
			return fmt.Errorf("apply %q: %w", d.Name(), err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	c.Invalidate()
	for _, d := range definitions {
		if err := served(ctx, c, d); err != nil {
			return err
		}
	}
	return nil
}

// served waits until a kind can be used.
func served(ctx context.Context, c *cluster.Client, d crds.Definition) error {
	kind := gitops.GroupKind{Group: d.Kind.Group, Kind: d.Kind.Kind}
	for {
		if err := c.Learn(ctx, d.Kind.Group, d.Kind.Version); err == nil {
			if _, err := c.Resource(ctx, kind, d.Kind.Version); err == nil {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not served: %w", d.Name(), ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}
