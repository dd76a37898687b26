package helmrepo

import (
	"context"
	"runtime"
	"testing"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
)

// AwaitWaiting waits until so many ask for the index of a repository.
func AwaitWaiting(s *Store, repository Repository, many int) {
	for {
		r, err := s.remote(context.Background(), repository)
		if err != nil {
			return
		}
		r.polls.mu.Lock()
		waiting := r.polls.waiting
		r.polls.mu.Unlock()
		if waiting >= many {
			return
		}
		runtime.Gosched()
	}
}

// IndexLength is the length of the file of an index.
func IndexLength(t *testing.T, s *Store, repository Repository) int {
	t.Helper()
	return len(indexBytes(t, s, repository))
}

// FlipIndex changes a byte of the file of an index.
func FlipIndex(t *testing.T, s *Store, repository Repository, at int) {
	t.Helper()
	data := indexBytes(t, s, repository)
	data[at] ^= 1
	r, _ := s.remote(context.Background(), repository)
	if err := r.dir.WriteFile(r.state.Index.file(), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func indexBytes(t *testing.T, s *Store, repository Repository) []byte {
	t.Helper()
	r, err := s.remote(context.Background(), repository)
	if err != nil {
		t.Fatal(err)
	}
	data, err := r.dir.ReadFile(r.state.Index.file())
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func memoryTree(files map[string]string) gitops.Tree { return sourcetest.Memory(files) }
