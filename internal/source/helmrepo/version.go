package helmrepo

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/Masterminds/semver/v3"
)

// mostConstraint bounds the text of a range of versions, in bytes.
const mostConstraint = 512

// wanted is a version that is looked for: a range, or the name of one.
type wanted struct {
	text       string
	constraint *semver.Constraints
}

// parseWanted reads a range. Empty means the newest stable version.
func parseWanted(text string) (wanted, error) {
	if len(text) > mostConstraint {
		return wanted{}, fmt.Errorf("the version has more than %d bytes", mostConstraint)
	}
	constraint, err := semver.NewConstraint(cmp.Or(text, "*"))
	if err != nil {
		return wanted{}, fmt.Errorf("version %q: %w", clipped(text), plain(err))
	}
	return wanted{text, constraint}, nil
}

// parseVersion reads the version of a chart as Flux does when it chooses: all three numbers
// have to be there.
func parseVersion(text string) (*semver.Version, error) {
	if strings.Count(text, ".") < 2 {
		return nil, semver.ErrInvalidSemVer
	}
	return semver.NewVersion(text)
}

// exact tells whether a version is named, so that no list has to be looked at.
func (w wanted) exact() bool {
	_, err := parseVersion(w.text)
	return err == nil
}

// chosen finds the best of the versions that it is shown: the one with exactly the name
// that is looked for; else the newest in the range, of equal ones the one that was made
// last, of those the one with the greatest name, so that their order does not matter.
type chosen struct {
	wanted  wanted
	found   bool
	named   bool
	best    candidate
	version *semver.Version
}

// see takes a version into account.
func (c *chosen) see(next candidate) {
	if c.named {
		return
	}
	if c.wanted.text != "" && next.Version == c.wanted.text {
		c.found, c.named, c.best = true, true, next
		return
	}
	version, err := parseVersion(next.Version)
	if err != nil || !c.wanted.constraint.Check(version) {
		return
	}
	if c.found && !c.older(version, next) {
		return
	}
	c.found, c.best, c.version = true, next, version
}

// older tells whether the best so far comes behind another one.
func (c *chosen) older(version *semver.Version, next candidate) bool {
	if order := version.Compare(c.version); order != 0 {
		return order > 0
	}
	if order := next.Created.Compare(c.best.Created); order != 0 {
		return order > 0
	}
	return next.Version > c.best.Version
}

// withMetadata sets the build metadata of a version, as Flux does to tell charts apart that
// were packaged with other values or from another revision.
func withMetadata(version, metadata string) (string, error) {
	if metadata == "" {
		return version, nil
	}
	parsed, err := semver.NewVersion(version)
	if err != nil {
		return "", fmt.Errorf("version %q of the chart: %w", clipped(version), err)
	}
	changed, err := parsed.SetMetadata(metadata)
	if err != nil {
		return "", fmt.Errorf("build metadata %q for the version of the chart: %w", clipped(metadata), err)
	}
	return changed.String(), nil
}

// sameVersion tells whether two texts are one version, build metadata included.
func sameVersion(a, b string) bool {
	if a == b {
		return true
	}
	va, errA := semver.NewVersion(a)
	vb, errB := semver.NewVersion(b)
	return errA == nil && errB == nil && va.Equal(vb) && va.Metadata() == vb.Metadata()
}

// parseWholeVersion reads the version of a chart as Helm does.
func parseWholeVersion(text string) (*semver.Version, error) {
	version, err := semver.NewVersion(text)
	if err != nil {
		return nil, fmt.Errorf("version %q: %w", clipped(text), err)
	}
	return version, nil
}
