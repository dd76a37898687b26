package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"

	"github.com/plumb-gitops/plumb/internal/frontend/flux"
	"github.com/plumb-gitops/plumb/internal/frontend/flux/crds"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/health"
	"github.com/plumb-gitops/plumb/internal/terminal"
	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// node is an object of a tree and what it holds.
type node struct {
	Object  string              `json:"object"`
	Health  gitops.HealthStatus `json:"health"`
	Message string              `json:"message,omitempty"`
	// Held is set for an object that is not declared any more and whose deletion
	// waits for a confirmation.
	Held    bool    `json:"held,omitempty"`
	Objects []*node `json:"objects,omitempty"`

	ref     gitops.ObjectRef
	version string
	// rules are those of the Kustomization that holds the object, and elsewhere is set
	// where it is applied to another cluster.
	rules     *health.Rules
	elsewhere bool
}

// treeWorkers is how many objects are read at the same time.
const treeWorkers = 8

func (a *app) treeCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "tree kustomization NAME",
		Short: "Show what a Kustomization has applied, with its health",
		Long: `Shows the inventory of a Kustomization as a tree, with the health of each object
as it is now. A Kustomization in the inventory shows its own.`,
		Example: `  plumb tree ks flux-system`,
		Args:    cobra.ExactArgs(2),
	}
	format := outputFlag(command)
	a.connectionFlags(command)
	command.RunE = func(command *cobra.Command, args []string) error {
		kind, err := kindOf(args[0])
		if err != nil {
			return err
		}
		if kind.Kind.Group != kustomizeGroup {
			return usageError("%s has no inventory to show", kind.Kind.Kind)
		}
		c, err := a.connect()
		if err != nil {
			return err
		}
		root := &node{ref: gitops.ObjectRef{Group: kind.Kind.Group, Kind: kind.Kind.Kind, Namespace: a.connection.namespace, Name: args[1]}, version: kind.Kind.Version}
		if err := c.grow(command.Context(), kind, root); err != nil {
			return err
		}
		if *format != outputTable {
			return format.print(a.streams.Out, root)
		}
		return root.print(a.streams.Out, terminal.Of(a.streams.Out))
	}
	return command
}

// grow fills the tree, one level after the other. An owner that appears again is
// not opened again.
func (c *clients) grow(ctx context.Context, kind crds.Definition, root *node) error {
	if _, err := c.get(ctx, kind, root.ref.Namespace, root.ref.Name); err != nil {
		return err
	}
	opened := map[gitops.ObjectRef]bool{}
	for level := []*node{root}; len(level) > 0; {
		inventories, err := c.look(ctx, level)
		if err != nil {
			return err
		}
		var below []*node
		for i, n := range level {
			if opened[n.ref] {
				continue
			}
			opened[n.ref] = true
			n.Objects = inventories[i]
			below = append(below, n.Objects...)
		}
		level = below
	}
	return nil
}

// look reads the objects of a level, sets their health and gives the inventory of
// each.
func (c *clients) look(ctx context.Context, level []*node) ([][]*node, error) {
	inventories := make([][]*node, len(level))
	errs := make([]error, len(level))
	work := make(chan int)
	var running sync.WaitGroup
	for range min(treeWorkers, len(level)) {
		running.Go(func() {
			for i := range work {
				inventories[i], errs[i] = c.lookAt(ctx, level[i])
			}
		})
	}
	for i := range level {
		work <- i
	}
	close(work)
	running.Wait()
	return inventories, errors.Join(errs...)
}

func (c *clients) lookAt(ctx context.Context, n *node) ([]*node, error) {
	n.Object = n.ref.String()
	if n.elsewhere {
		n.Health, n.Message = gitops.HealthUnknown, "in another cluster (kubeConfig)"
		return nil, nil
	}
	mapper, err := c.mapper()
	if err != nil {
		return nil, err
	}
	mapping, err := mapper.RESTMapping(schema.GroupKind{Group: n.ref.Group, Kind: n.ref.Kind}, n.version)
	switch {
	case meta.IsNoMatchError(err):
		n.Health, n.Message = gitops.HealthUnknown, "the cluster does not know this kind"
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("kinds of the cluster: %w", err)
	}
	object, err := c.dynamic.Resource(mapping.Resource).Namespace(n.ref.Namespace).Get(ctx, n.ref.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		n.Health = gitops.HealthNotFound
		return nil, nil
	case apierrors.IsForbidden(err):
		n.Health, n.Message = gitops.HealthUnknown, "you may not read it"
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", n.ref, err)
	}
	assessed := n.rules.For(n.ref.GroupKind()).Assess(object)
	n.Health, n.Message = assessed.Status, terminal.OneLine(assessed.Message)
	if n.ref.Group != kustomizeGroup {
		return nil, nil
	}
	r, err := read(object)
	if err != nil {
		return nil, err
	}
	if held := r.held(); held != "" {
		n.Message = strings.TrimPrefix(n.Message+"; "+terminal.OneLine(flux.Summary(held)), "; ")
	}
	rules, err := rulesOf(object)
	if err != nil {
		return nil, err
	}
	_, elsewhere, _ := unstructured.NestedMap(object.Object, "spec", "kubeConfig")
	return inventoryOf(r, rules, elsewhere)
}

// rulesOf are the rules by which a Kustomization's objects are assessed. Those that
// cannot be read are as none: its own condition tells of them.
func rulesOf(object *unstructured.Unstructured) (*health.Rules, error) {
	var owner kustomizev1.Kustomization
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &owner); err != nil || len(owner.Spec.HealthCheckExprs) == 0 {
		return nil, nil
	}
	language, err := health.NewLanguage()
	if err != nil {
		return nil, err
	}
	rules, err := flux.HealthRules(language, owner.Spec.HealthCheckExprs)
	if err != nil {
		return nil, nil
	}
	return rules, nil
}

func inventoryOf(r resource, rules *health.Rules, elsewhere bool) ([]*node, error) {
	var nodes []*node
	for _, entry := range r.entries() {
		ref, err := gitops.ParseID(entry.ID)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r, err)
		}
		nodes = append(nodes, &node{ref: ref, version: entry.V, rules: rules, elsewhere: elsewhere})
	}
	for _, name := range flux.HeldObjects(r.held()) {
		for _, n := range nodes {
			n.Held = n.Held || n.ref.String() == name
		}
	}
	slices.SortFunc(nodes, func(x, y *node) int { return strings.Compare(x.ref.String(), y.ref.String()) })
	return nodes, nil
}

func (n *node) print(w io.Writer, to terminal.Terminal) error {
	t := terminal.Table{Header: []string{"OBJECT", "HEALTH", "MESSAGE"}, Colours: colourOfHealth}
	n.rows(&t, "", "")
	return t.Print(w, to)
}

// rows adds the node and all below it; first and rest are what stands before its
// own line and before the lines below.
func (n *node) rows(t *terminal.Table, first, rest string) {
	message := n.Message
	if n.Held {
		message = strings.TrimPrefix(message+"; its deletion is held", "; ")
	}
	t.Rows = append(t.Rows, []string{first + n.Object, string(n.Health), message})
	for i, child := range n.Objects {
		if i < len(n.Objects)-1 {
			child.rows(t, rest+"├── ", rest+"│   ")
		} else {
			child.rows(t, rest+"└── ", rest+"    ")
		}
	}
}

func colourOfHealth(word string) terminal.Colour {
	switch gitops.HealthStatus(word) {
	case gitops.HealthCurrent:
		return terminal.Green
	case gitops.HealthFailed, gitops.HealthNotFound:
		return terminal.Red
	case gitops.HealthInProgress, gitops.HealthTerminating, gitops.HealthUnknown:
		return terminal.Yellow
	}
	return ""
}
