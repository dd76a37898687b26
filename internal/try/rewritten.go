package try

import (
	"fmt"
	"strings"

	"github.com/plumb-gitops/plumb/internal/config"
	"github.com/plumb-gitops/plumb/internal/frontend/flux"
	"github.com/plumb-gitops/plumb/internal/telemetry"
)

// Rewritten is a rule of --rewrite with what it was used for.
type Rewritten struct {
	From string `json:"from"`
	To   string `json:"to"`
	// Sources are those that were looked for by it: kind and namespace/name.
	Sources []string `json:"sources"`
}

// mostNamed is how many sources are named to people for one rule.
const mostNamed = 5

// rewritten tells what rules were used for. Of several that fit a URL the first one is.
func (s State) rewritten(rules []config.Rewrite) []Rewritten {
	var all []Rewritten
	for i, rule := range rules {
		one := Rewritten{From: rule.From, To: rule.To, Sources: []string{}}
		for _, source := range s.Sources {
			if source.usesRule(rules, i) {
				one.Sources = append(one.Sources, source.ID())
			}
		}
		all = append(all, one)
	}
	return all
}

// usesRule tells whether one of its URLs is looked for by a rule.
func (s Source) usesRule(rules []config.Rewrite, which int) bool {
	for _, url := range s.urls {
		for i, rule := range rules {
			if _, fits := flux.Rewrite(rule).Of(url); fits {
				if i == which {
					return true
				}
				break
			}
		}
	}
	return false
}

// String tells people what the rule was used for. A rule for nothing is likely a mistake in
// it, or its sources have not come yet.
func (r Rewritten) String() string {
	from, to := telemetry.Redact(r.From), telemetry.Redact(r.To)
	if len(r.Sources) == 0 {
		return fmt.Sprintf("There was no source at %s; it would have been looked for at %s.", from, to)
	}
	named := strings.Join(r.Sources[:min(len(r.Sources), mostNamed)], ", ")
	if more := len(r.Sources) - mostNamed; more > 0 {
		named += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Sprintf("Sources at %s were looked for at %s: %s.", from, to, named)
}
