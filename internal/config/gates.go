package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Gates are the feature gates that Plumb follows.
type Gates struct {
	// StrictPostBuildSubstitutions fails a build that uses a variable without
	// value and without default.
	StrictPostBuildSubstitutions bool
	// AdditiveCELDependencyCheck asks for readyExpr and the built-in check of
	// a dependency, instead of the expression alone.
	AdditiveCELDependencyCheck bool
	// DisableFailFastBehavior waits for the health of all objects when one has
	// failed already.
	DisableFailFastBehavior bool
	// ObjectLevelWorkloadIdentity lets service accounts that objects name log in at
	// clouds.
	ObjectLevelWorkloadIdentity bool
}

// followed are the gates that change what the operator does.
func (g *Gates) followed() map[string]*bool {
	return map[string]*bool{
		"StrictPostBuildSubstitutions": &g.StrictPostBuildSubstitutions,
		"AdditiveCELDependencyCheck":   &g.AdditiveCELDependencyCheck,
		"DisableFailFastBehavior":      &g.DisableFailFastBehavior,
		"ObjectLevelWorkloadIdentity":  &g.ObjectLevelWorkloadIdentity,
	}
}

// gate is one that changes nothing: why is the reason.
type gate struct {
	byDefault bool // in Flux
	why       string
}

// idle are the gates of Flux's source and kustomize controllers that Plumb takes
// and does not need.
func idle() map[string]gate {
	const notServed = "what it switches is not served"
	return map[string]gate{
		"CacheSecretsAndConfigMaps":      {why: "what a build read is known, and read again only when it changed"},
		"CancelHealthCheckOnNewRevision": {why: "a new revision always ends the wait for an older one"},
		"DirectSourceFetch":              {why: "sources and their consumers are in one process"},
		"DisableCommitStatusEvent":       {why: notServed},
		"DisableConfigWatchers":          {why: notServed},
		"DisableStatusPollerCache":       {byDefault: true, why: "health is watched, not polled"},
		"ExternalArtifact":               {why: "ExternalArtifacts are followed always"},
		"GroupChangeLog":                 {why: notServed},
		"MigrateAPIVersion":              {why: notServed},
	}
}

// parseGates reads Name=bool pairs. Notices name the gates that were given
// another value than Flux's default and change nothing.
func parseGates(given map[string]string) (gates Gates, notices []string, err error) {
	gates.StrictPostBuildSubstitutions = true
	followed, idle := gates.followed(), idle()
	for _, name := range slices.Sorted(maps.Keys(given)) {
		value, parseErr := strconv.ParseBool(given[name])
		if parseErr != nil {
			return gates, nil, fmt.Errorf("--feature-gates: %s=%q is neither true nor false", name, given[name])
		}
		if to, ok := followed[name]; ok {
			*to = value
			continue
		}
		g, ok := idle[name]
		if !ok {
			known := slices.Sorted(maps.Keys(followed))
			known = slices.AppendSeq(known, maps.Keys(idle))
			slices.Sort(known)
			return gates, nil, fmt.Errorf("--feature-gates: no gate %q; there are %s", name, strings.Join(known, ", "))
		}
		if value != g.byDefault {
			notices = append(notices, fmt.Sprintf("--feature-gates: %s=%t changes nothing: %s", name, value, g.why))
		}
	}
	return gates, notices, nil
}
