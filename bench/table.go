package main

import (
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
)

// print writes the table for people.
func (r *results) print(w io.Writer) {
	m := r.Machine
	fmt.Fprintf(w, "\n%s, Kubernetes %s, %s, %s\n", m.Plumb, m.Kubernetes, m.Go, m.Git)
	fmt.Fprintf(w, "%d cores (%s), %d MiB, %s, load before: %.2f\n", m.Cores, m.Processor, m.MemoryMiB, m.System, m.Load)
	if m.Load > float64(m.Cores)/2 {
		fmt.Fprintln(w, "the machine was busy with other work: read ratios, not seconds")
	}
	for _, size := range r.Sizes {
		for i, round := range size.Rounds {
			if round.Foreign > 0.1 || round.Stolen > 0.02 {
				fmt.Fprintf(w, "%d apps, round %d: other programs took %.0f %% of the processors, other guests %.0f %%\n",
					size.Apps, i+1, 100*round.Foreign, 100*round.Stolen)
			}
		}
	}
	apps, group := -1, ""
	table := tabwriter.NewWriter(w, 2, 2, 2, ' ', 0)
	for _, f := range r.Figures {
		if f.Apps != apps || f.Group != group {
			apps, group = f.Apps, f.Group
			fmt.Fprintf(table, "\n%s\tvalue\tbound\t\n", heading(f))
		}
		limit := "-"
		if f.Bound != nil {
			limit = "≤ " + number(*f.Bound)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", f.Name, number(f.Value)+" "+f.Unit, limit, verdict(f))
	}
	table.Flush()
	if over := r.over(); over > 0 {
		fmt.Fprintf(w, "\n%d figures are over their bound\n", over)
	}
}

func heading(f figure) string {
	switch {
	case f.Group != "":
		return f.Group
	case f.Apps == 0:
		return "all sizes"
	default:
		return fmt.Sprintf("%d apps of 4 objects", f.Apps)
	}
}

// verdict is the mark and the note of a figure.
func verdict(f figure) string {
	mark := ""
	switch {
	case f.Bound == nil:
	case f.over():
		mark = "OVER  "
	case f.Value > *f.Bound:
		mark = "over (an aim)  "
	default:
		mark = "ok  "
	}
	return mark + f.Note
}

// number prints three digits at least, and no more than make sense.
func number(v float64) string {
	switch {
	case v == float64(int64(v)):
		return strconv.FormatInt(int64(v), 10)
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}

// over counts the broken promises.
func (r *results) over() int {
	n := 0
	for _, f := range r.Figures {
		if f.over() {
			n++
		}
	}
	return n
}
