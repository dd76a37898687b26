package main

import (
	"strings"
	"testing"
)

func TestSummarise(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		events string
		want   string
		ok     bool
	}{
		"passing tests are counted and their output is not shown": {
			events: `{"Action":"output","Package":"a","Test":"TestX","Output":"noise\n"}
{"Action":"pass","Package":"a","Test":"TestX"}
{"Action":"pass","Package":"a","Elapsed":1.5}`,
			want: "ok   a (1.5s)\n1 passed, 0 failed, 0 skipped\n",
			ok:   true,
		},
		"a failure shows its output": {
			events: `{"Action":"output","Package":"a","Test":"TestX","Output":"x_test.go:3: bad\n"}
{"Action":"fail","Package":"a","Test":"TestX","Elapsed":0.1}`,
			want: "FAIL a TestX (0.1s)\nx_test.go:3: bad\n0 passed, 1 failed, 0 skipped\n",
		},
		"a build failure is a failure": {
			events: `{"ImportPath":"a","Action":"build-output","Output":"syntax error\n"}
{"ImportPath":"a","Action":"build-fail"}`,
			want: "FAIL a  (0.0s)\nsyntax error\n0 passed, 1 failed, 0 skipped\n",
		},
		"a skipped test is named with its reason at the end": {
			events: `{"Action":"output","Package":"a","Test":"TestX","Output":"=== RUN   TestX\n"}
{"Action":"output","Package":"a","Test":"TestX","Output":"    x_test.go:9: no data\n"}
{"Action":"output","Package":"a","Test":"TestX","Output":"--- SKIP: TestX (0.00s)\n"}
{"Action":"skip","Package":"a","Test":"TestX"}
{"Action":"pass","Package":"a","Test":"TestY"}`,
			want: "SKIPPED a TestX: x_test.go:9: no data\n1 passed, 0 failed, 1 skipped\n",
			ok:   true,
		},
		"a package without tests is not a skipped test": {
			events: `{"Action":"skip","Package":"a"}
{"Action":"pass","Package":"b","Test":"TestX"}`,
			want: "1 passed, 0 failed, 0 skipped\n",
			ok:   true,
		},
		"nothing run is not a success": {
			events: "no packages to test",
			want:   "no packages to test\n0 passed, 0 failed, 0 skipped\n",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			ok, err := summarise(strings.NewReader(tt.events), &out)
			if err != nil {
				t.Fatal(err)
			}
			if out.String() != tt.want || ok != tt.ok {
				t.Errorf("got %v and\n%s\nwant %v and\n%s", ok, out.String(), tt.ok, tt.want)
			}
		})
	}
}
