package apply

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/pmezard/go-difflib/difflib"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/plumb-gitops/plumb/internal/cluster"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/ownership"
)

// diffContext is how many unchanged lines are shown around a change.
const diffContext = 3

// Difference is what carrying out a plan would change of one object.
type Difference struct {
	Ref    gitops.ObjectRef
	Action gitops.Action
	// Text is a unified diff of the object as YAML, without what the API server
	// keeps by itself. Values of sensitive objects are masked in it. It is empty
	// for a deletion.
	Text string
	// TakesOver are managers whose additional fields would be removed as well;
	// Text does not show these fields.
	TakesOver []string
}

// Diff asks the API server what carrying out the plan would change, without
// changing anything, in the order of the plan. Objects that would stay as they
// are do not occur. Differences that could be found are returned beside the
// error about the others.
func (a *Applier) Diff(ctx context.Context, req Request) ([]Difference, error) {
	req.Record = nil // nothing is done
	r := newRun(a, req)
	var steps []*step
	for _, st := range r.stages {
		steps = append(steps, st.steps...)
	}
	found := make(map[gitops.ObjectRef]Difference, len(steps))
	errs := r.each(ctx, steps, func(ctx context.Context, s *step) error {
		d, err := r.difference(ctx, s)
		if err != nil {
			return r.refused(s, gitops.StageApply, err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		found[s.change.Ref] = d
		return nil
	})
	var out []Difference
	for _, s := range steps {
		if d, ok := found[s.change.Ref]; ok && d.Action != gitops.ActionUnchanged && d.Action != gitops.ActionSkip {
			out = append(out, d)
		}
	}
	return out, join(ctx, errs)
}

// difference asks about one object. What stands before its creation, such as a
// namespace that the same set makes, is no error.
func (r *run) difference(ctx context.Context, s *step) (Difference, error) {
	d := Difference{Ref: s.change.Ref, Action: s.change.Action}
	if s.change.Action == gitops.ActionDelete {
		return d, nil
	}
	namespaced, err := r.checkKind(ctx, s)
	if err != nil {
		return d, err
	}
	ref := s.change.Ref
	if namespaced && ref.Namespace == "" {
		return d, errors.New("namespace not specified")
	}
	var declared map[string]any
	if err := json.Unmarshal(s.change.Manifest.JSON, &declared); err != nil {
		return d, fmt.Errorf("manifest is not a JSON object: %w", err)
	}
	var live *unstructured.Unstructured
	if s.found {
		if live, err = r.Cluster.Get(ctx, s.res, ref.Namespace, ref.Name); err != nil && !cluster.IsNotFound(err) {
			return d, err
		}
	}
	if live != nil && r.leaveAlone(s, live) {
		d.Action = gitops.ActionSkip
		return d, nil
	}
	if err := r.relax(s, live); err != nil {
		return d, err
	}
	after := declared
	if s.found && (live != nil || !r.makes[ref.Namespace]) {
		answer, _, err := r.send(ctx, s, cluster.ApplyOptions{DryRun: true})
		switch {
		case err == nil:
			d.TakesOver = ownership.Observe(answer, r.Keys).TakeOver
			after = content(answer)
		case s.policy.Force && cluster.IsImmutable(err):
			d.Action = gitops.ActionRecreate
		default:
			return d, err
		}
		if live != nil && err == nil && r.same(s, live, answer) {
			d.Action = gitops.ActionUnchanged
			return d, nil
		}
	}
	d.Text, err = r.unified(s, live, after)
	return d, err
}

// unified writes the diff of an object as it is and as it would be.
func (r *run) unified(s *step, live *unstructured.Unstructured, after map[string]any) (string, error) {
	before := map[string]any{}
	from := "nothing"
	if live != nil {
		before, from = content(live), "live"
	}
	if isSensitive(*s.change.Manifest) {
		before, after = masked(before, after)
	}
	if secrets := s.change.Manifest.Secrets; len(secrets) > 0 {
		hidden := func(text string) bool {
			return slices.ContainsFunc(secrets, func(secret string) bool { return strings.Contains(text, secret) })
		}
		b, a := hideValues(before, after, hidden)
		before, _ = b.(map[string]any)
		after, _ = a.(map[string]any)
	}
	left, err := lines(before)
	if err != nil {
		return "", err
	}
	right, err := lines(after)
	if err != nil {
		return "", err
	}
	return difflib.GetUnifiedDiffString(difflib.UnifiedDiff{
		A: left, B: right, Context: diffContext,
		FromFile: from + " " + s.change.Ref.String(),
		ToFile:   s.change.Manifest.Origin.String(),
	})
}

// hideValues masks the texts of two versions of an object where either one has to be
// hidden: what was in its place before was as secret. It leaves visible which differ.
func hideValues(before, after any, hidden func(string) bool) (any, any) {
	a, aMap := after.(map[string]any)
	b, bMap := before.(map[string]any)
	if aMap && bMap {
		outB, outA := maps.Clone(b), maps.Clone(a)
		for key := range b {
			if _, both := a[key]; !both {
				outB[key] = hideAll(b[key], hidden)
			}
		}
		for key := range a {
			if _, both := b[key]; !both {
				outA[key] = hideAll(a[key], hidden)
				continue
			}
			outB[key], outA[key] = hideValues(b[key], a[key], hidden)
		}
		return outB, outA
	}
	c, cList := after.([]any)
	d, dList := before.([]any)
	if cList && dList {
		outD, outC := slices.Clone(d), slices.Clone(c)
		for i := range max(len(c), len(d)) {
			switch {
			case i >= len(c):
				outD[i] = hideAll(d[i], hidden)
			case i >= len(d):
				outC[i] = hideAll(c[i], hidden)
			default:
				outD[i], outC[i] = hideValues(d[i], c[i], hidden)
			}
		}
		return outD, outC
	}
	old, wasText := before.(string)
	text, isText := after.(string)
	if wasText && isText && old != text && (hidden(old) || hidden(text)) {
		return mask + " (before)", mask + " (after)"
	}
	return hideAll(before, hidden), hideAll(after, hidden)
}

// hideAll masks all texts at and below a value that have to be hidden.
func hideAll(value any, hidden func(string) bool) any {
	switch v := value.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, below := range v {
			out[key] = hideAll(below, hidden)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, below := range v {
			out[i] = hideAll(below, hidden)
		}
		return out
	case string:
		if hidden(v) {
			return mask
		}
	}
	return value
}

func lines(object map[string]any) ([]string, error) {
	if len(object) == 0 {
		return nil, nil
	}
	text, err := yaml.Marshal(object)
	if err != nil {
		return nil, fmt.Errorf("write as YAML: %w", err)
	}
	return slices.Collect(strings.Lines(string(text))), nil
}

const mask = gitops.Hidden

// masked hides all values of two versions of an object but its identity. It
// leaves visible which values differ.
func masked(before, after map[string]any) (map[string]any, map[string]any) {
	a, b := maskValue(before, after)
	return identified(before, a), identified(after, b)
}

// identified puts back what tells an object from others.
func identified(object map[string]any, hidden any) map[string]any {
	out, _ := hidden.(map[string]any)
	if len(object) == 0 {
		return nil
	}
	out["apiVersion"], out["kind"] = object["apiVersion"], object["kind"]
	meta, _ := object["metadata"].(map[string]any)
	if hiddenMeta, ok := out["metadata"].(map[string]any); ok {
		for _, field := range []string{"name", "namespace"} {
			if v, ok := meta[field]; ok {
				hiddenMeta[field] = v
			}
		}
	}
	return out
}

// maskValue walks two values together. Keys of maps stay visible.
func maskValue(before, after any) (any, any) {
	a, aMap := before.(map[string]any)
	b, bMap := after.(map[string]any)
	if (aMap || before == nil) && (bMap || after == nil) && (aMap || bMap) {
		return maskMaps(a, b, aMap, bMap)
	}
	if reflect.DeepEqual(before, after) {
		return mask, mask
	}
	return mask + " (before)", mask + " (after)"
}

func maskMaps(a, b map[string]any, aMap, bMap bool) (any, any) {
	x, y := map[string]any{}, map[string]any{}
	keys := slices.Collect(maps.Keys(a))
	for key := range b {
		if _, both := a[key]; !both {
			keys = append(keys, key)
		}
	}
	for _, key := range keys {
		before, inA := a[key]
		after, inB := b[key]
		left, right := maskValue(before, after)
		if inA {
			x[key] = left
		}
		if inB {
			y[key] = right
		}
	}
	switch {
	case !aMap:
		return nil, y
	case !bMap:
		return x, nil
	}
	return x, y
}
