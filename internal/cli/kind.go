package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/plumb-gitops/plumb/internal/frontend/flux/crds"
)

const (
	sourceGroup    = "source.toolkit.fluxcd.io"
	kustomizeGroup = "kustomize.toolkit.fluxcd.io"
)

// kindsOf gives the kinds that a word on the command line names: one kind by its
// name, plural or short name in any case, or "all", or "sources".
func kindsOf(word string) ([]crds.Definition, error) {
	all, err := crds.All()
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(all, func(a, b crds.Definition) int { return cmp.Compare(rank(a), rank(b)) })
	word = strings.ToLower(word)
	kinds := slices.DeleteFunc(slices.Clone(all), func(d crds.Definition) bool {
		switch word {
		case "all":
			return false
		case "source", "sources":
			return d.Kind.Group != sourceGroup
		default:
			return !names(d, word)
		}
	})
	if len(kinds) == 0 {
		known := make([]string, 0, len(all))
		for _, d := range all {
			known = append(known, d.Plural)
		}
		return nil, usageError("no kind %q; there are all, sources, %s", word, strings.Join(known, ", "))
	}
	return kinds, nil
}

// kindOf gives the one kind that a word names.
func kindOf(word string) (crds.Definition, error) {
	kinds, err := kindsOf(word)
	if err != nil {
		return crds.Definition{}, err
	}
	if len(kinds) != 1 {
		return crds.Definition{}, usageError("%q names several kinds, one is needed", word)
	}
	return kinds[0], nil
}

// servedKindOf is kindOf for a command that the operator has to answer.
func servedKindOf(word string) (crds.Definition, error) {
	kind, err := kindOf(word)
	if err == nil && !kind.Served {
		err = &exitError{ExitNotServed, fmt.Errorf("%s is not served by this version of Plumb", kind.Kind.Kind)}
	}
	return kind, err
}

func names(d crds.Definition, word string) bool {
	return word == strings.ToLower(d.Kind.Kind) || word == d.Plural || word == d.Name() || slices.Contains(d.ShortNames, word)
}

// rank puts the kinds in the order in which work flows through them.
func rank(d crds.Definition) int {
	switch d.Kind.Group {
	case sourceGroup:
		return 0
	case kustomizeGroup:
		return 1
	case "helm.toolkit.fluxcd.io":
		return 2
	default:
		return 3
	}
}
