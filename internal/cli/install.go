package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/plumb-gitops/plumb/internal/install"
	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// installed is what plumb install and plumb uninstall print as data.
type installed struct {
	Namespace string           `json:"namespace"`
	Profile   install.Profile  `json:"profile,omitempty"`
	Image     string           `json:"image,omitempty"`
	Objects   []install.Change `json:"objects"`
}

func (a *app) installCommand() *cobra.Command {
	o := install.Options{Version: a.version}
	var export bool
	var timeout time.Duration
	var profile string
	command := &cobra.Command{
		Use:   "install",
		Short: "Install the operator into a cluster",
		Long: `Applies the operator's manifests by server-side apply and waits until it is
available. To run it again changes nothing; with other flags it changes what differs.

Profiles: single lets the operator do everything in the cluster, as Flux's
controllers may. tenants lets it do nothing but act as the service account that a
Kustomization names ("default" where it names none), so that each tenant has the
rights of its own account.

It refuses while Flux's controllers run that work on the same objects, and says how
to stop them.`,
		Example: `  plumb install
  plumb install --profile tenants --image registry.example.org/plumb:v1
  plumb install --export > clusters/production/flux-system/plumb-components.yaml`,
		Args: cobra.NoArgs,
	}
	a.connectionFlags(command)
	flags := command.Flags()
	flags.Lookup("namespace").Usage = "`namespace` that the operator runs in"
	flags.StringVar(&profile, "profile", string(install.Single), "`rights` of the operator: single or tenants")
	flags.StringVar(&o.Image, "image", "", "`image` of the operator; default: that of this release")
	flags.StringArrayVar(&o.Arguments, "arg", nil, "`flag` of the operator to add, such as --arg=--concurrent=10; may be repeated")
	flags.BoolVar(&o.BesideFlux, "beside-flux", false, "install although Flux's controllers run, with a Service of its own; see that they share no object")
	flags.BoolVar(&export, "export", false, "print the manifests, ask no cluster")
	flags.DurationVar(&timeout, "timeout", 5*time.Minute, "longest `time` to wait")
	format := outputFlag(command)
	command.RunE = func(command *cobra.Command, _ []string) error {
		o.Namespace, o.Profile = a.connection.namespace, install.Profile(profile)
		if o.Image = cmp.Or(o.Image, install.DefaultImage(a.version)); o.Image == "" {
			return usageError("version %s of this program was not released and has no image: name one with --image", a.version)
		}
		if err := o.Validate(); err != nil {
			return usageError("%w", err)
		}
		if timeout <= 0 {
			return usageError("--timeout must be above 0")
		}
		if export {
			return a.exportManifests(o, *format)
		}
		ctx, cancel := context.WithTimeout(command.Context(), timeout)
		defer cancel()
		i, err := a.installer()
		if err != nil {
			return err
		}
		changes, err := i.Install(ctx, o)
		if *format != outputTable {
			err = errors.Join(format.print(a.streams.Out, installed{o.Namespace, o.Profile, o.Image, changes}), err)
		}
		if err != nil {
			return err
		}
		a.progress("the operator is available in namespace %s: %s", o.Namespace, tally(changes))
		return nil
	}
	return command
}

func (a *app) exportManifests(o install.Options, format output) error {
	objects, err := install.Objects(o)
	if err != nil {
		return err
	}
	if format != outputJSON {
		return install.Write(a.streams.Out, objects)
	}
	list := make([]unstructured.Unstructured, len(objects))
	for n, object := range objects {
		list[n] = *object
	}
	return format.print(a.streams.Out, asList(list))
}

func (a *app) installer() (*install.Installer, error) {
	config, err := a.restConfig()
	if err != nil {
		return nil, err
	}
	return install.New(config, a.progress)
}

// tally counts what became of objects.
func tally(changes []install.Change) string {
	count := map[install.Action]int{}
	for _, c := range changes {
		count[c.Action]++
	}
	text := fmt.Sprintf("%d objects", len(changes))
	separator := ", "
	for _, action := range []install.Action{install.Created, install.Configured, install.Unchanged, install.Deleted, install.Kept} {
		if count[action] > 0 {
			text += fmt.Sprintf("%s%d %s", separator, count[action], action)
		}
	}
	return text
}
