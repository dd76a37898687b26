package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run measures, prints the table and keeps the results. Its exit code is 0 when
// everything could be measured, 1 when not, or when a figure is over its bound and
// that was asked to matter, and 2 for a wrong command line.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parseOptions(args, stderr)
	if err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(stderr, "bench:", err)
		}
		return 2
	}
	b := &bench{options: o, progress: stderr, results: results{
		Started: time.Now().UTC(), Machine: describeMachine(o.plumb), Flags: args,
	}}
	b.began = time.Now()
	var failed error
	if o.fleets() {
		failed = b.measure(ctx)
	}
	if failed == nil && o.scenarios[sources] {
		if b.results.Sources, failed = b.measureSources(ctx); failed == nil {
			b.results.Registries, failed = b.measureRegistries(ctx)
		}
	}
	b.results.Took = duration(time.Since(b.began))
	b.results.Figures, b.results.Growth = judge(b.results.Sizes)
	if b.results.Sources != nil {
		b.results.Figures = append(b.results.Figures, b.results.Sources.figures()...)
	}
	for _, r := range b.results.Registries {
		b.results.Figures = append(b.results.Figures, r.figures()...)
	}
	if len(b.results.Figures) > 0 {
		path, err := b.results.save(o.results)
		if err != nil {
			failed = errors.Join(failed, err)
		}
		b.results.print(stdout)
		fmt.Fprintf(stdout, "\nresults: %s\n", path)
	}
	if ctx.Err() != nil {
		fmt.Fprintln(stderr, "bench: interrupted")
		return 1
	}
	if failed != nil {
		fmt.Fprintln(stderr, "bench:", failed)
		return 1
	}
	if o.strict && b.results.over() > 0 {
		return 1
	}
	return 0
}

// bench is one run of the benchmark.
type bench struct {
	options  *options
	progress io.Writer
	began    time.Time
	results  results
}

// results are all that was measured.
type results struct {
	Started time.Time    `json:"started"`
	Took    duration     `json:"tookSeconds"`
	Machine machine      `json:"machine"`
	Flags   []string     `json:"flags"`
	Sizes   []sizeResult `json:"sizes"`
	// Sources is what fetching took, where that was measured.
	Sources *sourceResult `json:"sources,omitempty"`
	// Registries are what pulling took, where that was measured.
	Registries []*registryResult `json:"registries,omitempty"`
	// Growth is the exponent of install time over the number of apps, absent for
	// a single size.
	Growth  *float64 `json:"growthExponent,omitempty"`
	Figures []figure `json:"figures"`
}

// sizeResult are the rounds with one number of apps.
type sizeResult struct {
	Apps   int           `json:"apps"`
	Rounds []roundResult `json:"rounds"`
}

// roundResult is one turn of each contestant. Bare lines that were left out are nil.
type roundResult struct {
	Bare     *bareResult     `json:"bare,omitempty"`
	DryRun   *bareResult     `json:"bareDryRun,omitempty"`
	Floor    *bareResult     `json:"bareFloor,omitempty"`
	Operator *operatorResult `json:"operator,omitempty"`
	// Tenants is the operator with a fleet with tenants.
	Tenants *operatorResult `json:"tenants,omitempty"`
	// Foreign is the share of the machine's processors that programs other than the
	// benchmark and what it started took, Stolen that of other guests of the machine.
	Foreign float64 `json:"foreign"`
	Stolen  float64 `json:"stolen"`
}

func (r *results) save(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, r.Started.Format("20060102-150405")+".json")
	return path, os.WriteFile(path, append(data, '\n'), 0o644)
}

// say prints a line of progress.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.progress, "%6.1fs  "+format+"\n", append([]any{time.Since(b.began).Seconds()}, args...)...)
}
