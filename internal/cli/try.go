package cli

import (
	"fmt"
	"time"

	"github.com/plumb-gitops/plumb/internal/config"
	"github.com/plumb-gitops/plumb/internal/try"
	"github.com/spf13/cobra"
)

func (a *app) tryCommand() *cobra.Command {
	o := try.Options{Version: a.version, Out: a.streams.Out, Err: a.streams.Err}
	command := &cobra.Command{
		Use:   "try [PATH|URL]",
		Short: "Run a Git repository on a local control plane and watch it",
		Long: `Starts a Kubernetes control plane on this machine, runs the operator in this
process, and lets it apply a Git repository as "flux bootstrap" would set it up.
Workloads are simulated: pods become ready, and nothing runs in them.

PATH (default: this folder) is a folder of a Git repository, whose commits are
picked up as they are made, or any other folder, whose files are. A URL is
followed as it is. Ctrl-C ends everything and leaves nothing behind.

With --once the exit code is 0 when all is ready, 1 when something failed or the
time ran out, 3 when only kinds are missing that this version does not serve.`,
		Example: `  plumb try
  plumb try ~/fleet --path clusters/staging --watch
  plumb try --rewrite oci://registry.example/=oci://127.0.0.1:5000/
  plumb try --once -o json https://example.org/fleet.git`,
		Args: cobra.MaximumNArgs(1),
	}
	flags := command.Flags()
	flags.StringVar(&o.Path, "path", "", "`folder` of the repository to apply; default: PATH inside its repository, the only folder with flux-system/gotk-sync.yaml, the root")
	flags.StringVar(&o.Branch, "branch", "", "`branch` to follow; default: what is checked out")
	flags.BoolVarP(&o.Watch, "watch", "w", false, "take uncommitted files too")
	flags.StringVar(&o.Dir, "dir", "", "`folder` that keeps the cluster for the next time; default: one that goes with the session")
	flags.BoolVar(&o.Once, "once", false, "end when the outcome is known, print a summary")
	flags.DurationVar(&o.Timeout, "timeout", 5*time.Minute, "`time` after which --once gives up")
	rewrites := flags.StringArray("rewrite", nil, "`FROM=TO`: sources whose URLs are FROM, or go on from it with a part of the path, are looked for at TO; may be repeated")
	format := outputFlag(command)
	command.RunE = func(command *cobra.Command, args []string) error {
		o.Target = "."
		if len(args) == 1 {
			o.Target = args[0]
		}
		if *format != outputTable && !o.Once {
			return usageError("-o needs --once")
		}
		if o.Timeout <= 0 {
			return usageError("--timeout must be above 0")
		}
		for _, text := range *rewrites {
			rewrite, err := config.ParseRewrite(text)
			if err != nil {
				return usageError("--rewrite %q %v", text, err)
			}
			o.Rewrites = append(o.Rewrites, rewrite)
		}
		summary, err := try.Run(command.Context(), o)
		if err != nil || summary.Outcome == "" {
			return err
		}
		return a.tried(summary, o.Once, *format)
	}
	return command
}

// tried prints how a session ended and gives its exit code.
func (a *app) tried(summary try.Summary, once bool, format output) error {
	var err error
	if format == outputTable {
		err = summary.Print(a.streams.Out)
	} else {
		err = format.print(a.streams.Out, summary)
	}
	if err != nil {
		return err
	}
	switch {
	case !once || summary.Outcome == try.Succeeded:
		return nil
	case summary.Outcome == try.OnlyNotServed:
		return &exitError{ExitNotServed, fmt.Errorf("some kinds are not served by this version of Plumb")}
	default:
		return &exitError{ExitFailed, fmt.Errorf("the repository is not ready")}
	}
}
