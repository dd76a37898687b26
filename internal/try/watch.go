package try

import (
	"context"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	// lookEvery is the time between two looks at a repository.
	lookEvery = 100 * time.Millisecond
	// lookShare bounds the work of looking: a look at the files that took t is
	// followed by a pause of at least lookShare × t.
	lookShare = 10
	// settleWithin is how long files may go on changing before they are taken
	// as they are.
	settleWithin = 2 * time.Second
)

// watch publishes what changes until the context ends, and calls changed after
// each time. What goes wrong is told once to failed, with nil when it is over.
func (r *repository) watch(ctx context.Context, changed func(commit), failed func(error)) {
	var seen, unsettled string
	var since time.Time
	var last error
	pause := lookEvery
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		start := time.Now()
		now := r.look()
		pause = max(lookEvery, lookShare*time.Since(start))
		if now == seen || r.busy() {
			continue
		}
		// Files that are being written are left to settle.
		if r.files && now != unsettled {
			if unsettled == "" || unsettled == seen {
				since = start
			}
			unsettled = now
			if start.Sub(since) < settleWithin {
				continue
			}
		}
		seen, unsettled = now, ""
		published, err := r.publish(ctx)
		if ctx.Err() != nil {
			return
		}
		if published {
			changed(r.served)
		}
		if (err == nil) != (last == nil) || (err != nil && err.Error() != last.Error()) {
			failed(err)
		}
		last = err
	}
}

// look gives a text that changes when what is served may have changed. It starts
// no process.
func (r *repository) look() string {
	var b strings.Builder
	if r.gitDir != "" {
		head, _ := os.ReadFile(filepath.Join(r.gitDir, "HEAD"))
		b.Write(head)
		ref := "refs/heads/" + r.branch
		if r.branch == "" {
			ref = strings.TrimSpace(strings.TrimPrefix(string(head), "ref: "))
		}
		tip, _ := os.ReadFile(filepath.Join(r.commonDir, filepath.FromSlash(ref)))
		b.Write(tip)
		for _, file := range []string{"packed-refs", filepath.Join("reftable", "tables.list")} {
			if info, err := os.Stat(filepath.Join(r.commonDir, file)); err == nil {
				fmt.Fprintln(&b, file, info.ModTime().UnixNano(), info.Size())
			}
		}
	}
	if r.files {
		fmt.Fprintln(&b, sumOfFiles(r.folder))
	}
	return b.String()
}

// busy tells whether git is in the middle of something that leaves other commits
// or files behind when it is done.
func (r *repository) busy() bool {
	if r.gitDir == "" {
		return false
	}
	for _, name := range []string{"rebase-merge", "rebase-apply"} {
		if _, err := os.Stat(filepath.Join(r.gitDir, name)); err == nil {
			return true
		}
	}
	return false
}

// sumOfFiles sums names, sizes, modes and times of all files below a folder but
// Git's own. What cannot be read does not count.
func sumOfFiles(folder string) uint64 {
	sum := fnv.New64a()
	_ = filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if entry.Name() == ".git" {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if entry.IsDir() {
			return nil
		}
		if info, err := entry.Info(); err == nil {
			fmt.Fprintln(sum, path, info.Size(), info.Mode(), info.ModTime().UnixNano())
		}
		return nil
	})
	return sum.Sum64()
}
