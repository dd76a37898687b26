// Package cli is the command line: one file for each command, each thin over the
// packages that do the work.
//
// Commands read custom resources as the API server has them and write only what
// a person could with kubectl: annotations and spec.suspend. They work with
// whatever operator serves the kinds. cmd/plumb is a call of Run.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// The exit codes of the commands. They are part of the interface.
const (
	// ExitDone says that what was asked for is so.
	ExitDone = 0
	// ExitFailed says that it is not: an error, an object that is not ready, a
	// time that ran out.
	ExitFailed = 1
	// ExitUsage says that the command line is wrong; nothing was done.
	ExitUsage = 2
	// ExitNotServed says that this version of Plumb does not serve the kind.
	ExitNotServed = 3
)

// Streams are what a command reads and writes. Data goes to Out, progress and
// errors to Err.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// exitError is an error with an exit code.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func usageError(format string, args ...any) error {
	return &exitError{ExitUsage, fmt.Errorf(format, args...)}
}

// ExitCode is the exit code for the error that a command returned.
func ExitCode(err error) int {
	var exit *exitError
	switch {
	case err == nil:
		return ExitDone
	case errors.As(err, &exit):
		return exit.code
	default:
		return ExitFailed
	}
}

// Run runs the command that args name, prints its error and gives its exit code.
func Run(ctx context.Context, version string, args []string, streams Streams) int {
	command := New(version, streams)
	command.SetArgs(args)
	err := command.ExecuteContext(ctx)
	if err != nil {
		_, _ = fmt.Fprintln(streams.Err, "plumb:", err)
	}
	return ExitCode(err)
}

// app is what all commands share.
type app struct {
	version    string
	streams    Streams
	connection connection
}

// New gives the root command with all others below it.
func New(version string, streams Streams) *cobra.Command {
	a := &app{version: version, streams: streams}
	root := &cobra.Command{
		Use:   "plumb",
		Short: "GitOps for Kubernetes: Flux's kinds, served by one fast operator",
		Long: `Plumb keeps Kubernetes clusters as sources say: Git repositories, OCI artifacts,
buckets, Helm charts. It serves the custom resources of Flux.

Exit codes: 0 done, 1 failed, 2 wrong command line, 3 kind not served.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(_ *cobra.Command, words []string) error {
			if len(words) > 0 {
				return fmt.Errorf("no command %q", words[0])
			}
			return nil
		},
		RunE: func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	root.SetIn(streams.In)
	root.SetOut(streams.Out)
	root.SetErr(streams.Err)
	root.SetFlagErrorFunc(func(command *cobra.Command, err error) error {
		return usageError("%w; see %s --help", err, command.CommandPath())
	})
	root.AddCommand(
		a.tryCommand(),
		a.operatorCommand(),
		a.installCommand(),
		a.uninstallCommand(),
		a.getCommand(),
		a.treeCommand(),
		a.diffCommand(),
		a.reconcileCommand(),
		a.approveCommand(),
		a.suspendCommand(),
		a.resumeCommand(),
		a.crdsCommand(),
		a.versionCommand(),
	)
	for _, command := range append(root.Commands(), root) {
		if args := command.Args; args != nil {
			command.Args = func(command *cobra.Command, words []string) error {
				if err := args(command, words); err != nil {
					return usageError("%w; usage: %s", err, command.UseLine())
				}
				return nil
			}
		}
	}
	return root
}
