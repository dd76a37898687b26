package main

import (
	"encoding/json"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestMedian(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		values []float64
		want   float64
	}{
		"none is zero":               {nil, 0},
		"the middle of an odd count": {[]float64{9, 1, 5}, 5},
		"the mean of the middle two": {[]float64{4, 1, 2, 9}, 3},
	} {
		if got := median(row.values); got != row.want {
			t.Errorf("%s: %v, want %v", name, got, row.want)
		}
	}
}

func TestExponentIsTheSlopeOfGrowth(t *testing.T) {
	t.Parallel()
	x := []float64{100, 300, 1000}
	for name, row := range map[string]struct {
		y    func(float64) float64
		want float64
	}{
		"constant":  {func(float64) float64 { return 3 }, 0},
		"linear":    {func(x float64) float64 { return 7 * x }, 1},
		"quadratic": {func(x float64) float64 { return x * x / 9 }, 2},
	} {
		var y []float64
		for _, v := range x {
			y = append(y, row.y(v))
		}
		if got := exponent(x, y); math.Abs(got-row.want) > 1e-9 {
			t.Errorf("%s: %v, want %v", name, got, row.want)
		}
	}
	if got := exponent(x[:1], x[:1]); !math.IsNaN(got) {
		t.Errorf("one size has growth %v", got)
	}
}

func TestBoundHoldsForTheSizesThatItIsPromisedFor(t *testing.T) {
	t.Parallel()
	limit := func(v float64) *float64 { return &v }
	for name, row := range map[string]struct {
		bound bound
		apps  int
		want  *float64
	}{
		"the small size":                           {bound{1, 8}, 100, limit(1)},
		"the large size":                           {bound{1, 8}, 1000, limit(8)},
		"fewer apps are held to the small size":    {bound{1, 8}, 20, limit(1)},
		"nothing is promised between the sizes":    {bound{1, 8}, 300, nil},
		"what is promised for both holds between":  {same(2.5), 300, limit(2.5)},
		"nothing is promised for what is shown":    {noBound(), 100, nil},
		"nothing is promised beyond the last size": {bound{1, 8}, 2000, nil},
	} {
		if diff := cmp.Diff(row.want, row.bound.at(row.apps)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// round is one of install times in seconds.
func round(bare, dry, operator float64) roundResult {
	at := func(s float64) duration { return duration(s * float64(time.Second)) }
	return roundResult{
		Bare:     &bareResult{Install: at(bare), State: "same"},
		DryRun:   &bareResult{Install: at(dry), State: "same"},
		Operator: &operatorResult{Install: &installResult{Wall: at(operator), State: "same"}, PeakMemory: 130 << 20},
	}
}

func TestJudgeComparesWithinRounds(t *testing.T) {
	t.Parallel()
	sizes := []sizeResult{
		// Ratios 2, 3 and 2; the medians alone, 2 and 4, would hide it in another order.
		{Apps: 100, Rounds: []roundResult{round(1, 2, 2), round(2, 4, 6), round(4, 8, 8)}},
		{Apps: 1000, Rounds: []roundResult{round(20, 40, 60)}},
	}
	figures, growth := judge(sizes)
	got := map[string]float64{}
	var over []string
	for _, f := range figures {
		if f.Apps == 100 || f.Apps == 0 {
			got[f.Name] = math.Round(f.Value*100) / 100
		}
		if f.over() {
			over = append(over, f.Name)
		}
	}
	for name, want := range map[string]float64{
		"install": 6, "bare client: install": 2, "install against the bare client": 2,
		"install against the bare client that dry-runs": 1, "peak memory": 130, "growth of install time: exponent": 1,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	if growth == nil || math.Abs(*growth-1) > 1e-9 {
		t.Errorf("growth is %v, want 1", growth)
	}
	want := []string{"peak memory", "install against the bare client"}
	if diff := cmp.Diff(want, over); diff != "" {
		t.Errorf("over their bound (-want +got):\n%s", diff)
	}
}

func TestJudgeSaysWhenTheClusterIsNotInTheSameState(t *testing.T) {
	t.Parallel()
	r := round(1, 1, 1)
	r.Operator.Install.State = "other"
	figures, _ := judge([]sizeResult{{Apps: 10, Rounds: []roundResult{r}}})
	for _, f := range figures {
		if f.Name == "install against the bare client" {
			if !strings.HasPrefix(f.Note, "INVALID") {
				t.Errorf("note is %q", f.Note)
			}
			return
		}
	}
	t.Error("there is no ratio")
}

func TestTableMarksWhatIsOver(t *testing.T) {
	t.Parallel()
	limit := 2.0
	r := results{Figures: []figure{
		{Apps: 100, Name: "held", Value: 1.5, Bound: &limit},
		{Apps: 100, Name: "broken", Value: 3, Bound: &limit},
		{Apps: 100, Name: "wished", Value: 3, Bound: &limit, Aim: true},
		{Apps: 100, Name: "shown", Value: 3},
	}}
	var out strings.Builder
	r.print(&out)
	got := map[string]string{}
	for text := range strings.Lines(out.String()) {
		if words := strings.Fields(text); len(words) > 1 {
			got[words[0]] = strings.Join(words[1:], " ")
		}
	}
	for name, want := range map[string]string{
		"held": "1.50 ≤ 2 ok", "broken": "3 ≤ 2 OVER", "wished": "3 ≤ 2 over (an aim)", "shown": "3 -",
		"1": "figures are over their bound",
	} {
		if got[name] != want {
			t.Errorf("line %q is %q, want %q", name, got[name], want)
		}
	}
}

func TestResultsAreSeconds(t *testing.T) {
	t.Parallel()
	got, err := json.Marshal(commitResult{Live: samples{1500 * time.Millisecond}, CPU: duration(20 * time.Millisecond)}.Live)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != "[1.5]" {
		t.Errorf("samples are %s", got)
	}
}

func TestSharesOfTheProcessors(t *testing.T) {
	t.Parallel()
	cores := time.Duration(runtime.NumCPU())
	earlier := processors{busy: time.Hour, own: time.Minute}
	later := processors{busy: time.Hour + 5*cores*time.Second, own: time.Minute + 2*cores*time.Second, stolen: cores * time.Second}
	foreign, stolen := later.sharesSince(earlier, 10*time.Second)
	if math.Abs(foreign-0.3) > 1e-9 || math.Abs(stolen-0.1) > 1e-9 {
		t.Errorf("shares are %v and %v, want 0.3 and 0.1", foreign, stolen)
	}
}
