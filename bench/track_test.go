package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ending is a line that ends a connection of watchServer instead of being sent.
const ending = "end"

// watchServer serves a watch; what is sent to lines goes out as its events. A
// watch that is taken up has the version "7", or is refused.
func watchServer(t *testing.T) (*client, chan<- string) {
	lines := make(chan string)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		if query.Get("sendInitialEvents") == "" && query.Get("resourceVersion") != "7" {
			http.Error(w, "gone", http.StatusGone)
			return
		}
		for text := range lines {
			if text == ending {
				return
			}
			fmt.Fprintln(w, text)
			w.(http.Flusher).Flush()
		}
	}))
	t.Cleanup(server.Close)
	return &client{http: server.Client(), host: server.URL}, lines
}

func event(kind, name, version string) string {
	return fmt.Sprintf(`{"type":%q,"object":{"metadata":{"name":%q,"namespace":"n","resourceVersion":"7","labels":{%q:%q}}}}`,
		kind, name, versionLabel, version)
}

const initialEnd = `{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"6","annotations":{"k8s.io/initial-events-end":"true"}}}}`

func startTracker(t *testing.T, initial ...string) (*tracker, chan<- string) {
	c, lines := watchServer(t)
	go func() {
		for _, text := range append(initial, initialEnd) {
			lines <- text
		}
	}()
	watch, err := track(t.Context(), c, deployments(), "")
	if err != nil {
		t.Fatal(err)
	}
	return watch, lines
}

func TestTrackerWaitsForTheNumberOfObjects(t *testing.T) {
	t.Parallel()
	watch, lines := startTracker(t, event("ADDED", "a", "1.0.0"), event("ADDED", "b", "1.0.1"))
	defer watch.stop()
	defer close(lines)
	both := watch.expect(hasVersion(1), atLeast(2))
	began := time.Now()
	lines <- event("MODIFIED", "a", "1.0.1")
	at, err := both(t.Context(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if at.Before(began) {
		t.Errorf("the second object was seen %v before its event", began.Sub(at))
	}
	gone := watch.expect(func(object) bool { return true }, none())
	lines <- event("DELETED", "a", "1.0.1")
	lines <- event("DELETED", "b", "1.0.1")
	if _, err := gone(t.Context(), time.Minute); err != nil {
		t.Error(err)
	}
}

func TestTrackerDoesNotCountWhatMatchesNoMore(t *testing.T) {
	t.Parallel()
	watch, lines := startTracker(t, event("ADDED", "a", "1.0.1"))
	defer watch.stop()
	defer close(lines)
	both := watch.expect(hasVersion(1), atLeast(2))
	lines <- event("MODIFIED", "a", "1.0.0")
	lines <- event("ADDED", "b", "1.0.1")
	seen := watch.expect(one("n", "b", hasVersion(1)), atLeast(1))
	if _, err := seen(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if _, err := both(t.Context(), time.Nanosecond); err == nil || !strings.Contains(err.Error(), "1 of 2 objects") {
		t.Errorf("error is %v", err)
	}
}

func TestTrackerTakesAnEndedWatchUpAgain(t *testing.T) {
	t.Parallel()
	watch, lines := startTracker(t)
	defer watch.stop()
	defer close(lines)
	both := watch.expect(hasVersion(1), atLeast(2))
	lines <- event("ADDED", "a", "1.0.1")
	lines <- ending
	lines <- event("ADDED", "b", "1.0.1")
	if _, err := both(t.Context(), time.Minute); err != nil {
		t.Error(err)
	}
}

func TestTrackerFailsWhenItsWatchCannotBeTakenUp(t *testing.T) {
	t.Parallel()
	watch, lines := startTracker(t, event("ADDED", "a", "1.0.0"))
	defer watch.stop()
	wait := watch.expect(hasVersion(1), atLeast(1))
	close(lines) // the newest version is 6 then, which is refused
	if _, err := wait(t.Context(), time.Minute); err == nil || !strings.Contains(err.Error(), "watch of deployments ended") {
		t.Errorf("error is %v", err)
	}
}

func TestParallelStopsAtTheFirstError(t *testing.T) {
	t.Parallel()
	err := parallel(t.Context(), 4, 1000, func(ctx context.Context, i int) error {
		if i == 5 {
			return os.ErrInvalid
		}
		return nil
	})
	if err != os.ErrInvalid {
		t.Errorf("error is %v", err)
	}
	if err := parallel(t.Context(), 4, 1000, func(context.Context, int) error { return nil }); err != nil {
		t.Errorf("without an error it gives %v", err)
	}
}

func TestCountBuildsReadsTheOperatorsMetric(t *testing.T) {
	t.Parallel()
	got, err := countBuilds(strings.NewReader("# TYPE plumb_builds_total counter\n" +
		"plumb_builds_total{outcome=\"done\"} 102\nplumb_builds_total{outcome=\"reused\"} 7\n"))
	if err != nil || got != 102 {
		t.Errorf("builds are %d, %v; want 102", got, err)
	}
}

// TestProcessIsSeenWithItsChildren starts a shell with a child that outlives it, and
// expects both to be measured and to be gone after stop.
func TestProcessIsSeenWithItsChildren(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("this system has no /proc")
	}
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("this system has no sh")
	}
	output, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	p, err := spawn(output, shell, "-c", "sleep 600 & wait")
	if err != nil {
		t.Fatal(err)
	}
	var children []int
	err = poll(t.Context(), time.Minute, "child of the shell", func() (bool, error) {
		children = descendants(p.cmd.Process.Pid)
		return len(children) == 1, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sampling := sample(p)
	if used := sampling.look(); used.resident <= 0 || used.peak <= 0 {
		t.Errorf("memory is %+v", used)
	}
	if peak, _ := sampling.end(); peak < 100<<10 {
		t.Errorf("peak memory is %d bytes", peak)
	}
	if err := p.stop(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	err = poll(t.Context(), time.Minute, "end of the child", func() (bool, error) {
		fields, err := statFields(children[0])
		return err != nil || fields[0] == "Z", nil
	})
	if err != nil {
		t.Error(err)
	}
}
