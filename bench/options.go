package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// scenario is one thing that is measured.
type scenario string

// The scenarios, in the order in which they build on each other.
const (
	install  scenario = "install"
	oneApp   scenario = "one-app"
	allApps  scenario = "all-apps"
	drift    scenario = "drift"
	restart  scenario = "restart"
	variable scenario = "variable"
	idle     scenario = "idle"
	deletion scenario = "delete"
	// sources is fetching from a Git repository with a long history and from an OCI
	// registry. It needs none of the others.
	sources scenario = "sources"
)

func scenarios() []scenario {
	return []scenario{install, oneApp, allApps, drift, variable, restart, idle, deletion, sources}
}

// options say what is measured, and how often.
type options struct {
	sizes      []int
	rounds     int
	samples    int
	allCommits int
	idle       time.Duration
	scenarios  map[scenario]bool
	namespaces int
	workers    int
	skipBare   bool
	tenants    bool
	history    historySize
	flags      []string
	plumb      string
	cluster    string
	results    string
	strict     bool
}

// parseOptions reads the command line. Defaults are those of the published table.
func parseOptions(args []string, stderr io.Writer) (*options, error) {
	o := &options{}
	set := flag.NewFlagSet("bench", flag.ContinueOnError)
	set.SetOutput(stderr)
	sizes := set.String("sizes", "100,300,1000", "`numbers` of apps")
	set.IntVar(&o.rounds, "rounds", 3, "`number` of rounds: bare, bare with dry-runs, operator, each on a fresh control plane")
	set.IntVar(&o.samples, "samples", 30, "`number` of one-app commits, and of drifts")
	set.IntVar(&o.allCommits, "all-commits", 3, "`number` of commits that change all apps")
	set.DurationVar(&o.idle, "idle", time.Minute, "how `long` nothing happens in the scenario idle")
	wanted := set.String("scenarios", "all", "`names`: all, or some of "+join(scenarios())+"; install always runs, but with sources alone")
	set.IntVar(&o.namespaces, "namespaces", 20, "`number` of namespaces that the apps are spread over")
	set.IntVar(&o.workers, "workers", 16, "`number` of the bare client's workers, and of those that create custom resources")
	set.BoolVar(&o.skipBare, "no-bare", false, "leave out the bare client: no ratios, for work on the operator")
	set.BoolVar(&o.tenants, "tenants", false, "one more turn: the operator with a service account, an encrypted Secret and five variables for each app")
	flags := set.String("operator-flags", "", "more `flags` for the operator, separated by spaces")
	set.StringVar(&o.plumb, "plumb", filepath.Join("bin", "plumb"), "operator `program`")
	set.StringVar(&o.cluster, "localcluster", filepath.Join("bin", "localcluster"), "control plane `program`")
	set.StringVar(&o.results, "results", filepath.Join("bench", "results"), "`folder` for the machine-readable results")
	set.BoolVar(&o.strict, "strict", false, "exit with 1 when a figure is over its bound")
	quick := set.Bool("quick", false, "100 apps, one round, 10 samples, 20 s idle, a tenth of a history, unless given otherwise")
	if err := set.Parse(args); err != nil {
		return nil, err
	}
	if set.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", set.Arg(0))
	}
	o.history = largeHistory()
	if *quick {
		o.history = o.history.tenth()
		given := map[string]bool{}
		set.Visit(func(f *flag.Flag) { given[f.Name] = true })
		for name, value := range map[string]string{"sizes": "100", "rounds": "1", "samples": "10", "all-commits": "1", "idle": "20s"} {
			if given[name] {
				continue
			}
			if err := set.Set(name, value); err != nil {
				return nil, err
			}
		}
	}
	o.flags = strings.Fields(*flags)
	return o, o.complete(*sizes, *wanted)
}

// complete parses the lists and checks what was given.
func (o *options) complete(sizes, wanted string) error {
	for _, text := range strings.Split(sizes, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || n < 1 || n > 9999 {
			return fmt.Errorf("-sizes: %q is not a number of apps between 1 and 9999", text)
		}
		o.sizes = append(o.sizes, n)
	}
	slices.Sort(o.sizes)
	o.scenarios = map[scenario]bool{}
	for _, name := range strings.Split(wanted, ",") {
		switch s := scenario(strings.TrimSpace(name)); {
		case s == "all":
			for _, each := range scenarios() {
				o.scenarios[each] = true
			}
		case slices.Contains(scenarios(), s):
			o.scenarios[s] = true
		default:
			return fmt.Errorf("-scenarios: %q is none of all, %s", name, join(scenarios()))
		}
	}
	if o.rounds < 1 || o.samples < 1 || o.allCommits < 1 || o.namespaces < 1 || o.workers < 1 {
		return errors.New("-rounds, -samples, -all-commits, -namespaces and -workers must be 1 or more")
	}
	for _, program := range []string{o.cluster, o.plumb} {
		if _, err := os.Stat(program); err != nil {
			return fmt.Errorf("%w; make build makes it", err)
		}
	}
	return nil
}

// fleets tells whether anything but sources is measured.
func (o *options) fleets() bool { return len(o.scenarios) > 1 || !o.scenarios[sources] }

func join(names []scenario) string {
	var words []string
	for _, name := range names {
		words = append(words, string(name))
	}
	return strings.Join(words, ",")
}
