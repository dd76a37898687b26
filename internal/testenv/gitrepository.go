package testenv

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/plumb-gitops/plumb/internal/gitserver"
)

// GitRepository is a bare repository that a test writes commits to. A commit
// costs one git process.
type GitRepository struct {
	// Dir is its folder.
	Dir string

	commits int
}

// NewGitRepository makes an empty bare repository whose HEAD is refs/heads/main.
func NewGitRepository(t testing.TB, dir string) *GitRepository {
	t.Helper()
	r := &GitRepository{Dir: dir}
	r.run(t, "", "-c", "init.defaultBranch=main", "init", "--quiet", "--bare", dir)
	return r
}

// Files are changes by path: the new content of a file, or one of the values of
// Executable, Symlink, Submodule and Delete.
type Files map[string]string

const (
	executableMark = "\x00x"
	symlinkMark    = "\x00l"
	submoduleMark  = "\x00s"
	deleteMark     = "\x00d"
)

// Executable is an executable file.
func Executable(content string) string { return executableMark + content }

// Symlink is a symbolic link.
func Symlink(target string) string { return symlinkMark + target }

// Submodule is a link to a commit of another repository.
func Submodule(commit string) string { return submoduleMark + commit }

// Delete removes a file or a folder.
const Delete = deleteMark

// Commit adds a commit with the changes to a branch, which begins with it where
// there is none yet, and gives its hash.
func (r *GitRepository) Commit(t testing.TB, branch string, files Files) string {
	t.Helper()
	from := ""
	if r.Has(t, "refs/heads/"+branch) {
		from = "from refs/heads/" + branch + "^0\n"
	}
	return r.commit(t, branch, from, files)
}

// Orphan replaces a branch by one new commit without a parent: a force-push to
// another history. It gives the commit's hash.
func (r *GitRepository) Orphan(t testing.TB, branch string, files Files) string {
	t.Helper()
	return r.commit(t, branch, "", files)
}

// Amend replaces the last commit of a branch by one with the changes, as a
// force-push does. It gives the new commit's hash.
func (r *GitRepository) Amend(t testing.TB, branch string, files Files) string {
	t.Helper()
	tree := strings.TrimSpace(r.run(t, "", "rev-parse", "refs/heads/"+branch+"^{tree}"))
	parents := strings.Fields(r.run(t, "", "rev-list", "--parents", "--max-count=1", "refs/heads/"+branch))[1:]
	from := ""
	if len(parents) > 0 {
		from = "from " + parents[0] + "\n"
	}
	return r.commit(t, branch, from+"M 040000 "+tree+" \"\"\n", files)
}

func (r *GitRepository) commit(t testing.TB, branch, from string, files Files) string {
	t.Helper()
	r.commits++
	message := fmt.Sprintf("commit %d", r.commits)
	var in bytes.Buffer
	fmt.Fprintf(&in, "commit refs/heads/%s\nmark :1\n", branch)
	fmt.Fprintf(&in, "committer Ann Example <ann@example.com> %d +0000\n", 1_700_000_000+r.commits)
	fmt.Fprintf(&in, "data %d\n%s\n", len(message), message)
	// A tree in from comes after the parent.
	in.WriteString(from)
	paths := make([]string, 0, len(files))
	for path := range files {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	for _, path := range paths {
		writeChange(&in, path, files[path])
	}
	in.WriteString("\nget-mark :1\ndone\n")
	return strings.TrimSpace(r.run(t, in.String(), "fast-import", "--quiet", "--force", "--done"))
}

func writeChange(in *bytes.Buffer, path, content string) {
	if content == Delete {
		fmt.Fprintf(in, "D %s\n", path)
		return
	}
	mode := "100644"
	for mark, as := range map[string]string{executableMark: "100755", symlinkMark: "120000", submoduleMark: "160000"} {
		if rest, ok := strings.CutPrefix(content, mark); ok {
			mode, content = as, rest
		}
	}
	if mode == "160000" {
		fmt.Fprintf(in, "M %s %s %s\n", mode, content, path)
		return
	}
	fmt.Fprintf(in, "M %s inline %s\ndata %d\n%s\n", mode, path, len(content), content)
}

// Branch points a branch at a commit.
func (r *GitRepository) Branch(t testing.TB, name, commit string) {
	t.Helper()
	r.Ref(t, "refs/heads/"+name, commit)
}

// Tag makes a tag, or moves it; an annotated one where message is not empty.
func (r *GitRepository) Tag(t testing.TB, name, commit, message string) {
	t.Helper()
	if message == "" {
		r.Ref(t, "refs/tags/"+name, commit)
		return
	}
	r.run(t, "", "-c", "user.name=Ann Example", "-c", "user.email=ann@example.com",
		"tag", "--force", "--annotate", "--message", message, name, commit)
}

// Ref points any ref at a commit; an empty commit deletes it.
func (r *GitRepository) Ref(t testing.TB, name, commit string) {
	t.Helper()
	if commit == "" {
		r.run(t, "", "update-ref", "-d", name)
		return
	}
	r.run(t, "", "update-ref", name, commit)
}

// Has tells whether the repository has a ref.
func (r *GitRepository) Has(t testing.TB, ref string) bool {
	t.Helper()
	return r.run(t, "", "for-each-ref", ref) != ""
}

// Pack packs all objects and drops what cannot be reached.
func (r *GitRepository) Pack(t testing.TB) {
	t.Helper()
	r.run(t, "", "gc", "--quiet", "--prune=now")
}

// Git runs a git command in the repository and gives its output.
func (r *GitRepository) Git(t testing.TB, args ...string) string {
	t.Helper()
	return r.run(t, "", args...)
}

// Feed runs a git command in the repository with something to read, and gives its
// output.
func (r *GitRepository) Feed(t testing.TB, stdin string, args ...string) string {
	t.Helper()
	return r.run(t, stdin, args...)
}

func (r *GitRepository) run(t testing.TB, stdin string, args ...string) string {
	t.Helper()
	if args[len(args)-1] != r.Dir {
		args = append([]string{"-C", r.Dir}, args...)
	}
	cmd := exec.Command("git", args...)
	cmd.Env = append(gitserver.Environment(""), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null")
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, errs.String())
	}
	return out.String()
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func quietLog(t testing.TB) *log.Logger {
	t.Helper()
	return log.New(io.Discard, "", 0)
}

// TreeOf makes a tree object of lines as git mktree reads them, also one that
// git itself would refuse to check out, and gives its hash.
func (r *GitRepository) TreeOf(t testing.TB, lines string) string {
	t.Helper()
	var raw bytes.Buffer
	for line := range strings.Lines(strings.TrimSuffix(lines, "\n") + "\n") {
		var mode, kind, hash string
		head, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if _, err := fmt.Sscan(head, &mode, &kind, &hash); err != nil {
			t.Fatal(err)
		}
		id, err := hex.DecodeString(hash)
		check(t, err)
		fmt.Fprintf(&raw, "%s %s\x00%s", strings.TrimPrefix(mode, "0"), name, id)
	}
	return strings.TrimSpace(r.run(t, raw.String(), "hash-object", "-t", "tree", "-w", "--stdin", "--literally"))
}

// CommitOf makes a commit of a tree object, which no branch names yet, and
// gives its hash.
func (r *GitRepository) CommitOf(t testing.TB, tree string) string {
	t.Helper()
	return strings.TrimSpace(r.run(t, "", "-c", "user.name=Ann Example", "-c", "user.email=ann@example.com",
		"commit-tree", "-m", "a tree of its own", tree))
}
