package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// registryRepositories are those of the registry, with one artifact each.
const registryRepositories = 200

// registryDelays are what the registries take for each answer. On loopback none of the
// time of a pull is spent waiting; no registry that an operator pulls from is like that.
func registryDelays() []time.Duration { return []time.Duration{0, 50 * time.Millisecond} }

// registryResult is what pulling from an OCI registry took, in turns.
type registryResult struct {
	Repositories int      `json:"repositories"`
	Workers      int      `json:"workers"`
	Delay        duration `json:"delaySeconds"`
	// Bare are the pulls of a plain client that does nothing with what comes, Pull
	// those of the operator's store, into an empty folder.
	Bare samples `json:"bareSeconds"`
	Pull samples `json:"pullSeconds"`
	// Writes are what the writes of the operator take a client that pulls nothing, with
	// the creation of the objects.
	Writes samples `json:"writesSeconds"`
	// Reconcile is from the first OCIRepository created to the last one Ready, of an
	// operator that has started before.
	Reconcile samples `json:"reconcileSeconds"`
	Requests  tally   `json:"requests"` // of the last round
}

// ociRepositories is the kind of the objects that follow the registry.
func ociRepositories() resource {
	return resource{"OCIRepository", "source.toolkit.fluxcd.io", "v1", "ocirepositories"}
}

// measureRegistries measures pulling, from a registry beside the operator and from one
// that is far away.
func (b *bench) measureRegistries(ctx context.Context) ([]*registryResult, error) {
	var all []*registryResult
	for _, delay := range registryDelays() {
		r, err := b.measureRegistry(ctx, delay)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

func (b *bench) measureRegistry(ctx context.Context, delay time.Duration) (_ *registryResult, err error) {
	dir, err := os.MkdirTemp("", "plumb-bench-registry-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	program, err := buildProgram(ctx, "pull", dir)
	if err != nil {
		return nil, err
	}
	b.say("registry that takes %s for an answer: filling %d repositories", delay, registryRepositories)
	host, stop, err := serveRegistry(ctx, program, delay)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	r := &registryResult{Repositories: registryRepositories, Workers: b.options.workers, Delay: duration(delay)}
	for i := range b.options.rounds {
		if err := b.registryRound(ctx, r, program, host, filepath.Join(dir, strconv.Itoa(i))); err != nil {
			return nil, fmt.Errorf("registry, round %d: %w", i+1, err)
		}
		b.say("registry, round %d of %d: bare client %.2fs, store %.2fs, %d OCIRepositories %.2fs (%s)", i+1, b.options.rounds,
			seconds(duration(r.Bare[i])), seconds(duration(r.Pull[i])), r.Repositories, seconds(duration(r.Reconcile[i])), r.Requests)
	}
	return r, nil
}

// serveRegistry starts the registry and returns its address and what ends it.
func serveRegistry(ctx context.Context, program string, delay time.Duration) (host string, stop func() error, err error) {
	cmd := exec.CommandContext(ctx, program, "serve", strconv.Itoa(registryRepositories), delay.String())
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() error { return errors.Join(in.Close(), cmd.Wait()) }
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return "", nil, errors.Join(fmt.Errorf("the registry does not say its address: %w", err), stop())
	}
	return strings.TrimSpace(line), stop, nil
}

// registryRound gives each contestant one turn.
func (b *bench) registryRound(ctx context.Context, r *registryResult, program, host, folder string) error {
	count, workers := strconv.Itoa(r.Repositories), strconv.Itoa(r.Workers)
	bare, err := timed(ctx, program, "bare", host, count, workers)
	if err != nil {
		return err
	}
	pull, err := timed(ctx, program, "plumb", host, count, workers, folder)
	if err != nil {
		return err
	}
	objects, err := registryObjects(host, r.Repositories)
	if err != nil {
		return err
	}
	writes, err := b.writeSources(ctx, objects)
	if err != nil {
		return err
	}
	reconcile, requests, err := b.reconcileSources(ctx, ociRepositories(), objects, nil)
	if err != nil {
		return err
	}
	r.Bare, r.Pull, r.Writes = append(r.Bare, bare), append(r.Pull, pull), append(r.Writes, writes)
	r.Reconcile, r.Requests = append(r.Reconcile, reconcile), requests
	return nil
}

// timed runs a program that prints seconds.
func timed(ctx context.Context, program string, args ...string) (time.Duration, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("%s %s: %w: %s", filepath.Base(program), args[0], err, complaint.String())
	}
	took, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	return time.Duration(took * float64(time.Second)), err
}

// registryObjects are the OCIRepositories that follow a registry.
func registryObjects(host string, count int) ([]item, error) {
	return sourceObjects(ociRepositories(), count, "app", func(_ int, name string) map[string]any {
		return map[string]any{"url": "oci://" + host + "/team/" + name, "interval": longInterval, "insecure": true}
	})
}

// figures judges the result. Beside the registry the control plane's writes are all that
// takes time, so the operator is held against a client that makes them too.
func (r *registryResult) figures() []figure {
	where, pulls := "beside the operator", noBound()
	if r.Delay > 0 {
		where, pulls = fmt.Sprintf("%d ms away", time.Duration(r.Delay).Milliseconds()), same(2)
	}
	written := make(samples, len(r.Bare))
	for i := range r.Bare {
		written[i] = r.Bare[i] + r.Writes[i]
	}
	f := &figures{group: fmt.Sprintf("OCI: %d repositories, registry %s", r.Repositories, where)}
	f.add("bare client: pulls", "s", r.Bare.p50().Seconds(), noBound(), fmt.Sprintf("%d workers", r.Workers))
	f.add("bare client: then the operator's writes", "s", r.Writes.p50().Seconds(), noBound(), "finalizer, status, event; and creation")
	f.add("store: first pulls", "s", r.Pull.p50().Seconds(), noBound(), "unpacked and kept on disk")
	f.add("store: times bare client's pulls", "", r.Pull.over(r.Bare), same(2), "")
	f.add("operator: all OCIRepositories Ready", "s", r.Reconcile.p50().Seconds(), noBound(), r.Requests.String())
	f.add("operator: times bare client's pulls", "", r.Reconcile.over(r.Bare), pulls, "")
	f.add("operator: times bare client's pulls and writes", "", r.Reconcile.over(written), same(2), "")
	return f.all
}

// over is how many times those of another contestant the times are, in the median of the
// rounds.
func (s samples) over(other samples) float64 {
	var all samples
	for i := range s {
		all = append(all, time.Duration(float64(time.Second)*float64(s[i])/float64(other[i])))
	}
	return all.p50().Seconds()
}
