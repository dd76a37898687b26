package try

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/plumb-gitops/plumb/internal/terminal"
)

const (
	// redrawAtMost is the shortest time between two drawings.
	redrawAtMost = 100 * time.Millisecond
	// eventLines is how many events are shown.
	eventLines = 5

	// The other screen, without cursor and without wrapping of long lines.
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l"
	leaveScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	home        = "\x1b[H"
	clearLine   = "\x1b[K"
	clearRest   = "\x1b[J"
)

// show shows what becomes of the repository until the context ends: a table that
// is drawn again in place on a terminal, and else a line for each change.
func (s *session) show(ctx context.Context) (Summary, error) {
	for _, line := range s.howTo() {
		_, _ = fmt.Fprintln(s.options.Err, line)
	}
	draw, leave := newLines(s, s.options.Out).print, func() {}
	if terminal.Is(s.options.Out) {
		_, _ = io.WriteString(s.options.Out, enterScreen)
		draw = s.draw
		leave = func() { _, _ = io.WriteString(s.options.Out, leaveScreen) }
	}
	defer leave()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		state, _ := s.view.state(ctx)
		draw(state)
		select {
		case <-ctx.Done():
			summary := s.summary(state, judge(state, s.view.revision()))
			summary.ended = true
			return summary, nil
		case err := <-s.ended:
			return Summary{}, err
		case <-tick.C:
		case <-s.view.changed:
			// What comes in quick succession is drawn together.
			select {
			case <-ctx.Done():
			case <-time.After(redrawAtMost):
			}
		}
	}
}

// howTo says how to use the cluster.
func (s *session) howTo() []string {
	lines := []string{"Use the cluster from another terminal:", "  export KUBECONFIG=" + s.kubeconfig()}
	if kubectl := kubectlBeside(); kubectl != "" {
		lines = append(lines, "  alias kubectl="+kubectl)
	}
	return append(lines, "  kubectl get pods -A")
}

// kubectlBeside is a kubectl beside this executable, where there is none in PATH.
func kubectlBeside() string {
	if _, err := exec.LookPath("kubectl"); err == nil {
		return ""
	}
	self, err := os.Executable()
	if err != nil {
		return ""
	}
	path := filepath.Join(filepath.Dir(self), "kubectl")
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// draw draws the screen anew, over what is there.
func (s *session) draw(state State) {
	to := terminal.Of(s.options.Out)
	var b strings.Builder
	b.WriteString(home)
	for _, line := range s.screen(state, to, time.Now()) {
		b.WriteString(line + clearLine + "\r\n")
	}
	b.WriteString(clearRest)
	_, _ = io.WriteString(s.options.Out, b.String())
}

// screen gives the lines of the screen, one less than the terminal has at most.
func (s *session) screen(state State, to terminal.Terminal, now time.Time) []string {
	current, total := state.counts()
	head := []string{
		to.Paint(terminal.Bold, terminal.Fit(fmt.Sprintf("plumb try %s  %s  %s  %d/%d objects current", s.following(), shortRevision(orElse(s.view.revision(), state.rootRevision())), ago(now, s.started), current, total), width(to))),
		terminal.Fit(s.plane.version()+"; workloads are simulated: pods become ready, nothing runs in them", width(to)),
	}
	for _, rewrite := range s.options.Rewrites {
		head = append(head, to.Paint(terminal.Yellow, terminal.Fit(rewritten(rewrite), width(to))))
	}
	head = append(head, "")
	foot := []string{""}
	happened := s.view.newest(time.Time{})
	for _, h := range happened[max(0, len(happened)-eventLines):] {
		colour := terminal.Dim
		if h.Warning {
			colour = terminal.Red
		}
		foot = append(foot, to.Paint(colour, terminal.Fit(fmt.Sprintf("%s  %s: %s", h.At.Format(time.TimeOnly), h.Object, terminal.OneLine(h.Message)), width(to))))
	}
	foot = append(foot, "", terminal.Fit("export KUBECONFIG="+s.kubeconfig()+"   Ctrl-C ends", width(to)))
	body := append(sourceTable(state, now).Lines(to), "")
	body = append(append(body, kustomizationTable(state, now).Lines(to)...), "")
	body = append(body, objectTable(state, now).Lines(to)...)
	if to.Height > 0 {
		room := max(0, to.Height-1-len(head)-len(foot))
		if len(body) > room {
			more := fmt.Sprintf("… %d more lines", len(body)-room+1)
			body = append(body[:max(0, room-1)], to.Paint(terminal.Dim, more))
		}
	}
	lines := append(append(head, body...), foot...)
	if to.Height > 0 {
		lines = lines[:min(len(lines), to.Height-1)]
	}
	return lines
}

// following names what is followed.
func (s *session) following() string {
	if s.repository != nil {
		return s.repository.folder
	}
	return s.origin.url
}

func width(to terminal.Terminal) int {
	if to.Width > 0 {
		return to.Width
	}
	return 1 << 16
}
