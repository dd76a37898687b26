package git

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// dribbling is a server that sends what is asked for of one commit byte by byte until it is
// enough.
type dribbling struct {
	commit  string
	asked   chan struct{}
	enough  chan struct{}
	mu      sync.Mutex
	fetches int // of that commit
}

func (d *dribbling) around(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		if strings.Contains(string(body), "want "+d.commit) {
			d.mu.Lock()
			d.fetches++
			d.mu.Unlock()
			w = &drop{ResponseWriter: w, of: d, ctx: r.Context()}
		}
		next.ServeHTTP(w, r)
	})
}

type drop struct {
	http.ResponseWriter
	of  *dribbling
	ctx context.Context //nolint:containedctx // that of the request
}

func (d *drop) Write(p []byte) (int, error) {
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for i := range p {
		select {
		case d.of.asked <- struct{}{}:
		default:
		}
		if _, err := d.ResponseWriter.Write(p[i : i+1]); err != nil {
			return i, err
		}
		_ = http.NewResponseController(d.ResponseWriter).Flush()
		select {
		case <-d.of.enough:
			n, err := d.ResponseWriter.Write(p[i+1:])
			return i + 1 + n, err
		case <-d.ctx.Done():
			return i, d.ctx.Err()
		case <-again.C:
		}
	}
	return len(p), nil
}

// TestSlowFetchHoldsNobody: those who follow other refs of a repository go on beside a fetch
// that takes long, and those who want the same wait for it. What comes in while packs are
// joined is whole.
func TestSlowFetchHoldsNobody(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		sparse []string
		// packs is how many are usual; lost tells that the slow fetch has to begin anew.
		packs int
		lost  bool
	}{
		"of all files": {nil, 32, false},
		// It takes files for granted that are there and that no tip needs.
		"of a directory": {[]string{"dir1"}, 32, false},
		"of a directory, while there is too much": {[]string{"dir1"}, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			slowFetchHoldsNobody(t, test.sparse, test.packs, test.lost)
		})
	}
}

func slowFetchHoldsNobody(t *testing.T, sparse []string, packs int, lost bool) {
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	repo := server.Repository(t, "app")
	files := testenv.Files{}
	for i := range 40 {
		files[fmt.Sprintf("dir%d/f%d", i%5, i)] = strings.Repeat(fmt.Sprint(i, " "), 50)
	}
	repo.Commit(t, "main", files)
	s := store(t, Options{Patience: 50 * time.Millisecond, Packs: packs})
	request := func(branch string, sparse ...string) Request {
		return Request{URL: server.URL("app"), Ref: Ref{Branch: branch}, Sparse: sparse}
	}
	get := func(of Request) error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		result, err := s.Fetch(ctx, of)
		if err != nil {
			return err
		}
		defer result.Release()
		return readTree(result.Files)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(get(request("main")))
	repo.Git(t, "branch", "slow", "main")
	if len(sparse) > 0 {
		repo.Commit(t, "main", testenv.Files{"dir1/f6": "changed"})
		must(get(request("main")))
	}
	d := &dribbling{commit: repo.Commit(t, "slow", testenv.Files{"dir0/f0": "slow", "dir1/f1": "slow"}), asked: make(chan struct{}), enough: make(chan struct{})}
	server.Around(d.around)
	const followers = 3
	ended := make(chan error, followers)
	for range followers {
		go func() { ended <- get(request("slow", sparse...)) }()
	}
	<-d.asked

	r, err := s.remote(t.Context(), request("main"))
	must(err)
	for i := range 4 {
		repo.Commit(t, "main", testenv.Files{"dir1/f1": fmt.Sprint("new ", i), "dir1/f11": fmt.Sprint("new ", i), "dir2/f2": fmt.Sprint("new ", i)})
		must(get(request("main")))
		must(get(request("main", "dir2")))
		must(r.join(t.Context()))
	}
	select {
	case err := <-ended:
		t.Fatalf("the slow fetch ended: %v", err)
	default:
	}
	close(d.enough)
	failed := 0
	for range followers {
		if err := <-ended; err != nil {
			if failed++; !lost || !strings.Contains(err.Error(), "it is fetched again") || gitops.KindOf(err) != gitops.Transient {
				t.Error(err)
			}
		}
	}
	if lost != (failed == 1) {
		t.Errorf("%d failed", failed)
	}
	if d.fetches != 1+failed {
		t.Errorf("the slow commit was fetched %d times", d.fetches)
	}
	must(r.join(t.Context()))
	for _, of := range []Request{request("main"), request("slow", sparse...), request("main", "dir2")} {
		must(get(of))
	}
	if r.broken.Load() {
		t.Error("the store is damaged")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.bases) > 0 || len(r.state.Packs) != 1 {
		t.Errorf("%d fetches and packs %v are left", len(r.bases), r.state.Packs)
	}
}

// readTree reads every file.
func readTree(files gitops.Tree) error { return readBelow(files, ".") }

func readBelow(files gitops.Tree, dir string) error {
	entries, err := files.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := strings.TrimPrefix(dir+"/"+e.Name(), "./")
		if e.IsDir() {
			err = readBelow(files, name)
		} else {
			_, err = files.ReadFile(name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
