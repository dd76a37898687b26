package try

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/plumb-gitops/plumb/internal/terminal"
)

// lines prints what changes, a line for each change.
type lines struct {
	session *session
	out     io.Writer
	// last is what was printed of each thing.
	last map[string]string
	// heard is the time of the newest event printed.
	heard time.Time
	// printed is when something was printed last.
	printed time.Time
}

// printEvery is the shortest time between two looks at what changed: what comes
// in quick succession becomes one line.
const printEvery = 150 * time.Millisecond

func newLines(s *session, out io.Writer) *lines {
	return &lines{session: s, out: out, last: map[string]string{}}
}

// printSoon is print, unless that was done a moment ago.
func (l *lines) printSoon(s State) {
	if time.Since(l.printed) >= printEvery {
		l.print(s)
	}
}

// print prints what is new in a state.
func (l *lines) print(s State) {
	l.printed = time.Now()
	for _, h := range l.session.view.newest(l.heard) {
		l.heard = h.At
		if !strings.HasPrefix(h.Message, "Reconciliation finished") {
			l.line("%s: %s", h.Object, h.Message)
		}
	}
	blocked := s.notServedBy()
	present := map[string]bool{}
	for _, source := range s.Sources {
		name := source.ID()
		present[name] = true
		l.change(name, fmt.Sprintf("Ready %s, %s", source.shown(false), orElse(shortRevision(source.Revision), "no revision")), source.Ready)
	}
	for _, k := range s.Kustomizations {
		name := "kustomization " + k.ID()
		present[name] = true
		l.change(name, fmt.Sprintf("Ready %s, %d/%d objects current, %s", k.shown(blocked[k.ID()]), k.Current, k.Total, orElse(shortRevision(k.Revision), "no revision")), k.Ready)
	}
	for _, o := range s.NotServed {
		present[o.Name] = true
		l.change(o.Name, "created; its kind is not served", Ready{})
	}
	for name := range l.last {
		if !present[name] {
			delete(l.last, name)
			l.line("%s: gone", name)
		}
	}
}

func (l *lines) change(name, text string, r Ready) {
	if r.Status != "True" && r.Message != "" {
		text += ": " + terminal.OneLine(r.Message)
	}
	if l.last[name] != text {
		l.last[name] = text
		l.line("%s: %s", name, text)
	}
}

func (l *lines) line(format string, args ...any) {
	_, _ = fmt.Fprintf(l.out, "%6.1fs  %s\n", time.Since(l.session.started).Seconds(), fmt.Sprintf(format, args...))
}
