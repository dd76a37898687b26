package git_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/git"
	"github.com/plumb-gitops/plumb/internal/testenv"
	"github.com/plumb-gitops/plumb/internal/verify/gitsign"
)

// author signs commits and tags with an SSH key.
type author struct {
	*testenv.GitSigner
	keys *gitsign.Keys
}

func newAuthor(t *testing.T) author {
	t.Helper()
	signer := testenv.NewGitSigner(t)
	keys, err := gitsign.ReadKeys(map[string][]byte{"a.sshpub": signer.AuthorizedKey()})
	must(t, err)
	return author{signer, keys}
}

func (a author) id() string { return a.Fingerprint() }

func (a author) verify(mode git.VerifyMode) git.Verify {
	return git.Verify{Mode: mode, Check: a.keys.Verify, Settings: a.id()}
}

func TestSignaturesDecide(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	repo := server.Repository(t, "app")
	ann, bob := newAuthor(t), newAuthor(t)
	unsigned := repo.Commit(t, "unsigned", testenv.Files{"f": "0"})
	repo.Commit(t, "main", testenv.Files{"f": "1"})
	signed := ann.Sign(t, repo, "main")
	repo.Commit(t, "bob", testenv.Files{"f": "2"})
	bobs := bob.Sign(t, repo, "bob")
	repo.Tag(t, "v1.0.0", signed, "")
	repo.Tag(t, "v2.0.0", signed, "not signed")
	both := ann.Tag(t, repo, "v3.0.0", "v3.0.0", signed)
	tagOnly := ann.Tag(t, repo, "v4.0.0", "v4.0.0", unsigned)
	bob.Tag(t, repo, "v5.0.0", "v5.0.0", signed)
	ann.Tag(t, repo, "v6.0.0", "v3.0.0", signed)
	// The bytes of a signed commit with another tree.
	other := strings.TrimSpace(repo.Git(t, "rev-parse", unsigned+"^{tree}"))
	content := repo.Git(t, "cat-file", "commit", signed)
	repo.Branch(t, "tampered", repo.Write(t, "commit", strings.Replace(content, content[5:45], other, 1)))

	commitOf := func(hash, signer string) git.Verified {
		return git.Verified{Object: "commit", Name: hash, Signer: signer}
	}
	tests := map[string]struct {
		ref    git.Ref
		mode   git.VerifyMode
		want   []git.Verified
		kind   gitops.ErrorKind
		reason string
		word   string
	}{
		"a signed commit":                   {ref: git.Ref{Branch: "main"}, mode: git.VerifyHEAD, want: []git.Verified{commitOf(signed, ann.id())}},
		"a signed commit by its hash":       {ref: git.Ref{Commit: signed}, mode: git.VerifyHEAD, want: []git.Verified{commitOf(signed, ann.id())}},
		"a commit without a signature":      {ref: git.Ref{Branch: "unsigned"}, mode: git.VerifyHEAD, kind: gitops.Denied, reason: git.ReasonCommit, word: "verify commit " + unsigned + ": the commit is not signed"},
		"a commit of somebody else":         {ref: git.Ref{Branch: "bob"}, mode: git.VerifyHEAD, kind: gitops.Denied, reason: git.ReasonCommit, word: bob.id()},
		"a commit with other files":         {ref: git.Ref{Branch: "tampered"}, mode: git.VerifyHEAD, kind: gitops.Denied, reason: git.ReasonCommit, word: "does not fit"},
		"an unknown mode":                   {ref: git.Ref{Branch: "main"}, mode: "Both", kind: gitops.Stalled, reason: git.ReasonMode, word: `"Both"`},
		"a tag where there is a branch":     {ref: git.Ref{Branch: "main"}, mode: git.VerifyTag, kind: gitops.Stalled, reason: git.ReasonMode, word: "needs a tag"},
		"a tag where there is a commit":     {ref: git.Ref{Commit: signed, Tag: "v3.0.0"}, mode: git.VerifyTagAndHEAD, kind: gitops.Stalled, reason: git.ReasonMode},
		"a tag that is only a ref":          {ref: git.Ref{Tag: "v1.0.0"}, mode: git.VerifyTag, kind: gitops.Denied, reason: git.ReasonObject, word: `tag "v1.0.0" is not signed`},
		"a tag without a signature":         {ref: git.Ref{Tag: "v2.0.0"}, mode: git.VerifyTag, kind: gitops.Denied, reason: git.ReasonObject, word: `tag "v2.0.0" is not signed`},
		"a signed tag":                      {ref: git.Ref{Tag: "v4.0.0"}, mode: git.VerifyTag, want: []git.Verified{{Object: "tag", Name: "v4.0.0@" + tagOnly, Signer: ann.id()}}},
		"a signed tag by a range":           {ref: git.Ref{SemVer: "4.x"}, mode: git.VerifyTag, want: []git.Verified{{Object: "tag", Name: "v4.0.0@" + tagOnly, Signer: ann.id()}}},
		"a signed tag by its whole name":    {ref: git.Ref{Name: "refs/tags/v4.0.0"}, mode: git.VerifyTag, want: []git.Verified{{Object: "tag", Name: "v4.0.0@" + tagOnly, Signer: ann.id()}}},
		"a signed tag of an unsigned one":   {ref: git.Ref{Tag: "v4.0.0"}, mode: git.VerifyTagAndHEAD, kind: gitops.Denied, reason: git.ReasonCommit, word: "is not signed"},
		"a signed tag of a signed commit":   {ref: git.Ref{Tag: "v3.0.0"}, mode: git.VerifyTagAndHEAD, want: []git.Verified{{Object: "tag", Name: "v3.0.0@" + both, Signer: ann.id()}, commitOf(signed, ann.id())}},
		"a tag of somebody else":            {ref: git.Ref{Tag: "v5.0.0"}, mode: git.VerifyTagAndHEAD, kind: gitops.Denied, reason: git.ReasonTag, word: bob.id()},
		"only the commit of another's tag":  {ref: git.Ref{Tag: "v5.0.0"}, mode: git.VerifyHEAD, want: []git.Verified{commitOf(signed, ann.id())}},
		"an old signed tag under new names": {ref: git.Ref{Tag: "v6.0.0"}, mode: git.VerifyTag, kind: gitops.Denied, reason: git.ReasonTag, word: `is called "v3.0.0"`},
	}
	s := openStore(t, git.Options{})
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			request := git.Request{URL: server.URL("app"), Ref: test.ref, Verify: ann.verify(test.mode)}
			if test.reason != "" {
				expect(t, request, test.kind, test.reason, test.word)
				return
			}
			if got := fetch(t, s, request).Verified; fmt.Sprint(got) != fmt.Sprint(test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
	t.Run("a branch that moves meanwhile", func(t *testing.T) {
		t.Parallel()
		repo := server.Repository(t, "moving")
		repo.Commit(t, "main", testenv.Files{"f": "good"})
		good := ann.Sign(t, repo, "main")
		verify := ann.verify(git.VerifyHEAD)
		verify.Check = func(object []byte) (string, error) {
			repo.Orphan(t, "main", testenv.Files{"f": "bad"})
			return ann.keys.Verify(object)
		}
		result := fetch(t, s, git.Request{URL: server.URL("moving"), Ref: git.Ref{Branch: "main"}, Verify: verify})
		if result.Commit.Hash != good || contents(t, result.Files)["f"] != "good" {
			t.Errorf("got %s, want %s, which was verified", result.Commit.Hash, good)
		}
	})
	t.Run("nobody's keys", func(t *testing.T) {
		t.Parallel()
		expect(t, git.Request{URL: server.URL("app"), Verify: git.Verify{Mode: git.VerifyHEAD}}, gitops.Denied, git.ReasonVerification)
	})
	t.Run("other keys verify again", func(t *testing.T) {
		t.Parallel()
		request := git.Request{URL: server.URL("app"), Ref: git.Ref{Branch: "bob"}, Verify: ann.verify(git.VerifyHEAD)}
		s := openStore(t, git.Options{})
		plain := request
		plain.Verify = git.Verify{}
		if result := fetch(t, s, plain); result.Commit.Hash != bobs || result.Verified != nil {
			t.Errorf("got %s, verified %v", result.Commit.Hash, result.Verified)
		}
		for range 2 {
			_, err := s.Fetch(within(t), request)
			if gitops.KindOf(err) != gitops.Denied {
				t.Errorf("what is fetched already is shown with keys that did not sign it: error %v", err)
			}
		}
		if _, err := s.Last(t.Context(), request); err == nil {
			t.Error("what is fetched already is the last revision of keys that did not sign it")
		}
		request.Verify = bob.verify(git.VerifyHEAD)
		if got := fetch(t, s, request).Verified; len(got) != 1 || got[0].Signer != bob.id() {
			t.Errorf("verified %v", got)
		}
	})
}

// TestRefusedRevisionsChangeNothing: what was good before stays, also over a restart,
// and a poll that finds the same again costs only the poll.
func TestRefusedRevisionsChangeNothing(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	repo := server.Repository(t, "app")
	ann := newAuthor(t)
	repo.Commit(t, "main", testenv.Files{"f": "1"})
	good := ann.Sign(t, repo, "main")
	dir := t.TempDir()
	now := atomic.Int64{}
	options := git.Options{Now: func() time.Time { return time.Unix(now.Load(), 0) }}
	s, err := git.Open(dir, options)
	must(t, err)
	request := git.Request{URL: server.URL("app"), Ref: git.Ref{Branch: "main"}, Verify: ann.verify(git.VerifyHEAD)}
	first := fetch(t, s, request)
	repo.Commit(t, "main", testenv.Files{"f": "2"})
	refuse := func(requests int64) {
		t.Helper()
		before := server.Requests()
		if _, err := s.Fetch(within(t), request); gitops.KindOf(err) != gitops.Denied {
			t.Errorf("error %v", err)
		}
		if got := server.Requests() - before; got != requests {
			t.Errorf("%d requests, want %d", got, requests)
		}
	}
	refuse(2)
	refuse(1)
	if got := contents(t, first.Files)["f"]; got != "1" {
		t.Errorf("the revision before reads %q", got)
	}
	now.Add(int64(time.Hour / time.Second))
	refuse(2)
	must(t, s.Close())
	again, err := git.Open(dir, options)
	must(t, err)
	t.Cleanup(func() { must(t, again.Close()) })
	last, err := again.Last(t.Context(), request)
	must(t, err)
	defer last.Release()
	if last.Commit.Hash != good || contents(t, last.Files)["f"] != "1" || len(last.Verified) != 1 {
		t.Errorf("after a restart %s is shown, verified %v; want %s", last.Commit.Hash, last.Verified, good)
	}
	if _, files := size(t, dir); files > 5 {
		t.Errorf("%d files in the data folder: what is refused was kept", files)
	}
	repo.Commit(t, "main", testenv.Files{"f": "3"})
	next := ann.Sign(t, repo, "main")
	if result := fetch(t, again, request); result.Commit.Hash != next || contents(t, result.Files)["f"] != "3" {
		t.Errorf("got %s, want %s", result.Commit.Hash, next)
	}
}
