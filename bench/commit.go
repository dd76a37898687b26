package main

import (
	"context"
	"time"
)

// commitPause is how long nothing may come from the operator before a commit, or
// a repair, counts as over.
const commitPause = 400 * time.Millisecond

// commitResult is a series of commits.
type commitResult struct {
	// Live is from the push to the last changed object as the driver's watch
	// shows it; Reported until all Kustomizations report the new revision.
	Live     samples `json:"liveSeconds"`
	Reported samples `json:"reportedSeconds"`
	// Builds, Beside (requests beside watches, lease, status writes and events),
	// StatusWrites and Events are those of each commit.
	Builds       []int    `json:"builds"`
	Beside       []int    `json:"requestsBeside"`
	StatusWrites []int    `json:"statusWrites"`
	Events       []int    `json:"events"`
	Requests     tally    `json:"requestsOfAll"`
	CPU          duration `json:"cpuSeconds"`
}

// oneApp changes one app a commit, spread over the fleet.
func (s *session) oneApp(ctx context.Context) (*commitResult, error) {
	result := &commitResult{}
	for i := range s.options.samples {
		if err := s.commit(ctx, result, s.fleet.spread(i, s.options.samples)); err != nil {
			return nil, err
		}
	}
	return result, nil
}

// allApps changes every app in one commit, some times.
func (s *session) allApps(ctx context.Context) (*commitResult, error) {
	apps := make([]int, s.fleet.apps)
	for app := range apps {
		apps[app] = app
	}
	result := &commitResult{}
	for range s.options.allCommits {
		if err := s.commit(ctx, result, apps...); err != nil {
			return nil, err
		}
	}
	return result, nil
}

// commit changes apps in one commit, asks for a reconciliation of the source, and
// waits for the end of all that follows.
func (s *session) commit(ctx context.Context, result *commitResult, apps ...int) error {
	live, err := s.change(apps...)
	if err != nil {
		return err
	}
	builds, err := s.operator.builds(ctx)
	if err != nil {
		return err
	}
	from, err := s.plane.audit.now()
	if err != nil {
		return err
	}
	cpu := s.operator.used()
	revision, err := s.repo.commit(ctx, "next version")
	if err != nil {
		return err
	}
	pushed := time.Now()
	reported := s.kustomizations.expect(func(o object) bool { return o.Status.LastAppliedRevision == revision }, atLeast(s.fleet.apps))
	if err := s.reconcileSource(ctx, revision); err != nil {
		return err
	}
	liveAt, err := live(ctx, allWithin)
	if err != nil {
		return err
	}
	reportedAt, err := reported(ctx, allWithin)
	if err != nil {
		return err
	}
	requests, err := s.operator.quiet(ctx, from, commitPause)
	if err != nil {
		return err
	}
	after, err := s.operator.builds(ctx)
	if err != nil {
		return err
	}
	result.Live = append(result.Live, liveAt.Sub(pushed))
	result.Reported = append(result.Reported, reportedAt.Sub(pushed))
	result.Builds = append(result.Builds, after-builds)
	result.Beside = append(result.Beside, requests.beside())
	result.StatusWrites = append(result.StatusWrites, requests.StatusWrites)
	result.Events = append(result.Events, requests.Events)
	result.Requests = result.Requests.add(requests)
	result.CPU += duration(s.operator.used() - cpu)
	return nil
}

// change writes the next version of apps into the working tree and begins to wait
// for it in the cluster.
func (s *session) change(apps ...int) (func(context.Context, time.Duration) (time.Time, error), error) {
	if err := s.repo.bump(apps...); err != nil {
		return nil, err
	}
	want := map[string]string{}
	for _, app := range apps {
		want[s.fleet.name(app)] = version(s.repo.versions[app])
	}
	return s.deployments().expect(func(o object) bool {
		next, changed := want[o.Metadata.Name]
		return changed && o.Metadata.Labels[versionLabel] == next
	}, atLeast(len(apps))), nil
}

// reconcileSource does what a webhook, or a user, does after a push.
func (s *session) reconcileSource(ctx context.Context, token string) error {
	return s.plane.patch(ctx, gitRepositories().path(controlNamespace)+"/"+sourceName, map[string]any{
		"metadata": map[string]any{"annotations": map[string]any{requestedAt: token}},
	})
}
