// Command localcluster runs a Kubernetes control plane with simulated nodes on
// this machine, in the foreground, until a signal or the end of its parent.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
	_ "time/tzdata" // CronJobs with a time zone

	"github.com/plumb-gitops/plumb/localcluster/internal/controlplane"
	"github.com/plumb-gitops/plumb/localcluster/internal/parent"
	"k8s.io/client-go/rest"
	"k8s.io/component-base/version"
	"k8s.io/klog/v2"
)

func main() {
	start := time.Now()
	if err := run(start, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "localcluster:", err)
		os.Exit(1)
	}
}

// flags are the command line.
type flags struct {
	dir, kubeconfig, auditLog, remove string
	nodes, parent                     int
	durable, verbose                  bool
}

func parse(args []string, usage io.Writer) (flags, error) {
	var f flags
	fs := flag.NewFlagSet("localcluster", flag.ContinueOnError)
	fs.SetOutput(usage)
	fs.StringVar(&f.dir, "dir", "", "data `folder`: certificates, etcd, logs; made if missing, continued if used before (required)")
	fs.StringVar(&f.kubeconfig, "kubeconfig", "", "`file` that the administrator's kubeconfig is written to once all is ready (required)")
	fs.StringVar(&f.auditLog, "audit-log", "", "`file` for the API server's audit log, level Metadata")
	fs.StringVar(&f.remove, "remove", "", "`folder` that is removed at the end: the data folder or one around it")
	fs.IntVar(&f.nodes, "nodes", 3, "`number` of simulated nodes")
	fs.IntVar(&f.parent, "parent", os.Getppid(), "`pid` of the process that this one ends with")
	fs.BoolVar(&f.durable, "durable", false, "sync every write to the disk, to survive a crash of the machine")
	fs.BoolVar(&f.verbose, "v", false, "log more, and to the standard error output too")
	if err := fs.Parse(args); err != nil {
		return f, err
	}
	switch {
	case fs.NArg() > 0:
		return f, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	case f.dir == "":
		return f, fmt.Errorf("--dir is missing")
	case f.kubeconfig == "":
		return f, fmt.Errorf("--kubeconfig is missing")
	case f.nodes < 1:
		return f, fmt.Errorf("--nodes is %d: one at least is needed", f.nodes)
	}
	for _, path := range []*string{&f.dir, &f.kubeconfig, &f.auditLog, &f.remove} {
		if *path == "" {
			continue
		}
		abs, err := filepath.Abs(*path)
		if err != nil {
			return f, err
		}
		*path = abs
	}
	if f.remove != "" {
		inside, err := filepath.Rel(f.remove, f.dir)
		if err != nil || !filepath.IsLocal(inside) {
			return f, fmt.Errorf("--remove %q does not hold the data folder %q", f.remove, f.dir)
		}
	}
	return f, nil
}

// run runs a control plane until a signal, which is no error, or the end of the
// parent or a failure, which are.
func run(start time.Time, args []string, stdout, stderr *os.File) error {
	f, err := parse(args, stderr)
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	if err := enter(f.dir); err != nil {
		return err
	}
	// A kubeconfig from an earlier run would say that this one is ready.
	if err := os.Remove(f.kubeconfig); err != nil && !os.IsNotExist(err) {
		return err
	}
	log, err := openLog(filepath.Join(f.dir, "localcluster.log"), f.verbose, stderr)
	if err != nil {
		return err
	}
	// Nothing is told to stop: a graceful stop of the API server takes up to a
	// minute, and what is in etcd is safe without it.
	ctx := context.Background()
	ended := make(chan error, 3)
	go func() { <-signals; ended <- nil }()
	go func() { ended <- parent.Watch(ctx, f.parent) }()
	go func() {
		ended <- controlplane.Run(ctx, controlplane.Config{
			Dir:        f.dir,
			Kubeconfig: f.kubeconfig,
			AuditLog:   f.auditLog,
			Nodes:      f.nodes,
			Durable:    f.durable,
			Log:        log,
			Verbose:    f.verbose,
		}, func(url string) {
			fmt.Fprintf(stdout, "ready in %.2fs: Kubernetes %s at %s\n",
				time.Since(start).Seconds(), version.Get().GitVersion, url)
		})
	}()
	err = <-ended
	if f.remove != "" {
		err = errors.Join(err, remove(f.remove))
	}
	return err
}

// remove removes dir while parts of the control plane may still write to it.
func remove(dir string) error {
	var err error
	for range 5 {
		if err = os.RemoveAll(dir); err == nil {
			break
		}
	}
	return err
}

// enter makes dir and locks it for this process: the lock goes with the process,
// however that ends. It makes dir's folder "sockets" the working directory.
func enter(dir string) error {
	sockets := filepath.Join(dir, "sockets")
	if err := os.MkdirAll(sockets, 0o700); err != nil {
		return err
	}
	lock, err := syscall.Open(filepath.Join(dir, "lock"), syscall.O_CREAT|syscall.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("open the lock of %q: %w", dir, err)
	}
	if err := syscall.Flock(lock, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("another control plane runs in %q: %w", dir, err)
	}
	return os.Chdir(sockets)
}

// openLog sends what Kubernetes logs to a new file at path, and if verbose is
// set to stderr too.
func openLog(path string, verbose bool, stderr io.Writer) (io.Writer, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	var out io.Writer = file
	level := "0"
	if verbose {
		out, level = io.MultiWriter(file, stderr), "2"
	}
	fs := flag.NewFlagSet("log", flag.ContinueOnError)
	klog.InitFlags(fs)
	for name, value := range map[string]string{
		"logtostderr": "false", "alsologtostderr": "false", "stderrthreshold": "FATAL", "v": level,
	} {
		if err := fs.Set(name, value); err != nil {
			return nil, err
		}
	}
	klog.SetOutput(out)
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	return out, nil
}
