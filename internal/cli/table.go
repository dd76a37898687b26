package cli

import (
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// terminal is what is known of where the output goes.
type terminal struct {
	width  int // in characters; 0 where there is no terminal, and so no limit
	colour bool
}

func terminalOf(w io.Writer) terminal {
	file, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return terminal{}
	}
	width, _, err := term.GetSize(int(file.Fd()))
	if err != nil {
		width = 0
	}
	return terminal{width: width, colour: os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

// The colours of words that tell a state.
const (
	green  = "\x1b[32m"
	red    = "\x1b[31m"
	yellow = "\x1b[33m"
	plain  = "\x1b[0m"
)

// table is text in columns; the last column gives way where the terminal is narrow.
type table struct {
	header []string
	rows   [][]string
	// colours tells the colour of a word in any column, "" for none.
	colours func(word string) string
}

const gap = "  "

func (t table) print(w io.Writer, to terminal) error {
	widths := make([]int, len(t.header))
	for _, row := range append([][]string{t.header}, t.rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	last := len(widths) - 1
	if to.width > 0 {
		rest := to.width
		for _, width := range widths[:last] {
			rest -= width + len(gap)
		}
		widths[last] = min(widths[last], max(rest, 20))
	}
	var b strings.Builder
	for _, row := range append([][]string{t.header}, t.rows...) {
		for i, cell := range row {
			text := fit(cell, widths[i])
			padding := widths[i] - utf8.RuneCountInString(text)
			if to.colour && t.colours != nil {
				if colour := t.colours(cell); colour != "" {
					text = colour + text + plain
				}
			}
			b.WriteString(text)
			if i < last {
				b.WriteString(strings.Repeat(" ", padding) + gap)
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// fit shortens text to a width in characters.
func fit(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	return string([]rune(text)[:width-1]) + "…"
}

// oneLine makes a message a cell.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
