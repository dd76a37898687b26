package terminal

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTable(t *testing.T) {
	t.Parallel()
	table := Table{
		Header:  []string{"NAME", "READY", "MESSAGE"},
		Rows:    [][]string{{"a", "True", "Applied revision: main@sha1:1"}, {"größer", "False", "no"}},
		Colours: func(word string) Colour { return map[string]Colour{"True": Green, "False": Red}[word] },
	}
	tests := map[string]struct {
		to   Terminal
		want string
	}{
		"no terminal has no limit and no colour": {Terminal{}, "" +
			"NAME    READY  MESSAGE\n" +
			"a       True   Applied revision: main@sha1:1\n" +
			"größer  False  no\n"},
		"a narrow terminal cuts the last column": {Terminal{Width: 36}, "" +
			"NAME    READY  MESSAGE\n" +
			"a       True   Applied revision: ma…\n" +
			"größer  False  no\n"},
		"colours do not move the columns": {Terminal{Colour: true}, "" +
			"NAME    READY  MESSAGE\n" +
			"a       \x1b[32mTrue\x1b[0m   Applied revision: main@sha1:1\n" +
			"größer  \x1b[31mFalse\x1b[0m  no\n"},
		"a very narrow one leaves twenty characters": {Terminal{Width: 10}, "" +
			"NAME    READY  MESSAGE\n" +
			"a       True   Applied revision: m…\n" +
			"größer  False  no\n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			if err := table.Print(&out, tt.to); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, out.String()); diff != "" {
				t.Errorf("table differs (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOneLine(t *testing.T) {
	t.Parallel()
	if got := OneLine("a\n b\t c "); got != "a b c" {
		t.Errorf("one line is %q", got)
	}
	if got := OneLine("a\x1b[2Jb\u202ec\x07"); got != "a[2Jbc" {
		t.Errorf("what a terminal obeys is left in %q", got)
	}
	if Is(&bytes.Buffer{}) || Of(&bytes.Buffer{}) != (Terminal{}) {
		t.Error("a buffer is taken for a terminal")
	}
}
