package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"
)

const (
	// followers is how many GitRepositories follow one repository, on as many branches
	// as followedBranches says.
	followers        = 500
	followedBranches = 10
	followInterval   = 10 * time.Second
	followIntervals  = 6
)

// followed counts the requests to a Git server that many GitRepositories cost of which
// nothing changes.
func (b *bench) followed(ctx context.Context, _ *history, _ *historyServer, dir string, r *sourceResult) error {
	size := historySize{Commits: 20, Files: filesInFolder, Bytes: 1 << 20}
	repo, err := historyRepository(ctx, size, 2, filepath.Join(dir, "followed.git"))
	if err != nil {
		return err
	}
	for i := range followedBranches {
		if _, err := repo.git(ctx, "update-ref", fmt.Sprintf("refs/heads/team-%d", i), "refs/heads/main"); err != nil {
			return err
		}
	}
	server, err := serveHistory(repo)
	if err != nil {
		return err
	}
	defer server.Close() // nothing is written
	objects, err := followerObjects(server.url)
	if err != nil {
		return err
	}
	r.Followers, r.Intervals = followers, followIntervals
	took, _, err := b.reconcileSources(ctx, gitRepositories(), objects, func(ctx context.Context) error {
		before := server.requests.Load()
		if err := pause(ctx, followIntervals*followInterval); err != nil {
			return err
		}
		r.Polls = server.requests.Load() - before
		return nil
	})
	r.Reconcile = duration(took)
	if err == nil {
		b.say("sources: %d GitRepositories Ready after %.1fs, %d polls in %d intervals", followers, took.Seconds(), r.Polls, r.Intervals)
	}
	return err
}

// pause waits, unless the context ends first.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// followerObjects are GitRepositories that follow the branches of one repository.
func followerObjects(url string) ([]item, error) {
	return sourceObjects(gitRepositories(), followers, "follower", func(i int, _ string) map[string]any {
		return map[string]any{
			"url": url, "interval": followInterval.String(),
			"ref": map[string]any{"branch": fmt.Sprintf("team-%d", i%followedBranches)},
		}
	})
}
