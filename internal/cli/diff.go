package cli

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/plumb-gitops/plumb/internal/apply"
	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/config"
	"github.com/plumb-gitops/plumb/internal/frontend/flux"
	"github.com/plumb-gitops/plumb/internal/frontend/flux/crds"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/server"
	"github.com/plumb-gitops/plumb/internal/source"
	"github.com/plumb-gitops/plumb/internal/terminal"
	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
)

// exitDiffError is the exit code of an error of diff, whose 1 says that there are
// differences.
const exitDiffError = 2

// artifactWithin is how long an artifact may take to come.
const artifactWithin = time.Minute

// diff is the command line of the command.
type diff struct {
	*app
	artifact    string
	remoteBases bool
	guard       string
	format      *output
}

func (a *app) diffCommand() *cobra.Command {
	d := &diff{app: a}
	command := &cobra.Command{
		Use:   "diff kustomization NAME",
		Short: "Show what the next apply of a Kustomization would change",
		Long: `Builds a Kustomization from its source's artifact, or from other files, and has
the API server try each object without changing anything. Values of Secrets are
masked. Exit codes: 0 no difference, 1 differences, 2 an error.`,
		Example: `  plumb diff ks apps
  plumb diff ks apps --artifact ./my-working-copy`,
		Args: cobra.ExactArgs(2),
	}
	a.connectionFlags(command)
	command.Flags().StringVar(&d.artifact, "artifact", "", "`file` (tar.gz) or folder to build in place of the source's artifact")
	command.Flags().BoolVar(&d.remoteBases, "remote-bases", false, "allow bases of a kustomization that are URLs")
	command.Flags().StringVar(&d.guard, "deletion-guard", "on", "what the operator runs with: `on` or off")
	d.format = outputFlag(command)
	command.RunE = func(command *cobra.Command, args []string) error {
		differences, err := d.find(command.Context(), args[0], args[1])
		if printErr := d.print(differences); printErr != nil && err == nil {
			err = printErr
		}
		switch {
		case err != nil:
			return &exitError{exitDiffError, err}
		case len(differences) > 0:
			return &exitError{ExitFailed, fmt.Errorf("%d objects would change", len(differences))}
		}
		return nil
	}
	return command
}

// find asks for the differences.
func (d *diff) find(ctx context.Context, word, name string) ([]apply.Difference, error) {
	if d.guard != "on" && d.guard != "off" {
		return nil, fmt.Errorf("--deletion-guard %q must be on or off", d.guard)
	}
	kind, err := servedKindOf(word)
	if err != nil {
		return nil, err
	}
	if kind.Kind.Group != kustomizeGroup {
		return nil, fmt.Errorf("%s applies nothing by itself", kind.Kind.Kind)
	}
	c, err := d.connect()
	if err != nil {
		return nil, err
	}
	rc, err := d.restConfig()
	if err != nil {
		return nil, err
	}
	object, err := c.dynamic.Resource(kind.Resource()).Namespace(d.connection.namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, explain(err, kind, d.connection.namespace, name)
	}
	var ks kustomizev1.Kustomization
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &ks); err != nil {
		return nil, fmt.Errorf("read kustomization %q: %w", name, err)
	}
	client, err := kubernetes.NewForConfig(rc)
	if err != nil {
		return nil, err
	}
	defaults, err := config.Default()
	if err != nil {
		return nil, err
	}
	preview, err := flux.NewPreview(ctx, client, &ks, flux.KustomizationOptions{
		StrictSubstitution: defaults.Gates.StrictPostBuildSubstitutions, Sources: flux.SourceKinds(),
	})
	if err != nil {
		return nil, err
	}
	files, revision, err := d.files(ctx, c, preview.Source)
	if err != nil {
		return nil, err
	}
	return server.Diff(ctx, rc, preview, files, server.DiffOptions{
		Version: d.version, RemoteBases: d.remoteBases, Declares: c.declares(ctx, kind),
		DeletionGuard: d.guard == "on", Revision: revision,
	})
}

// files are those of the source, with its revision, or those that the person gave.
func (d *diff) files(ctx context.Context, c *clients, ref gitops.OwnerRef) (files gitops.Tree, revision string, err error) {
	kind, err := kindOf(ref.Kind)
	if err != nil {
		return nil, "", err
	}
	object, err := c.dynamic.Resource(kind.Resource()).Namespace(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	if err != nil {
		return nil, "", explain(err, kind, ref.Namespace, ref.Name)
	}
	if d.artifact != "" {
		ignore, _, _ := unstructured.NestedString(object.Object, "spec", "ignore")
		files, err = localFiles(d.artifact, ignore)
		return files, "", err
	}
	url, _, _ := unstructured.NestedString(object.Object, "status", "artifact", "url")
	digest, _, _ := unstructured.NestedString(object.Object, "status", "artifact", "digest")
	revision, _, _ = unstructured.NestedString(object.Object, "status", "artifact", "revision")
	if url == "" {
		return nil, "", fmt.Errorf("%s %s/%s has no artifact yet; --artifact builds other files", strings.ToLower(ref.Kind), ref.Namespace, ref.Name)
	}
	ctx, cancel := context.WithTimeout(ctx, artifactWithin)
	defer cancel()
	tree, err := artifact.Fetch(ctx, url, digest)
	if err != nil {
		return nil, "", fmt.Errorf("the artifact cannot be reached from here; --artifact takes it as a file, or the folder that it is made of: %w", err)
	}
	return tree, revision, nil
}

// localFiles reads a packed artifact, or a folder as its source would show it.
func localFiles(path, ignore string) (gitops.Tree, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		return artifact.Read(file)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	tree, err := artifact.ReadFolder(root.FS())
	if err != nil {
		return nil, err
	}
	return source.Filter(tree, ignore)
}

// declares tells whether a Kustomization exists and has an object in its inventory.
// They are read once, when it is first asked.
func (c *clients) declares(ctx context.Context, kind crds.Definition) func(gitops.OwnerRef, gitops.ObjectRef) bool {
	list := func() (map[gitops.OwnerRef]gitops.Inventory, error) {
		found, err := c.list(ctx, []crds.Definition{kind}, metav1.NamespaceAll)
		if err != nil {
			return nil, err
		}
		inventories := map[gitops.OwnerRef]gitops.Inventory{}
		for i := range found {
			r, err := read(&found[i])
			if err != nil {
				return nil, err
			}
			var entries []gitops.InventoryEntry
			for _, e := range r.entries() {
				if ref, err := gitops.ParseID(e.ID); err == nil {
					entries = append(entries, gitops.InventoryEntry{Ref: ref, Version: e.V})
				}
			}
			owner := gitops.OwnerRef{Group: kind.Kind.Group, Kind: kind.Kind.Kind, Namespace: r.Metadata.Namespace, Name: r.Metadata.Name}
			inventories[owner.Key()] = gitops.NewInventory(entries)
		}
		return inventories, nil
	}
	once := sync.OnceValues(list)
	return func(owner gitops.OwnerRef, ref gitops.ObjectRef) bool {
		inventories, err := once()
		// Where the others may not be read, they are taken to have what is theirs
		// by its labels.
		return err != nil || inventories[owner.Key()].Has(ref)
	}
}

// printed is a difference as data.
type printed struct {
	Object    string        `json:"object"`
	Action    gitops.Action `json:"action"`
	Diff      string        `json:"diff,omitempty"`
	TakesOver []string      `json:"takesOver,omitempty"`
}

func (d *diff) print(differences []apply.Difference) error {
	if *d.format != outputTable {
		list := make([]printed, 0, len(differences))
		for _, x := range differences {
			list = append(list, printed{x.Ref.String(), x.Action, x.Text, x.TakesOver})
		}
		return d.format.print(d.streams.Out, list)
	}
	to := terminal.Of(d.streams.Out)
	var b strings.Builder
	for _, x := range differences {
		fmt.Fprintf(&b, "%s\n", to.Paint(terminal.Bold, x.Ref.String()+" "+wouldBe(x.Action)))
		for line := range strings.Lines(x.Text) {
			b.WriteString(to.Paint(colourOfLine(line), strings.TrimSuffix(line, "\n")) + "\n")
		}
		if len(x.TakesOver) > 0 {
			fmt.Fprintf(&b, "fields that were added by %s would be removed\n", strings.Join(x.TakesOver, ", "))
		}
		b.WriteByte('\n')
	}
	_, err := fmt.Fprint(d.streams.Out, b.String())
	return err
}

// wouldBe says what the next apply would do with an object.
func wouldBe(action gitops.Action) string {
	if action == gitops.ActionHold {
		return "would be kept until its deletion is confirmed, see plumb approve"
	}
	return "would be " + string(action)
}

func colourOfLine(line string) terminal.Colour {
	switch {
	case strings.HasPrefix(line, "+"):
		return terminal.Green
	case strings.HasPrefix(line, "-"):
		return terminal.Red
	default:
		return ""
	}
}
