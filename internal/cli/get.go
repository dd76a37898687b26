package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/plumb-gitops/plumb/internal/frontend/flux/crds"
	"github.com/plumb-gitops/plumb/internal/telemetry"
	"github.com/plumb-gitops/plumb/internal/terminal"
	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func (a *app) getCommand() *cobra.Command {
	var allNamespaces bool
	command := &cobra.Command{
		Use:   "get [KIND]",
		Short: "List sources, Kustomizations and other objects with their state",
		Long: `Lists objects of a kind, or of all kinds, with what they say of themselves. KIND
is a kind's name, plural or short name, or sources, or all (the default).`,
		Example: `  plumb get
  plumb get sources -A
  plumb get ks -n apps -o yaml`,
		Args: cobra.MaximumNArgs(1),
	}
	format := outputFlag(command)
	a.connectionFlags(command)
	command.Flags().BoolVarP(&allNamespaces, "all-namespaces", "A", false, "objects of all namespaces")
	command.RunE = func(command *cobra.Command, args []string) error {
		word := "all"
		if len(args) == 1 {
			word = args[0]
		}
		kinds, err := kindsOf(word)
		if err != nil {
			return err
		}
		c, err := a.connect()
		if err != nil {
			return err
		}
		namespace := a.connection.namespace
		if allNamespaces {
			namespace = metav1.NamespaceAll
		}
		found, err := c.list(command.Context(), kinds, namespace)
		if err != nil {
			return err
		}
		if *format != outputTable {
			return format.print(a.streams.Out, redacted(asList(found)))
		}
		return a.printTable(found, len(kinds) > 1, allNamespaces)
	}
	return command
}

// list reads the objects of the kinds. Where several kinds are asked for, one
// that the cluster does not know is passed over.
func (c *clients) list(ctx context.Context, kinds []crds.Definition, namespace string) ([]unstructured.Unstructured, error) {
	var found []unstructured.Unstructured
	for _, kind := range kinds {
		list, err := c.dynamic.Resource(kind.Resource()).Namespace(namespace).List(ctx, metav1.ListOptions{})
		if apierrors.IsNotFound(err) && len(kinds) > 1 {
			continue
		}
		if err != nil {
			return nil, explain(err, kind, namespace, "")
		}
		found = append(found, list.Items...)
	}
	return found, nil
}

// asList is the list that kubectl prints, without what only the API server needs.
func asList(found []unstructured.Unstructured) map[string]any {
	items := make([]any, 0, len(found))
	for _, object := range found {
		object.SetManagedFields(nil)
		items = append(items, object.Object)
	}
	return map[string]any{"apiVersion": "v1", "kind": "List", "items": items}
}

func (a *app) printTable(found []unstructured.Unstructured, showKind, showNamespace bool) error {
	if len(found) == 0 {
		where := fmt.Sprintf("namespace %q", a.connection.namespace)
		if showNamespace {
			where = "any namespace"
		}
		a.progress("no objects found in %s", where)
		return nil
	}
	t := terminal.Table{Header: []string{"NAME", "READY", "REVISION", "SUSPENDED", "AGE", "MESSAGE"}, Colours: colourOfReady}
	if showNamespace {
		t.Header = slices.Insert(t.Header, 0, "NAMESPACE")
	}
	served, err := servedKinds()
	if err != nil {
		return err
	}
	now := time.Now()
	for i := range found {
		r, err := read(&found[i])
		if err != nil {
			return err
		}
		name := r.Metadata.Name
		if showKind {
			name = strings.ToLower(r.Kind) + "/" + name
		}
		ready := r.condition("Ready")
		row := []string{name, string(ready.Status), shortRevision(r.revision()), fmt.Sprint(r.Spec.Suspend), r.age(now), r.message()}
		if ready.Status == "" && !served[found[i].GroupVersionKind().GroupKind().String()] {
			row[1] = "not served"
		}
		if showNamespace {
			row = slices.Insert(row, 0, r.Metadata.Namespace)
		}
		t.Rows = append(t.Rows, row)
	}
	return t.Print(a.streams.Out, terminal.Of(a.streams.Out))
}

func servedKinds() (map[string]bool, error) {
	definitions, err := crds.Served()
	if err != nil {
		return nil, err
	}
	served := map[string]bool{}
	for _, d := range definitions {
		served[d.Kind.GroupKind().String()] = true
	}
	return served, nil
}

func colourOfReady(word string) terminal.Colour {
	switch word {
	case string(metav1.ConditionTrue):
		return terminal.Green
	case string(metav1.ConditionFalse):
		return terminal.Red
	case string(metav1.ConditionUnknown), "not served":
		return terminal.Yellow
	}
	return ""
}

// shortRevision cuts the hash of a revision such as main@sha1:… to eight digits.
func shortRevision(revision string) string {
	const digits = 8
	i := strings.LastIndex(revision, ":")
	if i < 0 || len(revision) <= i+1+digits {
		return revision
	}
	return revision[:i+1+digits]
}

// redacted is a value without the secrets that its texts show: a URL may have a password,
// and what is printed is sent on and pasted elsewhere.
func redacted(value any) any {
	switch v := value.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, of := range v {
			out[key] = redacted(of)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, of := range v {
			out[i] = redacted(of)
		}
		return out
	case string:
		return telemetry.Redact(v)
	}
	return value
}
