package terminal

import (
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Colour is the escape sequence that begins a colour; "" is none.
type Colour string

// The colours of words that tell a state.
const (
	Green  Colour = "\x1b[32m"
	Red    Colour = "\x1b[31m"
	Yellow Colour = "\x1b[33m"
	Dim    Colour = "\x1b[2m"
	Bold   Colour = "\x1b[1m"
)

const plain = "\x1b[0m"

// Paint gives text its colour where the terminal has colours.
func (t Terminal) Paint(colour Colour, text string) string {
	if !t.Colour || colour == "" {
		return text
	}
	return string(colour) + text + plain
}

// Table is text in columns; the last column gives way where the terminal is narrow.
type Table struct {
	Header []string
	Rows   [][]string
	// Colours tells the colour of a word in any column; it may be nil.
	Colours func(word string) Colour
}

const (
	gap = "  "
	// narrowest is what the last column keeps, however narrow the terminal is.
	narrowest = 20
)

// Print writes the table, one line for the header and one for each row.
func (t Table) Print(w io.Writer, to Terminal) error {
	_, err := io.WriteString(w, strings.Join(append(t.Lines(to), ""), "\n"))
	return err
}

// Lines are the lines of the table, the header first.
func (t Table) Lines(to Terminal) []string {
	widths := t.widths(to)
	last := len(widths) - 1
	lines := make([]string, 0, len(t.Rows)+1)
	for _, row := range append([][]string{t.Header}, t.Rows...) {
		var b strings.Builder
		for i, cell := range row {
			text := Fit(cell, widths[i])
			padding := widths[i] - utf8.RuneCountInString(text)
			if t.Colours != nil {
				text = to.Paint(t.Colours(cell), text)
			}
			b.WriteString(text)
			if i < last {
				b.WriteString(strings.Repeat(" ", padding) + gap)
			}
		}
		lines = append(lines, b.String())
	}
	return lines
}

func (t Table) widths(to Terminal) []int {
	widths := make([]int, len(t.Header))
	for _, row := range append([][]string{t.Header}, t.Rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	if to.Width > 0 {
		last := len(widths) - 1
		rest := to.Width
		for _, width := range widths[:last] {
			rest -= width + len(gap)
		}
		widths[last] = min(widths[last], max(rest, narrowest))
	}
	return widths
}

// Fit shortens text to a width in characters.
func Fit(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	if width < 1 {
		return ""
	}
	return string([]rune(text)[:width-1]) + "…"
}

// OneLine makes a message a cell. What a terminal would take for a command, or
// for a change of the direction of writing, is left out: messages hold words of
// repositories and servers.
func OneLine(text string) string {
	return strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r):
			return -1
		}
		return r
	}, text)), " ")
}
