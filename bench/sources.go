package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitserver"
	"github.com/plumb-gitops/plumb/internal/source/git"
)

// sourceResult is what fetching from a Git repository with a long history took.
type sourceResult struct {
	Size historySize `json:"size"`
	// Packs is the length of the repository's packs in bytes.
	Packs int64 `json:"packs"`
	// First is the first fetch of one commit with all its files, PeakFirst the memory
	// of a process that does it and then fetches Commits, ClonePeak that of a process
	// with a shallow clone by go-git.
	First      duration `json:"firstSeconds"`
	FirstBytes int64    `json:"firstBytes"`
	Peak       int64    `json:"peakBytes"`
	ClonePeak  int64    `json:"clonePeakBytes"`
	Clone      duration `json:"cloneSeconds"`
	// Fetch and Git are a fetch of a commit that changes one file, by the store and by
	// git fetch in a bare clone with the whole history; in turns, on the same commits.
	Fetch      samples `json:"fetchSeconds"`
	Git        samples `json:"gitSeconds"`
	FetchBytes []int64 `json:"fetchBytes"`
	GitBytes   []int64 `json:"gitBytes"`
	// Poll is one that finds nothing new.
	Poll      samples `json:"pollSeconds"`
	PollBytes int64   `json:"pollBytes"`
	// Followers are the GitRepositories of which all polls cost Polls requests in
	// Intervals. Reconcile is from the first one created to the last one Ready.
	Followers int      `json:"followers"`
	Intervals int      `json:"intervals"`
	Polls     int64    `json:"polls"`
	Reconcile duration `json:"reconcileSeconds"`
}

// measureSources measures fetching.
func (b *bench) measureSources(ctx context.Context) (_ *sourceResult, err error) {
	dir, err := os.MkdirTemp("", "plumb-bench-sources-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	size := b.options.history
	b.say("sources: making a repository of %d commits, %d files and %d MiB", size.Commits, size.Files, size.Bytes>>20)
	repo, err := historyRepository(ctx, size, 1, filepath.Join(dir, "history.git"))
	if err != nil {
		return nil, err
	}
	server, err := serveHistory(repo)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	r := &sourceResult{Size: size}
	if r.Packs, err = repo.disk(); err != nil {
		return nil, err
	}
	for _, part := range []func(context.Context, *history, *historyServer, string, *sourceResult) error{b.memory, b.fetches, b.followed} {
		if err := part(ctx, repo, server, dir, r); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// historyServer serves a repository over HTTP and counts what passes.
type historyServer struct {
	http.Server
	url      string
	bytes    atomic.Int64
	requests atomic.Int64
}

func serveHistory(repo *history) (*historyServer, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &historyServer{url: "http://" + listener.Addr().String() + "/history.git"}
	handler := &gitserver.Handler{Resolve: gitserver.Single("history", repo.dir)}
	s.ReadHeaderTimeout = time.Minute
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		handler.ServeHTTP(w, r)
	})
	go s.Serve(meteredListener{listener, &s.bytes}) // ends with Close
	return s, nil
}

// meteredListener counts the bytes of its connections in both directions.
type meteredListener struct {
	net.Listener
	bytes *atomic.Int64
}

// Accept gives the next connection.
func (l meteredListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return meteredConn{conn, l.bytes}, nil
}

type meteredConn struct {
	net.Conn
	bytes *atomic.Int64
}

// Read counts what comes in.
func (c meteredConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.bytes.Add(int64(n))
	return n, err
}

// Write counts what goes out.
func (c meteredConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.bytes.Add(int64(n))
	return n, err
}

// buildProgram builds one of the programs below this folder.
func buildProgram(ctx context.Context, name, dir string) (string, error) {
	program := filepath.Join(dir, name)
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", program, "./bench/"+name).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build bench/%s: %w: %s", name, err, out)
	}
	return program, nil
}

// memory runs the fetches in processes of their own, to see what each needs at most.
func (b *bench) memory(ctx context.Context, repo *history, server *historyServer, dir string, r *sourceResult) error {
	program, err := buildProgram(ctx, "fetch", dir)
	if err != nil {
		return err
	}
	b.say("sources: first fetch by a process of its own, then %d commits", b.options.samples)
	ours := exec.CommandContext(ctx, program, "plumb", server.url, filepath.Join(dir, "own"), fmt.Sprint(b.options.samples))
	if r.Peak, err = converse(ours, b.options.samples, func() error { return repo.push(ctx) }); err != nil {
		return err
	}
	b.say("sources: shallow clone by go-git")
	began := time.Now()
	theirs := exec.CommandContext(ctx, program, "go-git", server.url, filepath.Join(dir, "go-git"))
	r.ClonePeak, err = converse(theirs, 0, nil)
	r.Clone = duration(time.Since(began))
	return err
}

// converse runs a program that says a line, then one more for each line that it is told,
// and in the end the most memory that it needed, which is given in bytes.
func converse(cmd *exec.Cmd, times int, before func() error) (int64, error) {
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	var complaint strings.Builder
	cmd.Stderr = &complaint
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	lines := bufio.NewScanner(out)
	var peak int64
	err = errors.Join(talk(in, lines, times, before), in.Close())
	if err == nil && lines.Scan() {
		_, err = fmt.Sscanf(lines.Text(), "%d kB", &peak)
	}
	if err = errors.Join(err, cmd.Wait(), lines.Err()); err == nil && peak == 0 {
		err = errors.New("it does not say how much memory it used")
	}
	if err != nil {
		return 0, fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, complaint.String())
	}
	return peak << 10, nil
}

func talk(in io.Writer, lines *bufio.Scanner, times int, before func() error) error {
	last := ""
	for i := range times + 1 {
		if i > 0 {
			if err := before(); err != nil {
				return err
			}
			if _, err := io.WriteString(in, "\n"); err != nil {
				return err
			}
		}
		if !lines.Scan() || lines.Text() == last {
			return errors.Join(fmt.Errorf("it says %q after %q", lines.Text(), last), lines.Err())
		}
		last = lines.Text()
	}
	return nil
}

// fetches takes turns with git fetch.
func (b *bench) fetches(ctx context.Context, repo *history, server *historyServer, dir string, r *sourceResult) error {
	store, err := git.Open(filepath.Join(dir, "store"), git.Options{})
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }() // the folder goes at once
	request := git.Request{URL: server.url, Ref: git.Ref{Branch: "main"}}
	b.say("sources: first fetch")
	took, bytes, err := server.measure(func() error { return fetchOnce(ctx, store, &request, true) })
	if err != nil {
		return err
	}
	r.First, r.FirstBytes = duration(took), bytes
	bare := filepath.Join(dir, "bare.git")
	if out, err := repo.command(ctx, "clone", "-q", "--bare", server.url, bare).CombinedOutput(); err != nil {
		return fmt.Errorf("git clone: %w: %s", err, out)
	}
	b.say("sources: %d commits, in turns with git fetch", b.options.samples)
	for range b.options.samples {
		if err := repo.push(ctx); err != nil {
			return err
		}
		took, bytes, err := server.measure(func() error { return fetchOnce(ctx, store, &request, true) })
		if err != nil {
			return err
		}
		r.Fetch, r.FetchBytes = append(r.Fetch, took), append(r.FetchBytes, bytes)
		took, bytes, err = server.measure(func() error {
			cmd := repo.command(ctx, "fetch", "-q", "origin", "+refs/heads/main:refs/heads/main")
			cmd.Dir = bare
			return cmd.Run()
		})
		if err != nil {
			return fmt.Errorf("git fetch: %w", err)
		}
		r.Git, r.GitBytes = append(r.Git, took), append(r.GitBytes, bytes)
		took, bytes, err = server.measure(func() error { return fetchOnce(ctx, store, &request, false) })
		if err != nil {
			return err
		}
		r.Poll, r.PollBytes = append(r.Poll, took), max(r.PollBytes, bytes)
	}
	return nil
}

// measure gives what something took, and what it moved.
func (s *historyServer) measure(do func() error) (time.Duration, int64, error) {
	before, began := s.bytes.Load(), time.Now()
	err := do()
	return time.Since(began), s.bytes.Load() - before, err
}

func fetchOnce(ctx context.Context, store *git.Store, request *git.Request, changes bool) error {
	result, err := store.Fetch(ctx, *request)
	if err != nil {
		return err
	}
	defer result.Release()
	if result.Unchanged == changes {
		return fmt.Errorf("fetch: unchanged is %v", result.Unchanged)
	}
	request.Known = result.Revision
	return nil
}

// figures judges the result.
func (r *sourceResult) figures() []figure {
	f := &figures{group: fmt.Sprintf("Git: %d commits, %d files, %d MiB in packs", r.Size.Commits, r.Size.Files, r.Packs>>20)}
	mib := func(n int64) float64 { return float64(n) / (1 << 20) }
	kb := func(n int64) float64 { return float64(n) / 1000 }
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	most := func(all []int64) (n int64) {
		for _, each := range all {
			n = max(n, each)
		}
		return n
	}
	f.add("unchanged poll: moves, at most", "kB", kb(r.PollBytes), same(2), "")
	f.add("unchanged poll: p50", "ms", ms(r.Poll.p50()), noBound(), "")
	f.add(fmt.Sprintf("%d GitRepositories: requests to the server in an interval", r.Followers), "", float64(r.Polls)/float64(r.Intervals), same(1.2),
		fmt.Sprintf("%d in %d intervals of %s", r.Polls, r.Intervals, followInterval))
	f.add(fmt.Sprintf("%d GitRepositories: all Ready", r.Followers), "s", seconds(r.Reconcile), noBound(), "")
	f.add("one-file commit: moves, at most", "kB", kb(most(r.FetchBytes)), same(20), fmt.Sprintf("git fetch moves %s kB", number(kb(most(r.GitBytes)))))
	f.add("one-file commit: p50", "ms", ms(r.Fetch.p50()), noBound(), fmt.Sprintf("max %s ms", number(ms(r.Fetch.max()))))
	f.add("git fetch of it: p50", "ms", ms(r.Git.p50()), noBound(), fmt.Sprintf("max %s ms", number(ms(r.Git.max()))))
	f.add("one-file commit: times git fetch", "", float64(r.Fetch.p50())/float64(r.Git.p50()), same(2), "")
	f.add("first fetch", "s", seconds(r.First), noBound(), fmt.Sprintf("%s MiB moved", number(mib(r.FirstBytes))))
	f.add("peak memory: first fetch and commits", "MiB", mib(r.Peak), same(mib(r.ClonePeak)), "of a process; the bound is that of a shallow clone by go-git")
	f.add("shallow clone by go-git", "s", seconds(r.Clone), noBound(), fmt.Sprintf("%s MiB", number(mib(r.ClonePeak))))
	return f.all
}
