package paging_test

import (
	"errors"
	"testing"

	"github.com/plumb-gitops/plumb/internal/paging"
)

// TestTables: those that were used last stay in memory, and the others are made again.
func TestTables(t *testing.T) {
	t.Parallel()
	type words []string
	tables := paging.New(3, func(w *words) int64 { return int64(len(*w)) })
	loads := map[string]int{}
	keep := func(name string, made *words) *paging.Table[words] {
		return tables.Keep(made, func() (*words, error) {
			loads[name]++
			return &words{name}, nil
		})
	}
	a, b, c := keep("a", &words{"a"}), keep("b", nil), keep("c", &words{"c"})
	for i, step := range []struct {
		of   *paging.Table[words]
		want map[string]int
	}{
		{a, map[string]int{"a": 0, "b": 0, "c": 0}},
		{b, map[string]int{"a": 0, "b": 1, "c": 0}},
		{c, map[string]int{"a": 0, "b": 1, "c": 0}},
		{a, map[string]int{"a": 0, "b": 1, "c": 0}},
	} {
		if _, err := step.of.Get(); err != nil {
			t.Fatal(err)
		}
		for name, want := range step.want {
			if loads[name] != want {
				t.Errorf("step %d: %s was made %d times, want %d", i, name, loads[name], want)
			}
		}
	}
	large := keep("large", &words{"x", "x"})
	if number, bytes := tables.Held(); number != 2 || bytes != 3 {
		t.Errorf("%d tables of %d bytes are in memory, want a and the large one", number, bytes)
	}
	if _, err := b.Get(); err != nil || loads["b"] != 2 {
		t.Errorf("what was used longest ago was made %d times, %v", loads["b"], err)
	}
	for _, of := range []*paging.Table[words]{a, b, c, large} {
		of.Forget()
	}
	if _, err := a.Get(); err != nil {
		t.Error(err)
	}
	if number, bytes := tables.Held(); number != 0 || bytes != 0 {
		t.Errorf("%d tables of %d bytes are left", number, bytes)
	}

	huge := keep("huge", &words{"x", "x", "x", "x", "x"})
	if _, err := huge.Get(); err != nil || loads["huge"] != 0 {
		t.Errorf("the last one does not stay: made %d times, %v", loads["huge"], err)
	}
	tables.Drop()
	if _, err := huge.Get(); err != nil || loads["huge"] != 1 {
		t.Errorf("what was dropped was made %d times, %v", loads["huge"], err)
	}
	broken := errors.New("no")
	if _, err := tables.Keep(nil, func() (*words, error) { return nil, broken }).Get(); !errors.Is(err, broken) {
		t.Errorf("one that cannot be made: %v", err)
	}
}
