package git

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/plumb-gitops/plumb/internal/source/git/pack"
	"github.com/plumb-gitops/plumb/internal/source/git/pack/packtest"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// TestJoinBeginsAnew: a store that could only be joined with a long chain of what nothing
// needs, or by becoming much larger, is fetched again.
func TestJoinBeginsAnew(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		links int
		anew  bool
	}{
		"a chain that is short enough": {100, false},
		"one that is too long":         {300, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.NewGitServer(t, testenv.GitServerOptions{})
			server.Repository(t, "app").Commit(t, "main", testenv.Files{"f": "1"})
			s := store(t, Options{})
			request := Request{URL: server.URL("app"), Ref: Ref{Branch: "main"}}
			get := func() {
				t.Helper()
				result, err := s.Fetch(t.Context(), request)
				if err != nil {
					t.Fatal(err)
				}
				defer result.Release()
				if data, err := result.Files.ReadFile("f"); err != nil || string(data) != "1" {
					t.Errorf("a file holds %q, %v", data, err)
				}
			}
			get()
			r, err := s.remote(t.Context(), request)
			if err != nil {
				t.Fatal(err)
			}
			var b packtest.Builder
			base := b.Whole("blob", packtest.Random(64<<10))
			for i := range test.links {
				base = b.Delta(base, 1, fmt.Sprint("link ", i))
			}
			var tree bytes.Buffer
			for _, name := range []string{"a", "b"} {
				id := b.Delta(base, 1, name).ID()
				fmt.Fprintf(&tree, "100644 %s\x00%s", name, id[:])
			}
			commit := b.Whole("commit", fmt.Appendf(nil, "tree %x\n\n", b.Whole("tree", tree.Bytes()).ID()))
			p, err := pack.Receive(t.Context(), bytes.NewReader(b.Pack()), r.dir, r.name(), s.serial.Add(1), nil, r.limits())
			if err != nil {
				t.Fatal(err)
			}
			at, err := r.begin(t.Context(), false)
			if err != nil {
				t.Fatal(err)
			}
			other := Request{URL: request.URL, Ref: Ref{Branch: "other"}}
			name := pack.ID(commit.ID()).String()
			err = r.add(at, []*pack.Pack{p}, other.tip(), tip{Want: name, Commit: name, Ref: "refs/heads/other"})
			r.end(at)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.join(t.Context()); (err != nil) != test.anew {
				t.Errorf("joined with error %v", err)
			} else if err != nil && !strings.Contains(err.Error(), "chain of deltas too long") {
				t.Error(err)
			}
			last, err := s.Last(t.Context(), other)
			if err == nil {
				last.Release()
			}
			if (err != nil) != test.anew {
				t.Errorf("what was stored is there with error %v", err)
			}
			get()
		})
	}
}
