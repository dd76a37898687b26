package try

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/plumb-gitops/plumb/internal/terminal"
)

// Summary is how a session ended.
type Summary struct {
	Outcome Outcome `json:"outcome"`
	// Why says what keeps the outcome from being better.
	Why []string `json:"why,omitempty"`
	// Seconds is the time from the start to the outcome.
	Seconds    float64 `json:"seconds"`
	Repository string  `json:"repository"`
	Revision   string  `json:"revision"`
	Path       string  `json:"path"`
	// Simulated says that no workload really runs.
	Simulated bool `json:"workloadsSimulated"`
	// Rewrites say which sources were looked for elsewhere.
	Rewrites []Rewritten `json:"rewrites,omitempty"`
	State
	// ended tells that it was a person who ended the session.
	ended bool
}

// counts gives how many objects there are, and how many of them are current.
func (s State) counts() (current, total int) {
	for _, k := range s.Kustomizations {
		current, total = current+k.Current, total+k.Total
	}
	return current, total
}

// once waits for the outcome.
func (s *session) once(ctx context.Context) (Summary, error) {
	limit := time.NewTimer(s.options.Timeout)
	defer limit.Stop()
	// That the last kind has been read is told by nothing but looking.
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	lines := newLines(s, s.options.Err)
	for {
		state, complete := s.view.state(ctx)
		verdict := judge(state, s.view.revision())
		lines.printSoon(state)
		if complete && verdict.Outcome != Pending {
			lines.print(state)
			return s.summary(state, verdict), nil
		}
		select {
		case <-s.view.changed:
		case <-tick.C:
		case err := <-s.ended:
			return Summary{}, err
		case <-limit.C:
			verdict.Outcome = Failed
			verdict.Why = append([]string{fmt.Sprintf("not ready after %s", s.options.Timeout)}, verdict.Why...)
			return s.summary(state, verdict), nil
		case <-ctx.Done():
			return Summary{}, errInterrupted
		}
	}
}

func (s *session) summary(state State, verdict Verdict) Summary {
	repository := s.origin.url
	if s.repository != nil {
		repository = s.repository.folder
	}
	return Summary{
		Rewrites: state.rewritten(s.options.Rewrites),
		Outcome:  verdict.Outcome, Why: verdict.Why,
		Seconds:    time.Since(s.started).Round(time.Millisecond).Seconds(),
		Repository: repository, Revision: state.rootRevision(), Path: "./" + s.origin.path,
		Simulated: true, State: state,
	}
}

// isRoot tells whether it is the one that was created for the repository.
func (s Source) isRoot() bool {
	return s.Kind == "GitRepository" && s.Namespace == rootName && s.Name == rootName
}

// rootRevision is the revision that the root source is at.
func (s State) rootRevision() string {
	for _, source := range s.Sources {
		if source.isRoot() {
			return source.Revision
		}
	}
	return ""
}

// Print writes a summary for people.
func (s Summary) Print(w io.Writer) error {
	to := terminal.Of(w)
	current, total := s.counts()
	ended := ""
	if s.ended {
		ended = ", ended"
	}
	colour := map[Outcome]terminal.Colour{Succeeded: terminal.Green, Failed: terminal.Red, OnlyNotServed: terminal.Yellow}[s.Outcome]
	blocks := [][]string{
		{fmt.Sprintf("%s%s after %.1fs: %s, %s", to.Paint(colour, string(s.Outcome)), ended, s.Seconds, s.Repository, shortRevision(s.Revision)),
			fmt.Sprintf("%d Kustomizations, %d of %d objects current. Workloads are simulated: nothing ran in the pods.", len(s.Kustomizations), current, total)},
	}
	for _, rewrite := range s.Rewrites {
		blocks[0] = append(blocks[0], rewrite.String())
	}
	blocks = append(blocks, sourceTable(s.State, time.Time{}).Lines(to), kustomizationTable(s.State, time.Time{}).Lines(to))
	if len(s.Why) > 0 {
		blocks = append(blocks, s.Why)
	}
	var lines []string
	for _, block := range blocks {
		lines = append(lines, strings.Join(block, "\n"))
	}
	_, err := io.WriteString(w, strings.Join(lines, "\n\n")+"\n")
	return err
}
