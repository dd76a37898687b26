package sourcetest

import (
	"bytes"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// fullDisk is set in the environment of a process that a test of a full disk runs in.
const fullDisk = "PLUMB_TEST_FULL_DISK"

// room is how long files can become on the full disk.
const room = 256 << 10

// checkFullDisk runs itself in a process of its own. A limit for files is what a full disk is
// for it: a write fails in the middle of a file.
func checkFullDisk(t *testing.T, r Remote) {
	if os.Getenv(fullDisk) == "" {
		var levels []string
		for level := range strings.SplitSeq(t.Name(), "/") {
			levels = append(levels, "^"+regexp.QuoteMeta(level)+"$")
		}
		command := exec.CommandContext(t.Context(), os.Args[0], "-test.run="+strings.Join(levels, "/"), "-test.v") //nolint:gosec // this program
		command.Env = append(os.Environ(), fullDisk+"=yes")
		out, err := command.CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("PASS: "+t.Name()+" ")) {
			t.Errorf("%v:\n%s", err, out)
		}
		return
	}
	files := map[string]string{"a": "1"}
	r.Put(t, files)
	first := r.get(t, "")
	r.Put(t, map[string]string{"a": noise(2 * room)})
	lift := limitFiles(t)
	err := r.refuse(t, r.Fetcher, patience)
	if err.Kind != gitops.Transient {
		t.Errorf("kind %q of %q, want %q: another try may find room", err.Kind, err, gitops.Transient)
	}
	if strings.Contains(err.Error(), os.TempDir()) {
		t.Errorf("%q names a path of this machine", err)
	}
	r.check(t, first, files)
	lift()
	files = map[string]string{"a": "2"}
	r.Put(t, files)
	next := r.get(t, first.Revision)
	r.check(t, next, files)
}

// limitFiles lets no file of this process become longer than the room.
func limitFiles(t testing.TB) (lift func()) {
	t.Helper()
	signal.Ignore(syscall.SIGXFSZ)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	set := func(cur uint64) {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: cur, Max: before.Max}); err != nil {
			t.Fatal(err)
		}
	}
	set(room)
	return func() { set(before.Cur) }
}
