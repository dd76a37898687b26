// Command testlog reads the events of "go test -json" and prints what a person
// wants of them: a line for each package as it ends, the whole output of what
// failed, and at the end every skipped test with its reason. It exits with 1
// where a test failed or nothing was run.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

func main() {
	ok, err := summarise(os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testlog:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

// event is one line of "go test -json", as "go doc test2json" describes it.
type event struct {
	Action     string
	Package    string
	ImportPath string // of a build's output, in place of Package
	Test       string
	Elapsed    float64 // seconds
	Output     string
}

// test names a test, or a package where it has no Test.
type test struct{ pkg, name string }

// summarise tells whether all tests passed.
func summarise(in io.Reader, out io.Writer) (bool, error) {
	outputs := map[test]*strings.Builder{}
	var passed, failed int
	var skipped []string
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Fprintln(out, lines.Text()) // go's own words, such as an unknown package
			continue
		}
		if e.Package == "" {
			e.Package = e.ImportPath
		}
		key := test{e.Package, e.Test}
		switch e.Action {
		case "output", "build-output":
			if outputs[key] == nil {
				outputs[key] = &strings.Builder{}
			}
			outputs[key].WriteString(e.Output)
			continue
		case "fail", "build-fail":
			failed++
			fmt.Fprintf(out, "FAIL %s %s (%.1fs)\n", e.Package, e.Test, e.Elapsed)
			if o := outputs[key]; o != nil {
				fmt.Fprint(out, o.String())
			}
		case "skip":
			if e.Test != "" {
				skipped = append(skipped, fmt.Sprintf("%s %s: %s", e.Package, e.Test, reason(outputs[key])))
			}
		case "pass":
			if e.Test != "" {
				passed++
			} else {
				fmt.Fprintf(out, "ok   %s (%.1fs)\n", e.Package, e.Elapsed)
			}
		default:
			continue
		}
		delete(outputs, key)
	}
	if err := lines.Err(); err != nil {
		return false, fmt.Errorf("read events: %w", err)
	}
	for _, s := range skipped {
		fmt.Fprintln(out, "SKIPPED", s)
	}
	fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", passed, failed, len(skipped))
	return failed == 0 && passed > 0, nil
}

// reason is what a skipped test said, without the frame that go test puts around it.
func reason(output *strings.Builder) string {
	if output == nil {
		return "no reason given"
	}
	var said []string
	for line := range strings.Lines(output.String()) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			said = append(said, line)
		}
	}
	if len(said) == 0 {
		return "no reason given"
	}
	return strings.Join(said, " ")
}
