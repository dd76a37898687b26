package git

import (
	"context"
	"testing"

	"github.com/plumb-gitops/plumb/internal/testenv"
)

func TestLastNeedsNoServer(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	repository := server.Repository(t, "app")
	repository.Commit(t, "main", testenv.Files{"a.yaml": "a: 1"})
	request := Request{URL: server.URL("app"), Ref: Ref{Branch: "main"}}
	folder := t.TempDir()

	first, err := Open(folder, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Last(context.Background(), request); err == nil {
		t.Error("something is there before the first fetch")
	}
	fetched, err := first.Fetch(context.Background(), request)
	if err != nil {
		t.Fatal(err)
	}
	fetched.Release()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}

	server.Hang()
	second, err := Open(folder, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = second.Close() })
	last, err := second.Last(context.Background(), request)
	if err != nil {
		t.Fatal(err)
	}
	defer last.Release()
	data, err := last.Files.ReadFile("a.yaml")
	if err != nil || string(data) != "a: 1" || last.Revision != fetched.Revision {
		t.Errorf("got %q at %s (%v), want the file at %s", data, last.Revision, err, fetched.Revision)
	}
}
