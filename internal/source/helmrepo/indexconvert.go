package helmrepo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

const (
	// mostIrregular is the longest index, in bytes, that is read as a whole because it is
	// written in a way of its own, and mostIrregularNodes how many nodes it may have, aliases
	// written out. It takes some twenty times as much memory.
	mostIrregular      = 4 << 20
	mostIrregularNodes = 500_000
	// smallIndex is the longest index, in bytes, that is converted beside larger ones.
	smallIndex = 256 << 10
	// smallIndexes is how many of those are converted at once.
	smallIndexes = 2
	// indexSlice is how long one index may take.
	indexSlice = 2 * time.Minute
)

// converted converts an index when it is its turn.
func (r *remote) converted(ctx context.Context, raw io.ReadSeeker, size int64, out rewritable) (warning string, err error) {
	turns := &r.store.indexes
	if size <= smallIndex {
		turns = &r.store.smallIndexes
	}
	leave, err := turns.Take(ctx, &r.polls.line)
	if err != nil {
		return "", err
	}
	defer leave()
	temporary, _, done, err := r.create()
	if err != nil {
		return "", err
	}
	defer done()
	limited, cancel := context.WithTimeout(ctx, indexSlice)
	defer cancel()
	warning, err = convert(limited, raw, size, out, temporary)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("the index is not read within %s, which is the most that one may take", indexSlice)
	}
	return warning, err
}

// rewritable is a file that can be begun again.
type rewritable interface {
	io.WriteSeeker
	Truncate(size int64) error
}

// convert reads an index, YAML or JSON, and writes it in the compact form, with a temporary
// file. The warning says what was left out. The error is about the index, of the context, or of the disk.
func convert(ctx context.Context, raw io.ReadSeeker, size int64, out rewritable, temporary spill) (warning string, err error) {
	read := readYAML
	if c, err := firstByte(raw); err != nil {
		return "", err
	} else if c == '{' {
		read = readJSON
	}
	by := conversion{raw: raw, out: out, temporary: temporary, most: mostJSON(size)}
	warning, err = by.do(ctx, read)
	var syntax *json.SyntaxError
	switch {
	case errors.Is(err, errIrregular) && size > mostIrregular:
		return "", fmt.Errorf("%w; another one is read only up to %d bytes", err, mostIrregular)
	case errors.Is(err, errIrregular), errors.As(err, &syntax) && size <= mostIrregular: // such as YAML in flow style
		return by.do(ctx, readWhole)
	}
	return warning, err
}

// conversion is the reading of one index, which may begin again.
type conversion struct {
	raw       io.ReadSeeker
	out       rewritable
	temporary spill
	// most is how many bytes the entries may have as JSON.
	most int64
}

func (c conversion) do(ctx context.Context, read func(io.Reader, *indexWriter) error) (warning string, err error) {
	if err := rewind(c.raw, c.out); err != nil {
		return "", err
	}
	buffered := bufio.NewWriterSize(c.out, 64<<10)
	w, err := newIndexWriter(ctx, buffered, c.temporary, c.most)
	if err == nil {
		err = read(c.raw, w)
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
