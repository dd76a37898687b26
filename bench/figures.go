package main

import (
	"math"
	"slices"
	"time"
)

// figure is one line of the table.
type figure struct {
	Apps int `json:"apps"` // 0 for one that spans sizes
	// Group is what the figure is about where it is not apps.
	Group string  `json:"group,omitempty"`
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit,omitempty"`
	// Bound is the most that Value may be; nil where nothing is promised.
	Bound *float64 `json:"bound,omitempty"`
	// Aim is a bound that is wished for and not promised.
	Aim  bool   `json:"aim,omitempty"`
	Note string `json:"note,omitempty"`
}

// over tells whether a promise is broken.
func (f figure) over() bool { return f.Bound != nil && !f.Aim && f.Value > *f.Bound }

// bound is a promise for two sizes. It holds for others where both are the same;
// fewer than 100 apps are held to the first.
type bound struct{ at100, at1000 float64 }

func same(limit float64) bound { return bound{limit, limit} }
func noBound() bound           { return same(math.NaN()) }

func (b bound) at(apps int) *float64 {
	switch {
	case math.IsNaN(b.at100):
		return nil
	case apps <= 100 || b.at100 == b.at1000:
		return &b.at100
	case apps == 1000:
		return &b.at1000
	default:
		return nil
	}
}

// figures collects those of one size.
type figures struct {
	apps  int
	group string
	all   []figure
}

func (f *figures) add(name, unit string, value float64, limit bound, note string) {
	f.all = append(f.all, figure{Apps: f.apps, Group: f.group, Name: name, Unit: unit, Value: value, Bound: limit.at(f.apps), Note: note})
}

// judge holds what was measured against what is promised. The growth exponent is
// nil for a single size.
func judge(sizes []sizeResult) ([]figure, *float64) {
	var all []figure
	var apps, walls []float64
	for _, size := range sizes {
		f := &figures{apps: size.Apps}
		if wall := f.installs(size.Rounds); wall > 0 {
			apps, walls = append(apps, float64(size.Apps)), append(walls, wall)
		}
		for _, round := range slices.Backward(size.Rounds) {
			if round.Operator != nil {
				f.operator(*round.Operator, round.Bare)
				break
			}
		}
		f.tenants(size.Rounds)
		f.memory(size.Rounds)
		all = append(all, f.all...)
	}
	growth := exponent(apps, walls)
	if math.IsNaN(growth) {
		return all, nil
	}
	limit := 1.1
	return append(all, figure{Name: "growth of install time: exponent", Value: growth, Bound: &limit}), &growth
}

// installs adds the cold install and returns the operator's median time in seconds.
func (f *figures) installs(rounds []roundResult) float64 {
	var bare, dry, least, wall, ratio, dryRatio, leastRatio, requests, cpu []float64
	equal := true
	for _, r := range rounds {
		if r.Bare != nil {
			bare = append(bare, seconds(r.Bare.Install))
		}
		if r.DryRun != nil {
			dry = append(dry, seconds(r.DryRun.Install))
		}
		if r.Floor != nil {
			least = append(least, seconds(r.Floor.Install))
		}
		if r.Operator == nil || r.Operator.Install == nil {
			continue
		}
		in := r.Operator.Install
		wall, cpu = append(wall, seconds(in.Wall)), append(cpu, seconds(in.CPU))
		requests = append(requests, float64(in.Requests.requests()))
		if r.Bare != nil {
			ratio = append(ratio, seconds(in.Wall)/seconds(r.Bare.Install))
			equal = equal && r.Bare.State == in.State
		}
		if r.DryRun != nil {
			dryRatio = append(dryRatio, seconds(in.Wall)/seconds(r.DryRun.Install))
		}
		if r.Floor != nil {
			leastRatio = append(leastRatio, seconds(in.Wall)/seconds(r.Floor.Install))
		}
	}
	f.optional("bare client: install", "s", bare, noBound(), unsteady(bare))
	f.optional("bare client that dry-runs: install", "s", dry, noBound(), unsteady(dry))
	f.optional("bare client with all of the operator's writes: install", "s", least, noBound(), unsteady(least))
	f.optional("install", "s", wall, noBound(), unsteady(wall))
	note := ""
	if !equal {
		note = "INVALID: the cluster is not in the state that the bare client left"
	}
	f.optional("install against the bare client", "×", ratio, same(2.5), note)
	if len(dryRatio) > 0 {
		f.add("install against the bare client that dry-runs", "×", median(dryRatio), same(1.5), "")
		f.all[len(f.all)-1].Aim = true
	}
	f.optional("install against the bare client with all of the operator's writes", "×", leastRatio, noBound(), "")
	f.optional("install: requests beside watches and lease, per app", "", divide(requests, f.apps), noBound(), "")
	f.optional("install: processor time", "s", cpu, noBound(), "")
	return median(wall)
}

// optional adds the median of values, if there are any.
func (f *figures) optional(name, unit string, values []float64, limit bound, note string) {
	if len(values) > 0 {
		f.add(name, unit, median(values), limit, note)
	}
}

// operator adds the scenarios behind the install.
func (f *figures) operator(r operatorResult, bare *bareResult) {
	if bare != nil && len(bare.Change) > 0 {
		f.add("bare client: one apply to seen, p50", "ms", milliseconds(bare.Change.p50()), noBound(), "")
	}
	if c := r.OneApp; c != nil {
		f.add("one-app commit: push to live, p50", "ms", milliseconds(c.Live.p50()), bound{200, 250}, "")
		f.add("one-app commit: push to live, max", "ms", milliseconds(c.Live.max()), bound{1000, 1250}, "")
		f.add("one-app commit: builds, max", "", float64(slices.Max(c.Builds)), same(1), "")
		f.add("one-app commit: requests beside status and events, max", "", float64(slices.Max(c.Beside)), same(5), "")
		f.add("one-app commit: status writes, max", "", float64(slices.Max(c.StatusWrites)), same(float64(f.apps+3)), "")
		f.add("one-app commit: events, max", "", float64(slices.Max(c.Events)), same(4), "")
		f.add("one-app commit: all apps report it, p50", "ms", milliseconds(c.Reported.p50()), bound{1000, 8000}, "")
		f.add("one-app commit: all apps report it, max", "ms", milliseconds(c.Reported.max()), noBound(), "")
		f.add("one-app commit: processor time each", "s", seconds(c.CPU)/float64(len(c.Live)), noBound(), "")
	}
	if c := r.AllApps; c != nil {
		if bare != nil && bare.ChangeAll > 0 {
			f.add("bare client: one object of every app", "ms", milliseconds(time.Duration(bare.ChangeAll)), noBound(), "")
		}
		f.add("all-apps commit: push to all live, p50", "ms", milliseconds(c.Live.p50()), noBound(), "")
		f.add("all-apps commit: all apps report it, p50", "ms", milliseconds(c.Reported.p50()), noBound(), "")
		f.add("all-apps commit: requests per app", "", float64(c.Requests.requests())/float64(len(c.Live)*f.apps), noBound(), c.Requests.String())
	}
	if d := r.Drift; d != nil {
		f.add("drift to repaired, p50", "ms", milliseconds(d.Repaired.p50()), same(60), "")
		f.add("drift to repaired, max", "ms", milliseconds(d.Repaired.max()), noBound(), "")
		f.add("drift: requests per repair", "", d.perRepair(), same(2), d.Requests.String())
	}
	f.rest(r, bare)
}

// rest adds restart, idle and delete.
func (f *figures) rest(r operatorResult, bare *bareResult) {
	if rs := r.Restart; rs != nil {
		f.add("restart, data kept: writes with nothing changed", "", float64(rs.Kept.Idle.writes()), same(0), rs.Kept.Idle.describe())
		f.add("restart, data lost: writes with nothing changed", "", float64(rs.Lost.Idle.writes()), same(0), rs.Lost.Idle.describe())
		limit := bound{3, 10}
		f.add("restart, data kept: drift repaired", "s", seconds(rs.Kept.Repaired), limit, "")
		f.add("restart, data kept: commit live", "s", seconds(rs.Kept.Live), limit, "")
		f.add("restart, data lost: drift repaired", "s", seconds(rs.Lost.Repaired), limit, "")
		f.add("restart, data lost: commit live", "s", seconds(rs.Lost.Live), limit, "")
	}
	if i := r.Idle; i != nil {
		minute := 60 / seconds(i.Window)
		f.add("idle at 10s: requests beside watches and lease", "", float64(i.Requests.requests()), same(0), i.Requests.String())
		f.add("idle at 10s: processor time a minute", "s", seconds(i.CPU)*minute, noBound(), "")
	}
	if d := r.Delete; d != nil {
		if bare != nil {
			f.add("bare client: delete", "s", seconds(bare.Delete), noBound(), "")
		}
		f.add("delete: all objects gone", "s", seconds(d.Objects), noBound(), "")
		f.add("delete: all Kustomizations gone", "s", seconds(d.Kustomizations), noBound(), d.Requests.String())
	}
}

// mostForTenants is what the work for tenants may cost against that without.
const mostForTenants = 1.3

// tenants holds the operator with tenants against the operator without, of the same
// rounds.
func (f *figures) tenants(rounds []roundResult) {
	var wall, install, memory []float64
	for _, r := range rounds {
		if r.Tenants == nil || r.Tenants.Install == nil || r.Operator == nil || r.Operator.Install == nil {
			continue
		}
		wall = append(wall, seconds(r.Tenants.Install.Wall))
		install = append(install, seconds(r.Tenants.Install.Wall)/seconds(r.Operator.Install.Wall))
		if r.Operator.PeakMemory > 0 {
			memory = append(memory, float64(r.Tenants.PeakMemory)/float64(r.Operator.PeakMemory))
		}
	}
	f.optional("tenants: install", "s", wall, noBound(), unsteady(wall))
	f.optional("tenants: install against without", "×", install, same(mostForTenants), "")
	f.optional("tenants: peak memory against without", "×", memory, same(mostForTenants), "")
	for _, r := range slices.Backward(rounds) {
		if r.Tenants == nil || r.Operator == nil {
			continue
		}
		with, without := r.Tenants, r.Operator
		if with.OneApp != nil && without.OneApp != nil {
			f.add("tenants: one-app commit to live, p50", "ms", milliseconds(with.OneApp.Live.p50()), noBound(), "")
			f.add("tenants: one-app commit to live against without, p50", "×", float64(with.OneApp.Live.p50())/float64(without.OneApp.Live.p50()), same(mostForTenants), "")
		}
		if with.Variable != nil {
			f.add("tenants: change of a ConfigMap to live, p50", "ms", milliseconds(with.Variable.Live.p50()), noBound(), with.Variable.Requests.String())
			f.add("tenants: change of a ConfigMap to live, max", "ms", milliseconds(with.Variable.Live.max()), same(250), "")
		}
		if with.Drift != nil {
			f.add("tenants: drift to repaired, p50", "ms", milliseconds(with.Drift.Repaired.p50()), noBound(), "")
		}
		if with.Restart != nil {
			f.add("tenants: restart, data kept: writes with nothing changed", "", float64(with.Restart.Kept.Idle.writes()), same(0), with.Restart.Kept.Idle.describe())
		}
		if with.Idle != nil {
			f.add("tenants: idle at 10s: requests beside watches and lease", "", float64(with.Idle.Requests.requests()), same(0), with.Idle.Requests.String())
		}
		return
	}
}

// memory adds the highest of all rounds.
func (f *figures) memory(rounds []roundResult) {
	var peak int64
	var cpu duration
	for _, r := range rounds {
		if r.Operator != nil {
			peak, cpu = max(peak, r.Operator.PeakMemory), r.Operator.CPU
		}
	}
	if peak > 0 {
		f.add("peak memory", "MiB", float64(peak)/(1<<20), bound{120, 200}, "")
		f.add("processor time of the last round", "s", seconds(cpu), noBound(), "")
	}
}

// unsteady warns of rounds that cannot be compared.
func unsteady(values []float64) string {
	middle := median(values)
	for _, v := range values {
		if math.Abs(v-middle) > 0.15*middle {
			return "rounds differ by more than 15 %"
		}
	}
	return ""
}

func divide(values []float64, by int) []float64 {
	var out []float64
	for _, v := range values {
		out = append(out, v/float64(by))
	}
	return out
}

func seconds(d duration) float64           { return time.Duration(d).Seconds() }
func milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }
