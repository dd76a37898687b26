package try

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/plumb-gitops/plumb/internal/config"
	"github.com/plumb-gitops/plumb/internal/frontend/flux/crds"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/server"
	"github.com/plumb-gitops/plumb/internal/telemetry"
)

// Options are what a person asks for.
type Options struct {
	// Version is the program's version.
	Version string
	// Target is a folder or a URL.
	Target string
	// Path is the folder in the repository that is applied; empty to choose one.
	Path string
	// Branch is the branch that is followed; empty for the one checked out.
	Branch string
	// Watch takes uncommitted files too.
	Watch bool
	// Dir keeps the control plane's data and the operator's in a folder and goes
	// on with what is in it; empty for a folder that goes with the session.
	Dir string
	// Rewrites say where sources are that this machine cannot reach.
	Rewrites []config.Rewrite
	// Once ends when the outcome is known, or after Timeout.
	Once    bool
	Timeout time.Duration
	// Out gets what is shown, Err the progress of the start.
	Out, Err io.Writer
}

// folderMode is that of the session's folder: an administrator's credentials are in it.
const folderMode = 0o700

// operatorWithin is how long the operator may take to end. What it leaves undone
// is lost with the cluster, or taken up again with it.
const operatorWithin = 5 * time.Second

// bootstrapWithin bounds the time until everything is created.
const bootstrapWithin = 2 * time.Minute

// Run runs a session until the context ends, or with Once until the outcome is
// known. An end by the context is no error, but for Once; the Summary has no Outcome
// where it came before anything could be seen. The error says what kept the session
// from running; a repository that is not ready is an outcome.
func Run(ctx context.Context, o Options) (Summary, error) {
	s := &session{options: o, started: time.Now(), ended: make(chan error, 2)}
	summary, err := s.run(ctx)
	return summary, errors.Join(err, s.close())
}

// errInterrupted is the end of a session whose outcome was waited for.
var errInterrupted = errors.New("interrupted before the outcome was known")

// session is one run, from the top down in the order of its start.
type session struct {
	options Options
	started time.Time

	// work is the folder of the session; temporary tells that it goes with it.
	work      string
	temporary bool
	// ended gets the error of a part that ended by itself.
	ended chan error
	// closers end the parts, the last one first.
	closers []func() error

	plane      *controlPlane
	repository *repository // nil for a URL
	origin     origin
	config     *rest.Config
	client     dynamic.Interface
	view       *view
}

func (s *session) run(outer context.Context) (Summary, error) {
	ctx, cancel := context.WithCancel(outer)
	defer cancel()
	steps := []func(context.Context) error{
		s.makeFolder, s.startPlane, s.findRepository, s.awaitPlane, s.startOperator, s.bootstrap, s.startView, s.followRepository,
	}
	for _, step := range steps {
		err := step(ctx)
		switch {
		case err == nil:
		case outer.Err() == nil:
			return Summary{}, s.because(err)
		case s.options.Once:
			return Summary{}, errInterrupted
		default:
			return Summary{}, nil
		}
	}
	switch {
	case s.options.Once:
		return s.once(ctx)
	default:
		return s.show(ctx)
	}
}

// because prefers the error of a part that ended to what followed from it.
func (s *session) because(err error) error {
	select {
	case ended := <-s.ended:
		return ended
	default:
		return err
	}
}

// close ends all parts and removes what is not to be kept.
func (s *session) close() error {
	var errs []error
	for i := len(s.closers) - 1; i >= 0; i-- {
		errs = append(errs, s.closers[i]())
	}
	return errors.Join(errs...)
}

// progress tells a person what was done, with the time since the start.
func (s *session) progress(format string, args ...any) {
	_, _ = fmt.Fprintf(s.options.Err, "%6.1fs  %s\n", time.Since(s.started).Seconds(), fmt.Sprintf(format, args...))
}

func (s *session) path(name string) string { return filepath.Join(s.work, name) }

func (s *session) kubeconfig() string { return s.path("kubeconfig") }

func (s *session) makeFolder(context.Context) error {
	if err := needGit(); err != nil {
		return err
	}
	var err error
	if s.options.Dir == "" {
		s.temporary = true
		if s.work, err = os.MkdirTemp("", "plumb-try-"); err != nil {
			return err
		}
		s.closers = append(s.closers, func() error { return os.RemoveAll(s.work) })
		return nil
	}
	if s.work, err = filepath.Abs(s.options.Dir); err != nil {
		return err
	}
	return os.MkdirAll(s.work, folderMode)
}

func (s *session) startPlane(context.Context) error {
	remove := ""
	if s.temporary {
		remove = s.work
	}
	plane, err := startControlPlane(s.path("cluster"), s.kubeconfig(), remove)
	if err != nil {
		return err
	}
	s.plane = plane
	s.closers = append(s.closers, plane.stop)
	return nil
}

func (s *session) findRepository(ctx context.Context) error {
	if isURL(s.options.Target) {
		return s.findRemote(ctx)
	}
	r, err := openRepository(ctx, s.options.Target, s.options.Branch, s.options.Watch)
	if err != nil {
		return err
	}
	if err := r.prepare(ctx, s.work); err != nil {
		return err
	}
	if _, err := r.publish(ctx); err != nil {
		return err
	}
	files, err := listFiles(ctx, r.scratchGit(), r.served.id)
	if err != nil {
		return err
	}
	s.repository = r
	s.origin.branch = r.served.branch
	s.progress("repository %s, %s", r.folder, shortRevision(r.served.String()))
	if r.files {
		s.progress("uncommitted files are served too, as commits of a scratch repository")
	}
	return s.choose(r.inside, files)
}

func (s *session) findRemote(ctx context.Context) error {
	o := s.options
	if err := checkURL(o.Target); err != nil {
		return err
	}
	if o.Watch {
		return errors.New("--watch is for folders of this machine")
	}
	s.origin = origin{url: o.Target, branch: o.Branch}
	if s.origin.branch == "" {
		branch, err := remoteBranch(ctx, o.Target)
		if err != nil {
			return err
		}
		s.origin.branch = branch
	}
	s.progress("repository %s, branch %s", o.Target, s.origin.branch)
	files, err := remoteFiles(ctx, o.Target, s.origin.branch, s.work)
	if err != nil {
		return err
	}
	return s.choose("", files)
}

func (s *session) choose(inside string, files []string) error {
	path, why, err := choosePath(s.options.Path, inside, files)
	if err != nil {
		return err
	}
	s.origin.path = path
	s.progress("folder ./%s, %s", path, why)
	return nil
}

// rewritten says where sources are looked for.
func rewritten(r config.Rewrite) string {
	return fmt.Sprintf("sources at %s are looked for at %s", telemetry.Redact(r.From), telemetry.Redact(r.To))
}

func (s *session) awaitPlane(ctx context.Context) error {
	if err := s.plane.await(ctx); err != nil {
		return err
	}
	go func() {
		<-s.plane.gone
		s.ended <- s.plane.died()
	}()
	s.progress("control plane ready: %s; workloads are simulated: pods become ready, nothing runs in them", s.plane.version())
	for _, rewrite := range s.options.Rewrites {
		s.progress("%s", rewritten(rewrite))
	}
	var err error
	if s.config, err = clientcmd.BuildConfigFromFlags("", s.kubeconfig()); err != nil {
		return err
	}
	s.config.UserAgent = fmt.Sprintf("plumb/%s (try)", s.options.Version)
	s.config.QPS = -1
	s.config.WarningHandler = rest.NoWarnings{}
	if s.client, err = dynamic.NewForConfig(s.config); err != nil {
		return err
	}
	s.view, err = newView(s.config, s.client)
	return err
}

// operatorConfig is that of an operator that has the machine to itself.
func (s *session) operatorConfig() (config.Operator, error) {
	cfg, err := config.Default()
	if err != nil {
		return cfg, err
	}
	cfg.InstallCRDs = true
	cfg.MetricsAddress, cfg.HealthAddress, cfg.EventsAddress = "", "", ""
	cfg.Storage.Path, cfg.Storage.Address = s.path("operator"), "127.0.0.1:0"
	cfg.API.QPS, cfg.API.Burst = -1, 0
	cfg.Rewrites = s.options.Rewrites
	return cfg, nil
}

// startOperator runs the operator in this process.
func (s *session) startOperator(ctx context.Context) error {
	cfg, err := s.operatorConfig()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.Storage.Path, folderMode); err != nil {
		return err
	}
	file, err := os.OpenFile(s.path("operator.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	log, err := telemetry.NewLogger(file, telemetry.LogOptions{})
	if err != nil {
		return errors.Join(err, file.Close())
	}
	// Before the first request of this process: the libraries' logger is not guarded.
	telemetry.SetLibraries(log)
	notServed, err := notServedKinds()
	if err != nil {
		return errors.Join(err, file.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := server.Run(ctx, s.config, cfg, server.Options{Version: s.options.Version, Log: log, NoHealth: notServed})
		if ctx.Err() == nil {
			s.ended <- fmt.Errorf("the operator ended: %w", orEnded(err))
		}
	}()
	s.closers = append(s.closers, file.Close, func() error {
		cancel()
		select {
		case <-done:
		case <-time.After(operatorWithin):
		}
		return nil
	})
	s.progress("operator started, its log is %s", file.Name())
	return nil
}

func orEnded(err error) error {
	if err == nil {
		return errors.New("without saying why")
	}
	return err
}

// notServedKinds are Flux's kinds that this version does not work on.
func notServedKinds() ([]gitops.GroupKind, error) {
	definitions, err := crds.All()
	if err != nil {
		return nil, err
	}
	var kinds []gitops.GroupKind
	for _, d := range definitions {
		if !d.Served {
			kinds = append(kinds, gitops.GroupKind{Group: d.Kind.Group, Kind: d.Kind.Kind})
		}
	}
	return kinds, nil
}

// bootstrap serves the repository and creates what flux bootstrap would.
func (s *session) bootstrap(ctx context.Context) error {
	if s.repository != nil {
		var err error
		if s.origin.url, err = s.repository.serve(ctx); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, bootstrapWithin)
	defer cancel()
	failed := make(chan error, 1)
	go func() { failed <- s.create(ctx) }()
	select {
	case err := <-s.ended:
		// The operator's own end must not leave this waiting for definitions.
		cancel()
		<-failed
		return err
	case err := <-failed:
		return err
	}
}

// create creates source and Kustomization, and looks in between what the first
// artifact holds.
func (s *session) create(ctx context.Context) error {
	if err := bootstrapSource(ctx, s.client, s.origin); err != nil {
		return err
	}
	namespace, err := s.targetNamespace(ctx)
	if err != nil {
		s.view.note(fmt.Sprintf("which namespaces the objects need is not known: %v", err), true)
	}
	if err := bootstrapRoot(ctx, s.client, s.origin, namespace); err != nil {
		return err
	}
	s.progress("created GitRepository and Kustomization %s/%s", rootName, rootName)
	if namespace != "" {
		s.progress("the objects name no namespace, so the Kustomization has targetNamespace: %s", namespace)
	}
	return nil
}

func (s *session) startView(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	s.view.start(ctx)
	s.closers = append(s.closers, func() error {
		cancel()
		s.view.wait()
		return nil
	})
	return nil
}

// followRepository asks for a fetch whenever there is something new to serve.
func (s *session) followRepository(ctx context.Context) error {
	if s.repository == nil {
		return nil
	}
	s.view.publish(s.repository.served.String())
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.repository.watch(ctx, func(c commit) {
			next := s.origin
			next.branch = c.branch
			s.view.publish(c.String())
			if err := applySource(ctx, s.client, next, time.Now().Format(time.RFC3339Nano)); err != nil && ctx.Err() == nil {
				s.view.note(fmt.Sprintf("asking for a fetch failed: %v", err), true)
			}
		}, func(err error) {
			if err != nil {
				s.view.note(fmt.Sprintf("repository: %v", err), true)
				return
			}
			s.view.note("repository: can be read again", false)
		})
	}()
	s.closers = append(s.closers, func() error {
		cancel()
		<-done
		return nil
	})
	return nil
}
