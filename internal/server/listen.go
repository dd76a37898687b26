package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/plumb-gitops/plumb/internal/config"
)

// listen opens the ports of what the operator serves, before it touches its data. None of it
// is left to the manager, so that each port is known, also where the system chooses one:
// sources may not reach them.
func (s *server) listen(context.Context) error {
	storage := s.config.Storage
	var err error
	if s.serving, err = s.open("artifacts", storage.Address); err != nil {
		return err
	}
	s.artifactURL = "http://" + advertised(storage.Advertised, s.serving.Addr())
	if storage.Advertised != "" && (s.config.Works(config.SourceController) || s.config.Works(config.SourceWatcher)) {
		// Without them the name may be that of whoever works on the sources here.
		s.own.Advertise(storage.Advertised)
	}
	for _, side := range []struct {
		name, address string
		handler       http.Handler
	}{
		{"metrics", s.config.MetricsAddress, s.measures()},
		{"health", s.config.HealthAddress, s.probes()},
	} {
		if side.address == "" {
			continue
		}
		listener, err := s.open(side.name, side.address)
		if err != nil {
			return err
		}
		if err := s.serve(side.name, listener, side.handler); err != nil {
			return err
		}
	}
	return nil
}

// open listens at an address until the end.
func (s *server) open(name, address string) (net.Listener, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("serve %s: %w", name, err)
	}
	s.listeners = append(s.listeners, listener)
	s.own.Listens(listener.Addr())
	return listener, nil
}

// serve has the manager serve something, from its start to its end, to all but the operator.
func (s *server) serve(name string, listener net.Listener, handler http.Handler) error {
	return s.manager.Add(&manager.Server{
		Name:     name,
		Server:   &http.Server{Handler: s.own.Refuse(handler), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute},
		Listener: listener,
	})
}

// measures serves the metrics, and profiles beside them, as Flux's controllers do.
func (s *server) measures() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(s.options.Registry, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError}))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

// probes serves what tells whether the operator lives and works.
func (s *server) probes() http.Handler {
	mux := http.NewServeMux()
	for name, checks := range map[string]map[string]healthz.Checker{
		"/healthz": {"ping": healthz.Ping},
		"/readyz":  {"elected": s.elected},
	} {
		handler := http.StripPrefix(name, &healthz.Handler{Checks: checks})
		mux.Handle(name, handler)
		mux.Handle(name+"/", handler)
	}
	return mux
}

// elected is ready once this process works, as Flux's source-controller is:
// artifacts are served by the leader alone.
func (s *server) elected(*http.Request) error {
	select {
	case <-s.manager.Elected():
		return nil
	default:
		return errors.New("another operator has the lease")
	}
}

// advertised is the host that stands in URLs of artifacts: the one that was
// configured, or this machine with the port that is listened on.
func advertised(configured string, listening net.Addr) string {
	host, port, err := net.SplitHostPort(listening.String())
	if err != nil {
		return configured
	}
	if configured != "" {
		return configured
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		if name, err := os.Hostname(); err == nil {
			host = name
		}
	}
	return net.JoinHostPort(host, port)
}
