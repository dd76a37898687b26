package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/plumb-gitops/plumb/internal/gitserver"
)

// historySize is how large a repository with a long history is.
type historySize struct {
	Commits int `json:"commits"`
	// Files are those of the newest commit: YAML of two kilobytes, and Large ones of
	// bytes that do not pack, which make up most of Bytes.
	Files int   `json:"files"`
	Large int   `json:"large"`
	Bytes int64 `json:"bytes"`
}

// largeHistory is the repository that the promises are about.
func largeHistory() historySize {
	return historySize{Commits: 20_000, Files: 5000, Large: 100, Bytes: 150 << 20}
}

// tenth is a smaller one, for a look.
func (s historySize) tenth() historySize {
	return historySize{Commits: s.Commits / 10, Files: s.Files / 10, Large: s.Large / 10, Bytes: s.Bytes / 10}
}

const (
	filesInFolder = 50
	linesInFile   = 60
)

// historyRepository makes a bare repository in a folder that does not exist yet, the
// same for the same seed: a first commit with all files, and then commits that change
// one line of one file each.
func historyRepository(ctx context.Context, size historySize, seed uint64, dir string) (*history, error) {
	h := &history{dir: dir, size: size, random: rand.New(rand.NewPCG(seed, 1)), lines: map[int][]string{}}
	if _, err := h.git(ctx, "init", "-q", "--bare", "-b", "main", "."); err != nil {
		return nil, err
	}
	for _, setting := range [][]string{{"gc.auto", "0"}, {"maintenance.auto", "false"}} {
		if _, err := h.git(ctx, append([]string{"config"}, setting...)...); err != nil {
			return nil, err
		}
	}
	err := h.load(ctx, func(w *bufio.Writer) {
		h.first(w)
		for range size.Commits - 1 {
			h.next(w)
		}
	})
	if err != nil {
		return nil, err
	}
	// What a host does for its repositories: commits and directories are found fast.
	_, err = h.git(ctx, "repack", "-q", "-a", "-d", "--write-bitmap-index")
	if err == nil {
		_, err = h.git(ctx, "commit-graph", "write", "--reachable")
	}
	return h, err
}

// history is the repository, with what its files hold now.
type history struct {
	dir    string
	size   historySize
	random *rand.Rand
	lines  map[int][]string
	commit int
	// resumed is set for the first commit of a load that does not begin the branch.
	resumed bool
}

// load runs what is written through git fast-import.
func (h *history) load(ctx context.Context, write func(*bufio.Writer)) error {
	cmd := h.command(ctx, "fast-import", "--quiet", "--done", "--force", "--depth=50")
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	var complaint strings.Builder
	cmd.Stderr = &complaint
	if err := cmd.Start(); err != nil {
		return err
	}
	w := bufio.NewWriterSize(in, 1<<20)
	write(w)
	fmt.Fprint(w, "done\n")
	err = errors.Join(w.Flush(), in.Close(), cmd.Wait())
	if err != nil {
		return fmt.Errorf("git fast-import: %w: %s", err, complaint.String())
	}
	return nil
}

func (h *history) head(w io.Writer) {
	h.commit++
	message := fmt.Sprintf("change %d", h.commit)
	fmt.Fprintf(w, "commit refs/heads/main\ncommitter Bench <bench@localhost> %d +0000\ndata %d\n%s\n", 1_600_000_000+h.commit, len(message), message)
	if h.resumed {
		fmt.Fprint(w, "from refs/heads/main^0\n")
		h.resumed = false
	}
}

// first writes the commit with all files.
func (h *history) first(w io.Writer) {
	h.head(w)
	for file := range h.size.Files - h.size.Large {
		lines := make([]string, linesInFile)
		for i := range lines {
			lines[i] = h.line(i)
		}
		h.lines[file] = lines
		h.file(w, file)
	}
	if h.size.Large == 0 {
		return
	}
	blob := make([]byte, h.size.Bytes/int64(h.size.Large))
	for file := range h.size.Large {
		for i := 0; i+8 <= len(blob); i += 8 {
			n := h.random.Uint64()
			for j := range 8 {
				blob[i+j] = byte(n >> (8 * j))
			}
		}
		fmt.Fprintf(w, "M 100644 inline assets/%03d.bin\ndata %d\n", file, len(blob))
		_, _ = w.Write(blob) // a failure shows when it is flushed
		fmt.Fprint(w, "\n")
	}
}

func (h *history) line(i int) string {
	return fmt.Sprintf("  setting-%02d: value-%08x # of this file", i, h.random.Uint32())
}

func (h *history) file(w io.Writer, file int) {
	content := "apiVersion: v1\nkind: ConfigMap\ndata:\n" + strings.Join(h.lines[file], "\n") + "\n"
	fmt.Fprintf(w, "M 100644 inline apps/%03d/%04d.yaml\ndata %d\n%s\n", file/filesInFolder, file, len(content), content)
}

// next writes a commit that changes a line of a file.
func (h *history) next(w io.Writer) {
	h.head(w)
	file, line := h.random.IntN(h.size.Files-h.size.Large), h.random.IntN(linesInFile)
	h.lines[file][line] = h.line(line)
	h.file(w, file)
}

// push adds a commit that changes a line of a file.
func (h *history) push(ctx context.Context) error {
	h.resumed = true
	return h.load(ctx, func(w *bufio.Writer) { h.next(w) })
}

// disk is the length of the repository's packs in bytes.
func (h *history) disk() (int64, error) {
	packs, err := filepath.Glob(filepath.Join(h.dir, "objects", "pack", "*.pack"))
	var total int64
	for _, pack := range packs {
		info, failed := os.Stat(pack)
		if failed != nil {
			return 0, failed
		}
		total += info.Size()
	}
	return total, err
}

func (h *history) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = h.dir
	cmd.Env = append(gitserver.Environment(""), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+os.DevNull)
	return cmd
}

func (h *history) git(ctx context.Context, args ...string) (string, error) {
	if err := os.MkdirAll(h.dir, 0o755); err != nil {
		return "", err
	}
	out, err := h.command(ctx, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}
