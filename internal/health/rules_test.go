package health

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

func language(t testing.TB) *Language {
	t.Helper()
	l, err := NewLanguage()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func rule(t testing.TB, e Expressions) *Rule {
	t.Helper()
	r, err := language(t).Rule(e)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRuleAssess(t *testing.T) {
	t.Parallel()
	h := func(status gitops.HealthStatus, message string) gitops.Health {
		return gitops.Health{Status: status, Message: message}
	}
	const ready = `status.conditions.filter(e, e.type == 'Synced').all(e, e.status == 'True')`
	all := Expressions{InProgress: "status.phase == 'Making'", Failed: "status.phase in ['Making', 'Broken']", Current: "true"}
	for name, row := range map[string]struct {
		rule   Expressions
		object string
		want   gitops.Health
	}{
		"current is true": {Expressions{Current: ready}, `{"status":{"conditions":[{"type":"Synced","status":"True"}]}}`,
			h("Current", `health expression "current" is true`)},
		"no expression is true": {Expressions{Current: ready}, `{"status":{"conditions":[{"type":"Synced","status":"False"}]}}`,
			h("InProgress", `health expression "current" is not true`)},
		"inProgress is asked before the others": {all, `{"status":{"phase":"Making"}}`, h("InProgress", `health expression "inProgress" is true`)},
		"failed is asked before current":        {all, `{"status":{"phase":"Broken"}}`, h("Failed", `health expression "failed" is true`)},
		"current is asked last":                 {all, `{"status":{"phase":"Done"}}`, h("Current", `health expression "current" is true`)},
		"a field that is missing":               {Expressions{Current: ready}, `{"status":{}}`, h("Unknown", `health expression "current" reads "conditions", which is not there`)},
		"a top-level field that is missing":     {Expressions{Current: ready}, `{}`, h("Unknown", `health expression "current" reads "status.conditions", which is not there`)},
		"a missing field that is asked for":     {Expressions{Current: "has(status.phase) && status.phase == 'Done'"}, `{"status":{}}`, h("InProgress", `health expression "current" is not true`)},
		"an optional field that is missing":     {Expressions{Current: "status.?phase.orValue('Done') == 'Done'"}, `{"status":{}}`, h("Current", `health expression "current" is true`)},
		"a field that is no status":             {Expressions{Current: "size(data) == 1"}, `{"data":{"a":"b"}}`, h("Current", `health expression "current" is true`)},
		"numbers of different types":            {Expressions{Current: "status.ready / 1.0 >= 2 && spec.replicas == 2.0"}, `{"spec":{"replicas":2},"status":{"ready":2.5}}`, h("Current", `health expression "current" is true`)},
		"a value that is no boolean":            {Expressions{Current: "status.phase"}, `{"status":{"phase":"secret"}}`, h("Unknown", `health expression "current" gives no boolean`)},
		"an error that holds a value": {Expressions{Current: "int(data.password) > 1"}, `{"data":{"password":"hunter2"}}`,
			h("Unknown", `health expression "current" reads something that is not there, or is of another type than it expects`)},
		"a field of the name of a type": {Expressions{Current: "type == 'Opaque' && type(status) == map"}, `{"type":"Opaque","status":{}}`, h("Current", `health expression "current" is true`)},
		"a missing key that is a value": {Expressions{Current: "status[data.password] == 1"}, `{"data":{"password":"hunter2"},"status":{}}`,
			h("Unknown", `health expression "current" reads something that is not there, or is of another type than it expects`)},
		"an object that is being deleted": {Expressions{Current: "true"}, `{"metadata":{"deletionTimestamp":"2026-01-01T00:00:00Z"}}`,
			h("Terminating", "Resource scheduled for deletion")},
		"a generation that was not seen": {Expressions{Current: "true"}, `{"metadata":{"generation":2},"status":{"observedGeneration":1}}`,
			h("InProgress", "X generation is 2, but latest observed generation is 1")},
		"an observed generation that is a text": {Expressions{Current: "true"}, `{"metadata":{"generation":2},"status":{"observedGeneration":"1"}}`,
			h("Current", `health expression "current" is true`)},
		"a constant pattern":            {Expressions{Current: "status.phase.matches('^D[a-z]+$')"}, `{"status":{"phase":"Done"}}`, h("Current", `health expression "current" is true`)},
		"a pattern out of the object":   {Expressions{Current: "status.phase.matches(spec.want)"}, `{"spec":{"want":"^D"},"status":{"phase":"Done"}}`, h("Current", `health expression "current" is true`)},
		"a bad pattern of the object":   {Expressions{Current: "status.phase.matches(spec.want)"}, `{"spec":{"want":"("},"status":{"phase":"Done"}}`, h("Unknown", `health expression "current" reads something that is not there, or is of another type than it expects`)},
		"functions of texts":            {Expressions{Current: "status.phase.replace('o', '0').lowerAscii().split('') .join('-') == 'd-0-n-e' && '%s!'.format([status.phase]) == 'Done!' && status.phase.indexOf('n') == 2 && status.phase.lastIndexOf('e') == 3"}, `{"status":{"phase":"Done"}}`, h("Current", `health expression "current" is true`)},
		"functions of sets and lists":   {Expressions{Current: "sets.contains(status.have, ['a']) && sets.intersects(status.have, ['b', 'c']) && sets.equivalent(status.have, ['b', 'a']) && 'a' in status.have && status.have + ['c'] != status.have && status.have[0] + 'x' == 'ax'"}, `{"status":{"have":["a","b"]}}`, h("Current", `health expression "current" is true`)},
		"maps that are equal":           {Expressions{Current: "status == spec && 'a' in spec"}, `{"spec":{"a":[1,{"b":null}]},"status":{"a":[1,{"b":null}]}}`, h("Current", `health expression "current" is true`)},
		"a sum of a text and a number":  {Expressions{Current: "status.phase + status.count == ''"}, `{"status":{"phase":"a","count":1}}`, h("Unknown", `health expression "current" reads something that is not there, or is of another type than it expects`)},
		"a search in what is no text":   {Expressions{Current: "status.count.matches('a')"}, `{"status":{"count":1}}`, h("Unknown", `health expression "current" reads something that is not there, or is of another type than it expects`)},
		"an object that is far too big": {Expressions{Current: "true"}, `{"data":{"a":"` + strings.Repeat("x", maxObject) + `"}}`, h("Failed", "object is bigger than 4 MiB: health expressions are not asked")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := strings.Replace(`{"apiVersion":"x.test/v1","kind":"X",`+strings.TrimPrefix(row.object, "{"), ",}", "}", 1)
			u := object(t, text)
			if diff := cmp.Diff(row.want, rule(t, row.rule).Assess(u)); diff != "" {
				t.Errorf("Assess (-want +got):\n%s", diff)
			}
		})
	}
}

// TestExpressionsThatExplode bounds time and memory of expressions that take all of
// both where nothing stops them.
func TestExpressionsThatExplode(t *testing.T) {
	t.Parallel()
	many := func(item string, n int) string { return "[" + strings.Repeat(item+",", n-1) + item + "]" }
	object := object(t, fmt.Sprintf(`{"apiVersion":"x.test/v1","kind":"X","status":{"list":%s,"text":%q,"same":%q}}`,
		many("1", 20000), strings.Repeat("xy", 200_000), strings.Repeat("x", 200_000)))
	tooMuch := `health expression "current" needs more work than an expression is given; let it look at less of the object`
	doubled := func(once, start string) string {
		return "[" + start + "]" + strings.Repeat(".map(x, "+once+")", 60)
	}
	for name, text := range map[string]string{
		"lists written out, made in each turn":   "size(" + many("0", 220) + ".map(a, " + many("0", 220) + ".map(b, " + many("0", 5000) + "))) > 0",
		"a loop in a loop":                       "status.list.all(a, status.list.all(b, a == b))",
		"loops five deep":                        "status.list.all(a, status.list.all(b, status.list.all(c, status.list.all(d, status.list.all(e, true)))))",
		"a list of lists":                        "status.list.map(a, status.list).size() > 0 && status.list.map(a, status.list.map(b, [a, b])).size() > 0",
		"a text in place of each character":      "size(status.text.replace('', status.text)) > 0",
		"a text joined again and again":          "size(status.list.map(a, status.text).join(status.text)) > 0",
		"a text formatted again and again":       "size('%s%s%s%s%s%s'.format([status.text, status.text, status.text, status.text, status.text, status.text])) > 0",
		"a long text, summed up":                 "status.list.all(a, (status.text + status.same).size() > 0)",
		"a text doubled again and again":         doubled("x + x", "'xy'") + "[0].size() > 0",
		"a list doubled again and again":         "2 in " + doubled("x + x", "[1]") + "[0]",
		"maps in maps, compared":                 doubled("{'a': x, 'b': x}", "{'a': 1}") + "[0] == " + doubled("{'a': x, 'b': x}", "{'a': 1}") + "[0]",
		"a big comparison again and again":       "status.list.all(a, status == status)",
		"a pattern of many states":               "status.text.matches('(x{900}y{900}|z)+$')",
		"a search for a long text in a long one": "status.same.indexOf(status.same + 'y') > 0",
		"a search from the end":                  "status.same.lastIndexOf(status.same + 'y') > 0",
		"sets of everything":                     "sets.contains(status.list, status.list)",
		"sets that are equal":                    "sets.equivalent(status.list, status.list)",
		"sets that meet":                         "sets.intersects(status.list, ['a'] + status.list)",
		"a long text in a long list":             "status.text in status.list.map(a, status.text)",
	} {
		t.Run(name, func(t *testing.T) {
			r := rule(t, Expressions{Current: text})
			began := time.Now()
			if diff := cmp.Diff(gitops.Health{Status: gitops.HealthFailed, Message: tooMuch}, r.Assess(object)); diff != "" {
				t.Errorf("Assess (-want +got):\n%s", diff)
			}
			// What is stopped takes milliseconds; the rest is for a busy machine.
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

func TestExpressionsThatAreUsedCostLittle(t *testing.T) {
	t.Parallel()
	conditions := make([]string, 1000)
	for i := range conditions {
		conditions[i] = fmt.Sprintf(`{"type":"T%d","status":"True","reason":"R","message":"a message of some length"}`, i)
	}
	u := object(t, `{"apiVersion":"x.test/v1","kind":"X","status":{"conditions":[`+strings.Join(conditions, ",")+`]}}`)
	r := rule(t, Expressions{
		Failed:  "status.conditions.exists(e, e.type.startsWith('T') && e.status == 'False' && e.message.contains('length'))",
		Current: "status.conditions.filter(e, e.type.matches('^T[0-9]+$')).all(e, e.status == 'True')",
	})
	if h := r.Assess(u); h.Status != gitops.HealthCurrent {
		t.Errorf("Assess = %+v, want Current", h)
	}
}

func TestRulesThatCannotBeRead(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		rule Expressions
		want []string
	}{
		"nothing":                         {Expressions{}, []string{"current: is missing"}},
		"no current":                      {Expressions{Failed: "true"}, []string{"current: is missing"}},
		"a text that ends too early":      {Expressions{Current: "status.phase =="}, []string{`current: expression "status.phase ==" does not compile: line 1, column 16: Syntax error`}},
		"a name that is no function":      {Expressions{Current: "true", Failed: "fails(status)"}, []string{`failed: expression "fails(status)" does not compile: line 1, column 6: there is no function fails`}},
		"a number":                        {Expressions{Current: "true", InProgress: "1 + 1"}, []string{`inProgress: expression "1 + 1" gives no boolean`}},
		"a text":                          {Expressions{Current: "'true'"}, []string{"gives no boolean"}},
		"a list":                          {Expressions{Current: "status.list.filter(e, e.ready)"}, []string{"gives no boolean"}},
		"a choice of texts":               {Expressions{Current: "status.ready ? 'yes' : 'no'"}, []string{"gives no boolean"}},
		"a member that is none":           {Expressions{Current: "status.list.filters(e, e.ready)"}, []string{"line 1, column 20: there is no function filters"}},
		"a field that is asked for alone": {Expressions{Current: "has(status)"}, []string{"invalid argument to has() macro"}},
		"a bad pattern":                   {Expressions{Current: "status.phase.matches('(')"}, []string{"does not compile", "missing closing )"}},
		"a long pattern":                  {Expressions{Current: "status.phase.matches('" + strings.Repeat("a", maxPattern+1) + "')"}, []string{"does not compile", "longer than 1000 bytes"}},
		"a long text":                     {Expressions{Current: "true" + strings.Repeat(" ", maxText)}, []string{"does not compile", "exceeds limit"}},
		"a deep text":                     {Expressions{Current: strings.Repeat("(", 5000) + "true" + strings.Repeat(")", 5000)}, []string{"does not compile"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := language(t).Rule(row.rule)
			if err == nil || r != nil {
				t.Fatalf("Rule = %v, %v, want an error", r, err)
			}
			for _, words := range row.want {
				if !strings.Contains(err.Error(), words) {
					t.Errorf("error %q does not say %q", err, words)
				}
			}
			if len(err.Error()) > 1000 || strings.Contains(err.Error(), "\n") {
				t.Errorf("error is no sentence: %q", err)
			}
		})
	}
}

func TestExpressionOfVariables(t *testing.T) {
	t.Parallel()
	l := language(t)
	e, err := l.Compile("dep.metadata.?labels[?'v'].orValue('') == self.metadata.name", "self", "dep")
	if err != nil {
		t.Fatal(err)
	}
	values := func(label string) map[string]any {
		return map[string]any{
			"self": map[string]any{"metadata": map[string]any{"name": "a"}},
			"dep":  map[string]any{"metadata": map[string]any{"labels": map[string]any{"v": label}}},
		}
	}
	for label, want := range map[string]bool{"a": true, "b": false} {
		if holds, err := e.Holds(values(label)); holds != want || err != nil {
			t.Errorf("Holds with label %s = %v, %v, want %v", label, holds, err, want)
		}
	}
	if _, err := l.Compile("other.metadata.name == ''", "self", "dep"); err == nil {
		t.Error("another variable was taken")
	}
	if e, err = l.Compile("dep.metadata.labels", "self", "dep"); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Holds(values("a")); !errors.Is(err, ErrNotBool) {
		t.Errorf("Holds = %v, want ErrNotBool", err)
	}
}

func TestRulesAreFoundByKind(t *testing.T) {
	t.Parallel()
	kind, group := rule(t, Expressions{Current: "true"}), rule(t, Expressions{Current: "false"})
	rules := NewRules(map[gitops.GroupKind]*Rule{{Group: "x.test", Kind: "X"}: kind, {Group: "x.test"}: group})
	for name, row := range map[string]struct {
		rules *Rules
		kind  gitops.GroupKind
		want  *Rule
	}{
		"the kind's own":          {rules, gitops.GroupKind{Group: "x.test", Kind: "X"}, kind},
		"that of the group":       {rules, gitops.GroupKind{Group: "x.test", Kind: "Y"}, group},
		"another group":           {rules, gitops.GroupKind{Group: "y.test", Kind: "X"}, nil},
		"the core group":          {rules, gitops.GroupKind{Kind: "X"}, nil},
		"an owner without a rule": {NewRules(nil), gitops.GroupKind{Group: "x.test", Kind: "X"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := row.rules.For(row.kind); got != row.want {
				t.Errorf("For(%s) = %v, want %v", row.kind, got, row.want)
			}
		})
	}
	again := NewRules(map[gitops.GroupKind]*Rule{{Group: "x.test", Kind: "X"}: rule(t, Expressions{Current: "true"}), {Group: "x.test"}: group})
	if again.Digest() != rules.Digest() || rules.Digest() == NewRules(nil).Digest() {
		t.Error("digests do not tell rules apart by what they say")
	}
	if !kind.Same(rule(t, Expressions{Current: "true"})) || kind.Same(group) || kind.Same(nil) || !(*Rule)(nil).Same(nil) {
		t.Error("Same does not tell rules apart by what they say")
	}
}

// FuzzRule looks for an expression that panics, that answers differently the second
// time, or that takes longer than it may.
func FuzzRule(f *testing.F) {
	for _, text := range []string{
		"status.conditions.all(e, e.status == 'True')", "status.?a[?'b'].orValue([]).size() == 0", "'%d%s'.format([1, status])",
		"status.text.replace('', status.text) == ''", "[[1]].map(x, x + x).map(x, x + x)", "{'a': {}} == status", "b'a' + b'b' == b''",
	} {
		f.Add(text)
	}
	l := language(f)
	u := object(f, `{"apiVersion":"x.test/v1","kind":"X","status":{"text":"some text","conditions":[{"type":"A","status":"True"}]}}`)
	f.Fuzz(func(t *testing.T, text string) {
		began := time.Now()
		r, err := l.Rule(Expressions{Current: text})
		if err != nil {
			return
		}
		if a, b := r.Assess(u), r.Assess(u); a != b || a.Status == "" {
			t.Errorf("Assess = %+v, then %+v", a, b)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}
