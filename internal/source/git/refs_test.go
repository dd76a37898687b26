package git_test

import (
	"testing"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/git"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

func TestFetchResolvesRefs(t *testing.T) {
	t.Parallel()
	for name, old := range map[string]bool{"protocol 2": false, "protocol 0": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.NewGitServer(t, testenv.GitServerOptions{OldProtocol: old})
			repo := server.Repository(t, "app")
			one := repo.Commit(t, "master", testenv.Files{"f": "1"})
			two := repo.Commit(t, "master", testenv.Files{"f": "2"})
			three := repo.Commit(t, "main", testenv.Files{"f": "3"})
			repo.Branch(t, "main-2", one)
			repo.Tag(t, "v1.0.0", one, "")
			repo.Tag(t, "v1.2.0", two, "an annotated tag")
			repo.Tag(t, "2.0.0-rc.1", three, "")
			repo.Tag(t, "v9", three, "")
			repo.Ref(t, "refs/pull/1/head", two)
			s := openStore(t, git.Options{})

			tests := map[string]struct {
				ref        git.Ref
				want       string
				wantCommit string
				wantKind   gitops.ErrorKind
			}{
				"no ref is the branch master":              {want: "master@sha1:" + two, wantCommit: two},
				"a branch":                                 {ref: git.Ref{Branch: "main"}, want: "main@sha1:" + three, wantCommit: three},
				"a lightweight tag":                        {ref: git.Ref{Tag: "v1.0.0"}, want: "v1.0.0@sha1:" + one, wantCommit: one},
				"an annotated tag is its commit":           {ref: git.Ref{Tag: "v1.2.0"}, want: "v1.2.0@sha1:" + two, wantCommit: two},
				"a tag comes before a branch":              {ref: git.Ref{Branch: "main", Tag: "v1.0.0"}, want: "v1.0.0@sha1:" + one, wantCommit: one},
				"the newest version in a range":            {ref: git.Ref{SemVer: ">=1.0.0"}, want: "v1.2.0@sha1:" + two, wantCommit: two},
				"a range with pre-releases":                {ref: git.Ref{SemVer: ">=1.0.0-0"}, want: "2.0.0-rc.1@sha1:" + three, wantCommit: three},
				"a range comes before a tag":               {ref: git.Ref{Tag: "v9", SemVer: "1.0.x"}, want: "v1.0.0@sha1:" + one, wantCommit: one},
				"a whole ref":                              {ref: git.Ref{Name: "refs/pull/1/head"}, want: "refs/pull/1/head@sha1:" + two, wantCommit: two},
				"a whole ref comes before a range":         {ref: git.Ref{Name: "refs/heads/main", SemVer: "1.x"}, want: "refs/heads/main@sha1:" + three, wantCommit: three},
				"a commit":                                 {ref: git.Ref{Commit: one}, want: "sha1:" + one, wantCommit: one},
				"a commit comes before all":                {ref: git.Ref{Commit: one, Name: "refs/heads/main", Tag: "v9"}, want: "sha1:" + one, wantCommit: one},
				"a commit on a branch":                     {ref: git.Ref{Commit: one, Branch: "master"}, want: "master@sha1:" + one, wantCommit: one},
				"the last commit of a branch":              {ref: git.Ref{Commit: two, Branch: "master"}, want: "master@sha1:" + two, wantCommit: two},
				"a commit that is not on the branch":       {ref: git.Ref{Commit: three, Branch: "master"}, wantKind: gitops.Invalid},
				"a commit on a branch that is missing":     {ref: git.Ref{Commit: one, Branch: "nope"}, wantKind: gitops.Invalid},
				"a commit that is missing":                 {ref: git.Ref{Commit: "0123456789012345678901234567890123456789"}, wantKind: gitops.Invalid},
				"a short commit is refused":                {ref: git.Ref{Commit: one[:10]}, wantKind: gitops.Stalled},
				"a missing branch":                         {ref: git.Ref{Branch: "nope"}, wantKind: gitops.Invalid},
				"a missing tag":                            {ref: git.Ref{Tag: "nope"}, wantKind: gitops.Invalid},
				"a missing ref":                            {ref: git.Ref{Name: "refs/heads/mai"}, wantKind: gitops.Invalid},
				"a range without a tag":                    {ref: git.Ref{SemVer: ">5"}, wantKind: gitops.Invalid},
				"a range that is none":                     {ref: git.Ref{SemVer: "vier"}, wantKind: gitops.Stalled},
				"a branch that would be an option of git":  {ref: git.Ref{Branch: "--output=x"}, wantKind: gitops.Invalid},
				"a branch that would leave the repository": {ref: git.Ref{Branch: "../../../x"}, wantKind: gitops.Stalled},
			}
			for name, test := range tests {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					result, err := s.Fetch(within(t), git.Request{URL: server.URL("app"), Ref: test.ref})
					if kind := gitops.KindOf(err); kind != test.wantKind {
						t.Fatalf("error %v of kind %q, want %q", err, kind, test.wantKind)
					}
					if err != nil {
						t.Log(err)
						return
					}
					defer result.Release()
					if result.Revision != test.want || result.Commit.Hash != test.wantCommit {
						t.Errorf("revision %q, commit %s; want %q, %s", result.Revision, result.Commit.Hash, test.want, test.wantCommit)
					}
				})
			}
		})
	}
}

func TestFetchDescribesTheCommit(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	hash := server.Repository(t, "app").Commit(t, "main", testenv.Files{"f": "1"})
	result := fetch(t, openStore(t, git.Options{}), git.Request{URL: server.URL("app"), Ref: git.Ref{Branch: "main"}})
	c := result.Commit
	if c.Hash != hash || c.Author.String() != "Ann Example <ann@example.com>" || c.Message != "commit 1" || c.Author.When.Unix() != 1_700_000_001 {
		t.Errorf("got %+v", c)
	}
}

func TestRewritingIsRecognised(t *testing.T) {
	t.Parallel()
	for name, old := range map[string]bool{"protocol 2": false, "protocol 0": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.NewGitServer(t, testenv.GitServerOptions{OldProtocol: old})
			repo := server.Repository(t, "app")
			s := openStore(t, git.Options{})
			for range 30 {
				repo.Commit(t, "main", testenv.Files{"f": "history"})
			}
			base := repo.Commit(t, "main", testenv.Files{"f": "base"})
			last := ""
			steps := []struct {
				what string
				do   func()
				want bool
			}{
				{"the first fetch", func() {}, false},
				{"one commit", func() { repo.Commit(t, "main", testenv.Files{"f": "1"}) }, false},
				{"many commits", func() {
					for range 40 {
						repo.Commit(t, "main", testenv.Files{"f": "2"})
					}
				}, false},
				{"an amended commit", func() { repo.Amend(t, "main", testenv.Files{"g": "3"}) }, true},
				{"many commits again", func() {
					for range 3 {
						repo.Commit(t, "main", testenv.Files{"f": "4"})
					}
				}, false},
				{"an amended commit and more", func() {
					repo.Amend(t, "main", testenv.Files{"g": "5"})
					repo.Commit(t, "main", testenv.Files{"f": "5"})
					repo.Commit(t, "main", testenv.Files{"f": "6"})
				}, true},
				{"an old commit", func() { repo.Branch(t, "main", base) }, true},
				{"commits after it", func() {
					repo.Commit(t, "main", testenv.Files{"f": "7"})
					repo.Commit(t, "main", testenv.Files{"f": "8"})
				}, false},
				{"another history", func() { repo.Orphan(t, "main", testenv.Files{"h": "9"}) }, true},
				{"commits after that", func() {
					repo.Commit(t, "main", testenv.Files{"f": "10"})
					repo.Commit(t, "main", testenv.Files{"f": "11"})
				}, false},
			}
			for _, step := range steps {
				step.do()
				result := fetch(t, s, git.Request{URL: server.URL("app"), Ref: git.Ref{Branch: "main"}, Known: last})
				if result.Rewritten != step.want {
					t.Errorf("%s: rewritten %v, want %v", step.what, result.Rewritten, step.want)
				}
				last = result.Revision
			}
		})
	}
}
