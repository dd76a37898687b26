// Package terminal writes tables for people: it finds out what a writer can show,
// and shortens and colours text accordingly. What goes to a file or a pipe has
// neither colours nor a limit of width. The command line and plumb try use it.
package terminal

import (
	"io"
	"os"

	"golang.org/x/term"
)

// Terminal is what is known of where the output goes. The zero value is a file
// or a pipe.
type Terminal struct {
	// Width and Height are in characters; 0 where there is no limit.
	Width, Height int
	// Colour tells whether colours are shown.
	Colour bool
}

// Is tells whether a writer is a terminal.
func Is(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// Of looks at a writer. There are no colours where NO_COLOR is set or the
// terminal says of itself that it is dumb.
func Of(w io.Writer) Terminal {
	if !Is(w) {
		return Terminal{}
	}
	width, height, err := term.GetSize(int(w.(*os.File).Fd()))
	if err != nil {
		width, height = 0, 0
	}
	return Terminal{Width: width, Height: height, Colour: os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}
