package helmrepo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// mostIrregular is the longest index, in bytes, that is read as a whole because it is
// written in a way of its own. It takes some twenty times as much memory.
const mostIrregular = 4 << 20

// rewritable is a file that can be begun again.
type rewritable interface {
	io.WriteSeeker
	Truncate(size int64) error
}

// convert reads an index, YAML or JSON, and writes it in the compact form. The warning says
// what was left out. The error is about the index, of the context, or of the disk.
func convert(ctx context.Context, raw io.ReadSeeker, size int64, out rewritable) (warning string, err error) {
	read := readYAML
	if c, err := firstByte(raw); err != nil {
		return "", err
	} else if c == '{' {
		read = readJSON
	}
	warning, err = convertBy(ctx, read, raw, out)
	var syntax *json.SyntaxError
	switch {
	case errors.Is(err, errIrregular) && size > mostIrregular:
		return "", fmt.Errorf("%w; another one is read only up to %d bytes", err, mostIrregular)
	case errors.Is(err, errIrregular), errors.As(err, &syntax) && size <= mostIrregular: // such as YAML in flow style
		return convertBy(ctx, readWhole, raw, out)
	}
	return warning, err
}

func convertBy(ctx context.Context, read func(io.Reader, *indexWriter) error, raw io.ReadSeeker, out rewritable) (warning string, err error) {
	if err := rewind(raw, out); err != nil {
		return "", err
	}
	buffered := bufio.NewWriterSize(out, 64<<10)
	w, err := newIndexWriter(ctx, buffered)
	if err == nil {
		err = read(raw, w)
	}
	if err == nil {
		err = buffered.Flush()
	}
	return w.warning(), err
}

func rewind(raw io.Seeker, out rewritable) error {
	if _, err := raw.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if err := out.Truncate(0); err != nil {
		return err
	}
	_, err := out.Seek(0, io.SeekStart)
	return err
}

// firstByte is the first byte of a text that is no space, 0 where there is none.
func firstByte(in io.ReadSeeker) (byte, error) {
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	text := make([]byte, 512)
	n, err := io.ReadFull(in, text)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return 0, err
	}
	for _, c := range withoutMark(text[:n]) {
		if c != ' ' && c != '\n' && c != '\r' && c != '\t' {
			return c, nil
		}
	}
	return 0, nil
}
